"""Rotates the residual of a model, so that no channel of it is much larger than the others.

RMSNorm without gains commutes with every orthogonal matrix Q: (x Q) / rms(x Q) = (x / rms(x)) Q. So the gains go into
the matrices behind the norms, and Q into every matrix that reads or writes the residual; the model computes the same,
and the chip knows nothing of it. The classifier gets the final norm's gain and the embedding does not, which unties
them (docs/reference/numerics.md).
"""

import math
from dataclasses import replace

import numpy as np

from compiler.frontend.checkpoint import Checkpoint

SEED = 135
"""Of the signs of the rotation's rows."""
READS = {"wq": "att_norm", "wk": "att_norm", "wv": "att_norm", "w1": "ffn_norm", "w3": "ffn_norm"}
"""Matrices of a layer that read the residual, and the norm before them."""
WRITES = ("wo", "w2")
"""Matrices of a layer that write the residual."""


def rotated(checkpoint: Checkpoint) -> Checkpoint:
    """The same model with unit gains and a rotated residual; its classifier is its own. Works layer by layer."""
    matrix = rotation(checkpoint.config.dim)
    weights, shapes = checkpoint.weights, checkpoint.config.shapes()
    layers = range(checkpoint.config.n_layers)
    turned = {name: np.empty(shapes[name], np.float32) for name in (*READS, *WRITES)}
    for layer in layers:
        for name, norm in READS.items():
            turned[name][layer] = weights[name][layer] * weights[norm][layer].astype(np.float64) @ matrix
        for name in WRITES:
            turned[name][layer] = matrix.T @ weights[name][layer]
    turned |= {name: np.ones(shapes[name], np.float32) for name in ("att_norm", "ffn_norm", "final_norm")}
    embedding, gain = np.asarray(weights["tok_emb"]), np.asarray(weights["final_norm"]).astype(np.float64)
    classifier = np.asarray(weights["classifier"]) if "classifier" in weights else embedding
    turned["tok_emb"] = _by_rows(embedding, matrix)
    turned["classifier"] = _by_rows(classifier, gain[:, None] * matrix)
    return replace(checkpoint, config=replace(checkpoint.config, shared_classifier=False), **turned)


def _by_rows(table: np.ndarray, matrix: np.ndarray, rows: int = 4096) -> np.ndarray:
    """table @ matrix as float32, some rows at a time."""
    found = np.empty_like(table)
    for start in range(0, len(table), rows):
        found[start : start + rows] = table[start : start + rows] @ matrix
    return found


def rotation(size: int) -> np.ndarray:
    """An orthogonal matrix [size, size] whose entries are all of about the same magnitude; always the same one.

    Signs times a Hadamard matrix where one of this size can be made (`hadamard`); otherwise a factor of the size that
    has none is a discrete cosine transform.
    """
    order, regular = next((n, found) for n in range(size, 0, -1)
                          if size % n == 0 and (found := hadamard(n)) is not None)
    matrix = np.kron(regular / math.sqrt(order), cosines(size // order))
    signs = np.random.default_rng(SEED).integers(0, 2, size) * 2 - 1
    return signs[:, None] * matrix


def cosines(size: int) -> np.ndarray:
    """The orthonormal discrete cosine transform [size, size]."""
    n = np.arange(size)
    table = np.cos(np.pi * n[:, None] * (2 * n + 1) / (2 * size)) * math.sqrt(2 / size)
    table[0] /= math.sqrt(2)
    return table


def hadamard(size: int) -> np.ndarray | None:
    """A matrix of +-1 with orthogonal rows, by Sylvester's doubling of one of Paley's two; None if that gives none."""
    odd = size & -size
    for power in range(odd.bit_length()):
        if (core := _paley(size >> power)) is not None:
            for _ in range(power):
                core = np.kron(np.array([[1, 1], [1, -1]]), core)
            return core
    return None


def _paley(size: int) -> np.ndarray | None:
    """Paley's Hadamard matrix: of a prime q = size - 1 = 3 mod 4, or of a prime q = size / 2 - 1 = 1 mod 4."""
    if size == 1:
        return np.ones((1, 1), np.int64)
    if size % 4:
        return None
    if _is_prime(size - 1):
        skew = _bordered(size - 1, -1)
        return skew + np.eye(size, dtype=np.int64)
    if (size // 2 - 1) % 4 == 1 and _is_prime(size // 2 - 1):
        symmetric = _bordered(size // 2 - 1, 1)
        return (np.kron(symmetric, np.array([[1, 1], [1, -1]]))
                + np.kron(np.eye(size // 2, dtype=np.int64), np.array([[1, -1], [-1, -1]])))
    return None


def _bordered(prime: int, border: int) -> np.ndarray:
    """The matrix of quadratic residues of i - j, with a first row of 1 and a first column of `border`."""
    n = np.arange(prime)
    residue = np.full(prime, -1)
    residue[n * n % prime], residue[0] = 1, 0
    matrix = np.zeros((prime + 1, prime + 1), np.int64)
    matrix[0, 1:], matrix[1:, 0] = 1, border
    matrix[1:, 1:] = residue[(n[:, None] - n) % prime]
    return matrix


def _is_prime(n: int) -> bool:
    return n > 1 and all(n % d for d in range(2, math.isqrt(n) + 1))
