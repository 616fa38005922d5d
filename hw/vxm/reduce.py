"""Stages 9 and 10: planes of the result, and the reduction over a burst."""

from types import SimpleNamespace

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data
from amaranth.lib.memory import Memory

from arch.config import PLANES
from arch.isa import Red, Rep

from ..idioms import group_lanes, lanes_group, named, register
from .arithmetic import sum
from .fold import part_of, whole


def lay(m: Module, before: data.View, result: Value) -> Value:
    """The planes that a result drives, selected by `rep`.

    before: the control fields one stage earlier.
    """
    p0, p1, p2, p3 = (result.word_select(p, len(result) // PLANES) for p in range(PLANES))
    half, byte = (register(m, before.rep == rep, rep.name.lower()) for rep in (Rep.REP16, Rep.REP8))
    return Cat(p0, Mux(byte, p0, p1), Mux(byte | half, p0, p2), Mux(byte, p0, Mux(half, p1, p3)))


def reduce(m: Module, before: data.View, now: data.View, y: list[Value], least: list[Value],
            fold: int, *, split: bool) -> SimpleNamespace:
    """The reduction over a burst: `value`, and `drives`, both one stage behind the addition of the last element.

    Comparisons take the complement of the term, so sums and comparisons share one adder.

    before, now: the control fields in the stages before the result, and of the result.
    split: whether there is a register between the terms and their addition, which is then a stage later.
    """
    terms = []
    if split:
        absolute, comparing = _first(m, before)
        terms = [register(m, _term(m, value, is_least, absolute, comparing), "term_late")
                 for value, is_least in zip(y, least, strict=True)]
        later = Signal(now.shape(), name="control_reduce")
        m.d.sync += later.eq(now)
        before, now = now, later
    valid, drives = now.valid & (now.red != Red.NONE), Signal()
    m.submodules.reductions = slots = Memory(shape=32 * len(y), depth=fold << len(now.red_slot), init=[])
    old, new = slots.read_port(domain="comb"), slots.write_port()
    summing, clears = before.red == Red.SUM, before.first & ~before.red_keep
    adding, comparing, choosing_least, absolute, fresh = (register(m, value, name) for name, value in (
        ("adding", summing & ~clears), ("comparing", ~summing), ("choosing_least", before.red == Red.MIN),
        ("absolute", before.red == Red.MAXABS), ("fresh", clears)))
    m.d.sync += drives.eq(valid & now.last & now.red_e)
    totals = []
    for n, held in enumerate(group_lanes(old.data)):
        term = terms[n] if split else _term(m, y[n], least[n], absolute, comparing)
        total = sum(m, held.as_signed(), term.as_signed(), comparing, 33, "reduction_total")
        replace = named(m, fresh | (total[-1] ^ choosing_least), "replace")
        totals.append(Mux(adding, total[:32], Mux(replace, term ^ comparing.replicate(32), held)))
    total = named(m, lanes_group(totals), "reduction_total")
    slot = Cat(part_of(now), now.red_slot)
    m.d.comb += [old.addr.eq(slot), new.addr.eq(slot), new.data.eq(total), new.en.eq(valid)]
    return SimpleNamespace(drives=drives, value=whole(m, register(m, total, "reduction"), fold, "reduction"))


def _first(m: Module, before: data.View) -> tuple[Value, Value]:
    """Whether terms are absolute values, and whether they are compared: one stage behind `before`."""
    return register(m, before.red == Red.MAXABS, "absolute_term"), register(m, before.red != Red.SUM, "comparing_term")


def _term(m: Module, value: Value, is_least: Value, absolute: Value, comparing: Value) -> Signal:
    """What a result adds to a reduction: its complement if it is compared."""
    negate = named(m, absolute & value[31], "negate")
    decrement = named(m, negate & ~is_least, "decrement")
    term = Signal(32, name="term")
    m.d.comb += term.eq((value ^ (comparing & ~negate).replicate(32)) + decrement.replicate(32))
    return term
