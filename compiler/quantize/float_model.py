"""The float reference: a Llama in numpy, token for token llama2.c's run.c; the yardstick of every integer scheme."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from base.errors import TspError
from compiler.frontend.checkpoint import Checkpoint
from program.shape import ModelConfig

Observe = Callable[[str, np.ndarray], None]
"""Called as `observe(site, values [T, features])` for every activation site; a layer's are `layers.<n>.<site>`."""

MANY_PARAMETERS = 20_000_000
"""Of a model whose float64 copy takes more memory than its exactness is worth."""
LAYER_SITES = (
    "x_att",  # residual before the attention norm [dim]
    "att_norm",  # normed, times its weight [dim]
    "q_proj",  # before RoPE [H*hd]
    "k_proj",  # before RoPE [KV*hd]
    "q",  # after RoPE
    "k",  # after RoPE
    "v",  # [KV*hd]
    "att",  # attention output, heads side by side [H*hd]
    "wo",  # Wo's output [dim]
    "x_ffn",  # residual before the FFN norm
    "ffn_norm",
    "gate",  # W1's output [hidden]
    "up",  # W3's output [hidden]
    "silu",  # silu(gate) * up, W2's input [hidden]
    "w2",  # W2's output [dim]
)
EMBEDDING, X_FINAL, FINAL_NORM, LOGITS = "embedding", "x_final", "final_norm", "logits"


def layer_site(layer: int, site: str) -> str:
    """The name under which `observe` hears of a layer's activation."""
    return f"layers.{layer}.{site}"


def site_names(config: ModelConfig) -> list[str]:
    """Every activation site of a model, in the order of computation."""
    layers = [layer_site(layer, site) for layer in range(config.n_layers) for site in LAYER_SITES]
    return [EMBEDDING, *layers, X_FINAL, FINAL_NORM, LOGITS]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Cache:
    """Keys (after RoPE) and values [L, KV, capacity, hd] of a sequence; [L, texts, KV, capacity, hd] of several texts
    that advance together."""

    k: np.ndarray
    v: np.ndarray

    @property
    def together(self) -> bool:
        """Whether it is of several texts."""
        return self.k.ndim == 5


