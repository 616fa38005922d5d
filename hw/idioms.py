"""Idioms of the RTL: how int32 lanes lie on the planes of a group, one-hot multiplexers, registers without reset."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value

from arch.config import PLANES


def group_lanes(group: Value) -> list[Value]:
    """The int32 lanes (32 bits each, plane 0 least significant) of a group."""
    plane_bits = len(group) // PLANES
    return [Cat(group[plane_bits * p + at :][:8] for p in range(PLANES)) for at in range(0, plane_bits, 8)]


def lanes_group(lanes: list[Value]) -> Value:
    """The bits of a group that carries these int32 lanes."""
    return Cat(lane[8 * p : 8 * p + 8] for p in range(PLANES) for lane in lanes)


def any_of(terms: list[Value]) -> Value:
    """OR of any number of values of one width."""
    total = terms[0]
    for term in terms[1:]:
        total = total | term
    return total


def one_hot(select: Value, values: list[Value]) -> Value:
    """AND-OR multiplexer: the values whose bit of `select` is set, ORed; 0 if none is."""
    return any_of([Mux(select[i], value, 0)[: len(value)] for i, value in enumerate(values)])


def named(m: Module, value: Value, name: str) -> Signal:
    """A value that is used in several places: Amaranth writes an expression out wherever it is used."""
    out = Signal(len(value), name=name)
    m.d.comb += out.eq(value)
    return out


def register(m: Module, value: Value, name: str) -> Signal:
    """A datapath register without reset, loaded in every cycle."""
    out = Signal(len(value), name=name, reset_less=True)
    m.d.sync += out.eq(value)
    return out


def delayed(m: Module, value: Value, cycles: int, name: str) -> Value:
    """A value so many cycles later."""
    for n in range(cycles):
        value = register(m, value, f"{name}_late{n + 1}")
    return value

