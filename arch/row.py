"""The row of units: the instruction queues of a chip, the positions of their units, and their depths."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from . import config as cfg

POSITION_OF: Mapping[tuple[str, str], int] = MappingProxyType({
    ("MXM", "W"): cfg.MXM_W, ("SXM", "W"): cfg.SXM_W, ("MEM", "W"): cfg.MEM_W, ("VXM", ""): cfg.VXM,
    ("MEM", "E"): cfg.MEM_E, ("SXM", "E"): cfg.SXM_E, ("MXM", "E"): cfg.MXM_E,
    ("C2C", "W"): cfg.MXM_W, ("C2C", "E"): cfg.MXM_E})
"""Positions in the row by kind of unit and side. A C2C shares its position with the MXM at its end of the row, as MEM
slices of one side share theirs."""


@dataclass(frozen=True)
class Queue:
    """An instruction queue.

    unit: kind of its unit ("MEM", "MXM", "VXM", "SXM" or "C2C").
    side: "W" or "E", the side of the VXM where the unit lies; "" for the VXM.
    slice: number of a MEM slice on its side; 0 for other units.
    """

    unit: str
    side: str = ""
    slice: int = 0

    @functools.cached_property
    def name(self) -> str:
        """Its name in programs and reports: "VXM", "MXM_W", "MEM_E0"."""
        return "_".join(filter(None, (self.unit, self.slice_name or self.side)))

    @property
    def slice_name(self) -> str:
        """Name of a MEM slice ("E0"), "" for other units."""
        return f"{self.side}{self.slice}" if self.unit == "MEM" else ""

    @property
    def position(self) -> int:
        """Position in the row."""
        return POSITION_OF[self.unit, self.side]


VXM = Queue("VXM")
SXM = MappingProxyType({side: Queue("SXM", side) for side in "WE"})
MXM = MappingProxyType({side: Queue("MXM", side) for side in "WE"})
C2C = MappingProxyType({side: Queue("C2C", side) for side in "WE"})
"""Queues of the units of each side."""


@functools.cache
def slices(config: cfg.ChipConfig) -> Mapping[str, Queue]:
    """Queues of the MEM slices by slice name, in the order of their numbers in host addresses."""
    found = (Queue("MEM", side, number) for side in "WE" for number in range(len(config.mem_depths)))
    return MappingProxyType({queue.slice_name: queue for queue in found})


def slice_depths(config: cfg.ChipConfig) -> dict[str, int]:
    """Quads of every MEM slice by its name."""
    return {name: config.mem_depths[queue.slice] for name, queue in slices(config).items()}


def queues(config: cfg.ChipConfig) -> tuple[Queue, ...]:
    """All queues of a chip, in the order of their numbers in host addresses and start tables."""
    sxm = [SXM["E"], *([SXM["W"]] if config.sxm_west else [])]
    c2c = [queue for side, queue in C2C.items() if config.ports_of(side)]
    return VXM, *sxm, MXM["W"], MXM["E"], *slices(config).values(), *c2c


def queue_depth(config: cfg.ChipConfig, queue: Queue) -> int:
    """Instructions that `queue` holds."""
    return config.vxm_icu_depth if queue.unit == "VXM" else config.icu_depth
