"""What `tsp` prints."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

from arch.config import ChipConfig
from base.progress import progress
from compiler.fit import Fit
from compiler.frontend.checkpoint import Checkpoint
from compiler.rack.fit import MOST_CHIPS, RackFit
from program.program import DEFAULT_CLOCK_MHZ
from program.rack import AnyProgram, RackProgram
from run.story import Story
from sim.device.protocol import Device
from sim.device.rack import RackDevice


def plain(width: int | None = None, stderr: bool = False) -> Console:
    """A console that prints names of files and of models as they are; lines are cut only at a width that is given."""
    return Console(width=width, soft_wrap=width is None, highlight=False, markup=False, emoji=False, stderr=stderr)


out = plain()


def notes(lines: Iterable[str]) -> None:
    """What was dropped, guessed or overruled in reading a model, on stderr."""
    for line in lines:
        plain(stderr=True).print(f"note: {line}")


def story(story: Story, clock: float) -> None:
    """The story as it comes, and what it took."""
    print()
    began = time.perf_counter()
    try:
        for step in story.steps():
            sys.stdout.write(step.text)
            sys.stdout.flush()
    finally:
        print(flush=True)  # what went wrong has a line of its own
    elapsed = time.perf_counter() - began
    print()
    print(summary(story, clock, elapsed))


def as_json(story: Story, clock: float) -> dict[str, object]:
    """The whole story, told without a word."""
    for _ in story.steps():
        pass
    return story.as_json(clock)


def prediction(program: AnyProgram, positions: int, clock: float) -> str:
    """Cycles of every position that may run, and of all of them."""
    parts, total = [], 0
    for bucket in program.buckets:
        served = [p for p in program.positions(bucket) if p < positions]
        if served:
            parts.append(f"{bucket.period:,} (positions {served[0]}..{served[-1]})")
            total += bucket.period * len(served)
    speed = program.tokens_per_second(clock, total / positions)
    return (f"predicted cycles a token on {program.config.name}: {', '.join(parts)}\n"
            f"at most {positions} tokens in {total:,} cycles, {speed:,.0f} tokens/s at {clock:g} MHz")


def summary(story: Story, clock: float, elapsed: float) -> str:
    """One line: measured == predicted, speed at a clock, roofline, and how fast the simulation was."""
    count = len(story.done)
    time_of = (f"measured {story.measured:,} cycles == predicted {story.predicted:,}" if story.measured is not None
               else f"predicted {story.predicted:,} cycles (the {story.device.name} device has no time)")
    pace = f"{count / elapsed:,.1f} tokens/s here"
    if story.measured is not None:
        pace += f", {story.measured / elapsed:,.0f} cycles/s"
    return (f"{count} tokens: {time_of}; {story.tokens_per_second(clock):,.0f} tokens/s at {clock:g} MHz, "
            f"{story.roofline_fraction:.1%} of the SRAM roofline ({story.device.name}: {pace})"
            + links(story.device))


def links(device: Device) -> str:
    """Another line: what the links of a rack had to correct, if they are lines or were given faults; else nothing."""
    if not isinstance(device, RackDevice) or (device.lines is None and not device.chip.has_lines):
        return ""
    corrected, failed = device.link_errors
    flits = f"{device.lines.flits:,} flits, " if device.lines else ""
    return (f"\nlinks: {flits}{corrected:,} wrong bits corrected without a cycle changed, "
            f"{device.replays:,} tokens run again for {failed:,} errors beyond that")


@contextmanager
def passes() -> Iterator[Callable[[str], None]]:
    """Shows the name of the pass at work on a terminal; elsewhere, a line every few seconds."""
    console = Console(stderr=True)
    if console.is_terminal:
        with console.status("reading") as status:
            yield status.update
        return
    with progress("compiling"):
        yield lambda name: None


def program(program: AnyProgram, path: Path, clock: float) -> None:
    """A compiled program's figures."""
    model, kind = program.model, f"config {program.config.name}"
    if isinstance(program, RackProgram):
        kind = f"rack {program.rack.name}, {len(program.chips)} chips"
    out.print(f"{path}: {kind}, context {program.context} of the model's {model.seq_len}, "
              f"{path.stat().st_size:,} bytes")
    if program.context < model.seq_len:
        out.print(f"the context is shortened to what fits: {program.context} positions")
    out.print(_cycle_table(program, clock))
    if isinstance(program, RackProgram):
        out.print(_chips_table("SRAM slice", [chip.sram_use() for chip in program.chips]))
        out.print(_chips_table("queue", [chip.queue_use() for chip in program.chips]))
    else:
        out.print(_use_table("SRAM slice", "quads", program.sram_use()))
        out.print(_use_table("queue", "instructions", program.queue_use()))
    if program.trials:
        out.print(f"scales by KL of the cross-entropy, dynamic / static: {', '.join(map(str, program.trials))}")
    if program.quality is not None:
        out.print(f"quality: {program.quality} (text by the float model)")


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for n, column in enumerate(columns):
        table.add_column(column, justify="right" if n else "left")
    return table


