"""Proves that the matrix units' buffers are large enough for the values that a model keeps in them.

Lowering allocates accumulator vectors and activation entries in rotation. In a small buffer an entry could be
allocated again while its value is still to be used. No later pass would notice: the schedule would be legal, and the
numbers wrong.
"""

from collections.abc import Iterable

from arch.config import ChipConfig
from arch.isa import Op, Wfmt
from base.errors import TspError
from compiler.ir import Block, Burst, Cell, Cluster

BUFFERS = {"acc": "accumulator file", "act": "activation buffer"}


def check_lifetimes(config: ChipConfig, blocks: Iterable[Block]) -> None:
    """Raises TspError if a buffer entry is overwritten before its use, in program order, or if an activation is used
    after it was overwritten."""
    waiting: dict[Cell, str] = {}
    held: dict[Cell, tuple[int, str]] = {}
    for cluster in (cluster for block in blocks for cluster in block.clusters):
        for read in cluster.reads:
            waiting.pop(read.cell, None)
            if read.value and held[read.cell][0] != read.value:
                raise _too_small(config, read.cell, cluster.label, held[read.cell][1])
        held |= {write.cell: (write.value, cluster.label) for write in cluster.writes if write.value}
        for cell in _whole_writes(config, cluster):
            if cell in waiting:
                raise _too_small(config, cell, waiting[cell], cluster.label)
            waiting[cell] = cluster.label


def _too_small(config: ChipConfig, cell: Cell, early: str, late: str) -> TspError:
    kind, side, _ = cell  # type: ignore[misc]
    return TspError(f"the {BUFFERS[kind]} of MXM_{side} is too small for this model on config {config.name}: "
                    f"{late!r} overwrites an entry of {early!r} that is still needed; use a larger config")


def _whole_writes(config: ChipConfig, cluster: Cluster) -> list[tuple[str, str, int]]:
    """Buffer cells to which a cluster gives a new value.

    Sums that continue, and heads that fill a part of a vector, do not count.
    """
    if any(burst.op is Op.MAC and not _is_whole(config, burst) for burst in cluster.bursts):
        return []
    return sorted({write.cell for write in cluster.writes if write.cell[0] in BUFFERS})  # type: ignore[index]


def _is_whole(config: ChipConfig, burst: Burst) -> bool:
    entries = config.lanes // (config.rows * (2 if burst.fields["wfmt"] is Wfmt.INT4 else 1))
    return bool(burst.fields["clear"]) and burst.fields["acc"] % entries == 0 and burst.fields["accs"] % entries == 0
