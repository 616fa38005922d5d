"""Racks of small chips for tests."""

from dataclasses import replace

from arch.config import CONFIGS, ChipConfig
from arch.isa import Instr, Op, encode
from arch.rack import Link, Port, RackConfig

CHIP = replace(CONFIGS["tiny"], name="tiny_linked", lanes=8, ports=(1, 1), slot=4, sxm_transpose=False, debug=True)


def ring(chips: int, latency: int = 9, chip: ChipConfig = CHIP) -> RackConfig:
    """Each chip's eastern port is linked with the next one's western port, the last one's with the first one's."""
    links = tuple(Link(ports=(Port(n, "E", 0), Port((n + 1) % chips, "W", 0)), latency=latency + n)
                  for n in range(chips))
    return RackConfig(name=f"ring of {chips}", chips=(chip,) * chips, links=links)


def words(*timed: tuple[int, Instr]) -> list[int]:
    """A queue's words whose first elements execute in these cycles of a token."""
    found, now = [], 4
    for cycle, instr in timed:
        dispatch = cycle - 1
        if dispatch > now:
            found.append(encode(Instr(Op.NOP, dispatch - now)))
        found.append(encode(instr))
        now = dispatch + 1
    return [*found, encode(Instr(Op.SYNC))]
