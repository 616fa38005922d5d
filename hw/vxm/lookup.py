"""Stage 3 selects the factors and the table segment. Stage 4 looks up the tables."""

from types import SimpleNamespace

from amaranth.hdl import Cat, Const, Module, Mux, Value
from amaranth.lib import data
from amaranth.lib.memory import Memory

from arch import tables
from arch.numerics import POST_RANGE

from ..idioms import any_of, named
from .arithmetic import FACTOR_BITS, MANTISSA_BITS, kept, sum
from .shift import clamped, shift_zeros


def choose(m: Module, decoded: data.View, s: SimpleNamespace) -> dict[str, Value]:
    """Stage 3: bit length and exponent of a, the left factor, and the table segment.

    The left factor of an interpolating function is the fraction within its segment.
    """
    top = s.normal[-4:]
    zeros2, zeros1 = named(m, ~top[2:].any(), "zeros2"), named(m, ~Mux(top[2:].any(), top[3], top[1]), "zeros1")
    normal = shift_zeros(m, shift_zeros(m, s.normal, 2, zeros2), 1, zeros1)
    normal = named(m, normal & s.mantissa.replicate(len(normal)), "normal")
    length = named(m, ~Cat(zeros1, zeros2, s.zeros), "length")
    k = Mux(normal[-1], Cat(bit ^ ~length[:n].any() for n, bit in enumerate(length)), 0)  # length - 1

    rsqrt = decoded.s3_rsqrt
    u = named(m, clamped(s.a[:MANTISSA_BITS], s.argument) | normal[:MANTISSA_BITS], "u")
    lower_half = named(m, decoded.s3_interpolate & ~Mux(rsqrt, u[11], u[10]), "lower_half")
    fraction = Cat(u[:10], Mux(rsqrt, u[10], lower_half), lower_half.replicate(FACTOR_BITS - 11))
    left = Cat(clamped(s.a[: FACTOR_BITS - 1], s.factor), decoded.s3_signed & s.a[31]) | fraction
    segment = Cat(Mux(rsqrt, u[11:15], u[10:14]), Mux(rsqrt, ~length[0] & normal[-1], u[14]))
    return {"length": length, "k": k, "left": left, "segment": segment}


def look_up(m: Module, decoded: data.View, s: SimpleNamespace) -> dict[str, Value]:
    """Stage 4: table outputs for the multiplier, for its bypass, and for the ALU.

    The second half of SIGMOID (`above` is 0) mirrors the first.
    """
    rsqrt, above = decoded.s4_rsqrt, s.above
    negative, table = s.below[-1], decoded.s4_table
    base, slope, power = (_rom(m, name, words, bits, named(m, address, f"{name}_address"), enable)
                          for name, words, bits, address, enable in (
        ("centres", tables.centres(), tables.CENTRE_BITS, Cat(s.segment[1:], above | rsqrt, table), Const(1)),
        ("slopes", tables.slopes(), tables.SLOPE_BITS, Cat(s.segment ^ above.replicate(5), rsqrt, table), Const(1)),
        ("powers", tables.powers(), tables.CENTRE_BITS,
         Mux(negative, s.below[: tables.EXP2_FRACTION], 0), decoded.s4_exp2)))
    slope = Cat(slope, slope[-1].replicate(FACTOR_BITS - tables.SLOPE_BITS))
    exponent = Mux(decoded.s4_log2, s.k, 0) << tables.LOG2_FRACTION
    c = (Mux(decoded.s4_interpolate, 0, s.c) | base | exponent)[:32]
    passed = Mux(decoded.s4_pass, s.a[: tables.CENTRE_BITS], 0) | power | Mux(decoded.s4_bitlen, s.length, 0)
    return {
        "right": s.right | slope, "c": c ^ decoded.s4_invert_c.replicate(32),
        "passed": Cat(passed[: tables.CENTRE_BITS], s.a[tables.CENTRE_BITS :]),
        "post": _post_amount(m, decoded.s4_exp2 & negative, s.below[tables.EXP2_FRACTION :], s.post),
        "k": Mux(rsqrt, s.k[1:], s.k),
    }


def _rom(m: Module, name: str, words: list[int], bits: int, address: Value, enable: Value) -> Value:
    """The addressed word of a ROM; 0 if not enabled.

    Blocks of 16 words take one LUT a bit each. An OR combines their gated outputs.
    """
    chosen = []
    for number in range(len(words) // 16):
        block = words[16 * number : 16 * (number + 1)]
        if any(block):
            m.submodules[f"{name}{number}"] = rom = Memory(shape=bits, depth=16, init=block)
            port = rom.read_port(domain="comb")
            m.d.comb += port.addr.eq(address[:4])
            here = named(m, enable & (address[4:] == number), f"{name}{number}_chosen")
            chosen.append(kept(m, port.data, f"{name}{number}_word") & here.replicate(bits))
    return any_of(chosen)


def _post_amount(m: Module, grows: Value, octaves: Value, post: Value) -> Value:
    """The post shift, clamped to 0..47. If it `grows` (EXP2), the octaves, which are negative, are subtracted."""
    far = named(m, grows & ~octaves[8:].all(), "post_far")
    total = sum(m, post.as_signed(), ~Mux(grows, octaves[:9], 0)[:9].as_signed(), Const(1, 1), 10, "post_total")
    most = named(m, far | (~total[-1] & (total[6:9].any() | total[4:6].all())), "post_most")
    take = named(m, ~far & ~total[-1] & ~most, "post_take")
    return Mux(take, total[:6], 0) | Mux(most, POST_RANGE[1], 0)
