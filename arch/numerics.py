"""The result of every operation, bit for bit, in numpy integers. Nothing here knows time.

The tests compare the RTL with these functions. The cycle model and the integer reference are built from them. Vectors
are int64 arrays with values in the int32 range. The last axis is the lanes; leading axes are batch.
"""

from dataclasses import dataclass

import numpy as np

from . import tables
from .isa import Alu, ErUse, Fmt, Func, Instr, Red, Rep, Sat, Wfmt

SAT_LIMIT = {Sat.S8: 127, Sat.S16: 32767, Sat.S18: 131071, Sat.S24: 8388607}
PRE_RANGE = (-31, 31)
POST_RANGE = (0, 47)
INT32 = (-(1 << 31), (1 << 31) - 1)

_ROM = np.array(tables.rom(), dtype=np.int64)


def wrap32(x: np.ndarray | np.integer) -> np.ndarray:
    """Two's complement wrap to 32 bits."""
    return ((x + (1 << 31)) & 0xFFFFFFFF) - (1 << 31)


def sat32(x: np.ndarray) -> np.ndarray:
    """Clamp to the int32 range."""
    return np.clip(x, *INT32)


def low18(x: np.ndarray) -> np.ndarray:
    """The low 18 bits, sign-extended."""
    return ((x + (1 << 17)) & 0x3FFFF) - (1 << 17)


def shift_right(x: np.ndarray, s: np.ndarray | int, rounding: int) -> np.ndarray:
    """RSR: with rounding, (x + 2**(s-1)) >> s for s > 0. Without rounding, a floor shift. s >= 0."""
    s = np.asarray(s)
    half = np.where(s > 0, np.left_shift(1, np.maximum(s, 1) - 1), 0) if rounding else 0
    return np.right_shift(x + half, s)


def bit_length(x: np.ndarray) -> np.ndarray:
    """Bit length of x >= 0, or of ~x for x < 0 (0..31)."""
    x = np.asarray(x)
    return np.frexp(np.where(x < 0, ~x, x).astype(np.float64))[1].astype(np.int64)


def take(x: np.ndarray, fmt: Fmt) -> np.ndarray:
    """The bytes that an operand format selects from int32 lanes, sign-extended."""
    if fmt is Fmt.I32:
        return x
    if fmt in (Fmt.LO16, Fmt.HI16):
        x = x >> (16 if fmt is Fmt.HI16 else 0)
        return ((x + 0x8000) & 0xFFFF) - 0x8000
    x = x >> 8 * (fmt.value - Fmt.B0.value)
    return ((x + 0x80) & 0xFF) - 0x80


def lay(y: np.ndarray, rep: Rep) -> np.ndarray:
    """The int32 lanes that a result drives, as `rep` lays it on the four planes."""
    if rep is Rep.I32:
        return y
    if rep is Rep.REP16:
        return wrap32((y & 0xFFFF) * 0x10001)
    return wrap32((y & 0xFF) * 0x1010101)


