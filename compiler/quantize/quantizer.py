"""Quantisation: a float checkpoint becomes an `IntegerModel` (docs/numerics.md).

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
from arch.isa import Sat
from arch.lanes import ceil_div
from arch.numerics import SAT_LIMIT
from base.errors import TspError
from compiler.frontend.checkpoint import Checkpoint
from compiler.place.geometry import native_head_size
from program.integer import (
    FLAGS,
    GATE_FRACTION,
    LOGIT_FRACTION,
    Q_SHIFT,
    ROPE_FRACTION,
    SCORE_FRACTION,
    IntegerModel,
    IntegerState,
    Shifts,
    rope_tables,
    rsr,
)
from program.quality import Quality

from .calibrate import CALIBRATION_SEEDS, INPUT_SITES, Statistics, calibrate, check_peaks, sample_sequences, text_length
from .float_model import FINAL_NORM, X_FINAL, FloatModel
from .quality import kl_top1
from .rounding import Rows, compensated, integer_scales, nearest, row_steps, searched_steps, total_shift

RESIDUAL_BITS = 20
"""Bits of the largest calibrated residual, sign included; 12 more are headroom."""
NORM_BITS = 17
"""Bits of the largest calibrated residual at the norm's 18-bit operand, sign included."""
MARGIN = 1.15
"""Of static scales of 16-bit values over their calibrated maximum."""
F_SHIFT = 8
"""Shift of gate * up if W2's input is dynamic: at most 33 - 8 bits remain, so that its exponent is at most 18."""
WIDE = 32767 / (2 * MARGIN)
"""What the largest calibrated value of a dynamic input is before it gets its exponent."""
BEHIND = {"att_norm": ("qk", "v"), "ffn_norm": ("gate", "up"), "silu": ("w2",), "final_norm": ("cls",)}
"""Shifts of the products of a site, which the exponent of a dynamic input is taken from."""
MAX_PRE, MAX_POST = 31, 47
MAX_EPS = (1 << 17) - 1
"""An immediate of the ALU."""
SCALED = {
    "emb": "tok_emb", "cls_pre": "classifier", "cls": "classifier", "norm_x": "residual", "norm_sq": "residual",
    "norm_g": "gains of the norms", "norm_att": "att_norm", "norm_ffn": "ffn_norm", "norm_f": "final_norm",
    "qkv_pre": "wq, wk and wv", "qk": "wq and wk", "v": "wv", "score_pre": "wq and wk", "score": "wq and wk",
    "av_pre": "wv", "av": "wv", "wo_pre": "wo", "wo": "wo", "ffn_pre": "w1 and w3", "gate": "w1", "up": "w3",
    "f": "w2", "w2_pre": "w2", "w2": "w2",
}
"""What a shift scales."""


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
    balance: float = 0.5
    clip_q: float = 1.0
    clip_v: float = 1.0
    av_gain: int = 0


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


def smooth(act: np.ndarray, weights: np.ndarray, share: float, clip: float, limit: float) -> np.ndarray:
    """Scale a channel [in] so that act / scale fits +-limit: a geometric mean of per-channel and per-layer range.

    act: largest magnitudes of the activations' channels [in]; weights: those of the columns they meet [in].
    """
    act = np.maximum(act, 1e-6 * max(act.max(), 1e-30))
    weights = np.maximum(weights, 1e-6 * max(weights.max(), 1e-30))
    scale = act**share / weights ** (1 - share) if share else np.ones_like(act)
    return scale * (act / scale).max() * clip / limit


def check_shifts(shifts: Shifts) -> None:
    """Raise TspError where a shift leaves the chip's range.

    Exponents may take a post shift beyond MAX_POST: the chip clamps it, and either shift leaves 0 of a product of 36
    bits. What they may not do, `check_exponents` says.
    """
    for name, value in vars(shifts).items():
        low = 0
        high = MAX_PRE if name.endswith("_pre") or name == "norm_x" else MAX_POST
        if not low <= value <= high:
            raise TspError(
                f"quantize: shift {name} must be {low}..{high}, not {value}: scales of {SCALED[name]} are too far from "
                "those around them; try other --scales, or export the model with weights of ordinary size"
            )


