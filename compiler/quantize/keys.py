"""Static scales of queries and keys, and the offsets of keys.

A softmax does not change if one vector is added to all keys of a head: each score of a query changes by as much. So
the chip keeps keys less the middle of their range, which after the rotation is far from 0 in pairs that turn slowly.
With what is left of the range, an int8 key of a static scale loses no more than one with a scale of its own.

Queries and keys share a head's scales: (q8 . k8) / 2**shift is the score. The shift is the program's, the same for all
heads. Of a pair of channels, the scale of the query can grow as that of the key falls. Which shift and which balance
are best is measured: the KL of the weights of attention on text of the calibration.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from program.integer import KEY_SHIFT, SCORE_FRACTION
from program.shape import ModelConfig

from .calibrate import DIRECTIONS, Statistics
from .float_model import layer_site, rope_tables

LIMIT = 127
HEADROOM = 1.15
"""Of a 16-bit key over its calibrated maximum, before the offset is subtracted."""
MOST_TOKENS = 256
"""Of a text that weights of attention are compared on."""
SHIFTS = 3
"""Shifts that are tried: from the last one at which no head clips anything."""


@dataclass(frozen=True, kw_only=True)
class KeyScales:
    """L layers, K key/value heads, P pairs of channels, hd channels.

    query, key: what a float query or key is multiplied by to get its int8 value [L, K, P].
    offset: subtracted from the int8 key [L, K, hd].
    shift: from the product of int8 queries and keys to the score.
    """

    query: np.ndarray
    key: np.ndarray
    offset: np.ndarray
    shift: int


@dataclass(frozen=True, kw_only=True)
class _Head:
    """Calibrated queries and keys of a key/value head of a layer.

    queries: by text [T, query heads, hd]. keys: by text [T, hd], less `middle` [hd].
    reach, spread: largest and mean magnitude of a pair's queries and keys, the latter less their middle, 2 x [P].
    far: largest magnitude of a pair's keys [P].
    """

    queries: Sequence[np.ndarray]
    keys: Sequence[np.ndarray]
    middle: np.ndarray
    reach: tuple[np.ndarray, np.ndarray]
    spread: tuple[np.ndarray, np.ndarray]
    far: np.ndarray

    def balances(self, product: float) -> Iterator[np.ndarray]:
        """Scales [P] of the keys to try, where those of queries and keys have this product."""
        for share in (0, 1 / 2, 1):
            query, key = (reach ** (1 - share) * spread**share
                          for reach, spread in zip(self.reach, self.spread, strict=True))
            most = 32767 / (HEADROOM * 2**KEY_SHIFT * self.far)
            yield np.minimum(np.sqrt(product * query / key), most)


def key_scales(statistics: Statistics, config: ModelConfig, context: int) -> KeyScales:
    """The scales with which integer attention is nearest to the float model's, for positions below `context`."""
    heads = [_head(statistics, config, context, layer, kv)
             for layer in range(config.n_layers) for kv in range(config.n_kv_heads)]
    unit = (1 << SCORE_FRACTION) * math.log2(math.e) / math.sqrt(config.head_dim)
    room = min(float((LIMIT * LIMIT / (head.reach[0] * head.reach[1])).min()) for head in heads)
    first = math.floor(math.log2(room / unit))
    loss, best = math.inf, (first, [np.ones(0)])
    weights = [[_weights(q, k, config.head_dim) for q, k in zip(head.queries, head.keys, strict=True)]
               for head in heads]
    for shift in range(first, first + SHIFTS):
        found = [min((_loss(head, exact, unit * 2.0**shift, key, shift), n, key)
                     for n, key in enumerate(head.balances(unit * 2.0**shift)))
                 for head, exact in zip(heads, weights, strict=True)]
        total = sum(each for each, _, _ in found)
        if total < loss:
            loss, best = total, (shift, [key for _, _, key in found])
    shift, keys = best
    shape = (config.n_layers, config.n_kv_heads, -1)
    offsets = [np.rint(head.middle * np.repeat(key, 2)) for head, key in zip(heads, keys, strict=True)]
    key = np.reshape(keys, shape)
    return KeyScales(query=unit * 2.0**shift / key, key=key, offset=np.reshape(offsets, shape).astype(np.int16),
                     shift=shift)


