"""Quantisation: a float checkpoint becomes an `IntegerModel` (docs/numerics.md).

Weights are int8 with one scale a row. Every static activation scale is a vector over channels that is folded into
the neighbouring weights: h8 = h / s with s in the norm's gains and in the columns of the matrices behind it, v8 with
s in the rows of Wv and the columns of Wo, f with s in the rows of W3 and the columns of W2.
Shifts are shared by all layers. A row's channel scale M is rounded to an integer first and the row's weights are
quantised with what M then stands for, so that rounding M loses nothing.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from compiler.checkpoint import Checkpoint
from compiler.errors import TspError
from compiler.float_model import FINAL_NORM, LAYER_SITES, X_FINAL, FloatModel, layer_site
from compiler.integer import (
    GATE_FRACTION,
    LOGIT_FRACTION,
    MATRICES,
    Q_SHIFT,
    ROPE_FRACTION,
    SCORE_FRACTION,
    IntegerModel,
    IntegerState,
    Shifts,
    rope_tables,
)
from compiler.quality import Quality, kl_top1

CALIBRATION_SEQUENCES = 4
CALIBRATION_SEED = 20_000
RESIDUAL_BITS = 20
"""Bits of the largest calibrated residual, sign included; 12 more are headroom."""
NORM_BITS = 17
"""Bits of the largest calibrated residual at the norm's 18-bit operand, sign included."""
MARGIN = 1.15
"""Of static scales of 16-bit values over their calibrated maximum."""
F_SHIFT = 8
"""Shift of gate * up: at most 33 - 8 bits remain, so that the exponent of W2's input is at most 18."""
MAX_M = 32767
MAX_POST = 47


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Choices of a quantisation that trade one error against another.

    smooth_*: exponent of the activation's share when a channel's scale is divided between activation and weights
    (1: all activation channels get the same range, 0: one scale for the layer). clip_*: static clip in units of the
    calibrated maximum. av_gain: log2 of how much finer the attention output is stored than V.
    """

    smooth_att: float = 0.75
    smooth_ffn: float = 0.75
    smooth_v: float = 1.0
    smooth_up: float = 0.75
    clip_att: float = 1.0
    clip_ffn: float = 1.0
    clip_q: float = 1.0
    clip_v: float = 1.0
    av_gain: int = 0


def native_head_size(head_size: int) -> int:
    """The least head size that the chip's lanes serve without padding and that holds `head_size`: 8, 16, 32, 48..."""
    return 8 if head_size <= 8 else -(-head_size // 16) * 16


def sample_sequences(model: FloatModel, context: int, count: int, seed: int) -> list[list[int]]:
    """`count` texts of `context` tokens that the float model writes itself at temperature 1, beginning with BOS."""
    bos = min(1, model.config.vocab_size - 1)
    return [[bos, *model.generate([bos], context - 1, temperature=1.0, seed=seed + i)] for i in range(count)]


# ---- calibration ----


def calibrate(model: FloatModel, sequences: list[list[int]]) -> dict[str, np.ndarray]:
    """Activations [tokens of all sequences, features] of every site."""
    seen: dict[str, list[np.ndarray]] = {}
    for tokens in sequences:
        model.sequence_logits(tokens, lambda site, values: seen.setdefault(site, []).append(values.astype(np.float32)))
    return {site: np.concatenate(values) for site, values in seen.items()}


def pad_heads(checkpoint: Checkpoint, head_size: int) -> dict[str, np.ndarray]:
    """Weights as float64 with the heads of wq, wk, wv (rows) and wo (columns) zero-padded to `head_size`."""
    c = checkpoint.config
    weights = {name: w.astype(np.float64) for name, w in checkpoint.weights.items()}
    weights.setdefault("classifier", weights["tok_emb"])
    for name in ("wq", "wk", "wv"):
        rows = weights[name].reshape(c.n_layers, -1, c.head_dim, c.dim)
        rows = np.pad(rows, ((0, 0), (0, 0), (0, head_size - c.head_dim), (0, 0)))
        weights[name] = rows.reshape(c.n_layers, -1, c.dim)
    columns = weights["wo"].reshape(c.n_layers, c.dim, c.n_heads, c.head_dim)
    columns = np.pad(columns, ((0, 0), (0, 0), (0, 0), (0, head_size - c.head_dim)))
    weights["wo"] = columns.reshape(c.n_layers, c.dim, -1)
    return weights


def rope(context: int, head_dim: int, head_size: int, theta: float) -> tuple[np.ndarray, np.ndarray]:
    """The chip's RoPE tables of `head_dim`, with idle pairs up to `head_size`."""
    cos, sin = rope_tables(context, head_dim, theta)
    idle = ((0, 0), (0, (head_size - head_dim) // 2))
    return np.pad(cos, idle, constant_values=1 << ROPE_FRACTION), np.pad(sin, idle)


# ---- scales ----


def smooth(act: np.ndarray, weights: np.ndarray, share: float, clip: float, limit: int = 127) -> np.ndarray:
    """Scale a channel [in] so that act / scale fits +-limit: a geometric mean of per-channel and per-layer range.

    act: largest magnitudes of the activations' channels [in]; weights: those of the columns they meet [in].
    """
    act = np.maximum(act, 1e-6 * max(act.max(), 1e-30))
    weights = np.maximum(weights, 1e-6 * max(weights.max(), 1e-30))
    scale = act**share / weights ** (1 - share) if share else np.ones_like(act)
    return scale * (act / scale).max() * clip / limit


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Integer weights of a stack of matrices with their channel scales: y = (weights @ x) * scale / 2**total."""

    weights: np.ndarray
    scale: np.ndarray
    total: int

    def pre(self) -> int:
        """Least shift that brings every possible int8 product sum to 18 bits."""
        bound = int(np.abs(self.weights.astype(np.int64)).sum(-1).max()) * 127
        return max(0, bound.bit_length() - 17)


def row_scale(weights: np.ndarray, limit: int) -> np.ndarray:
    """Largest magnitude of each row in units of `limit`, never 0."""
    largest = np.abs(weights).max(-1)
    return np.maximum(largest, 1e-30) / limit


def total_shift(*needs: np.ndarray) -> int:
    """The largest shift at which every channel scale need * 2**shift fits int16."""
    largest = max(float(need.max()) for need in needs)
    return min(math.floor(math.log2(MAX_M / largest)), 60)


def quantise_rows(weights: np.ndarray, gain: np.ndarray, total: int, limit: int) -> Rows:
    """Integer rows for y = gain * (weights @ x) [out], given the common shift."""
    need = row_scale(weights, limit) * gain * 2.0**total
    scale = np.clip(np.ceil(need * (1 - 1e-12)), 1, MAX_M)
    step = scale / (gain * 2.0**total)
    rounded = np.clip(np.rint(weights / step[..., None]), -limit, limit)
    return Rows(weights=rounded.astype(np.int8), scale=scale.astype(np.int16), total=total)


def _limit(name: str, four_bit: frozenset[str]) -> int:
    return 7 if name in four_bit else 127


def _post(rows: Rows, pre: int, what: str) -> int:
    post = rows.total - pre
    if not 0 <= post <= MAX_POST:
        raise TspError(f"quantize: the shift behind {what} must be 0..{MAX_POST}, not {post}: scales out of range")
    return post


# ---- the model ----


def quantize(
    checkpoint: Checkpoint,
    *,
    context: int,
    calibration_tokens: list[list[int]] | None = None,
    four_bit: frozenset[str] = frozenset(),
    recipe: Recipe | None = None,
) -> IntegerModel:
    """The integer model of a checkpoint for sequences of up to `context` tokens.

    calibration_tokens: sequences to take static scales from; by default the float model writes some, always the same.
    four_bit: names of matrices (`MATRICES`) to hold in four bits. Raises `TspError` if a scale does not fit the chip.
    """
    c = checkpoint.config
    if not 1 <= context <= c.seq_len:
        raise TspError(f"quantize: context must be 1..{c.seq_len} (the model's context), not {context}")
    unknown = sorted(four_bit - set(MATRICES))
    if unknown:
        raise TspError(f"quantize: four_bit must name matrices of {', '.join(MATRICES)}, not {', '.join(unknown)}")
    model = FloatModel(checkpoint, np.float32)
    sequences = calibration_tokens or sample_sequences(model, context, CALIBRATION_SEQUENCES, CALIBRATION_SEED)
    sites = calibrate(model, sequences)
    return _Quantiser(checkpoint, context, sites, four_bit, recipe or Recipe()).build()


class _Quantiser:
    """Works through the model from embedding to logits; `build` returns the whole."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        context: int,
        sites: dict[str, np.ndarray],
        four_bit: frozenset[str],
        recipe: Recipe,
    ) -> None:
        self.config = checkpoint.config
        self.context = context
        self.head_size = native_head_size(self.config.head_dim)
        self.weights = pad_heads(checkpoint, self.head_size)
        self.recipe = recipe
        self.four_bit = four_bit
        layers = range(self.config.n_layers)
        self.peak = {s: np.stack([np.abs(sites[layer_site(n, s)]).max(0) for n in layers]) for s in LAYER_SITES}
        self.final_peak = float(np.abs(sites[FINAL_NORM]).max())
        residual = max(float(self.peak["x_att"].max()), float(self.peak["x_ffn"].max()))
        self.residual = max(residual, float(np.abs(sites[X_FINAL]).max()))
        self.fraction = RESIDUAL_BITS - 1 - math.ceil(math.log2(self.residual))

    def build(self) -> IntegerModel:
        """The integer model."""
        c = self.config
        cos, sin = rope(self.context, c.head_dim, self.head_size, c.rope_theta)
        parts = [self._embedding(), self._norms(), self._attention(), self._feed_forward()]
        arrays = {name: value for part, _ in parts for name, value in part.items()}
        shifts = {name: value for _, part in parts for name, value in part.items()}
        eps = arrays.pop("eps")
        return IntegerModel(
            dim=c.dim,
            hidden=c.hidden_dim,
            layers=c.n_layers,
            heads=c.n_heads,
            kv_heads=c.n_kv_heads,
            head_size=self.head_size,
            vocab=c.vocab_size,
            context=self.context,
            shifts=Shifts(**shifts),
            eps=int(eps),
            rope_cos=cos.astype(np.int16),
            rope_sin=sin.astype(np.int16),
            four_bit=self.four_bit,
            **arrays,
        )

    def _rows(self, name: str, weights: np.ndarray, gain: np.ndarray | float, total: int | None = None) -> Rows:
        gain = np.broadcast_to(gain, weights.shape[:-1])
        limit = _limit(name, self.four_bit)
        if total is None:
            total = total_shift(row_scale(weights, limit) * gain)
        return quantise_rows(weights, gain, total, limit)

    # -- embedding and classifier --

    def _embedding(self) -> tuple[dict, dict]:
        w = self.weights
        self.final_scale = self.final_peak * 2 * MARGIN / 32767
        classifier = self._rows("classifier", w["classifier"], self.final_scale * 2.0**LOGIT_FRACTION)
        shared = w["classifier"] is w["tok_emb"]
        embedding = classifier.weights if shared else self._rows("embedding", w["tok_emb"], 1.0).weights
        if shared:
            step = classifier.scale / (self.final_scale * 2.0 ** (LOGIT_FRACTION + classifier.total))
        else:
            step = row_scale(w["tok_emb"], 127)
        emb = total_shift(step) - self.fraction
        scale = np.rint(step * 2.0 ** (self.fraction + emb)).astype(np.int16)
        pre = classifier.pre()
        arrays = {"embedding": embedding, "emb_scale": scale, "classifier": classifier.weights, "mc": classifier.scale}
        return arrays, {"emb": emb, "cls_pre": pre, "cls": _post(classifier, pre, "the classifier")}

    # -- norms --

    def _norms(self) -> tuple[dict, dict]:
        """Gains: h / scale = xs * gain * rsqrt(sum of squares), all powers of two in the shifts."""
        w, r, c = self.weights, self.recipe, self.config
        columns_att = np.maximum.reduce([np.abs(w[n]).max(1) for n in ("wq", "wk", "wv")])
        columns_ffn = np.maximum(np.abs(w["w1"]).max(1), np.abs(w["w3"]).max(1))
        self.att_scale = self._smoothed("att_norm", columns_att, r.smooth_att, r.clip_att)
        self.ffn_scale = self._smoothed("ffn_norm", columns_ffn, r.smooth_ffn, r.clip_ffn)
        norm_x = RESIDUAL_BITS - NORM_BITS
        norm_sq = max(0, math.ceil(math.log2(-(-c.dim // 16) * 16)) + 34 - 31)
        ideal = math.sqrt(c.dim) * 2.0 ** (-norm_sq / 2)
        gains = {"g_att": w["att_norm"] / self.att_scale * ideal, "g_ffn": w["ffn_norm"] / self.ffn_scale * ideal}
        final = w["final_norm"] / self.final_scale * ideal
        scale_h = total_shift(*(np.abs(g) for g in gains.values()))
        scale_f = total_shift(np.abs(final))
        arrays = {name: np.rint(g * 2.0**scale_h).astype(np.int16) for name, g in gains.items()}
        arrays["g_final"] = np.rint(final * 2.0**scale_f).astype(np.int16)
        norm_g = 15
        eps = c.norm_eps * c.dim / (-(-c.dim // 16) * 16) * 4.0 ** (self.fraction - norm_x) / 2.0**norm_sq
        arrays["eps"] = np.array(round(eps))
        shifts = {"norm_x": norm_x, "norm_sq": norm_sq, "norm_g": norm_g}
        return arrays, shifts | {"norm_h": scale_h + 15 - norm_g, "norm_f": scale_f + 15 - norm_g}

    def _smoothed(self, site: str, columns: np.ndarray, share: float, clip: float) -> np.ndarray:
        pairs = zip(self.peak[site], columns, strict=True)
        return np.stack([smooth(act, weights, share, clip) for act, weights in pairs])

    # -- attention --

    def _attention(self) -> tuple[dict, dict]:
        w, s = self.weights, self.att_scale[:, None, :]
        q_gain, k_gain, score_total = self._score_scales()
        v_scale = self._v_scale()
        wq, wk, wv = w["wq"] * s, w["wk"] * s, w["wv"] * s
        need = [row_scale(x, _limit(n, self.four_bit)) * g for n, x, g in (("wq", wq, q_gain), ("wk", wk, k_gain))]
        total = total_shift(*need)
        q, k = self._rows("wq", wq, q_gain, total), self._rows("wk", wk, k_gain, total)
        v = self._rows("wv", wv, 1 / v_scale)
        pre = max(q.pre(), k.pre(), v.pre())
        o_scale = self._per_query_head(v_scale) * 2.0**-self.recipe.av_gain
        o = self._rows("wo", w["wo"] * o_scale[:, None, :], 2.0**self.fraction)
        score_pre = max(0, (self.head_size * 127 * 127).bit_length() - 17)
        av_pre = max(0, (self.context * 127 * 127).bit_length() - 17)
        shifts = {
            "qkv_pre": pre,
            "qk": _post(q, pre, "Wq and Wk"),
            "v": _post(v, pre, "Wv"),
            "score_pre": score_pre,
            "score": score_total - score_pre,
            "av_pre": av_pre,
            "av": 15 - av_pre - self.recipe.av_gain,
            "wo_pre": o.pre(),
            "wo": _post(o, o.pre(), "Wo"),
        }
        matrices = {"wq": q, "wk": k, "wv": v, "wo": o}
        arrays = {name: rows.weights for name, rows in matrices.items()}
        return arrays | {"m" + name[1]: rows.scale for name, rows in matrices.items()}, shifts

    def _score_scales(self) -> tuple[np.ndarray, np.ndarray, int]:
        """What q and k are multiplied by [L, rows], and the shifts of the score together.

        (sum q8 * k8) * largest = q.k * (127 / clip) * 128 * k_gain must be the score in log2 units << shifts.
        """
        c = self.config
        peak_q = np.maximum(self._head_peak("q", "q_proj"), 1e-6)
        peak_k = np.maximum(self._head_peak("k", "k_proj"), 1e-6)
        clip = peak_q * self.recipe.clip_q
        q_gain = 127 * 2.0**Q_SHIFT / clip
        unit = (1 << SCORE_FRACTION) * math.log2(math.e) / math.sqrt(c.head_dim) * clip / (127 * 128)
        total = total_shift(unit * peak_k * MARGIN)
        k_gain = unit * 2.0**total
        return self._per_query_head(self._expand(q_gain)), self._expand(k_gain), total

    def _head_peak(self, *names: str) -> np.ndarray:
        """Largest magnitude a key/value head [L, K] (of all its query heads) over sites [L, features]."""
        c = self.config
        return np.maximum.reduce([self.peak[n].reshape(c.n_layers, c.n_kv_heads, -1).max(-1) for n in names])

    def _expand(self, x: np.ndarray) -> np.ndarray:
        """[L, K] to [L, K * hd]."""
        return np.repeat(x, self.head_size, axis=1)

    def _per_query_head(self, x: np.ndarray) -> np.ndarray:
        """[L, K * hd] to [L, H * hd]: a key/value head's channels for each of its query heads."""
        c = self.config
        x = x.reshape(c.n_layers, c.n_kv_heads, 1, self.head_size)
        return np.repeat(x, c.group_size, axis=2).reshape(c.n_layers, -1)

    def _v_scale(self) -> np.ndarray:
        """Static scale of V's channels [L, K * hd]; padded channels get 1."""
        c = self.config
        columns = np.abs(self.weights["wo"]).max(1).reshape(c.n_layers, c.n_kv_heads, c.group_size, self.head_size)
        columns = columns.max(2)[..., : c.head_dim].reshape(c.n_layers, -1)
        scale = self._smoothed("v", columns, self.recipe.smooth_v, self.recipe.clip_v)
        scale = scale.reshape(c.n_layers, c.n_kv_heads, c.head_dim)
        padding = ((0, 0), (0, 0), (0, self.head_size - c.head_dim))
        return np.pad(scale, padding, constant_values=1.0).reshape(c.n_layers, -1)

    # -- feed forward --

    def _feed_forward(self) -> tuple[dict, dict]:
        w, s = self.weights, self.ffn_scale[:, None, :]
        gate = self._rows("w1", w["w1"] * s, 2.0**GATE_FRACTION)
        up_gain = self._up_gain()
        up = self._rows("w3", w["w3"] * s, up_gain)
        pre = max(gate.pre(), up.pre())
        f = F_SHIFT
        down = self._down(up_gain, f)
        shifts = {
            "ffn_pre": pre,
            "gate": _post(gate, pre, "W1"),
            "up": _post(up, pre, "W3"),
            "f": f,
            "w2_pre": down.pre(),
            "w2": _post(down, down.pre(), "W2"),
        }
        matrices = {"w1": gate, "w2": down, "w3": up}
        arrays = {name: rows.weights for name, rows in matrices.items()}
        return arrays | {"m" + name[1]: rows.scale for name, rows in matrices.items()}, shifts

    def _down(self, up_gain: np.ndarray, f: int) -> Rows:
        """W2 with the scale of its input folded into the columns: f is silu(gate) * up * up_gain * 2**(12 - f)."""
        columns = 1 / (up_gain * 2.0 ** (GATE_FRACTION - f))
        return self._rows("w2", self.weights["w2"] * columns[:, None, :], 2.0**self.fraction)

    def _up_gain(self) -> np.ndarray:
        """What W3's outputs are multiplied by [L, F]: int16 with margin, equalising the channels of W2's input."""
        scale = self._smoothed("silu", np.abs(self.weights["w2"]).max(1), self.recipe.smooth_up, 1.0)
        headroom = (np.maximum(self.peak["up"], 1e-6) / scale).max() * MARGIN
        return 32767 / (scale * headroom)


# ---- quality ----


def integer_logits(model: IntegerModel, tokens: list[int]) -> np.ndarray:
    """Logits [T, vocab] in natural units of the integer model after each token of a sequence."""
    state = IntegerState(model)
    return np.array([state.step(token) for token in tokens]) / (1 << LOGIT_FRACTION)


def evaluate(model: IntegerModel, checkpoint: Checkpoint, tokens: list[int] | list[list[int]]) -> Quality:
    """Distance of the integer model from the float model on one sequence, or on several taken together."""
    sequences = [tokens] if isinstance(tokens[0], int) else tokens
    reference = FloatModel(checkpoint)
    floats = np.concatenate([reference.sequence_logits(t) for t in sequences])
    return kl_top1(floats, np.concatenate([integer_logits(model, t) for t in sequences]))


def with_recipe(recipe: Recipe, **changes: float) -> Recipe:
    """The recipe with some choices changed."""
    return replace(recipe, **changes)