def greatest_exponent(site: str, shifts: Shifts) -> int:
    """The greatest exponent that a token can give a dynamic input: it leaves 7 bits of the largest magnitude.

    A norm's output has 16 bits, W2's input is gate (18 bits) * up (16 bits) >> f.
    """
    most = rsr(SAT_LIMIT[Sat.S18] * SAT_LIMIT[Sat.S16], shifts.f) if site == "silu" else SAT_LIMIT[Sat.S16]
    return int(most).bit_length() - 7


def check_exponents(shifts: Shifts, dynamic: frozenset[str]) -> None:
    """Raise TspError where an exponent can be more than the post shift that it is taken from.

    The chip clamps a post shift at 0, and the products of that token would be too small by a power of two.
    """
    for site in sorted(dynamic):
        most = greatest_exponent(site, shifts)
        for name in BEHIND[site]:
            if (value := getattr(shifts, name)) < most:
                raise TspError(
                    f"quantize: shift {name} must be at least {most}, not {value}, for exponents of {site} are taken "
                    f"from it: use --scales static, or export the model with smaller {SCALED[name]}"
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
) -> IntegerModel:
    """The integer model of a checkpoint for sequences of up to `context` tokens.

    calibration_tokens: sequences to take static scales from; by default the float model writes some, always the same.
    four_bit: names of matrices (`MATRICES`) to hold in four bits. dynamic: inputs (`SITES`) that get an exponent of
    each token. lanes: of the chip.
    Raises `TspError`, naming the checkpoint's source, if a scale does not fit the chip.
    """
    return quantiser(checkpoint, context=context, calibration_tokens=calibration_tokens, four_bit=four_bit,
                     recipe=recipe, lanes=lanes)(dynamic)


