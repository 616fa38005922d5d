"""How a token is chosen, and what of it the host does.

The chip chooses by temperature: the greatest logit plus Gumbel noise. `HostSampler` does what the chip does not, on the
chip's own logits and with the chip's own noise. Where it has nothing to add it chooses what the chip does, bit for bit.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from base.errors import TspError
from program.arithmetic import rsr
from program.integer import LOGIT_FRACTION
from program.rack import AnyProgram
from program.sampler import Sampler
from sim.device.protocol import sampler_of

UNIT = 1 << LOGIT_FRACTION
"""Steps of a logit in one nat."""
NEVER = np.iinfo(np.int64).min
"""The score of a token that may not be chosen."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are chosen.

    temperature: 0..10, 0 is greedy. seed: of the noise, 64 bits.
    top_k: only so many of the likeliest tokens; 0 is all.
    top_p: only the fewest likeliest tokens that have this probability together.
    min_p: only tokens that have at least this share of the likeliest token's probability.
    repetition_penalty: divides a positive logit, multiplies a negative one, if the token is in the prompt or was
    generated (Keskar et al. 2019, section 4.1).
    frequency_penalty: taken from a token's logit for each time that it was generated.
    presence_penalty: taken once if it was generated.
    logit_bias: added to a token's logit. Penalties and biases are in nats.
    """

    temperature: float = 0.0
    seed: int = 0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)

    @property
    def on_chip(self) -> bool:
        """The chip's own choice is the right one."""
        everything = self.top_p >= 1 and not self.top_k and not self.min_p
        changes = self.frequency_penalty or self.presence_penalty or self.logit_bias or self.repetition_penalty != 1
        return (everything or self.temperature == 0) and not changes


class HostSampler:
    """Chooses tokens from logits, one position after the other.

    position: the first one whose successor it chooses; the noise is what the chip has there. prompt: its tokens, which
    the repetition penalty counts. Raises TspError on a number out of range.
    """

    def __init__(self, program: AnyProgram, sampling: Sampling, position: int, prompt: Sequence[int] = ()) -> None:
        self._sampling, self._prompt = sampling, frozenset(prompt)
        _check(sampling)
        self._sampler = sampler_of(program, sampling.temperature, sampling.seed, position)
        self._bias = np.zeros(program.model.vocab_size, np.int64)
        for token, value in sampling.logit_bias.items():
            if not 0 <= token < len(self._bias):
                raise TspError(f"logit_bias: token must be in 0..{len(self._bias) - 1}, not {token}")
            self._bias[token] = round(value * UNIT)
        self._generated: Counter[int] = Counter()

    def choose(self, logits: np.ndarray) -> int:
        """The next token id, the first one of equals."""
        adjusted = self._repeated(np.asarray(logits, np.int64)) + self._bias - self._penalties()
        noise = _noise(self._sampler)
        scores = np.where(self._allowed(adjusted), adjusted + noise, NEVER)
        token = int(np.argmax(scores))
        self._generated[token] += 1
        return token

    def _penalties(self) -> np.ndarray:
        lost = np.zeros(len(self._bias), np.int64)
        for token, count in self._generated.items():
            lost[token] = round((self._sampling.frequency_penalty * count + self._sampling.presence_penalty) * UNIT)
        return lost

    def _repeated(self, logits: np.ndarray) -> np.ndarray:
        """The logits with the repetition penalty."""
        penalty, seen = self._sampling.repetition_penalty, sorted(self._prompt | self._generated.keys())
        if penalty == 1 or not seen:
            return logits
        penalised, those = logits.copy(), logits[seen]
        penalised[seen] = np.round(np.where(those > 0, those / penalty, those * penalty))
        return penalised

    def _allowed(self, logits: np.ndarray) -> np.ndarray:
        """Which tokens may be chosen, by top_k, then by top_p and min_p among those. The likeliest always may."""
        temperature = self._sampler.temperature_q / (math.log(2) * (1 << 13))
        sampling = self._sampling
        if not temperature or (sampling.top_p >= 1 and not sampling.top_k and not sampling.min_p):
            return np.ones(len(logits), bool)
        order = np.argsort(-logits, kind="stable")[: sampling.top_k or None]
        weights = np.exp((logits[order] - logits[order[0]]) / (UNIT * temperature))
        before = np.cumsum(weights) - weights
        chosen = (before < sampling.top_p * weights.sum()) & (weights >= sampling.min_p)
        chosen[0] = True
        allowed = np.zeros(len(logits), bool)
        allowed[order[chosen]] = True
        return allowed


def check_sampling(program: AnyProgram, sampling: Sampling) -> None:
    """Raises TspError if a number is out of range."""
    _check(sampling)
    sampler_of(program, sampling.temperature, sampling.seed)


def _check(sampling: Sampling) -> None:
    """Raises TspError if a number is out of range."""
    for name, value, least, most in (("top_k", sampling.top_k, 0, math.inf), ("top_p", sampling.top_p, 0, 1),
                                     ("min_p", sampling.min_p, 0, 1),
                                     ("repetition_penalty", sampling.repetition_penalty, 0.01, 100)):
        if not least <= value <= most:
            raise TspError(f"{name} must be " + (f"at least {least}" if most == math.inf else f"in {least}..{most}")
                           + f", not {value}")


def _noise(sampler: Sampler) -> np.ndarray:
    """What the chip adds to the logits at this token; the generator then advances."""
    gumbel = np.clip(rsr(sampler.noise(), 5), -(1 << 17), (1 << 17) - 1)
    return -rsr(gumbel * sampler.temperature_q, Sampler.POST + 5)


def logprobs(logits: np.ndarray) -> np.ndarray:
    """Natural logarithms of the model's own probabilities, before temperature, penalties and bias."""
    nats = np.asarray(logits) / UNIT
    nats = nats - nats.max()
    return nats - math.log(np.exp(nats).sum())