class FloatModel:
    """A Llama with a KV cache, in `dtype` (float64 is the reference, float32 half the memory traffic).

    `step` works on the model's own cache: call it with positions 0, 1, 2, ...; `sequence_logits` leaves it alone.
    All raise `TspError` on a token outside the vocabulary or a position outside the context.
    """

    def __init__(self, checkpoint: Checkpoint, dtype: type[np.floating] = np.float64) -> None:
        self.config = config = checkpoint.config
        self.dtype = dtype
        self._w = {name: np.asarray(weight).astype(dtype, copy=False) for name, weight in checkpoint.weights.items()}
        self._w.setdefault("classifier", self._w["tok_emb"])
        self._w_qkv = np.concatenate([self._w.pop(name) for name in ("wq", "wk", "wv")], axis=1)
        self._w_gate_up = np.concatenate([self._w.pop(name) for name in ("w1", "w3")], axis=1)
        self._cos, self._sin = (table.astype(dtype) for table in rope_tables(config))
        self._cache = self._new_cache(config.seq_len)

    def step(self, token: int, pos: int) -> np.ndarray:
        """Logits [vocab] after `token` at `pos`, given the tokens stepped at 0..pos-1."""
        return self._forward([token], pos, self._cache, None)[0]

    def sequence_logits(self, tokens: Sequence[int], observe: Observe | None = None) -> np.ndarray:
        """Logits [T, vocab] after each token of a sequence that begins at position 0, in one causal pass.

        `observe` sees every activation site once, with all T rows.
        """
        return self._forward(tokens, 0, self._new_cache(len(tokens)), observe)

    def generate(
        self, prompt: Sequence[int], n: int, temperature: float = 0.0, seed: int = 0, stop: Collection[int] = ()
    ) -> list[int]:
        """Up to `n` tokens after `prompt` (BOS included); ends before a token in `stop`.

        Greedy (the first best) at temperature 0, else sampled by Gumbel-max from a generator seeded with `seed`.
        Restarts the cache at position 0.
        """
        if not prompt or temperature < 0:
            raise ValueError(f"prompt must hold a token and temperature be >= 0, not {prompt!r} and {temperature!r}")
        if len(prompt) + n - 1 > self.config.seq_len:
            raise TspError(
                f"{len(prompt)} prompt tokens and {n} new ones need {len(prompt) + n - 1} positions,"
                f" the model has {self.config.seq_len}: ask for fewer tokens"
            )
        rng = np.random.default_rng(seed)
        logits = self._forward(prompt, 0, self._cache, None)[-1]
        tokens: list[int] = []
        while len(tokens) < n:
            token = _choose(logits, temperature, rng)
            if token in stop:
                break
            tokens.append(token)
            if len(tokens) < n:
                logits = self.step(token, len(prompt) + len(tokens) - 1)
        return tokens

    def generate_together(self, first: int, n: int, seeds: Sequence[int]) -> list[list[int]]:
        """Several texts at temperature 1, each of `n` tokens after `first`, each from a generator of its seed.

        The same as `generate` for each seed, but for the order of sums; weights are read once for all texts.
        """
        cache = self._new_cache(n, len(seeds))
        generators = [np.random.default_rng(seed) for seed in seeds]
        steps = [[first] * len(seeds)]
        for position in range(n):
            logits = self._forward(steps[-1], position, cache, None)
            steps.append([_choose(row, 1.0, rng) for row, rng in zip(logits, generators, strict=True)])
        return [list(text[1:]) for text in zip(*steps, strict=True)]

    def _new_cache(self, capacity: int, *texts: int) -> _Cache:
        shape = (self.config.n_layers, *texts, self.config.n_kv_heads, capacity, self.config.head_dim)
        return _Cache(k=np.zeros(shape, self.dtype), v=np.zeros(shape, self.dtype))

    def _forward(self, tokens: Sequence[int], start: int, cache: _Cache, observe: Observe | None) -> np.ndarray:
        """Logits [T, vocab] of `tokens` at positions start, start+1, ...; the cache must hold 0..start-1.

        With a cache of several texts, the tokens all are at position `start`, each of a text of its own.
        """
        ids = self._check(tokens, start, 1 if cache.together else len(tokens))
        see = observe or _ignore
        x = self._w["tok_emb"][ids]
        see(EMBEDDING, x)
        for layer in range(self.config.n_layers):
            x = x + self._attention(x, layer, start, cache, see)
            x = x + self._ffn(x, layer, see)
        see(X_FINAL, x)
        h = self._norm(x, self._w["final_norm"])
        see(FINAL_NORM, h)
        logits = h @ self._w["classifier"].T
        see(LOGITS, logits)
        return logits

    def _check(self, tokens: Sequence[int], start: int, positions: int) -> np.ndarray:
        ids = np.asarray(tokens, np.int64)
        if not len(ids) or start < 0 or start + positions > self.config.seq_len:
            raise TspError(
                f"positions must lie in 0..{self.config.seq_len - 1} (the model's context),"
                f" not {start}..{start + positions - 1}"
            )
        if ids.min() < 0 or ids.max() >= self.config.vocab_size:
            raise TspError(
                f"tokens must lie in 0..{self.config.vocab_size - 1} (the model's vocabulary),"
                f" not {ids.min()}..{ids.max()}"
            )
        return ids

    def _norm(self, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
        scale = np.einsum("td,td->t", x, x) / x.shape[1] + self.config.norm_eps
        return x * (1 / np.sqrt(scale))[:, None] * weight

    def _attention(self, x: np.ndarray, layer: int, start: int, cache: _Cache, see: Observe) -> np.ndarray:
        """What the attention block adds to the residual x [T, dim]."""
        c = self.config
        see(layer_site(layer, "x_att"), x)
        h = self._norm(x, self._w["att_norm"][layer])
        see(layer_site(layer, "att_norm"), h)
        q_dim, kv_dim = c.n_heads * c.head_dim, c.n_kv_heads * c.head_dim
        qkv = h @ self._w_qkv[layer].T
        q, k, v = qkv[:, :q_dim], qkv[:, q_dim : q_dim + kv_dim], qkv[:, q_dim + kv_dim :]
        see(layer_site(layer, "q_proj"), q)
        see(layer_site(layer, "k_proj"), k)
        positions = start + (np.zeros(len(x), int) if cache.together else np.arange(len(x)))
        q, k = self._rope(q, positions), self._rope(k, positions)
        see(layer_site(layer, "q"), q)
        see(layer_site(layer, "k"), k)
        see(layer_site(layer, "v"), v)
        att = self._remember_and_attend(q, k, v, layer, start, cache)
        see(layer_site(layer, "att"), att)
        out = att @ self._w["wo"][layer].T
        see(layer_site(layer, "wo"), out)
        return out

    def _remember_and_attend(
        self, q: np.ndarray, k: np.ndarray, v: np.ndarray, layer: int, start: int, cache: _Cache
    ) -> np.ndarray:
        """Keys and values [T, KV*hd] into the cache, then attention over all it holds; [T, H*hd]."""
        if cache.together:
            for kept, new in ((cache.k, k), (cache.v, v)):
                kept[layer, :, :, start] = new.reshape(len(new), -1, self.config.head_dim)
            return self._attend_together(q, *(kept[layer, :, :, : start + 1] for kept in (cache.k, cache.v)))
        end = start + len(q)
        cache.k[layer, :, start:end] = self._by_head(k)
        cache.v[layer, :, start:end] = self._by_head(v)
        return self._attend(q, cache.k[layer, :, :end], cache.v[layer, :, :end])

    def _attend(self, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Causal attention of queries [T, H*hd], the last T of S positions, over k and v [KV, S, hd]; [T, H*hd]."""
        c, t, s = self.config, len(q), k.shape[1]
        rows = self._by_head(q).reshape(c.n_kv_heads, c.group_size * t, c.head_dim)  # heads of a group share their K
        scores = (rows @ k.swapaxes(1, 2)).reshape(c.n_heads, t, s) / self.dtype(c.head_dim) ** 0.5
        if t > 1:
            scores[:, np.arange(s)[None, :] > np.arange(s - t, s)[:, None]] = -np.inf
        p = _softmax(scores)
        out = (p.reshape(c.n_kv_heads, c.group_size * t, s) @ v).reshape(c.n_heads, t, c.head_dim)
        return out.swapaxes(0, 1).reshape(t, -1)

    def _attend_together(self, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Attention of one query a text [texts, H*hd] over its k and v [texts, KV, S, hd]; [texts, H*hd]."""
        c = self.config
        scores = q.reshape(len(q), c.n_kv_heads, c.group_size, c.head_dim) @ k.swapaxes(2, 3)
        return (_softmax(scores / self.dtype(c.head_dim) ** 0.5) @ v).reshape(len(q), -1)

    def _ffn(self, x: np.ndarray, layer: int, see: Observe) -> np.ndarray:
        """What the SwiGLU block adds to the residual x [T, dim]."""
        see(layer_site(layer, "x_ffn"), x)
        h = self._norm(x, self._w["ffn_norm"][layer])
        see(layer_site(layer, "ffn_norm"), h)
        gate_up = h @ self._w_gate_up[layer].T
        gate, up = gate_up[:, : self.config.hidden_dim], gate_up[:, self.config.hidden_dim :]
        see(layer_site(layer, "gate"), gate)
        see(layer_site(layer, "up"), up)
        product = gate * (0.5 + 0.5 * np.tanh(0.5 * gate)) * up  # silu by tanh, which cannot overflow
        see(layer_site(layer, "silu"), product)
        out = product @ self._w["w2"][layer].T
        see(layer_site(layer, "w2"), out)
        return out

    def _rope(self, x: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Rotate the pairs (2i, 2i+1) of every head of x [T, heads*hd] by their position [T]."""
        pairs = x.reshape(len(x), -1, self.config.head_dim // 2, 2)
        cos, sin = (table[positions, None, :] for table in (self._cos, self._sin))
        out = np.empty_like(pairs)
        out[..., 0] = pairs[..., 0] * cos - pairs[..., 1] * sin
        out[..., 1] = pairs[..., 0] * sin + pairs[..., 1] * cos
        return out.reshape(x.shape)

    def _by_head(self, x: np.ndarray) -> np.ndarray:
        """[T, heads*hd] to [heads, T, hd]."""
        return x.reshape(len(x), -1, self.config.head_dim).swapaxes(0, 1)


class FloatModels:
    """The float models of a checkpoint, each made once, when it is first wanted.

    fast: in float32; writes texts and calibrates. exact: in float64, what integer models are compared with; that of a
    model of MANY_PARAMETERS is `fast`, too, whose rounding is far below what 8 bits cost, and half as large.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint

    @cached_property
    def fast(self) -> FloatModel:
        return FloatModel(self._checkpoint, np.float32)

    @cached_property
    def exact(self) -> FloatModel:
        return self.fast if self._checkpoint.n_parameters >= MANY_PARAMETERS else FloatModel(self._checkpoint)


def rope_tables(config: ModelConfig) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and sine [seq_len, head_dim/2] of position * theta^(-2i/head_dim), float64."""
    frequencies = config.rope_theta ** (-np.arange(0, config.head_dim, 2) / config.head_dim)
    angles = np.arange(config.seq_len)[:, None] * frequencies[None, :]
    return np.cos(angles), np.sin(angles)


def _softmax(scores: np.ndarray) -> np.ndarray:
    """Of each row along the last axis."""
    p = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return p / p.sum(axis=-1, keepdims=True)


def _ignore(site: str, values: np.ndarray) -> None:
    """Observe nothing."""


def _choose(logits: np.ndarray, temperature: float, rng: np.random.Generator) -> int:
    if temperature > 0:
        logits = logits / temperature + rng.gumbel(size=len(logits))
    return int(np.argmax(logits))