def _mantissa(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(k, u): a = 2**k * (1 + u / 2**15), u truncated to 15 bits; a <= 0 counts as 1."""
    a = np.maximum(a, 1)
    k = bit_length(a) - 1
    u = np.where(k >= 15, a >> np.maximum(k - 15, 0), a << np.maximum(15 - k, 0)) - (1 << 15)
    return k, u


def interpolation(func: Func, a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(product, base) of an interpolating table function at pre-shifted operand a.

    Two neighbouring segments share the base at their common border. In the first, the fraction counts back from it.
    """
    table = tables.TABLES[func]
    k = np.zeros_like(a)
    if func is Func.SIGMOID:
        u = np.clip(a, -32767, 32767) + 32768
    else:
        k, u = _mantissa(a)
    segment = u >> table.frac_bits
    if func is Func.RSQRT:
        segment = segment + 16 * (k & 1)
    base, slope = _ROM[table.start + (segment | 1), 0], _ROM[table.start + segment, 1]
    fraction = (u & ((1 << table.frac_bits) - 1)) - np.where(segment & 1, 0, 1 << table.frac_bits)
    if func is Func.LOG2:
        base = base + (k << tables.LOG2_FRACTION)
    return slope * fraction, base


def _pre_shift(op: Instr, a: np.ndarray, amount: np.ndarray) -> np.ndarray:
    right = np.maximum(amount, 0)
    shifted = wrap32((a & 0xFFFFFFFF) >> right) if op.logical else shift_right(a, right, op.round)
    return np.where(amount < 0, wrap32(a << np.maximum(-amount, 0)), shifted)


def vxm(op: Instr, a: np.ndarray, b: np.ndarray, c: np.ndarray, er: np.ndarray | int = 0) -> np.ndarray:
    """Result y of one VXM element (Op.ALU) before `lay`: the whole pipeline of `docs/reference/numerics.md`.

    a' = a shifted by pre (+ er); p = func(a', b); q = sat32(p >> post (+ er)); y = sat(q alu c).
    A logical pre shift never rounds. Left pre shifts wrap. Total shifts are clamped to PRE_RANGE and POST_RANGE.
    The interpolating tables replace c by the table's base and are issued with post = frac_bits, alu = ADD, round = 1.

    a, b, c: int64 [..., lanes] operands after `take`.
    er: exponent-file lanes (-128..127), added where op.er_use names a shift.
    """
    exponent = -np.asarray(er) if op.er_neg else np.asarray(er)
    zero = np.zeros_like(a)
    pre = np.clip(op.pre + (exponent if op.er_use is ErUse.PRE else zero), *PRE_RANGE)
    post = op.post + (exponent if op.er_use is ErUse.POST else zero)
    a = _pre_shift(op, a, pre)
    func = op.func
    if func is Func.PASS:
        p = a
    elif func is Func.MUL:
        p = np.clip(a, -131071, 131071) * low18(b)
    elif func is Func.SQUARE:
        p = np.clip(a, -131071, 131071) ** 2
    elif func is Func.BITLEN:
        p = bit_length(a)
    elif func is Func.EXP2:
        a = np.minimum(a - c, 0)
        post = post - (a >> tables.EXP2_FRACTION)
        p = _ROM[tables.TABLES[func].start + (a & 63), 0]
    else:
        p, c = interpolation(func, a)
    q = sat32(shift_right(p, np.clip(post, *POST_RANGE), op.round))
    return saturate(np.where(q >= c, low18(b), INT32[1]) if op.alu is Alu.INDEX else _alu(op.alu, q, c), op.sat)


def exponent(op: Instr, a: np.ndarray, y: np.ndarray, er: np.ndarray | int = 0) -> np.ndarray:
    """What `er_we` writes: the low byte of y. RECIP writes the exponent k of the pre-shifted a, RSQRT writes k >> 1."""
    if op.func not in (Func.RECIP, Func.RSQRT):
        return take(y, Fmt.B0)
    amount = -np.asarray(er) if op.er_neg else np.asarray(er)
    pre = np.clip(op.pre + (amount if op.er_use is ErUse.PRE else np.zeros_like(a)), *PRE_RANGE)
    k, _ = _mantissa(_pre_shift(op, a, pre))
    return k >> 1 if op.func is Func.RSQRT else k


def _alu(alu: Alu, q: np.ndarray, c: np.ndarray) -> np.ndarray:
    match alu:
        case Alu.Q:
            return q
        case Alu.ADD:
            return q + c
        case Alu.SUB:
            return q - c
        case Alu.RSUB:
            return c - q
        case Alu.MIN:
            return np.minimum(q, c)
        case Alu.MAX:
            return np.maximum(q, c)
        case Alu.AND:
            return q & c
        case Alu.ANDN:
            return q & ~c
        case Alu.OR:
            return q | c
        case Alu.XOR:
            return q ^ c
        case Alu.LT:
            return -(q < c).astype(np.int64)
        case Alu.GT:
            return -(q > c).astype(np.int64)
        case Alu.EQ:
            return -(q == c).astype(np.int64)


def saturate(x: np.ndarray, sat: Sat) -> np.ndarray:
    """Clamp to +-(2**(b-1) - 1), or to the int32 range for S32."""
    if sat is Sat.S32:
        return sat32(x)
    return np.clip(x, -SAT_LIMIT[sat], SAT_LIMIT[sat])


def reduce(red: Red, x: np.ndarray, axis: int) -> np.ndarray:
    """Reduction along one axis. Sums wrap to 32 bits. MAXABS of -2**31 is 2**31 - 1."""
    match red:
        case Red.SUM:
            return wrap32(x.sum(axis))
        case Red.MAX:
            return x.max(axis)
        case Red.MIN:
            return x.min(axis)
        case Red.MAXABS:
            return np.minimum(np.abs(x), INT32[1]).max(axis)
    raise ValueError(f"red must name a reduction, not {red!r}")


def lane_reduce(red: Red, segment: int, x: np.ndarray) -> np.ndarray:
    """Reduction over segments of 2**segment lanes, broadcast within each segment."""
    shape = (*x.shape[:-1], x.shape[-1] >> segment, 1 << segment)
    y = reduce(red, x.reshape(shape), -1)
    return np.repeat(y, 1 << segment, axis=-1)


def dot(weights: np.ndarray, act: np.ndarray, wfmt: Wfmt) -> np.ndarray:
    """One MXM step: row sums of a step of weights.

    weights: int8 bytes [rows, lanes] as streamed.
    act: int8 [lanes].

    Returns int64 [rows]. For INT4 it returns [2 * rows]: byte row r holds output rows 2r (low nibble) and 2r + 1 (high
    nibble).
    """
    weights = weights.astype(np.int64)
    if wfmt is Wfmt.INT4:
        low = ((weights + 8) & 15) - 8
        high = weights >> 4
        weights = np.stack([low, high], axis=1).reshape(-1, weights.shape[-1])
    return weights @ act.astype(np.int64)


@dataclass(frozen=True)
class Index:
    """Contents of a MEM index register.

    A READ drives 0 on planes that are not enabled. A WRITE writes only bytes of enabled lanes and planes. Register 0 is
    the constant (0, all, all). The other registers begin with the same value.

    offset: quads added to addresses.
    lanes: mask of the lanes enabled for writes.
    planes: mask of the enabled planes.
    """

    offset: int
    lanes: int
    planes: int

    @classmethod
    def everything(cls, lanes: int) -> "Index":
        """The value of register 0 in a chip with `lanes` lanes."""
        return cls(0, (1 << lanes) - 1, 15)

    @classmethod
    def of(cls, vector: np.ndarray, bits: int) -> "Index":
        """From the int32 lanes of an index vector.

        bits: bits kept of the offset (`ChipConfig.index_bits`).
        """
        return cls(int(vector[0]) & (1 << bits) - 1, int(vector[1]) & (1 << len(vector)) - 1, int(vector[2]) & 15)
