"""What every functional unit has: its ports, and the traps of a debug build."""

from amaranth.hdl import Const, Module, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from arch.config import PLANES, ChipConfig
from arch.host_map import Trap
from arch.isa import FIELDS, AnyOp, width

from .idioms import any_of


def stream_ports(config: ChipConfig) -> dict:
    """Ports of a unit that taps and drives the vector group in both directions. Data counts where a drive bit is."""
    bits = config.group_bits
    return {
        "e_in": In(bits), "w_in": In(bits),
        "e_data": Out(bits), "w_data": Out(bits), "e_drive": Out(PLANES), "w_drive": Out(PLANES),
    }


def unit_ports(config: ChipConfig, unit: str, probe: data.StructLayout) -> dict:
    """Ports of every functional unit; `probe` (state writes) and the trap ports only in debug builds."""
    ports = {"word": In(width(unit)), "valid": In(1), "busy": Out(1), **stream_ports(config)}
    if config.debug:
        ports |= {"e_driven": In(PLANES), "w_driven": In(PLANES), "traps": Out(len(Trap)), "probe": Out(probe)}
    return ports


def trap(m: Module, unit: wiring.Component, kind: Trap, condition: Value) -> None:
    """Connects the bit of one kind of trap."""
    m.d.comb += unit.traps[kind.value].eq(condition)


def illegal(op: AnyOp, view: data.View) -> Value:
    """Whether a field of the instruction, as far as the chip has it, holds no member of its enumeration."""
    wrong = [~any_of([getattr(view, name).as_value() == member.value for member in spec.kind])
             for name, spec in FIELDS[op].items() if spec.kind and name in view.shape().members]
    return any_of(wrong)[0] if wrong else Const(0)
