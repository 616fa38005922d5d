"""The chip's choice of a token: the greatest sum of logit and Gumbel noise. Seed and token id define the noise."""

import math

import numpy as np

from arch import numerics
from arch.isa import Func

from .arithmetic import clip, interpolate, rsr

GUMBEL_ONE = 24 << 15
"""-log2 of the uniform variate's unit, Q15."""


class Sampler:
    """Token choice on the chip: argmax(logit + temperature * Gumbel noise).

    Each token id has an xorshift32 state. All states advance at every token, also if the choice is greedy.

    temperature_q: round(temperature * ln 2 * 2**13). 0 is greedy.
    """

    POST = 10
    """Shift after the product: (log2 in Q10) * (temperature in Q13) -> 8 fraction bits is 15; 5 are taken before."""

    def __init__(self, vocab: int, temperature_q: int, seed: int) -> None:
        self.temperature_q = temperature_q
        self.state = seed_states(vocab, seed)

    def advance(self) -> None:
        """Advance the generator by one token."""
        s = self.state
        s = s ^ numerics.wrap32(s << 13)
        s = s ^ ((s & 0xFFFFFFFF) >> 17)
        self.state = s ^ numerics.wrap32(s << 5)

    def noise(self) -> np.ndarray:
        """Advance the generator. Returns log2 of exponential variates, the negative of Gumbel noise, Q15 [vocab]."""
        self.advance()
        return _log2(GUMBEL_ONE - _log2((self.state & 0xFFFFFFFF) >> 8))

    def scores(self, logits: np.ndarray) -> np.ndarray:
        """Advance the generator. Returns logits + temperature * Gumbel noise [vocab], in units of the logits."""
        noise = clip(rsr(self.noise(), 5), 18)
        return logits - rsr(noise * self.temperature_q, self.POST + 5)

    def choose(self, logits: np.ndarray) -> int:
        """The token id with the greatest score; the first of several."""
        if not self.temperature_q:
            self.advance()
            return int(np.argmax(logits))
        return int(np.argmax(self.scores(logits)))


def temperature_q(temperature: float) -> int:
    """The chip's temperature word. Raises ValueError outside 0..10."""
    if not 0 <= temperature <= 10:
        raise ValueError(f"temperature must be in 0..10, not {temperature!r}")
    return round(temperature * math.log(2) * (1 << 13))


def seed_states(vocab: int, seed: int) -> np.ndarray:
    """Initial xorshift32 states [vocab], int32 and never 0, by splitmix64 of seed and token id."""
    z = np.arange(1, vocab + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed & (1 << 64) - 1)
    y = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    y = (y ^ y >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return numerics.wrap32(np.maximum((y ^ y >> np.uint64(31)) & np.uint64(0xFFFFFFFF), 1).astype(np.int64))


def _log2(a: np.ndarray) -> np.ndarray:
    return interpolate(Func.LOG2, a)
