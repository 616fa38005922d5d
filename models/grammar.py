"""The story grammar as data: lexicon (roles), sentence templates (events) and the world's state machine (edges).

A *role* is a slot in a sentence and a fact of the story: once `{hero}` is "Lily" it stays "Lily". `Role.rule` says
which values the facts so far permit, so one table gives the generator its choices and the checker its verdicts. An
*event* has several wordings. An *edge* says which event may happen in which state of the world, under which facts, and
the state it leads to.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Facts = Mapping[str, str]

GIRLS = ("Lily", "Mia", "Sue", "Anna", "Lucy", "Amy")
BOYS = ("Tim", "Ben", "Tom", "Sam", "Max", "Leo")
KINDS = ("boy", "girl", "cat", "dog", "rabbit", "bear", "mouse", "fox", "duck", "frog")
SPOTS = {
    "park": ("under the bench", "behind the slide", "near the swing"),
    "garden": ("under the bush", "behind the gate", "near the flowers"),
    "forest": ("under the log", "behind the big tree", "near the path"),
    "beach": ("under the boat", "behind the rocks", "near the sea"),
    "farm": ("under the cart", "behind the barn", "near the hay"),
    "lake": ("under the bridge", "behind the hut", "near the water"),
}
AT = {
    "park": "in the park",
    "garden": "in the garden",
    "forest": "in the forest",
    "beach": "at the beach",
    "farm": "at the farm",
    "lake": "at the lake",
}
# What happened to the toy -> (what holds it, why it is hard, the tool that helps, how it comes free).
TRAPS = {
    "got stuck in a tall tree": ("tree", "tall", "ladder", "down from the tree"),
    "fell into the cold pond": ("pond", "cold", "net", "out of the pond"),
    "fell into a deep hole": ("hole", "deep", "rope", "out of the hole"),
    "rolled under a heavy stone": ("stone", "heavy", "stick", "from under the stone"),
}
# Weather -> (what to take along, what one gets without it).
WEATHER = {
    "rainy": ("big umbrella", "wet"),
    "cold": ("warm coat", "cold"),
    "hot": ("straw hat", "hot"),
    "foggy": ("bright lamp", "lost"),
}
FOOD = {
    "rabbit": "carrots",
    "cat": "fish",
    "dog": "meat",
    "bird": "seeds",
    "bear": "honey",
    "mouse": "cheese",
    "duck": "bread",
    "monkey": "bananas",
}


def _anything(_facts: Facts, _value: str) -> bool:
    return True


@dataclass(frozen=True, kw_only=True)
class Role:
    """All values a slot may take, and the rule that picks those which fit the facts so far."""

    values: tuple[str, ...]
    rule: Callable[[Facts, str], bool] = field(default=_anything)


def _suits(kind: str | None, name: str) -> bool:
    """Boys and girls bear names of their own; animals any."""
    return name in {"boy": BOYS, "girl": GIRLS}.get(kind or "", GIRLS + BOYS)


def _pronoun(girl: str, boy: str, owner: str = "hero") -> Role:
    return Role(values=(girl, boy), rule=lambda f, v: owner in f and v == (girl if f[owner] in GIRLS else boy))


def _other(role: str, values: tuple[str, ...]) -> Role:
    return Role(values=values, rule=lambda f, v: v != f.get(role))


def _fixed_by(role: str, table: Mapping[str, tuple[str, ...]], column: int) -> Role:
    values = tuple(dict.fromkeys(row[column] for row in table.values()))
    return Role(values=values, rule=lambda f, v: role in f and table[f[role]][column] == v)


def _spot(*earlier: str) -> Role:
    values = tuple(spot for spots in SPOTS.values() for spot in spots)
    return Role(
        values=values, rule=lambda f, v: v in SPOTS.get(f.get("place", ""), ()) and all(f.get(e) != v for e in earlier)
    )


ROLES: dict[str, Role] = {
    "size": Role(values=("little", "small", "big", "young")),
    "kind": Role(values=KINDS),
    "hero": Role(values=GIRLS + BOYS, rule=lambda f, v: _suits(f.get("kind"), v)),
    "he": _pronoun("she", "he"),
    "He": _pronoun("She", "He"),
    "him": _pronoun("her", "him"),
    "his": _pronoun("her", "his"),
    "His": _pronoun("Her", "His"),
    "fkind": Role(values=KINDS),
    "friend": Role(values=GIRLS + BOYS, rule=lambda f, v: v != f.get("hero") and _suits(f.get("fkind"), v)),
    "parent": Role(values=("mom", "dad")),
    "trait": Role(values=("kind", "greedy", "careful", "silly", "brave", "shy")),
    "color": Role(values=("red", "blue", "green", "yellow", "pink", "white")),
    "obj": Role(values=("ball", "kite", "hat", "doll", "car", "boat", "book", "drum", "bell", "robot")),
    "place": Role(values=tuple(SPOTS)),
    "at": Role(values=tuple(AT.values()), rule=lambda f, v: "place" in f and AT[f["place"]] == v),
    "sunny": Role(values=("sunny", "bright", "fine")),
    "spot1": _spot(),
    "spot2": _spot("spot1"),
    "spot3": _spot("spot1", "spot2"),
    "trap": Role(values=tuple(TRAPS)),
    "holder": _fixed_by("trap", TRAPS, 0),
    "why": _fixed_by("trap", TRAPS, 1),
    "tool": _fixed_by("trap", TRAPS, 2),
    "free": _fixed_by("trap", TRAPS, 3),
    "wrong": Role(
        values=tuple(row[2] for row in TRAPS.values()), rule=lambda f, v: "trap" in f and TRAPS[f["trap"]][2] != v
    ),
    "treat": Role(values=("cookie", "cake", "peach", "pear")),
    "weather": Role(values=tuple(WEATHER)),
    "gear": _fixed_by("weather", WEATHER, 0),
    "effect": _fixed_by("weather", WEATHER, 1),
    "room": Role(values=("kitchen", "bedroom", "hall")),
    "thing": Role(values=("cup", "vase", "plate", "clock", "jar")),
    "blamed": _other("kind", ("cat", "dog")),
    "glue": Role(values=("glue", "tape")),
    "animal": _other("kind", tuple(FOOD)),
    "food": Role(values=tuple(FOOD.values()), rule=lambda f, v: "animal" in f and FOOD[f["animal"]] == v),
    "bad": Role(values=tuple(FOOD.values()), rule=lambda f, v: "animal" in f and FOOD[f["animal"]] != v),
}

TEMPLATES: dict[str, tuple[str, ...]] = {
    "intro": (
        "Once upon a time there was a {size} {kind} named {hero}.",
        "Once upon a time, there was a {size} {kind} named {hero}.",
        "Once there was a {size} {kind} named {hero}.",
    ),
    "home": (
        "{He} lived near the {place}.",
        "{hero} lived near the {place}.",
        "{He} lived in a house near the {place}.",
        "{hero} lived in a house near the {place}.",
    ),
    "trait": ("{hero} was a very {trait} {kind}.", "{He} was very {trait}.", "Everyone knew that {hero} was {trait}."),
    # A toy, and the way out.
    "has": (
        "{hero} had a {color} {obj}.",
        "{He} had a {color} {obj} that {he} loved.",
        "{His} best toy was a {color} {obj}.",
        "{His} {parent} gave {him} a {color} {obj}.",
    ),
    "love": (
        "{He} played with the {obj} every day.",
        "{hero} took the {obj} everywhere.",
        "{hero} loved the {color} {obj} very much.",
        "It was the best {obj} in the world.",
    ),
    "go": (
        "One day, {hero} went to the {place} with the {obj}.",
        "One {sunny} day, {hero} took the {color} {obj} to the {place}.",
        "One day, {he} took the {obj} to the {place} to play.",
        "One {sunny} morning, {hero} played with the {obj} {at}.",
    ),
    "meet": (
        "Then {hero} saw {his} friend {friend}.",
        "A {fkind} named {friend} came by.",
        "{His} friend {friend} came to the {place}.",
        "Just then, {he} met a {fkind} named {friend}.",
    ),
    "sad": (
        "{hero} was very sad.",
        "The poor {kind} started to cry.",
        "{He} sat down and cried.",
        '"Oh no, my {obj}!" said {hero}.',
        "{hero} was sad because {he} loved the {color} {obj}.",
    ),
    "ask": (
        '"Why are you sad, {hero}?" asked {friend}.',
        '"What is wrong?" asked {friend}.',
        '{friend} saw that {hero} was sad and asked, "What is wrong?"',
    ),
    # Lost and found.
    "lose": (
        "{hero} ran and played, but then the {obj} was gone.",
        "{He} played for a long time. Then the {color} {obj} was gone.",
        "But soon {hero} could not find the {obj}.",
        "{hero} put the {obj} down and then forgot where it was.",
    ),
    "tell_lost": (
        '"I lost my {color} {obj}," said {hero}.',
        '"I cannot find my {obj}," said {hero}.',
        '{hero} said, "My {color} {obj} is gone."',
    ),
    "offer": (
        '"Do not cry. I will help you," said {friend}.',
        '"I can help you look for it," said {friend}.',
        '"We can find the {obj} together," said {friend}.',
    ),
    "search1": (
        "They looked {spot1}, but it was not there.",
        "First they looked {spot1}, but the {obj} was not there.",
        "{hero} looked {spot1}, but {he} did not see it.",
    ),
    "search2": (
        "Then they looked {spot2}, but they did not find it.",
        "Next, they looked {spot2}, but there was no {obj}.",
        "{friend} looked {spot2}, but it was not there.",
    ),
    "found": (
        "Then {friend} looked {spot3}, and there it was!",
        "At last, they found the {color} {obj} {spot3}.",
        'Then {hero} looked {spot3}. "Here is my {obj}!" {he} said.',
    ),
    "dark": (
        "It was getting dark, so they had to go home without the {obj}.",
        "Then it got dark, and {hero} went home without the {color} {obj}.",
    ),
    "comfort": (
        "{His} {parent} gave {him} a big hug.",
        '"You can look again," said {his} {parent}.',
        'At home, {his} {parent} said, "Do not be sad."',
    ),
    "next_day": (
        "The next day, {hero} and {friend} went back and found the {obj} {spot3}.",
        "The next day, {friend} came with the {color} {obj}. It had been {spot3}.",
    ),
    "never": (
        "{hero} never found the {obj}, but {he} was glad to have a friend like {friend}.",
        "The {color} {obj} was lost, but {hero} and {friend} were still good friends.",
    ),
    "thank": (
        '"Thank you, {friend}!" said {hero}.',
        "{hero} gave {friend} a big hug.",
        '"You are a good friend, {friend}," said {hero}.',
    ),
    "glad": (
        "{hero} was so happy to have the {obj} back.",
        "{He} held the {color} {obj} and smiled.",
        "Now {hero} was not sad any more.",
    ),
    "play": (
        "They played with the {obj} {at}.",
        "{hero} and {friend} played together all day.",
        "Then they played with the {color} {obj}.",
    ),
    "end_lost": (
        "After that day, {hero} always took good care of the {obj}.",
        "From then on, {hero} and {friend} were best friends.",
        "They went home, and {hero} never lost the {color} {obj} again.",
    ),
    # Stuck and freed.
    "trap": (
        "{hero} threw the {obj}, and it {trap}.",
        "But the {obj} {trap}.",
        "{He} let go of the {color} {obj}, and it {trap}.",
    ),
    "try": (
        "{hero} tried to get it, but the {holder} was too {why}.",
        "{He} tried and tried, but the {holder} was too {why}.",
        "{hero} could not get the {obj} because the {holder} was too {why}.",
    ),
    "tell_stuck": (
        '"My {obj} {trap}," said {hero}.',
        '{hero} said, "My {color} {obj} {trap}."',
        '"I cannot get my {obj}. The {holder} is too {why}," said {hero}.',
    ),
    "wrong_tool": (
        "First {friend} tried a {wrong}, but it did not work.",
        '"Use this {wrong}," said {friend}. But the {wrong} did not help.',
    ),
    "tool": (
        "Then {friend} got a {tool}.",
        '"I have a long {tool}," said {friend}.',
        '"We need a {tool}," said {friend}, and ran to get it.',
    ),
    "get": (
        "They used the {tool} to get the {obj} {free}.",
        "With the {tool}, they got the {color} {obj} {free}.",
        "{friend} used the {tool}, and soon the {obj} came {free}.",
    ),
    "snap": (
        "But the {tool} broke, and they could not get the {obj}.",
        "They tried hard, but the {tool} was too old and broke.",
    ),
    "parent_get": (
        "Then {his} {parent} came and got the {obj} {free}.",
        "So {hero} called {his} {parent}, who got the {color} {obj} {free}.",
    ),
    "end_stuck": (
        "{hero} learned that it is good to ask for help.",
        "From then on, {hero} and {friend} were best friends.",
        "After that day, {hero} never played with the {obj} near a {holder} again.",
    ),
    # Sharing.
    "want_toy": (
        '"Can I play with your {obj}?" asked {friend}.',
        '"What a nice {color} {obj}! Can I play too?" asked {friend}.',
        "{friend} saw the {obj} and wanted to play with it too.",
    ),
    "yes": (
        '"Yes, we can play together," said {hero}.',
        '"Yes, you can have a turn," said {hero}.',
        "{hero} smiled and gave the {obj} to {friend}.",
    ),
    "friend_glad": (
        "{friend} was very happy.",
        '"Thank you, {hero}!" said {friend}.',
        '"You are so kind, {hero}," said {friend}.',
    ),
    "no": (
        '"No, it is mine!" said {hero}.',
        "{hero} said no and held the {color} {obj} tight.",
        '"No, this {obj} is only for me," said {hero}.',
    ),
    "friend_sad": (
        "{friend} was sad and went away.",
        "{friend} started to cry and ran away.",
        "So {friend} left and felt very sad.",
    ),
    "alone": (
        "{hero} played alone, but it was not fun.",
        "Now {hero} was alone with the {obj} and had no fun.",
        "The poor {kind} had no one to play with.",
    ),
    "sorry": (
        '{hero} ran to {friend}. "I am sorry. We can share the {obj}," {he} said.',
        "{hero} felt bad, so {he} said sorry and gave the {obj} to {friend}.",
        '"I am sorry, {friend}. Come and play with me," said {hero}.',
    ),
    "regret": (
        "{hero} went home alone and wished that {he} had shared the {obj}.",
        "{friend} did not come back, and {hero} learned that it is not good to be {trait}.",
    ),
    "share_play": (
        "They played with the {color} {obj} all day.",
        "{hero} and {friend} took turns with the {obj}.",
        "They had a lot of fun {at}.",
    ),
    "treat": ("{friend} was happy and gave {hero} a {treat}.", '"Thank you! You can have my {treat}," said {friend}.'),
    "eat_treat": (
        "They ate the {treat} together.",
        "The {treat} was very good.",
        "{hero} gave half of the {treat} to {friend}.",
    ),
    "end_kind": (
        "Everyone liked {hero} because {he} was so {trait}.",
        "{hero} and {friend} were happy, and they played together every day.",
    ),
    "end_greedy": ("From then on, {hero} was not {trait} any more.", "{hero} learned that it is fun to share."),
    # Weather.
    "want": (
        "One day, {hero} wanted to go to the {place}.",
        "One day, {he} wanted to play {at}.",
        '"I want to go to the {place}," said {hero} one day.',
    ),
    "weather": (
        "It was a very {weather} day.",
        "That day it was {weather} outside.",
        "But it was {weather} that morning.",
    ),
    "warn": (
        '"Take your {gear}," said {his} {parent}.',
        '"It is {weather}. Do not forget your {gear}," said {his} {parent}.',
        '{His} {parent} said, "You will need your {gear}."',
    ),
    "take": (
        "{hero} took the {gear} and went to the {place}.",
        '"Yes, I will," said {hero}, and {he} took the {gear}.',
        "So {he} went out with the {gear}.",
    ),
    "forget": (
        "But {hero} did not listen and left the {gear} at home.",
        "{hero} laughed and ran to the {place} without the {gear}.",
        '"I do not need it," said {hero}, and {he} ran out without the {gear}.',
    ),
    "fine": (
        "It was {weather} {at}, but {hero} did not get {effect}.",
        "{hero} did not get {effect} because {he} had the {gear}.",
    ),
    "met_wet": (
        "There {he} met {friend}, who had no {gear}. {friend} was {effect}.",
        "Then {hero} saw a {fkind} named {friend}, who was {effect} and sad.",
    ),
    "share_gear": (
        '"Come here, {friend}. We can use my {gear}," said {hero}.',
        "{hero} was kind and shared the {gear} with {friend}.",
    ),
    "gear_thanks": (
        '"Thank you, {hero}!" said {friend}.',
        "Now {friend} was happy too.",
        "{friend} smiled and was not {effect} any more.",
    ),
    "fun": ("{hero} played {at} all day.", "{He} ran and jumped and had a lot of fun.", "{hero} had a good time {at}."),
    "end_careful": (
        "Then {hero} went home and told {his} {parent} about the day.",
        "{His} {parent} was proud of {hero} for being so {trait}.",
        "It was a good day, and {hero} was glad to have the {gear}.",
    ),
    "suffer": (
        "Soon {hero} got {effect} and very sad.",
        "It was {weather} {at}, and soon {he} got {effect}.",
        "Soon the poor {kind} got {effect} and cried.",
    ),
    "rescue": (
        "Then {his} {parent} came with the {gear} and took {him} home.",
        "Then {his} friend {friend} came with a {gear} and took {him} home.",
        "But a {fkind} named {friend} had a {gear} and helped {him} get home.",
    ),
    "warm": (
        "At home, {he} sat by the fire.",
        "At home, {hero} had a cup of hot milk.",
        '"Now you are safe," said {his} {parent}.',
    ),
    "run_home": ("{hero} ran back home, and {his} {parent} gave {him} a hug.", "{He} ran home as fast as {he} could."),
    "promise": (
        '"Next time I will take my {gear}," said {hero}.',
        '"I am sorry. I will listen to you next time," {hero} said to {his} {parent}.',
    ),
    "end_silly": (
        "From then on, {hero} always took the {gear} on a {weather} day.",
        "{hero} learned to listen to {his} {parent}.",
        "After that day, {hero} was not so {trait} any more.",
    ),
    # The truth.
    "inside": (
        "One day, {hero} was playing in the {room}.",
        "One {weather} day, {hero} ran around in the {room}.",
        "One day, {he} jumped up and down in the {room}.",
    ),
    "break": (
        "{He} was too fast, and {he} broke a {color} {thing}.",
        "A {color} {thing} fell down and broke.",
        "Then {hero} hit a {color} {thing}, and it broke.",
    ),
    "came": (
        '{His} {parent} came in and asked, "Who broke my {thing}?"',
        '"What happened to my {color} {thing}?" asked {his} {parent}.',
        '{His} {parent} saw the {thing} in the {room}. "Who did this?" {his} {parent} asked.',
    ),
    "truth": (
        '"I did it. I am sorry," said {hero}.',
        '"I broke the {thing}. I am very sorry," said {hero}.',
        "{hero} was scared, but {he} told the truth.",
    ),
    "lie": (
        '"I do not know," said {hero}.',
        'But {hero} said, "It was the {blamed}."',
        '{hero} was scared and said, "It was not me."',
    ),
    "guilt": (
        "That night, {hero} could not sleep.",
        "{hero} felt very bad because it was not true.",
        "All day, the poor {kind} felt bad.",
    ),
    "confess": (
        "At last, {hero} told {his} {parent} the truth.",
        '"I broke the {thing}. I am sorry," {he} said at last.',
        "Then {he} ran to {his} {parent} and told the truth about the {color} {thing}.",
    ),
    "caught": (
        "Then {his} {parent} found out that {hero} broke the {thing}.",
        "But {his} {parent} knew that {hero} broke the {color} {thing}.",
    ),
    "parent_sad": (
        "{His} {parent} was sad because {hero} did not tell the truth.",
        '"Why did you not tell the truth?" {his} {parent} asked.',
    ),
    "apology": ('"I am so sorry," said {hero}.', "{hero} cried and said sorry."),
    "forgive": (
        '"Thank you for telling me," said {his} {parent}.',
        "{His} {parent} was not mad and gave {him} a hug.",
        '"It is only a {thing}," said {his} {parent} with a smile.',
    ),
    "fix": (
        "They fixed the {thing} with some {glue}.",
        "{hero} helped {his} {parent} fix the {color} {thing} with {glue}.",
    ),
    "buy": (
        "The next day, they got a new {thing}.",
        "Then {hero} and {his} {parent} went to the shop to get a new {thing}.",
    ),
    "end_brave": (
        "{His} {parent} was proud because {hero} was so {trait}.",
        "{hero} was happy that {he} told the truth.",
        "After that day, {hero} did not run in the {room} any more.",
    ),
    "end_shy": (
        "From then on, {hero} always told the truth.",
        "{hero} learned that it is best to tell the truth.",
        "After that day, {hero} was not so {trait} any more.",
    ),
    # A hungry animal.
    "walk": (
        "One day, {hero} went for a walk {at}.",
        "One {sunny} day, {he} went to the {place}.",
        "One {sunny} morning, {hero} was walking {at}.",
    ),
    "see": (
        "{He} saw a {animal} {spot1}.",
        "There was a {animal} {spot1}.",
        "{hero} looked {spot1} and saw a sad {animal}.",
    ),
    "hungry": (
        '"I am so hungry," said the {animal}.',
        "The {animal} was very hungry.",
        '"What is wrong?" asked {hero}. "I need some food," said the {animal}.',
    ),
    "bad_food": (
        '{hero} gave the {animal} some {bad}. "I cannot eat {bad}," said the {animal}.',
        "{hero} had some {bad}, but the {animal} did not want to eat {bad}.",
    ),
    "likes": (
        '"What do you like to eat?" asked {hero}. "I like {food}," said the {animal}.',
        '"I only eat {food}," said the {animal}.',
        "{hero} knew that a {animal} likes to eat {food}.",
    ),
    "fetch": (
        "{hero} ran home and got some {food}.",
        "So {he} went home and asked {his} {parent} for some {food}.",
        "{hero} had some {food} in {his} bag.",
    ),
    "no_food": ("{hero} ran home, but {he} could not find any {food}.", "But {he} did not have any {food}."),
    "shop": ("So {hero} went to the shop to get some {food}.", "But {his} {parent} went out and got some {food}."),
    "end_hungry": (
        "The {animal} went away hungry, and {hero} was sad.",
        "{hero} was sad that {he} could not help the {animal}.",
    ),
    "eat": (
        "The {animal} ate all the {food}.",
        "The {animal} was happy and ate the {food}.",
        '"I have some {food} for you," said {hero}. The {animal} ate it all.',
    ),
    "animal_thanks": (
        '"Thank you, {hero}!" said the {animal}.',
        '"You are very kind," said the {animal}.',
        "The {animal} was not hungry any more.",
    ),
    "animal_play": (
        "Then they played {at}.",
        "{hero} and the {animal} played together.",
        "The {animal} and the {kind} ran and jumped.",
    ),
    "end_feed": (
        "From then on, {hero} and the {animal} were good friends.",
        "After that day, {hero} gave the {animal} some {food} every day.",
        "{He} went home and was glad to have a new friend.",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Edge:
    """What may happen: the event, the state it leads to, its weight, and the facts it needs ("" means unknown)."""

    event: str
    to: str
    weight: int = 2
    when: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def holds(self, facts: Facts) -> bool:
        return all(facts.get(role, "") in values for role, values in self.when.items())


def _edge(event: str, to: str, weight: int = 2, **when: str) -> Edge:
    return Edge(event=event, to=to, weight=weight, when={role: tuple(v.split("|")) for role, v in when.items()})


_OPENING = (_edge("trait", "traited", 6), _edge("has", "owner", 5), _edge("walk", "walk", 2))
_TOY_BACK = ("thank", "glad", "play")


def _chain(prefix: str, events: tuple[str, ...], end: str) -> dict[str, tuple[Edge, ...]]:
    """States prefix0, prefix1, ..: each event at most once, in this order, at least one of them, then `end`."""

    def leaving(i: int) -> tuple[Edge, ...]:
        onward = tuple(
            _edge(events[j], f"{prefix}{j + 1}", 2 if j == i else 1) for j in range(i, min(i + 2, len(events)))
        )
        return onward + ((_edge(end, "end", 1),) if i else ())

    return {f"{prefix}{i}": leaving(i) for i in range(len(events) + 1)}


EDGES: dict[str, tuple[Edge, ...]] = {
    "start": (_edge("intro", "named"),),
    "named": (_edge("home", "housed", 20), *_OPENING),
    "housed": _OPENING,
    "traited": (
        _edge("has", "owner", trait="kind|greedy"),
        _edge("want", "want", trait="careful|silly"),
        _edge("inside", "inside", trait="brave|shy"),
    ),
    "owner": (_edge("love", "loved"), _edge("go", "out")),
    "loved": (_edge("go", "out"),),
    "out": (
        _edge("lose", "lost", trait=""),
        _edge("trap", "trapped", trait=""),
        _edge("meet", "visited", trait="kind|greedy"),
    ),
    "lost": (_edge("sad", "lost_sad", 3), _edge("meet", "lost_met", 2)),
    "lost_sad": (_edge("meet", "lost_met"),),
    "lost_met": (_edge("ask", "lost_asked"), _edge("tell_lost", "lost_told")),
    "lost_asked": (_edge("tell_lost", "lost_told"),),
    "lost_told": (_edge("offer", "looking"),),
    "looking": (_edge("search1", "looked1"),),
    "looked1": (_edge("found", "back0", 3), _edge("search2", "looked2")),
    "looked2": (_edge("found", "back0"), _edge("dark", "dark")),
    "dark": (_edge("comfort", "comforted"),),
    "comforted": (_edge("next_day", "back0"), _edge("never", "end")),
    **_chain("back", _TOY_BACK, "end_lost"),
    "trapped": (_edge("try", "tried"),),
    "tried": (_edge("sad", "stuck_sad"), _edge("meet", "stuck_met")),
    "stuck_sad": (_edge("meet", "stuck_met"),),
    "stuck_met": (_edge("ask", "stuck_asked"), _edge("tell_stuck", "stuck_told")),
    "stuck_asked": (_edge("tell_stuck", "stuck_told"),),
    "stuck_told": (_edge("wrong_tool", "wrong", 1), _edge("tool", "tooled")),
    "wrong": (_edge("tool", "tooled"),),
    "tooled": (_edge("get", "freed0", 3), _edge("snap", "snapped", 1)),
    "snapped": (_edge("parent_get", "freed0"),),
    **_chain("freed", _TOY_BACK, "end_stuck"),
    "visited": (_edge("want_toy", "asked_toy"),),
    "asked_toy": (_edge("yes", "agreed", trait="kind"), _edge("no", "refused", trait="greedy")),
    "agreed": (_edge("friend_glad", "sharing"),),
    "refused": (_edge("friend_sad", "left"),),
    "left": (_edge("alone", "alone"),),
    "alone": (_edge("sorry", "sharing", 3), _edge("regret", "end", 1)),
    "sharing": (_edge("share_play", "shared"),),
    "shared": (
        _edge("treat", "treated"),
        _edge("end_kind", "end", 1, trait="kind"),
        _edge("end_greedy", "end", 1, trait="greedy"),
    ),
    "treated": (_edge("eat_treat", "eaten"),),
    "eaten": (_edge("end_kind", "end", trait="kind"), _edge("end_greedy", "end", trait="greedy")),
    "want": (_edge("weather", "weather"),),
    "weather": (_edge("warn", "warned"),),
    "warned": (_edge("take", "equipped", trait="careful"), _edge("forget", "bare", trait="silly")),
    "equipped": (_edge("fine", "fine"),),
    "fine": (_edge("met_wet", "met_wet", 3), _edge("fun", "fun", 1)),
    "met_wet": (_edge("share_gear", "gear_shared"),),
    "gear_shared": (_edge("gear_thanks", "fun"),),
    "fun": (_edge("end_careful", "end"),),
    "bare": (_edge("suffer", "suffering"),),
    "suffering": (_edge("rescue", "rescued"), _edge("run_home", "rescued", effect="wet|cold|hot")),
    "rescued": (_edge("warm", "warmed"), _edge("promise", "promised", 1)),
    "warmed": (_edge("promise", "promised"),),
    "promised": (_edge("end_silly", "end"),),
    "inside": (_edge("break", "broken"),),
    "broken": (_edge("came", "questioned"),),
    "questioned": (_edge("truth", "told", trait="brave"), _edge("lie", "lied", trait="shy")),
    "lied": (_edge("guilt", "guilt"),),
    "guilt": (_edge("confess", "told", 3), _edge("caught", "caught")),
    "caught": (_edge("parent_sad", "parent_sad"),),
    "parent_sad": (_edge("apology", "told"),),
    "told": (_edge("forgive", "forgiven"),),
    "forgiven": (_edge("fix", "mended"), _edge("buy", "mended", 1)),
    "mended": (_edge("end_brave", "end", trait="brave"), _edge("end_shy", "end", trait="shy")),
    "walk": (_edge("see", "seen"),),
    "seen": (_edge("hungry", "hungry"),),
    "hungry": (_edge("bad_food", "refused_food", 4), _edge("likes", "likes")),
    "refused_food": (_edge("likes", "likes"),),
    "likes": (_edge("fetch", "fed", 3), _edge("no_food", "no_food")),
    "no_food": (_edge("shop", "fed", 3), _edge("end_hungry", "end", 1)),
    "fed": (_edge("eat", "ate0"),),
    **_chain("ate", ("animal_thanks", "animal_play"), "end_feed"),
}
