"""The memory that simulated chips take, counted before it is taken."""

from collections.abc import Sequence
from pathlib import Path

from arch.rack import RackConfig
from base.errors import TspError

FACTOR, A_CHIP = 2, 64 << 20
"""Memory of a simulated chip: bytes for a byte of its SRAM (the chip's and the program's), and for all else."""


def check_memory(rack: RackConfig, there: int | None, chips: Sequence[int] | None = None, where: str = "") -> None:
    """Raises TspError if chips of a rack would take more memory than there is.

    there: bytes; None if they are not known. chips: which of them.  [default: all] where: words that name the machine.
    """
    mine = range(len(rack.chips)) if chips is None else chips
    needed = sum(FACTOR * rack.chips[n].sram_bytes + A_CHIP for n in mine)
    if there is not None and needed > there:
        raise TspError(f"the {len(mine)} chips of rack {rack.name}{where} take about {needed / (1 << 30):.1f} GiB of "
                       f"memory, and {there / (1 << 30):.1f} GiB are free: use --device reference, a larger "
                       "machine, or several with mpirun")


def available_memory() -> int | None:
    """Bytes of memory that programs can have; None if the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")), None)
