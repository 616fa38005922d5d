"""How close integer logits are to the float model's."""

from dataclasses import dataclass

import numpy as np

LEAST_ENTROPY = 1e-3
"""Nats a token that KL is compared with at least: a model that is certain of everything has no entropy."""


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Distance of an integer model from the float model on the same tokens.

    `kl`: mean KL(float || integer), nats a token.
    `cross_entropy`: mean entropy of the float model's own prediction, nats a token: its expected cross-entropy on text
    that it sampled.
    `ratio`: kl / cross_entropy, or `LEAST_ENTROPY` if that is more: the relative loss.
    `top1`: fraction of positions where both choose the same (first) best token.
    `tokens`: positions compared.
    """

    kl: float
    cross_entropy: float
    ratio: float
    top1: float
    tokens: int

    def __str__(self) -> str:
        return (
            f"KL {self.kl:.5f} nats/token = {100 * self.ratio:.2f} % of the cross-entropy {self.cross_entropy:.3f}, "
            f"top-1 agreement {100 * self.top1:.1f} % over {self.tokens} tokens"
        )


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities of logits [..., vocab] in nats, float64."""
    shifted = np.asarray(logits, np.float64)
    shifted = shifted - shifted.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def kl_top1(float_logits: np.ndarray, int_logits: np.ndarray) -> Quality:
    """Compare logits [T, vocab] of both models, both in natural-log units (scale integer logits by their LSB first).

    Raises `ValueError` if the shapes differ or hold no token.
    """
    if float_logits.shape != int_logits.shape or float_logits.ndim != 2 or not len(float_logits):
        raise ValueError(f"logits must be [T, vocab] twice alike, not {float_logits.shape} and {int_logits.shape}")
    log_p, log_q = log_softmax(float_logits), log_softmax(int_logits)
    p = np.exp(log_p)
    kl = float((p * (log_p - log_q)).sum(axis=-1).mean())
    cross_entropy = float(-(p * log_p).sum(axis=-1).mean())
    ratio = kl / max(cross_entropy, LEAST_ENTROPY)
    top1 = float((float_logits.argmax(axis=-1) == int_logits.argmax(axis=-1)).mean())
    return Quality(kl=kl, cross_entropy=cross_entropy, ratio=ratio, top1=top1, tokens=len(float_logits))
