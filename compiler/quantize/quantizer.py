"""Quantisation: a float checkpoint becomes an `IntegerModel` (docs/reference/numerics.md).

Weights are int8 with one scale a row. Every static activation scale is a vector over channels that is folded into
the neighbouring weights: h8 = h / s with s in the norm's gains and in the columns of the matrices behind it, v8 with
s in the rows of Wv and the columns of Wo, f8 with s in the rows of W3 and the columns of W2. What is quantised
dynamically is so scaled, too, but to 16 bits or more.
Shifts are shared by all layers. A row's channel scale M is rounded to an integer first and the row's weights are
quantised with what M then stands for, so that rounding M loses nothing.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from arch.config import MAX_LANES
from arch.vectors import ceil_div
from base.errors import TspError
from compiler.frontend.checkpoint import Checkpoint
from compiler.place.geometry import native_head_size
from program.arithmetic import ROPE_FRACTION, rope_tables
from program.integer import (
    FLAGS,
    GATE_FRACTION,
    KEY_SHIFT,
    KEYS,
    LOGIT_FRACTION,
    MOST_HEAD_SIZE,
    Q_SHIFT,
    RESIDUAL,
    SCORE_FRACTION,
    SCORE_SHIFTS,
    IntegerModel,
    Shifts,
    groups,
)
from program.quality import Quality
from program.reference import MOST_ROWS, IntegerState

from .calibrate import CALIBRATION_SEEDS, INPUT_SITES, Statistics, calibrate, check_peaks, sample_sequences, text_length
from .distance import kl_top1
from .float_model import FINAL_NORM, X_FINAL, FloatModel
from .keys import key_scales
from .rounding import Rows, compensated, integer_scales, nearest, row_steps, searched_steps, total_shift

RESIDUAL_BITS = 20
"""Bits of the largest calibrated residual, sign included; 12 more are headroom."""
NORM_BITS = 17
"""Bits of the largest calibrated residual at the norm's 18-bit operand, sign included."""
MARGIN = 1.15
"""Of static scales of 16-bit values over their calibrated maximum."""
F_SHIFT = 8
"""Shift of gate * up if W2's input is dynamic."""
GREATEST_EXPONENT = {"att_norm": 8, "ffn_norm": 8, "final_norm": 8, "silu": 17 + 15 - F_SHIFT - 7}
"""Of the dynamic inputs: of 16 bits, and of a product of 18 by 16 bits that F_SHIFT is taken from. The shifts behind
are as much at least, so that no exponent is ever clamped."""
LEAST_GATE_FRACTION = 8
"""Fraction bits of the gate that are left to it at least, however large gates are."""
WIDE = 32767 / (2 * MARGIN)
"""What the largest calibrated value of a dynamic input is before it gets its exponent."""
BEHIND = {"att_norm": ("qk", "v"), "ffn_norm": ("gate", "up"), "silu": ("w2",), "final_norm": ("cls",)}
"""Shifts of the products of a site, which the exponent of a dynamic input is taken from."""
MAX_PRE, MAX_POST = 31, 47
MATRICES_OF_LAYERS = ("wq", "wk", "wv", "wo", "w1", "w2", "w3")
"""What is read layer by layer, each time that it is wanted."""
MAX_EPS = (1 << 17) - 1
"""An immediate of the ALU."""
SCALED = {
    "emb": "tok_emb", "cls_pre": "classifier", "cls": "classifier", "norm_x": "residual", "norm_sq": "residual",
    "norm_g": "gains of the norms", "norm_att": "att_norm", "norm_ffn": "ffn_norm", "norm_f": "final_norm",
    "qkv_pre": "wq, wk and wv", "qk": "wq and wk", "v": "wv", "score_pre": "wq and wk", "score": "wq and wk",
    "av_pre": "wv", "av": "wv", "wo_pre": "wo", "wo": "wo", "ffn_pre": "w1 and w3", "gate": "w1", "up": "w3",
    "sigmoid": "w1", "f": "w2", "w2_pre": "w2", "w2": "w2",
}
"""What a shift scales."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Choices of a quantisation that trade one error against another.

    smooth_*: exponent of the activation's share when a channel's scale is divided between activation and weights
    (1: all activation channels get the same range, 0: one scale for the layer). clip_*: static clip in units of the
    calibrated maximum. av_gain: log2 of how much finer the attention output is stored than V. group: channels of a
    group of W2's input that has an exponent of its own (0: as `integer.groups`).
    """

    smooth_att: float = 0.75
    smooth_ffn: float = 0.75
    smooth_v: float = 1.0
    smooth_up: float = 0.75
    clip_att: float = 1.0
    clip_ffn: float = 1.0
    balance: float = 0.5
    clip_q: float = 1.0
    clip_v: float = 1.0
    av_gain: int = 0
    group: int = 0