def _cycle_table(program: AnyProgram, clock: float) -> Table:
    table = _table("positions", program.cycles_of_what, f"tokens/s at {clock:g} MHz", "roofline fraction")
    for bucket in program.buckets:
        served = program.positions(bucket)
        table.add_row(f"{served[0]}..{served[-1]}", f"{bucket.period:,}",
                      f"{program.tokens_per_second(clock, bucket.period):,.0f}",
                      f"{program.roofline_fraction(served[len(served) // 2]):.3f}")
    table.add_row("mean", f"{program.mean_cycles:,.1f}", f"{program.tokens_per_second(clock):,.0f}",
                  f"{program.roofline_fraction():.3f}")
    return table


def _use_table(what: str, unit: str, use: dict[str, tuple[int, int]]) -> Table:
    table = _table(what, f"{unit} used", "of", "")
    for name, (used, there) in use.items():
        table.add_row(name, f"{used:,}", f"{there:,}", f"{used / there:.0%}")
    return table


def _chips_table(what: str, uses: Sequence[dict[str, tuple[int, int]]]) -> Table:
    """How full each chip of a rack is. What is on some chips only is 0 % full elsewhere."""
    table = _table(what, *(f"chip {n}" for n in range(len(uses))))
    for name in dict.fromkeys(name for use in uses for name in use):
        cells = [use.get(name, (0, 1)) for use in uses]
        table.add_row(name, *(f"{used / there:.0%}" for used, there in cells))
    return table


def fits(found: Sequence[Fit], path: Path, model: Checkpoint, clock: float, scales: str) -> None:
    """Which chips a model fits. scales: those that cycles hold for."""
    out.print(f"{path}: {model.n_parameters:,} parameters, context {model.config.seq_len}")
    timed = any(each.cycles for each in found)
    sequences = found[0].sequences
    what = "cycles a token" if sequences == 1 else f"cycles of {sequences} tokens"
    table = _table("config", "context", "SRAM", *([what, f"tokens/s at {clock:g} MHz"] if timed else []))
    for each in found:
        table.add_row(each.config.name, *_fit_cells(each, clock))
    out.print(table)
    if timed:
        _say_scales(scales)
    for each in found:
        if each.limit:
            out.print(f"{each.config.name}: limited by: {each.limit}")


def _say_scales(scales: str) -> None:
    out.print(f"cycles hold for {scales} scales; `tsp compile` measures which the model needs")


def _fit_cells(fit: Fit, clock: float) -> list[str]:
    if not fit.context:
        return ["does not fit"]
    used, there = (sum(quads) for quads in zip(*fit.sram.values(), strict=True))
    return [str(fit.context), f"{used / there:.0%}", *_speed_cells(fit.cycles, clock, fit.sequences)]


def rack_fits(found: Sequence[RackFit], clock: float, wanted: int, scales: str = "static") -> None:
    """Which racks a model fits. scales: those that cycles hold for."""
    timed = any(each.cycles for each in found)
    table = _table("rack", "context", "SRAM, chip by chip",
                   *(["cycles a token", f"tokens/s at {clock:g} MHz"] if timed else []))
    for each in found:
        cells = ["does not fit"]
        if each.context:
            cells = [str(each.context), " ".join(f"{part:.0%}" for part in each.fullness)]
            cells += _speed_cells(each.cycles, clock)
        table.add_row(each.rack.name, *cells)
    out.print(table)
    if timed:
        _say_scales(scales)
    for each in found:
        if each.context:
            out.print(f"{each.rack.name}: divided by {each.plan}")
        for line in each.uneven:
            out.print(f"{each.rack.name}: uneven: {line}")
        if each.limit and each.context < wanted:
            out.print(f"{each.rack.name}: limited by: {each.limit}")


def chips_needed(found: Sequence[tuple[ChipConfig, RackFit | None]], wanted: int) -> None:
    """How many chips a model needs where one is too small, and how full they are then."""
    if several := [rack for _, rack in found if rack and rack.context]:
        rack_fits(several, DEFAULT_CLOCK_MHZ, wanted)
    for chip, rack in found:
        if rack is None or not rack.context:
            out.print(f"{chip.name}: does not fit up to {MOST_CHIPS} chips that are all linked with each other"
                      + (f" either: {rack.limit}" if rack else ""))


def _speed_cells(cycles: Sequence[tuple[int, int]], clock: float, tokens: int = 1) -> list[str]:
    """tokens: of so many cycles."""
    if not cycles:
        return []
    least, most = cycles[0][1], cycles[-1][1]
    return [f"{least:,}..{most:,}", f"{tokens * clock * 1e6 / most:,.0f}..{tokens * clock * 1e6 / least:,.0f}"]
