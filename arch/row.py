"""The row of units: which instruction queues a chip has, and how deep they are."""

from dataclasses import dataclass

from . import config as cfg


@dataclass(frozen=True)
class Queue:
    """An instruction queue: its name, kind of unit, position in the row, and number among slices of that position."""

    name: str
    unit: str
    position: int
    slice: int = 0


def queues(config: cfg.ChipConfig) -> tuple[Queue, ...]:
    """All queues of a chip, in the order in which host addresses and start tables number them."""
    row = [Queue("VXM", "VXM", cfg.VXM), Queue("SXM_E", "SXM", cfg.SXM_E)]
    if config.sxm_west:
        row.append(Queue("SXM_W", "SXM", cfg.SXM_W))
    row += [Queue("MXM_W", "MXM", cfg.MXM_W), Queue("MXM_E", "MXM", cfg.MXM_E)]
    for side, position in (("W", cfg.MEM_W), ("E", cfg.MEM_E)):
        row += [Queue(f"MEM_{side}{n}", "MEM", position, n) for n in range(len(config.mem_depths))]
    return tuple(row)


def queue_depth(config: cfg.ChipConfig, queue: Queue) -> int:
    """Instructions that `queue` holds."""
    return config.vxm_icu_depth if queue.unit == "VXM" else config.icu_depth
