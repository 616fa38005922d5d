"""How a token is chosen, and what of it the host does.

The chip chooses by temperature: the greatest logit plus Gumbel noise. `HostSampler` does what the chip does not, on the
chip's own logits and with the chip's own noise. Where it has nothing to add it chooses what the chip does, bit for bit.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from base.errors import TspError
from program.integer import LOGIT_FRACTION, rsr
from program.program import Program
from program.sampler import Sampler
from sim.device.device import sampler_of

UNIT = 1 << LOGIT_FRACTION
"""Steps of a logit in one nat."""
NEVER = np.iinfo(np.int64).min
"""The score of a token that may not be chosen."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are chosen.

    temperature: 0..10, 0 is greedy. seed: of the noise, 64 bits. top_p: of all tokens, only the fewest likeliest that
    have this probability together. frequency_penalty: taken from a token's logit for each time that it was generated.
    presence_penalty: taken once if it was. logit_bias: added to a token's logit. All in nats.
    """

    temperature: float = 0.0
    seed: int = 0
    top_p: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)

    @property
    def on_chip(self) -> bool:
        """The chip's own choice is the right one."""
        plain = self.top_p >= 1 or self.temperature == 0
        return plain and not (self.frequency_penalty or self.presence_penalty or self.logit_bias)


class HostSampler:
    """Chooses tokens from logits, one position after the other.

    position: the first one whose successor it chooses; the noise is what the chip has there. Raises TspError on a
    number out of range.
    """

    def __init__(self, program: Program, sampling: Sampling, position: int) -> None:
        self._sampling = sampling
        self._sampler = sampler_of(program, sampling.temperature, sampling.seed, position)
        self._bias = np.zeros(program.model.vocab_size, np.int64)
        for token, value in sampling.logit_bias.items():
            if not 0 <= token < len(self._bias):
                raise TspError(f"logit_bias: token must be in 0..{len(self._bias) - 1}, not {token}")
            self._bias[token] = round(value * UNIT)
        self._generated: Counter[int] = Counter()

    def choose(self, logits: np.ndarray) -> int:
        """The next token id, the first one of equals."""
        adjusted = logits + self._bias - self._penalties()
        noise = _noise(self._sampler)
        scores = np.where(self._nucleus(adjusted), adjusted + noise, NEVER)
        token = int(np.argmax(scores))
        self._generated[token] += 1
        return token

    def _penalties(self) -> np.ndarray:
        lost = np.zeros(len(self._bias), np.int64)
        for token, count in self._generated.items():
            lost[token] = round((self._sampling.frequency_penalty * count + self._sampling.presence_penalty) * UNIT)
        return lost

    def _nucleus(self, logits: np.ndarray) -> np.ndarray:
        """Which tokens may be chosen: the likeliest ones, until they have probability top_p together."""
        temperature = self._sampler.temperature_q / (math.log(2) * (1 << 13))
        if self._sampling.top_p >= 1 or not temperature:
            return np.ones(len(logits), bool)
        order = np.argsort(-logits, kind="stable")
        weights = np.exp((logits[order] - logits[order[0]]) / (UNIT * temperature))
        before = np.cumsum(weights) - weights
        allowed = np.zeros(len(logits), bool)
        allowed[order[before < self._sampling.top_p * weights.sum()]] = True
        allowed[order[0]] = True
        return allowed


def _noise(sampler: Sampler) -> np.ndarray:
    """What the chip adds to the logits at this token; the generator then advances."""
    gumbel = np.clip(rsr(sampler.noise(), 5), -(1 << 17), (1 << 17) - 1)
    return -rsr(gumbel * sampler.temperature_q, Sampler.POST + 5)


def logprobs(logits: np.ndarray) -> np.ndarray:
    """Natural logarithms of the model's own probabilities, before temperature, penalties and bias."""
    nats = np.asarray(logits) / UNIT
    nats = nats - nats.max()
    return nats - math.log(np.exp(nats).sum())
