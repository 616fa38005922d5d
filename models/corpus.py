"""Small consistent stories from the grammar of `grammar.py`: a seeded generator and a checker that parses and verifies.

python -m models.corpus 3 --seed 7      # three stories
"""

import argparse
import math
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from .grammar import EDGES, ROLES, TEMPLATES, Edge

SLOT = re.compile(r"\{(\w+)\}")


def domain(role: str, facts: dict[str, str]) -> list[str]:
    """Values that `role` may take: its own value once known, else whatever the facts permit."""
    if role in facts:
        return [facts[role]]
    return [value for value in ROLES[role].values if ROLES[role].rule(facts, value)]


def _fill(template: str, facts: dict[str, str], rng: random.Random) -> tuple[str, dict[str, str]] | None:
    """The sentence, and the facts with what it decides in the order of the text; None if some slot has no value yet."""
    facts, text = dict(facts), template
    for role in SLOT.findall(template):
        values = domain(role, facts)
        if not values:
            return None
        facts[role] = rng.choice(values)
        text = text.replace(f"{{{role}}}", facts[role])
    return text, facts


def _word(event: str, facts: dict[str, str], rng: random.Random) -> tuple[str, dict[str, str]]:
    """Some wording of the event that the facts permit."""
    wordings = TEMPLATES[event]
    return next(filled for t in rng.sample(wordings, len(wordings)) if (filled := _fill(t, facts, rng)))


def _choose(state: str, facts: dict[str, str], rng: random.Random) -> Edge:
    edges = [edge for edge in EDGES[state] if edge.holds(facts)]
    return rng.choices(edges, [edge.weight for edge in edges])[0]


def generate(seed: int) -> str:
    """One story of about 60 to 180 words on one line. The same seed gives the same story."""
    rng, state, sentences = random.Random(seed), "start", []
    facts: dict[str, str] = {}
    while state != "end":
        edge = _choose(state, facts, rng)
        sentence, facts = _word(edge.event, facts, rng)
        sentences.append(sentence)
        state = edge.to
    return " ".join(sentences)


def stories(count: int, seed: int = 0) -> Iterator[str]:
    """`count` stories; different seeds give different ones while fewer than 10 million are drawn."""
    return (generate(seed * 10_000_000 + i) for i in range(count))


@dataclass(frozen=True)
class Sentence:
    """A parsed wording: its event, the (role, value) pairs in the order of the text, where they stand, and its end."""

    event: str
    slots: tuple[tuple[str, str], ...]
    spans: tuple[tuple[int, int], ...]
    end: int


@cache
def _patterns() -> tuple[tuple[str, tuple[str, ...], re.Pattern[str]], ...]:
    """(event, roles, pattern) of every wording; a pattern takes any value of the lexicon, fitting or not."""

    def any_of(role: str) -> str:
        return "(" + "|".join(map(re.escape, ROLES[role].values)) + ")"

    def pattern(template: str) -> re.Pattern[str]:
        parts = [any_of(part) if i % 2 else re.escape(part) for i, part in enumerate(SLOT.split(template))]
        return re.compile("".join(parts) + r"(?= |$)")

    wordings = ((event, template) for event, templates in TEMPLATES.items() for template in templates)
    return tuple((event, tuple(SLOT.findall(template)), pattern(template)) for event, template in wordings)


def _parse(story: str, at: int, legal: set[str]) -> Sentence | None:
    """The longest wording that begins at `at`; of equally long ones, an event that may happen now."""
    found = [
        Sentence(event, tuple(zip(roles, match.groups(), strict=True)), match.regs[1:], match.end())
        for event, roles, pattern in _patterns()
        if (match := pattern.match(story, at))
    ]
    return max(found, key=lambda s: (s.end, s.event in legal), default=None)


def _clashes(sentence: Sentence, facts: dict[str, str]) -> list[str]:
    """Takes the sentence into `facts`; says which of its values the facts do not permit."""
    wrong = []
    for role, value in sentence.slots:
        allowed = domain(role, facts)
        if value not in allowed:
            wrong.append(f"{sentence.event}: {role} must be {' or '.join(allowed) or 'known'}, not {value!r}")
        facts.setdefault(role, value)
    return wrong


def check(story: str) -> list[str]:
    """Violations of grammar, order of events, or consistency; empty for a complete and consistent story."""
    facts: dict[str, str] = {}
    state, at, wrong = "start", 0, []
    while state != "end":
        if at >= len(story):
            return [*wrong, f"the story stops in state {state!r}"]
        edges = {edge.event: edge for edge in EDGES[state] if edge.holds(facts)}
        sentence = _parse(story, at, set(edges))
        if sentence is None:
            return [*wrong, f"no sentence of the grammar: {story[at : at + 60]!r}"]
        if sentence.event not in edges:
            return [*wrong, f"{sentence.event!r} cannot happen in state {state!r}: {story[at : sentence.end]!r}"]
        wrong += _clashes(sentence, facts)
        state, at = edges[sentence.event].to, sentence.end + 1
    return wrong if at >= len(story) else [*wrong, f"text after the end: {story[at : at + 60]!r}"]


def information(story: str) -> float:
    """Minus the log of the probability, in nats, with which `generate` tells an accepted story; a model's floor."""
    facts: dict[str, str] = {}
    state, at, nats = "start", 0, 0.0
    while state != "end":
        edges = {edge.event: edge for edge in EDGES[state] if edge.holds(facts)}
        sentence = _parse(story, at, set(edges))
        if sentence is None or sentence.event not in edges:
            raise ValueError(f"story must be one that the checker accepts, not {story[at : at + 60]!r}")
        edge = edges[sentence.event]
        nats += math.log(sum(e.weight for e in edges.values()) / edge.weight)
        nats += math.log(sum(_fill(t, facts, random.Random(0)) is not None for t in TEMPLATES[edge.event]))
        for role, value in sentence.slots:
            nats += math.log(len(domain(role, facts)))
            facts[role] = value
        state, at = edge.to, sentence.end + 1
    return nats


def echoes(story: str) -> list[tuple[int, int]]:
    """Where an accepted story says what its facts already decide: spans of characters no consistent teller can vary."""
    facts: dict[str, str] = {}
    state, at, spans = "start", 0, []
    while state != "end":
        edges = {edge.event: edge for edge in EDGES[state] if edge.holds(facts)}
        sentence = _parse(story, at, set(edges))
        if sentence is None:
            raise ValueError(f"story must be one that the checker accepts, not {story[at : at + 60]!r}")
        for (role, value), span in zip(sentence.slots, sentence.spans, strict=True):
            spans += [span] if domain(role, facts) == [value] else []
            facts[role] = value
        state, at = edges[sentence.event].to, sentence.end + 1
    return spans


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int, nargs="?", default=3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for story in stories(args.count, args.seed):
        print(story, "\n")


if __name__ == "__main__":
    main()
