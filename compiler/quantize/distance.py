"""How close integer logits are to the float model's."""


import numpy as np

from program.quality import LEAST_ENTROPY, Quality


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
        raise ValueError(f"both logits must have the same shape [T, vocab], not {float_logits.shape} and "
                         f"{int_logits.shape}")
    log_p, log_q = log_softmax(float_logits), log_softmax(int_logits)
    p = np.exp(log_p)
    kl = float((p * (log_p - log_q)).sum(axis=-1).mean())
    cross_entropy = float(-(p * log_p).sum(axis=-1).mean())
    ratio = kl / max(cross_entropy, LEAST_ENTROPY)
    top1 = float((float_logits.argmax(axis=-1) == int_logits.argmax(axis=-1)).mean())
    return Quality(kl=kl, cross_entropy=cross_entropy, ratio=ratio, top1=top1, tokens=len(float_logits))
