"""What is known of a program before it runs, as the page shows it: cycles and how busy each unit is, by position."""

from collections import defaultdict
from functools import lru_cache
from typing import Any

import numpy as np

from program.program import DEFAULT_CLOCK_MHZ, Program
from program.rack import AnyProgram, RackProgram
from report.breakdown import by_segment

UNITS = ("MXM", "VXM", "SXM", "MEM", "C2C")


@lru_cache(maxsize=1)
def program_figures(program: AnyProgram) -> dict[str, Any]:
    """Chip, model and buckets; a bucket serves the positions below its limit."""
    model = program.model
    return {
        "config": program.config.name, "context": program.context, "clock_mhz": DEFAULT_CLOCK_MHZ,
        "sram_bytes": program.config.sram_bytes, "macs": program.config.macs,
        "model": {"dim": model.dim, "layers": model.n_layers, "heads": model.n_heads, "vocabulary": model.vocab_size},
        "buckets": [{"limit": bucket.limit, "cycles": bucket.period, "units": utilisation(program, number),
                     "roofline": program.roofline_fraction(program.positions(bucket)[0])}
                    for number, bucket in enumerate(program.buckets) if program.positions(bucket)],
    }


def utilisation(program: AnyProgram, number: int) -> dict[str, float]:
    """The part of a token's cycles in which the queues of a unit are in a burst, in bucket `number`.

    The mean over the unit's queues that the program uses at all, on all chips of a rack.
    """
    chips = program.chips if isinstance(program, RackProgram) else (program,)
    period = program.buckets[number].period
    busy = [(queue, cycles / period) for chip in chips for queue, cycles in busy_cycles(chip, number).items()]
    parts = {unit: [part for queue, part in busy if queue.startswith(unit)] for unit in UNITS}
    return {unit: min(1.0, sum(each) / len(each)) for unit, each in parts.items() if each}


def busy_cycles(program: Program, number: int) -> dict[str, int]:
    """Cycles of a token in which each queue of a chip is in a burst."""
    busy: dict[str, int] = defaultdict(int)
    for segment, events in by_segment(program, number):
        spans: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(program.buckets[number].period + 1, bool))
        for event in events:
            spans[event.queue][event.first : event.last + 1] = True
        for queue, cycles in spans.items():
            busy[queue] += int(cycles.sum()) * segment.turns
    return busy
