"""What `tsp run` does with a program of several sequences: it tells a story for each."""

import json
import sys
import time
from collections.abc import Sequence

from base.errors import TspError
from program.program import DEFAULT_CLOCK_MHZ
from program.rack import AnyProgram
from run.devices import open_in_flight
from run.in_flight import Tales
from run.story import plan


def run_in_flight(program: AnyProgram, device: str, prompts: Sequence[str], *, tokens: int | None,
                  temperature: float, seed: int, clock: float | None, as_json: bool) -> None:
    """Tell a story of each prompt, and at least one of each sequence: prompts then begin again. Story n has seed + n.
    clock: MHz; by default the board's.

    Raises TspError, BrokenPromise.
    """
    count = max(program.sequences, len(prompts))
    if not 0 <= seed <= (1 << 64) - count:
        raise TspError(f"seed must be in 0..{(1 << 64) - count} for {count} stories, each with the next seed, not "
                       f"{seed}")
    plans = [plan(program, prompts[n % len(prompts)], tokens=tokens, temperature=temperature, seed=seed + n)
             for n in range(count)]
    machine = open_in_flight(device, program.config)
    clock = clock or float(getattr(machine, "clock_mhz", DEFAULT_CLOCK_MHZ))
    try:
        if not as_json:
            print(prediction(program, max(each.positions for each in plans), clock), flush=True)
        tales = Tales(machine, program, plans, digests=as_json)
        began = time.perf_counter()
        for _ in tales.steps():
            _show_progress(tales, as_json)
        elapsed = time.perf_counter() - began
    finally:
        machine.close()
    if as_json:
        print(json.dumps(tales.as_json(clock)))
        return
    for n, tale in enumerate(tales.tales):
        print(f"\n[{n}, sequence {tale.sequence}, seed {tale.plan.seed}: {len(tale.tokens)} tokens]\n{tale.text}")
    print(f"\n{summary(tales, clock, elapsed)}")


def _show_progress(tales: Tales, quiet: bool) -> None:
    """How many tokens there are, on a terminal."""
    if not quiet and sys.stderr.isatty():
        over = sum(tale.over for tale in tales.tales)
        end = "\n" if over == len(tales.tales) else "\r"
        sys.stderr.write(f"{tales.tokens} tokens, {over} of {len(tales.tales)} stories told{end}")


def prediction(program: AnyProgram, positions: int, clock: float) -> str:
    """Cycles of a period, by the longest sequence in flight."""
    parts = []
    for bucket in program.buckets:
        if served := [p for p in program.positions(bucket) if p < positions]:
            parts.append(f"{bucket.period:,} ({served[0]}..{served[-1]})")
    speed = program.tokens_per_second(clock, program.buckets[0].period)
    how = "together" if program.periods_a_token == 1 else "in flight"
    what = "a token a period" if program.tokens_a_period == 1 else f"{program.tokens_a_period} tokens a period"
    return (f"{program.sequences} sequences {how} on {program.config.name}, {what}\n"
            f"predicted cycles a period, by the position of the longest sequence: {', '.join(parts)}\n"
            f"at most {speed:,.0f} tokens/s of all sequences at {clock:g} MHz")


def summary(tales: Tales, clock: float, elapsed: float) -> str:
    """One line: measured == predicted, speed of all sequences at a clock, and how fast the simulation was."""
    count, name = len(tales.periods), tales.device.name
    time_of = (f"measured {tales.measured:,} cycles == predicted {tales.predicted:,}" if tales.measured is not None
               else f"predicted {tales.predicted:,} cycles (the {name} device has no time)")
    pace = f"{tales.tokens / elapsed:,.1f} tokens/s here"
    if tales.measured is not None:
        pace += f", {tales.measured / elapsed:,.0f} cycles/s"
    return (f"{tales.tokens} tokens of {len(tales.tales)} stories in {count} periods: {time_of}; "
            f"{tales.tokens_per_second(clock):,.0f} tokens/s of all sequences at {clock:g} MHz ({name}: {pace})")