def _head(statistics: Statistics, config: ModelConfig, context: int, layer: int, kv: int) -> _Head:
    size = config.head_dim

    def texts(site: str, heads: int) -> list[np.ndarray]:
        found = statistics.samples[layer_site(layer, site)]
        return [text[:MOST_TOKENS].reshape(len(text[:MOST_TOKENS]), config.n_kv_heads, heads, size)[:, kv]
                for text in found]

    low, high = _range(statistics.directions[layer_site(layer, "k_proj")][kv * size // 2 : (kv + 1) * size // 2],
                       config, context)
    middle = (low + high) / 2
    queries, keys = texts("q", config.group_size), [text[:, 0] - middle for text in texts("k", 1)]
    peak = np.maximum(*(statistics.peaks[layer_site(layer, site)].reshape(config.n_kv_heads, -1, size)[kv].max(0)
                        for site in ("q", "q_proj")))
    reach = _pairs(peak), _pairs((high - low) / 2)
    spread = tuple(np.sqrt(np.mean(np.concatenate([text.reshape(-1, size // 2, 2) for text in kind]) ** 2, (0, 2)))
                   for kind in (queries, keys))
    return _Head(queries=queries, keys=keys, middle=middle, reach=(_above(reach[0]), _above(reach[1])),
                 spread=(_above(spread[0]), _above(spread[1])), far=_above(_pairs(np.maximum(-low, high))))


def _pairs(channels: np.ndarray) -> np.ndarray:
    """Greatest of each pair of channels."""
    return channels.reshape(-1, 2).max(1)


def _above(x: np.ndarray) -> np.ndarray:
    """At least a thousandth of the greatest: a scale is made of it."""
    return np.maximum(x, 1e-3 * max(float(x.max()), 1e-20))


def _range(furthest: np.ndarray, config: ModelConfig, context: int) -> tuple[np.ndarray, np.ndarray]:
    """Least and greatest value [hd] of keys that are turned to any position, where `furthest` [P, DIRECTIONS] says how
    far they reach before that. So it does not matter at which positions the calibration saw them."""
    cos, sin = rope_tables(config)
    positions = np.unique(np.linspace(0, context - 1, 2 * DIRECTIONS).astype(int))
    turn = np.arctan2(sin[positions], cos[positions])  # [positions, P]
    found = []
    for along in (0, np.pi / 2, np.pi, 3 * np.pi / 2):
        directions = np.rint((along - turn) * DIRECTIONS / (2 * np.pi)).astype(int) % DIRECTIONS
        found.append(np.stack([row[own].max() for row, own in zip(furthest, directions.T, strict=True)]))
    return -np.stack(found[2:], 1).reshape(-1), np.stack(found[:2], 1).reshape(-1)


def _weights(queries: np.ndarray, keys: np.ndarray, size: int) -> np.ndarray:
    """Logarithms of the weights of attention [query heads, T, T]."""
    return _log_softmax(_products(queries, keys) / math.sqrt(size))


def _products(queries: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """[query heads, T, T] of queries [T, query heads, hd] and keys [T, hd]."""
    return queries.transpose(1, 0, 2) @ keys.T


def _log_softmax(scores: np.ndarray) -> np.ndarray:
    """Of each position's scores up to its own; far below all others elsewhere."""
    scores = np.where(np.tri(scores.shape[-1], dtype=bool), scores, np.float32(-1e9))
    scores -= scores.max(-1, keepdims=True)
    return scores - np.log(np.exp(scores).sum(-1, keepdims=True))


def _loss(head: _Head, exact: Sequence[np.ndarray], product: float, key: np.ndarray, shift: int) -> float:
    """KL of the weights of attention with these scales of the key, in nats a position."""
    key = np.repeat(key, 2)
    total = 0.0
    for queries, keys, log_p in zip(head.queries, head.keys, exact, strict=True):
        q8, k8 = (np.clip(np.rint(x * scale), -LIMIT, LIMIT) for x, scale in ((queries, product / key), (keys, key)))
        scores = _products(q8, k8) * (math.log(2) / (1 << SCORE_FRACTION) / 2.0**shift)
        total += float((np.exp(log_p) * (log_p - _log_softmax(scores))).sum(-1).mean())
    return total
