"""The latencies of a chip: those of `arch.isa`, and the cycles that its optional pipeline registers add.

The RTL, the cycle model, the proof of a program and the compiler all take them from here.
"""

import functools
from dataclasses import dataclass

from . import isa
from .config import ChipConfig


@dataclass(frozen=True, kw_only=True)
class Latencies:
    """Cycles, each as the constant of `arch.isa` with the same name says."""

    start: int = isa.START
    min_delay_jump: int = isa.MIN_DELAY_JUMP
    mem_read: int = isa.MEM_READ
    vxm_drive: int = isa.VXM_DRIVE
    vxm_rf: int = isa.VXM_RF
    vxm_reduce_drive: int = isa.VXM_REDUCE_DRIVE
    sxm_drive: int = isa.SXM_DRIVE
    mxm_acc: int = isa.MXM_ACC
    mxm_drain: int = isa.MXM_DRAIN


ADDED: dict[str, tuple[str, ...]] = {
    "fetch": ("start", "min_delay_jump"),
    "control": (),
    "accumulate": ("mxm_acc",),
    "multiply": ("vxm_drive", "vxm_rf", "vxm_reduce_drive"),
    "reduce": ("vxm_reduce_drive",),
}
"""The latencies that each optional register (`config.REGISTERS`) makes one cycle longer."""


@functools.cache
def latencies(config: ChipConfig) -> Latencies:
    """The latencies of a chip."""
    longer = [name for register in config.registers for name in ADDED[register]]
    plain = Latencies()
    return Latencies(**{name: getattr(plain, name) + longer.count(name) for name in longer})
