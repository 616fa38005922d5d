"""The noise generator's states after many tokens, for a run that begins in the middle of a sequence."""

import numpy as np

from arch import numerics

BITS = 32


def advanced(states: np.ndarray, tokens: int) -> np.ndarray:
    """xorshift32 states (int32 values) after `tokens` tokens, in O(log tokens).

    A step is linear over GF(2). So the images of the single bits define it, and repeated squaring gives its powers.
    """
    step = _stepped(np.uint32(1) << np.arange(BITS, dtype=np.uint32))
    found = np.asarray(states).astype(np.int64).astype(np.uint32)
    while tokens:
        if tokens & 1:
            found = _applied(step, found)
        step, tokens = _applied(step, step), tokens >> 1
    return numerics.wrap32(found.astype(np.int64))


def _stepped(s: np.ndarray) -> np.ndarray:
    """One step of uint32 states."""
    s = s ^ s << np.uint32(13)
    s = s ^ s >> np.uint32(17)
    return s ^ s << np.uint32(5)


def _applied(step: np.ndarray, states: np.ndarray) -> np.ndarray:
    """uint32 states after a step.

    step: step[n] is the image of bit n.
    """
    found = np.zeros_like(states)
    for bit in range(BITS):
        found ^= np.where(states >> np.uint32(bit) & np.uint32(1), step[bit], np.uint32(0))
    return found
