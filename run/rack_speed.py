"""How much faster the chips of a Verilated rack run in several threads than one chip alone in one thread.

    python -m run.rack_speed [MODEL] [--rack NAME]

By the clock, since threads wait for each other; so it means something only where a processor is free for each thread.
The best of many short blocks counts, which is what the threads do while nothing else runs. `chrt -f 1` before the
command keeps other work away.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

import base.one_thread  # noqa: F401  before anything that imports numpy
from arch.config import CONFIGS
from arch.rack_file import rack_of
from base.command import run
from base.errors import TspError
from program.rack import AnyProgram
from sim.device.chip_device import ChipDevice
from sim.device.protocol import Device
from sim.device.rack import RackDevice
from sim.rtl.chip import VerilatedChip
from sim.rtl.linked import VerilatedRack

from .programs import open_any, open_program

MODEL = Path(__file__).parents[1] / "models" / "stories263k.bin"
BLOCKS, TOKENS = 8, 32
"""Blocks of tokens of each kind, in turn."""


@dataclass(frozen=True, kw_only=True)
class RackSpeed:
    """Cycles a second: of one chip, and of all chips of a rack together. threads: of the rack. load: the machine's."""

    alone: float
    together: float
    threads: int
    load: float

    @property
    def gain(self) -> float:
        return self.together / self.alone


def rack_speed(model: Path = MODEL, rack: str = "pair", threads: int | None = None) -> RackSpeed:
    """The best speeds of a model on a rack of one kind of chip, and on that chip alone.

    threads: of the rack's chips.  [default: one a chip, as far as there are processors] Raises TspError.
    """
    machine = rack_of(rack)
    if len(set(machine.chips)) > 1:
        raise TspError(f"rack {machine.name} must have chips that are all alike to be compared with one of them")
    count = threads or min(len(machine.chips), os.cpu_count() or 1)
    one = open_program(model, config=_alone(machine.chips[0].name))
    all_of_them = open_any(model, rack=rack)
    devices: Sequence[tuple[Device, AnyProgram]] = (
        (ChipDevice("rtl", VerilatedChip(one.config)), one),
        (RackDevice("rtl", VerilatedRack(machine, threads=count)), all_of_them))
    try:
        for device, program in devices:
            device.load(program)
        speeds = [[_speed(device, program) for device, program in devices] for _ in range(BLOCKS)]
    finally:
        for device, _ in devices:
            device.close()
    alone, together = (max(found) for found in zip(*speeds, strict=True))
    return RackSpeed(alone=alone, together=len(machine.chips) * together, threads=count, load=os.getloadavg()[0])


def _alone(name: str) -> str:
    """The config of a rack's chip, without its links."""
    return max((config for config in CONFIGS if name.startswith(config)), key=len)


def _speed(device: Device, program: AnyProgram) -> float:
    """Cycles a second of a block of tokens."""
    device.start([1])
    began = time.perf_counter()
    device.run(TOKENS)
    return sum(program.cycles(position) for position in range(TOKENS)) / (time.perf_counter() - began)


def main(
    model: Annotated[Path, typer.Argument(help="Checkpoint.")] = MODEL,
    rack: Annotated[str, typer.Option(help="Rack of one kind of chip.")] = "pair",
) -> None:
    """Measure how much faster the chips of a Verilated rack run in several threads than one chip in one."""
    found = rack_speed(model, rack)
    print(f"one chip, one thread: {found.alone:,.0f} cycles/s; rack {rack}, {found.threads} threads: "
          f"{found.together:,.0f} chip-cycles/s, {found.gain:.2f} times as many; load {found.load:.1f}")


if __name__ == "__main__":
    run(main, "rack_speed")
