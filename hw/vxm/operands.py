"""Stage 0: operand selection, and the sum of shift amounts and exponents."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib.memory import Memory

from arch.config import PLANES
from arch.isa import FMT_PLANES, ErUse, Fmt
from arch.numerics import PRE_RANGE

from ..burst import Burst, latched, stepping
from ..idioms import any_of, named
from .arithmetic import clamp, sum


def register_number(m: Module, engine: Burst, first: Value, steps: Value, name: str) -> tuple[Signal, Signal]:
    """The register number of this cycle's element, and that of the next cycle.

    first: register of the burst's first element.
    steps: whether each element takes the next register.
    """
    return stepping(m, engine, first, steps, name)


def planes_of(fmt: Value) -> Value:
    """The mask of planes that a format takes (`FMT_PLANES`)."""
    return any_of([Mux(fmt == one, Const(mask, PLANES), 0) for one, mask in FMT_PLANES.items()])


def register_index(engine: Burst, name: str) -> Value:
    """The register number of an operand of the current element."""
    op = engine.op
    return getattr(op, f"{name}_rf") + Mux(getattr(op, f"{name}_inc"), engine.index, 0)


def take(m: Module, engine: Burst, lanes: list[Value], fmt: Value, name: str) -> list[Value]:
    """The bytes of each lane that `fmt`, a field of the engine's word, selects, sign-extended."""
    def is_any(which, *formats):
        return latched(m, engine, any_of([fmt == one for one in formats]), f"{name}_{which}")

    whole, byte = is_any("whole", Fmt.I32), is_any("byte", Fmt.B0, Fmt.B1, Fmt.B2, Fmt.B3)
    upper, odd = is_any("upper", Fmt.HI16, Fmt.B2, Fmt.B3), is_any("odd", Fmt.B1, Fmt.B3)
    plain, high = is_any("plain", Fmt.I32, Fmt.LO16), is_any("high", Fmt.HI16)
    taken = []
    for n, lane in enumerate(lanes):
        p0, p1, p2, p3 = (lane[8 * p : 8 * p + 8] for p in range(PLANES))
        low = named(m, Mux(upper, Mux(odd, p3, p2), Mux(odd, p1, p0)), f"{name}_low{n}")
        sign8 = byte & low[7]
        middle = named(m, Mux(plain, p1, 0) | Mux(high, p3, 0) | sign8.replicate(8), f"{name}_middle{n}")
        taken.append(Cat(low, middle, Mux(whole, Cat(p2, p3), middle[7].replicate(16))))
    return taken


def take_half(m: Module, engine: Burst, lanes: list[Value], fmt: Value, name: str) -> list[Value]:
    """The lanes, or the halves that `fmt`, a field of the engine's word, selects, sign-extended."""
    whole, upper = (latched(m, engine, fmt == one, f"{name}_{which}")
                    for which, one in (("whole", Fmt.I32), ("upper", Fmt.HI16)))
    taken = []
    for n, lane in enumerate(lanes):
        low = named(m, Mux(upper, lane[16:], lane[:16]), f"{name}_low{n}")
        taken.append(Cat(low, Mux(whole, lane[16:], low[15].replicate(16))))
    return taken


def shift_amounts(m: Module, engine: Burst, er: Memory) -> tuple[list[Value], list[Value]]:
    """Pre and post shift of every lane, exponents included. Only the pre shift is clamped yet, to +-31."""
    op, word, port = engine.op, engine.word, er.read_port(domain="comb")
    m.d.comb += port.addr.eq(Cat(engine.part, op.er))
    to_pre, to_post = (latched(m, engine, word.er_use == use, name)
                       for use, name in ((ErUse.PRE, "to_pre"), (ErUse.POST, "to_post")))
    base = latched(m, engine, Mux(word.er_use == ErUse.PRE, word.pre, word.post), "shift_base").as_signed()
    pre, post = [], []
    for lane in range(0, len(port.data), 8):
        exponent = (port.data[lane : lane + 8] ^ op.er_neg.replicate(8)).as_signed()
        total = sum(m, base, exponent, op.er_neg, 9, "shift_total")
        pre.append(clamp(m, Mux(to_pre, total, op.pre), PRE_RANGE[1]))
        post.append(Mux(to_post, total, op.post)[:9])
    return pre, post