def quantiser(
    checkpoint: Checkpoint,
    *,
    context: int,
    calibration_tokens: Sequence[Sequence[int]] | None = None,
    four_bit: frozenset[str] = frozenset(),
    recipe: Recipe | None = None,
    lanes: int = MAX_LANES,
) -> Callable[[frozenset[str]], IntegerModel]:
    """`quantize` but for its dynamic inputs: calibrates once, and makes the model with those that it is given."""
    c = checkpoint.config
    if not 1 <= context <= c.seq_len:
        raise TspError(f"quantize: context must be 1..{c.seq_len} (the model's context), not {context}")
    _check_names("four_bit", four_bit)
    model = FloatModel(checkpoint, np.float32)
    sequences = calibration_tokens or sample_sequences(model, text_length(context, c.seq_len), CALIBRATION_SEEDS)
    statistics = calibrate(model, sequences, four_bit)
    with _about(checkpoint):
        check_peaks(statistics)

    def build(dynamic: frozenset[str]) -> IntegerModel:
        _check_names("dynamic", dynamic)
        with _about(checkpoint):
            return _Quantiser(checkpoint, context, statistics, four_bit, dynamic, recipe or Recipe(), lanes).build()

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
    ) -> None:
        self.config = checkpoint.config
        self.context = context
        self.lanes = lanes
        self.head_size = native_head_size(self.config.head_dim, lanes)
        self.weights = pad_heads(checkpoint, self.head_size)
        self.recipe = recipe
        self.four_bit = four_bit
        self.dynamic = dynamic
        self.statistics = statistics
        self.peak = statistics.layer_peaks(self.config.n_layers)
        self.final_peak = float(statistics.peaks[FINAL_NORM].max())
        residual = max(float(self.peak[site].max()) for site in ("x_att", "x_ffn"))
        self.residual = max(residual, float(statistics.peaks[X_FINAL].max()))
        self.fraction = RESIDUAL_BITS - 1 - math.ceil(math.log2(self.residual))

    def build(self) -> IntegerModel:
        """The integer model."""
        c = self.config
        cos, sin = rope(self.context, c.head_dim, self.head_size, c.rope_theta)
        parts = [self._embedding(), self._norms(), self._attention(), self._feed_forward()]
        arrays = {name: value for part, _ in parts for name, value in part.items()}
        shifts = {name: value for _, part in parts for name, value in part.items()}
        eps = arrays.pop("eps")
        check_shifts(Shifts(**shifts))
        check_exponents(Shifts(**shifts), self.dynamic)
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
        stacks = {name: self._stack(name) * folded[:, None, :] for name in gains}
        wide = {name: np.broadcast_to(gain, stacks[name].shape[:-1]) for name, gain in gains.items()}
        moments = {name: self._moments(name, folded) for name in gains}
        steps = {name: self._steps(name, stack, moments[name]) for name, stack in stacks.items()}
        total = total_shift(*(steps[name] * wide[name] for name in gains))
        return [self._rounded(name, stacks[name], steps[name], wide[name], total, moments[name]) for name in gains]

    def _stack(self, name: str) -> np.ndarray:
        """Weights [L, out, in] (one layer of the classifier)."""
        return self.weights[name].reshape(-1, *self.weights[name].shape[-2:])

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

    def _steps(self, name: str, stack: np.ndarray, moments: np.ndarray | None) -> np.ndarray:
        if moments is None:
            return row_steps(stack, self._limit(name))
        pairs = zip(stack, moments, strict=True)
        return np.stack([searched_steps(w, self._limit(name), np.diag(h)) for w, h in pairs])

    def _rounded(
        self, name: str, stack: np.ndarray, steps: np.ndarray, gain: np.ndarray, total: int, moments: np.ndarray | None
    ) -> Rows:
        scale, steps = integer_scales(steps, gain, total)
        if moments is None:
            weights = nearest(stack, steps, self._limit(name))
        else:
            each = zip(stack, steps, moments, strict=True)
            weights = np.stack([compensated(w, s, self._limit(name), h) for w, s, h in each])
        return Rows(weights=weights, scale=scale, total=total)

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

    def _norms(self) -> tuple[dict, dict]:
        """Gains: h / scale = xs * gain * rsqrt(sum of squares), all powers of two in the shifts."""
        w, r, c = self.weights, self.recipe, self.config
        columns_att = np.maximum.reduce([np.abs(w[n]).max(1) for n in ("wq", "wk", "wv")])
        columns_ffn = np.maximum(np.abs(w["w1"]).max(1), np.abs(w["w3"]).max(1))
        self.att_scale = self._smoothed(
            "att_norm", columns_att, self._share(r.smooth_att, "wq", "wk", "wv"), r.clip_att
        )
        self.ffn_scale = self._smoothed("ffn_norm", columns_ffn, self._share(r.smooth_ffn, "w1", "w3"), r.clip_ffn)
        norm_x = RESIDUAL_BITS - NORM_BITS
        padded = ceil_div(c.dim, self.lanes) * self.lanes
        norm_sq = max(0, math.ceil(math.log2(padded)) + 34 - 31)
        ideal = math.sqrt(c.dim) * 2.0 ** (-norm_sq / 2)
        gains = {"g_att": w["att_norm"] / self.att_scale * ideal, "g_ffn": w["ffn_norm"] / self.ffn_scale * ideal,
                 "g_final": w["final_norm"] / self.final_scale * ideal}
        totals = {name: total_shift(np.abs(g)) for name, g in gains.items()}
        arrays = {name: np.rint(g * 2.0 ** totals[name]).astype(np.int16) for name, g in gains.items()}
        norm_g = self._gain_shift(arrays, self.fraction - norm_x)
        eps = c.norm_eps * c.dim / padded * 4.0 ** (self.fraction - norm_x) / 2.0**norm_sq
        if eps > MAX_EPS:
            most = c.norm_eps * MAX_EPS / eps
            raise TspError(f"quantize: the epsilon of the norms (rms_norm_eps) must be at most {most:.2g} for a "
                           f"residual that reaches only {self.residual:.2g}, not {c.norm_eps:g}: export the model with "
                           "a smaller one or with larger tok_emb, wo and w2")
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
        q_gain, k_gain, score_total = self._score_scales()
        v_scale = self._v_scale()
        q, k = self._jointly({"wq": q_gain, "wk": k_gain}, self.att_scale)
        v = self._rows("wv", self.att_scale, 1 / v_scale)
        pre = max(q.pre(), k.pre(), v.pre())
        o_scale = self._per_query_head(v_scale) * 2.0**-self.recipe.av_gain
        o = self._rows("wo", o_scale, 2.0**self.fraction)
        score_pre = max(0, (self.head_size * 127 * 127).bit_length() - 17)
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
        return arrays | {"m" + name[1]: rows.scale for name, rows in matrices.items()}, shifts

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
        columns = np.abs(self.weights["wo"]).max(1).reshape(c.n_layers, c.n_kv_heads, c.group_size, self.head_size)
        columns = columns.max(2)[..., : c.head_dim].reshape(c.n_layers, -1)
        scale = self._smoothed("v", columns, self._share(self.recipe.smooth_v, "wo"), self.recipe.clip_v)
        scale = scale.reshape(c.n_layers, c.n_kv_heads, c.head_dim)
        padding = ((0, 0), (0, 0), (0, self.head_size - c.head_dim))
        return np.pad(scale, padding, constant_values=1.0).reshape(c.n_layers, -1)

    # -- feed forward --

    def _feed_forward(self) -> tuple[dict, dict]:
        gate = self._rows("w1", self.ffn_scale, 2.0**GATE_FRACTION)
        up_gain, f = self._up_gain()
        up = self._rows("w3", self.ffn_scale, up_gain)
        pre = max(gate.pre(), up.pre())
        down = self._rows("w2", 1 / (up_gain * 2.0 ** (GATE_FRACTION - f)), 2.0**self.fraction)
        shifts = {
            "ffn_pre": pre,
            "gate": gate.total - pre,
            "up": up.total - pre,
            "f": f,
            "w2_pre": down.pre(),
            "w2": down.total - down.pre(),
        }
        matrices = {"w1": gate, "w2": down, "w3": up}
        arrays = {name: rows.weights for name, rows in matrices.items()}
        return arrays | {"m" + name[1]: rows.scale for name, rows in matrices.items()}, shifts

    def _up_gain(self) -> tuple[np.ndarray, int]:
        """What W3's outputs are multiplied by [L, F]: int16 with margin, equalising the channels of W2's input; and the
        shift of gate * up, behind which that input has its scale if it is static."""
        scale = self._smoothed("silu", np.abs(self.weights["w2"]).max(1), self._share(self.recipe.smooth_up, "w2"), 1.0)
        most = 32767 / ((np.maximum(self.peak["up"], 1e-6) / scale).max() * MARGIN)
        if "silu" in self.dynamic:
            return most / scale, F_SHIFT
        f = math.floor(math.log2(most)) + GATE_FRACTION
        return 2.0 ** (f - GATE_FRACTION) / scale, f


# ---- quality ----


def integer_logits(model: IntegerModel, tokens: Sequence[int]) -> np.ndarray:
    """Logits [T, vocab] in natural units of the integer model after each token of a sequence."""
    state = IntegerState(model)
    return np.array([state.step(token) for token in tokens]) / (1 << LOGIT_FRACTION)


def evaluate(model: IntegerModel, checkpoint: Checkpoint, *sequences: Sequence[int]) -> Quality:
    """Distance of the integer model from the float model on one sequence, or on several taken together."""
    reference = FloatModel(checkpoint)
    floats = np.concatenate([reference.sequence_logits(tokens) for tokens in sequences])
    return kl_top1(floats, np.concatenate([integer_logits(model, tokens) for tokens in sequences]))