ROBUST_RECIPE = Recipe(smooth_att=0.5, smooth_ffn=0.5, smooth_up=0.5, group=128)
"""For a rotated model: its channels are alike, and W2's input has exponents of small groups."""


def pad_heads(name: str, layer: np.ndarray, heads: int, head_size: int) -> np.ndarray:
    """A layer's matrix [out, in] as float64 with the heads of wq, wk, wv (rows) and wo (columns) zero-padded to
    `head_size`."""
    layer = layer.astype(np.float64)
    if name == "wo":
        columns = layer.reshape(len(layer), heads, -1)
        return np.pad(columns, ((0, 0), (0, 0), (0, head_size - columns.shape[2]))).reshape(len(layer), -1)
    if name in ("wq", "wk", "wv"):
        rows = layer.reshape(heads, -1, layer.shape[1])
        return np.pad(rows, ((0, 0), (0, head_size - rows.shape[1]), (0, 0))).reshape(-1, layer.shape[1])
    return layer


def rope(context: int, head_dim: int, head_size: int, theta: float) -> tuple[np.ndarray, np.ndarray]:
    """The chip's RoPE tables of `head_dim`, with idle pairs up to `head_size`."""
    cos, sin = rope_tables(context, head_dim, theta)
    idle = ((0, 0), (0, (head_size - head_dim) // 2))
    return np.pad(cos, idle, constant_values=1 << ROPE_FRACTION), np.pad(sin, idle)


# ---- scales ----


def smooth(act: np.ndarray, weights: np.ndarray, share: float, clip: float, limit: float) -> np.ndarray:
    """Scale a channel [in] so that act / scale fits +-limit: a geometric mean of per-channel and per-layer range.

    act: largest magnitudes of the activations' channels [in]; weights: those of the columns they meet [in].
    """
    act = np.maximum(act, 1e-6 * max(act.max(), 1e-30))
    weights = np.maximum(weights, 1e-6 * max(weights.max(), 1e-30))
    scale = act**share / weights ** (1 - share) if share else np.ones_like(act)
    return scale * (act / scale).max() * clip / limit


def check_shifts(shifts: Shifts, dynamic: frozenset[str]) -> None:
    """Raise TspError where a shift leaves the chip's range, or an exponent that is taken from it may be more.

    Exponents that are added may take a post shift beyond MAX_POST: the chip clamps it, and either shift leaves 0 of a
    product of 36 bits.
    """
    behind = {name: site for site in dynamic if site in BEHIND for name in BEHIND[site]}
    for name, value in vars(shifts).items():
        low = GREATEST_EXPONENT[behind[name]] if name in behind else 0
        high = MAX_PRE if name.endswith("_pre") or name == "norm_x" else MAX_POST
        if name == "sigmoid":
            low, high = LEAST_GATE_FRACTION - GATE_FRACTION, 0
        if name == "score" and KEYS not in dynamic:
            low, high = SCORE_SHIFTS[0], SCORE_SHIFTS[-1]
        if not low <= value <= high:
            raise TspError(
                f"quantize: shift {name} must be {low}..{high}, not {value}: scales of {SCALED[name]} differ too much "
                "from those around them; try other --scales, or export the model with weights of ordinary size"
            )


# ---- the model ----


def quantize(
    checkpoint: Checkpoint,
    *,
    context: int,
    calibration_tokens: Sequence[Sequence[int]] | None = None,
    four_bit: frozenset[str] = frozenset(),
    dynamic: frozenset[str] = frozenset(),
    recipe: Recipe | None = None,
    lanes: int = MAX_LANES,
    first: int = -1,
) -> IntegerModel:
    """The integer model of a checkpoint for sequences of up to `context` tokens.

    calibration_tokens: sequences to take static scales from; by default the float model writes some, always the same.
    four_bit: names of matrices (`MATRICES`) to hold in four bits. dynamic: inputs (`SITES`) that get an exponent of
    each token. lanes: of the chip. first: a token that every sequence begins with, whose keys and values become
    constants of the model; -1: none.
    Raises `TspError`, naming the checkpoint's source, if a scale does not fit the chip.
    """
    return quantiser(checkpoint, context=context, calibration_tokens=calibration_tokens, four_bit=four_bit,
                     recipe=recipe, lanes=lanes, first=first)(dynamic)


def quantiser(
    checkpoint: Checkpoint,
    *,
    context: int,
    calibration_tokens: Sequence[Sequence[int]] | None = None,
    four_bit: frozenset[str] = frozenset(),
    recipe: Recipe | None = None,
    lanes: int = MAX_LANES,
    first: int = -1,
    model: FloatModel | None = None,
) -> Callable[[frozenset[str]], IntegerModel]:
    """`quantize` but for its dynamic inputs: calibrates once, and makes the model with those that it is given.

    model: the checkpoint's float model in float32, if the caller has it.
    """
    c = checkpoint.config
    if not 1 <= context <= c.seq_len:
        raise TspError(f"quantize: context must be 1..{c.seq_len} (the model's context), not {context}")
    _check_names("four_bit", four_bit)
    model = model or FloatModel(checkpoint, np.float32)
    sequences = calibration_tokens or sample_sequences(model, text_length(context, c.seq_len), CALIBRATION_SEEDS)
    statistics = calibrate(model, sequences, four_bit, first)
    with _about(checkpoint):
        check_peaks(statistics)

    def build(dynamic: frozenset[str]) -> IntegerModel:
        _check_names("dynamic", dynamic)
        if first >= 0 and KEYS not in dynamic:
            raise ValueError(f"dynamic must have {KEYS!r} if the first token is a constant")
        with _about(checkpoint):
            return _Quantiser(checkpoint, context, statistics, four_bit, dynamic, recipe or Recipe(), lanes,
                              first).build()

    return build


@contextlib.contextmanager
def _about(checkpoint: Checkpoint) -> Iterator[None]:
    """Errors name the checkpoint."""
    try:
        yield
    except TspError as error:
        raise TspError(f"{checkpoint.source}: {error}") from None


def _check_names(field: str, names: frozenset[str]) -> None:
    if unknown := sorted(names - {*FLAGS[field]}):
        raise TspError(f"quantize: {field} must name some of {', '.join(FLAGS[field])}, not {', '.join(unknown)}")


class _Quantiser:
    """Works through the model from embedding to logits; `build` returns the whole."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        context: int,
        statistics: Statistics,
        four_bit: frozenset[str],
        dynamic: frozenset[str],
        recipe: Recipe,
        lanes: int,
        first: int = -1,
    ) -> None:
        self.config = checkpoint.config
        self.first = first
        self.context = context
        self.lanes = lanes
        self.head_size = native_head_size(self.config.head_dim, lanes)
        self.weights = {name: weight if name in MATRICES_OF_LAYERS else np.asarray(weight)
                        for name, weight in checkpoint.weights.items()}
        self.weights.setdefault("classifier", self.weights["tok_emb"])
        self.recipe = recipe
        self.four_bit = four_bit
        self.dynamic = dynamic
        self.statistics = statistics
        self.peak = statistics.layer_peaks(self.config.n_layers)
        self.final_peak = float(statistics.peaks[FINAL_NORM].max())
        residual = max(float(self.peak[site].max()) for site in ("x_att", "x_ffn"))
        self.residual = max(residual, float(statistics.peaks[X_FINAL].max()))
        self.residual_bits = RESIDUAL_BITS
        self.fraction = RESIDUAL_BITS - 1 - math.ceil(math.log2(self.residual))

    def build(self) -> IntegerModel:
        """The integer model."""
        c = self.config
        cos, sin = rope(self.context, c.head_dim, self.head_size, c.rope_theta)
        self._input_scales()
        parts = [self._feed_forward(), self._embedding(), self._norms(), self._attention()]
        arrays = {name: value for part, _ in parts for name, value in part.items()}
        shifts = {name: value for _, part in parts for name, value in part.items()}
        eps = arrays.pop("eps")
        if self.first >= 0:
            arrays |= self._first_token()
        check_shifts(Shifts(**shifts), self.dynamic)
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
            lanes=self.lanes,
            rope_cos=cos.astype(np.int16),
            rope_sin=sin.astype(np.int16),
            four_bit=self.four_bit,
            dynamic=self.dynamic,
            group=self.recipe.group if "silu" in self.dynamic else 0,
            first=self.first,
            **arrays,
        )

    # -- matrices --

    def _limit(self, name: str) -> int:
        return 7 if name in self.four_bit else 127

    def _rows(self, name: str, folded: np.ndarray, gain: np.ndarray | float) -> Rows:
        """Integer rows of a matrix for y = gain * (weights * folded) @ (x / folded).

        folded: scales of the input [L, in]; gain [L, out].
        """
        return self._jointly({name: gain}, folded)[0]

    def _jointly(self, gains: dict[str, np.ndarray | float], folded: np.ndarray) -> list[Rows]:
        """Rows of several matrices of one input whose channel scales share a shift."""
        moments = {name: self._moments(name, folded) for name in gains}
        steps = {name: self._steps(name, folded, moments[name]) for name in gains}
        wide = {name: np.broadcast_to(gain, steps[name].shape) for name, gain in gains.items()}
        total = total_shift(*(steps[name] * wide[name] for name in gains))
        return [self._rounded(name, folded, steps[name], wide[name], total, moments[name]) for name in gains]

    def _layers(self, name: str) -> int:
        return 1 if name == "classifier" else self.config.n_layers

    def _folded(self, name: str, layer: int, folded: np.ndarray) -> np.ndarray:
        """A layer of a matrix as float64 [out, in], its heads padded, times the scales of its input [L, in]."""
        if name == "classifier":
            return self.weights[name] if (folded == 1).all() else self.weights[name] * folded[layer]
        heads = {"wo": self.config.n_heads, "wq": self.config.n_heads}.get(name, self.config.n_kv_heads)
        return pad_heads(name, self.weights[name][layer], heads, self.head_size) * folded[layer]

    def _columns(self, name: str) -> np.ndarray:
        """Largest magnitude of each column of a matrix of layers [L, in], without padding."""
        return np.stack([np.abs(layer).max(0) for layer in self.weights[name]]).astype(np.float64)

    def _moments(self, name: str, folded: np.ndarray) -> np.ndarray | None:
        """Second moments [L, in, in] of a four-bit matrix' input after folding, heads padded."""
        if name not in self.four_bit:
            return None
        c, moments = self.config, self.statistics.layer_moments(self.config.n_layers, INPUT_SITES[name])
        if name == "wo" and self.head_size != c.head_dim:
            pad = (0, self.head_size - c.head_dim)
            moments = moments.reshape(-1, c.n_heads, c.head_dim, c.n_heads, c.head_dim)
            size = c.n_heads * self.head_size
            moments = np.pad(moments, ((0, 0), (0, 0), pad, (0, 0), pad)).reshape(-1, size, size)
        return moments / folded[..., None] / folded[..., None, :]

    def _steps(self, name: str, folded: np.ndarray, moments: np.ndarray | None) -> np.ndarray:
        """A step for each row [L, out]."""
        layers = (self._folded(name, layer, folded) for layer in range(self._layers(name)))
        if moments is None:
            return np.stack([row_steps(w, self._limit(name)) for w in layers])
        pairs = zip(layers, moments, strict=True)
        return np.stack([searched_steps(w, self._limit(name), np.diag(h)) for w, h in pairs])

    def _rounded(
        self, name: str, folded: np.ndarray, steps: np.ndarray, gain: np.ndarray, total: int, moments: np.ndarray | None
    ) -> Rows:
        scale, steps = integer_scales(steps, gain, total)
        limit, weights = self._limit(name), []
        for layer in range(self._layers(name)):
            w = self._folded(name, layer, folded)
            weights.append(nearest(w, steps[layer], limit) if moments is None else
                           compensated(w, steps[layer], limit, moments[layer]))
        return Rows(weights=np.stack(weights) if len(weights) > 1 else weights[0][None], scale=scale, total=total)

    # -- embedding and classifier --

    def _embedding(self) -> tuple[dict, dict]:
        tok_emb = self.weights["tok_emb"]
        self.final_scale = self.final_peak / (WIDE if "final_norm" in self.dynamic else 127)
        unit = self.final_scale * 2.0**LOGIT_FRACTION
        rows = self._rows("classifier", np.ones((1, self.config.dim)), unit)
        classifier = embedding = rows.weights[0]
        step = rows.scale[0] / (unit * 2.0**rows.total)
        if self.weights["classifier"] is not tok_emb:
            step = row_steps(tok_emb, 127)
            embedding = nearest(tok_emb, step, 127)
        emb = total_shift(step) - self.fraction
        scale = np.rint(step * 2.0 ** (self.fraction + emb)).astype(np.int16)
        arrays = {"embedding": embedding, "emb_scale": scale, "classifier": classifier, "mc": rows.scale[0]}
        return arrays, {"emb": emb, "cls_pre": rows.pre(), "cls": rows.total - rows.pre()}

    # -- norms --

    def _input_scales(self) -> None:
        """Static scales of the norms' outputs."""
        r = self.recipe
        columns_att = np.maximum.reduce([self._columns(n) for n in ("wq", "wk", "wv")])
        columns_ffn = np.maximum(self._columns("w1"), self._columns("w3"))
        self.att_scale = self._smoothed(
            "att_norm", columns_att, self._share(r.smooth_att, "wq", "wk", "wv"), r.clip_att
        )
        self.ffn_scale = self._smoothed("ffn_norm", columns_ffn, self._share(r.smooth_ffn, "w1", "w3"), r.clip_ffn)

    def _norms(self) -> tuple[dict, dict]:
        """Gains: h / scale = xs * gain * rsqrt(sum of squares), all powers of two in the shifts."""
        w, c = self.weights, self.config
        norm_x = 0 if RESIDUAL in self.dynamic else max(0, self.residual_bits - NORM_BITS)
        padded = ceil_div(c.dim, self.lanes) * self.lanes
        norm_sq = max(0, math.ceil(math.log2(padded)) + 34 - 31)
        ideal = math.sqrt(c.dim) * 2.0 ** (-norm_sq / 2)
        gains = {"g_att": w["att_norm"] / self.att_scale * ideal, "g_ffn": w["ffn_norm"] / self.ffn_scale * ideal,
                 "g_final": w["final_norm"] / self.final_scale * ideal}
        totals = {name: total_shift(np.abs(g)) for name, g in gains.items()}
        arrays = {name: np.rint(g * 2.0 ** totals[name]).astype(np.int16) for name, g in gains.items()}
        if RESIDUAL in self.dynamic:
            norm_g = 15
            eps = math.sqrt(c.norm_eps * c.dim / self.lanes) * 2.0**self.fraction
        else:
            norm_g = self._gain_shift(arrays, self.fraction - norm_x)
            eps = c.norm_eps * c.dim / padded * 4.0 ** (self.fraction - norm_x) / 2.0**norm_sq
        if eps > MAX_EPS:
            most = c.norm_eps * MAX_EPS / eps
            raise TspError(f"quantize: the epsilon of the norms (rms_norm_eps) must be at most {most:.2g} for a "
                           f"residual that reaches only {self.residual:.2g}, not {c.norm_eps:g}: export the model with "
                           "a smaller epsilon or with larger tok_emb, wo and w2")
        arrays["eps"] = np.array(round(eps))
        shifts = {name: totals[gain] + 15 - norm_g
                  for name, gain in (("norm_att", "g_att"), ("norm_ffn", "g_ffn"), ("norm_f", "g_final"))}
        return arrays, {"norm_x": norm_x, "norm_sq": norm_sq, "norm_g": norm_g, **shifts}

    def _gain_shift(self, gains: dict[str, np.ndarray], fraction: int) -> int:
        """Shift after the product with the gain: the largest calibrated value has 17 of the operand's 18 bits."""
        peaks = {"g_att": self.peak["x_att"], "g_ffn": self.peak["x_ffn"], "g_final": self.statistics.peaks[X_FINAL]}
        largest = max(float((peak * np.abs(gains[name])).max()) for name, peak in peaks.items())
        return min(max(math.ceil(math.log2(largest * 2.0**fraction / 65535)), 0), 15)

    def _share(self, share: float, *matrices: str) -> float:
        """0 before matrices of four bits, which have no precision to spare for activations."""
        return 0.0 if self.four_bit.intersection(matrices) else share

    def _smoothed(self, site: str, columns: np.ndarray, share: float, clip: float) -> np.ndarray:
        limit = WIDE if site in self.dynamic else 127
        pairs = zip(self.peak[site], columns, strict=True)
        return np.stack([smooth(act, weights, share, clip, limit) for act, weights in pairs])

    # -- attention --

    def _attention(self) -> tuple[dict, dict]:
        static = KEYS not in self.dynamic
        q_gain, k_gain, score_total, offset = self._static_keys() if static else (*self._score_scales(), None)
        v_scale = self._v_scale()
        self.k_gain, self.v_scale = k_gain, v_scale
        q, k = self._jointly({"wq": q_gain, "wk": k_gain}, self.att_scale)
        v = self._rows("wv", self.att_scale, 1 / v_scale)
        pre = max(q.pre(), k.pre(), v.pre())
        o_scale = self._per_query_head(v_scale) * 2.0**-self.recipe.av_gain
        o = self._rows("wo", o_scale, 2.0**self.fraction)
        score_pre = 0 if static else max(0, (self.head_size * 127 * 127).bit_length() - 17)
        av_pre = max(0, (self.context * 127 * 127).bit_length() - 17)
        shifts = {
            "qkv_pre": pre,
            "qk": q.total - pre,
            "v": v.total - pre,
            "score_pre": score_pre,
            "score": score_total - score_pre,
            "av_pre": av_pre,
            "av": 15 - av_pre - self.recipe.av_gain,
            "wo_pre": o.pre(),
            "wo": o.total - o.pre(),
        }
        matrices = {"wq": q, "wk": k, "wv": v, "wo": o}
        arrays = {name: rows.weights for name, rows in matrices.items()}
        arrays["key_offset"] = np.zeros(k.scale.shape, np.int16) if offset is None else offset
        return arrays | {"m" + name[1]: rows.scale for name, rows in matrices.items()}, shifts

    def _static_keys(self) -> tuple[np.ndarray, np.ndarray, int, np.ndarray]:
        """What the rows of Wq and Wk are multiplied by [L, rows], the shift of the score, and the offsets of keys."""
        if self.head_size > MOST_HEAD_SIZE:
            raise TspError(f"quantize: static keys have at most {MOST_HEAD_SIZE} channels, not {self.head_size}: "
                           "compile with --scales dynamic")
        found = key_scales(self.statistics, self.config, self.context)
        gains = (self._pairs(gain * 2.0**shift) for gain, shift in ((found.query, Q_SHIFT), (found.key, KEY_SHIFT)))
        query, key = gains
        offset = self._padded(found.offset.reshape(self.config.n_layers, -1)).reshape(self.config.n_layers, -1)
        return self._per_query_head(query), key, found.shift, offset

    def _score_scales(self) -> tuple[np.ndarray, np.ndarray, int]:
        """What the rows of Wq and Wk are multiplied by [L, rows], and the shifts of the score together.

        A RoPE pair of k is divided by a balance that q is multiplied by: their product stays. Then
        (sum q8 * k8) * largest = q.k * (127 / clip) * 128 * k_gain must be the score in log2 units << shifts.
        """
        c = self.config
        peak_q, peak_k = self._pair_peak("q", "q_proj"), self._pair_peak("k", "k_proj")
        balance = peak_k**self.recipe.balance / peak_q ** (1 - self.recipe.balance)
        clip = (peak_q * balance).max(-1, keepdims=True) * self.recipe.clip_q
        q_gain = 127 * 2.0**Q_SHIFT / clip * balance
        unit = (1 << SCORE_FRACTION) * math.log2(math.e) / math.sqrt(c.head_dim) * clip / (127 * 128) / balance
        total = total_shift(unit * peak_k * MARGIN)
        return self._per_query_head(self._pairs(q_gain)), self._pairs(unit * 2.0**total), total

    def _pair_peak(self, *names: str) -> np.ndarray:
        """Largest magnitude of a RoPE pair [L, K, hd / 2], of all query heads of a key/value head, over sites."""
        c = self.config
        shape = (c.n_layers, c.n_kv_heads, -1, c.head_dim // 2, 2)
        peak = np.maximum.reduce([self.peak[n].reshape(shape).max((2, 4)) for n in names])
        return np.maximum(peak, 1e-3 * max(float(peak.max()), 1e-20))

    def _pairs(self, x: np.ndarray) -> np.ndarray:
        """[L, K, hd / 2] to [L, K * hd]; padded pairs get the mean."""
        c = self.config
        x = np.repeat(x, 2, axis=2)
        padding = ((0, 0), (0, 0), (0, self.head_size - c.head_dim))
        return np.pad(x, padding, mode="mean").reshape(c.n_layers, -1)

    def _per_query_head(self, x: np.ndarray) -> np.ndarray:
        """[L, K * hd] to [L, H * hd]: a key/value head's channels for each of its query heads."""
        c = self.config
        x = x.reshape(c.n_layers, c.n_kv_heads, 1, self.head_size)
        return np.repeat(x, c.group_size, axis=2).reshape(c.n_layers, -1)

    def _v_scale(self) -> np.ndarray:
        """Static scale of V's channels [L, K * hd]; padded channels get 1."""
        c = self.config
        columns = self._columns("wo").reshape(c.n_layers, c.n_kv_heads, c.group_size, c.head_dim)
        columns = columns.max(2).reshape(c.n_layers, -1)
        scale = self._smoothed("v", columns, self._share(self.recipe.smooth_v, "wo"), self.recipe.clip_v)
        scale = scale.reshape(c.n_layers, c.n_kv_heads, c.head_dim)
        padding = ((0, 0), (0, 0), (0, self.head_size - c.head_dim))
        return np.pad(scale, padding, constant_values=1.0).reshape(c.n_layers, -1)

    # -- feed forward --

    def _feed_forward(self) -> tuple[dict, dict]:
        fraction = self._gate_fraction()
        gate = self._rows("w1", self.ffn_scale, 2.0**fraction)
        up_gain, f = self._up_gain(fraction)
        up = self._rows("w3", self.ffn_scale, up_gain)
        pre = max(gate.pre(), up.pre())
        down = self._rows("w2", 1 / (up_gain * 2.0 ** (fraction - f)), 2.0**self.fraction)
        w2_pre = down.pre(*groups(self.config.hidden_dim, self.recipe.group) if "silu" in self.dynamic else ())
        w2 = self._wide_enough(down.total - w2_pre)
        shifts = {
            "ffn_pre": pre,
            "gate": gate.total - pre,
            "up": up.total - pre,
            "sigmoid": fraction - GATE_FRACTION,
            "f": f,
            "w2_pre": w2_pre,
            "w2": w2,
        }
        matrices = {"w1": gate, "w2": down, "w3": up}
        arrays = {name: rows.weights for name, rows in matrices.items()}
        return arrays | {"m" + name[1]: rows.scale for name, rows in matrices.items()}, shifts

    def _wide_enough(self, w2: int) -> int:
        """W2's shift, from which any exponent of its input can be taken: if that costs them, the residual has fewer
        fraction bits."""
        lack = max(0, GREATEST_EXPONENT["silu"] - w2) if "silu" in self.dynamic else 0
        self.fraction -= lack
        self.residual_bits -= lack
        return w2 + lack

    def _gate_fraction(self) -> int:
        """Fraction bits of the gate: as many as leave its calibrated range room in 18 bits."""
        largest = float(self.peak["gate"].max()) * MARGIN
        return min(GATE_FRACTION, max(LEAST_GATE_FRACTION, 17 - math.ceil(math.log2(max(largest, 1.0)))))

    def _up_gain(self, fraction: int) -> tuple[np.ndarray, int]:
        """What W3's outputs are multiplied by [L, F]: int16 with margin, equalising the channels of W2's input; and the
        shift of gate * up, behind which that input has its scale if it is static."""
        scale = self._smoothed("silu", self._columns("w2"), self._share(self.recipe.smooth_up, "w2"), 1.0)
        most = 32767 / ((np.maximum(self.peak["up"], 1e-6) / scale).max() * MARGIN)
        if "silu" in self.dynamic:
            return most / scale, F_SHIFT
        f = math.floor(math.log2(most)) + fraction
        return 2.0 ** (f - fraction) / scale, f

    # -- constant first token --

    def _first_token(self) -> dict[str, np.ndarray]:
        """The integer keys, with their scales, and values of the first token, of which the float model's are known."""
        c, k, v = self.config, self.statistics.first["k"], self.statistics.first["v"]
        k16 = np.clip(np.rint(self._padded(k) * self.k_gain.reshape(c.n_layers, c.n_kv_heads, -1)), -32767, 32767)
        largest = np.maximum(np.abs(k16).max(2), 1)
        k8 = np.clip(np.rint(128 * k16 / largest[..., None]), -127, 127)
        v8 = np.clip(np.rint(self._padded(v) / self.v_scale.reshape(c.n_layers, c.n_kv_heads, -1)), -127, 127)
        return {"first_k": k8.astype(np.int8), "first_m": largest.astype(np.int16), "first_v": v8.astype(np.int8)}

    def _padded(self, x: np.ndarray) -> np.ndarray:
        """[L, K * head_dim] as [L, K, hd]."""
        x = x.reshape(self.config.n_layers, self.config.n_kv_heads, -1)
        return np.pad(x, ((0, 0), (0, 0), (0, self.head_size - self.config.head_dim)))


# ---- quality ----


def integer_logits(model: IntegerModel, tokens: Sequence[int]) -> np.ndarray:
    """Logits [T, vocab] in natural units of the integer model after each token of a sequence."""
    state = IntegerState(model)
    parts = [state.advance(tokens[start : start + MOST_ROWS]) for start in range(0, len(tokens), MOST_ROWS)]
    return np.concatenate(parts) / (1 << LOGIT_FRACTION)


def evaluate(model: IntegerModel, reference: FloatModel, *sequences: Sequence[int]) -> Quality:
    """Distance of the integer model from the float model on one sequence, or on several taken together."""
    floats = np.concatenate([reference.sequence_logits(tokens) for tokens in sequences])
    return kl_top1(floats, np.concatenate([integer_logits(model, tokens) for tokens in sequences]))
