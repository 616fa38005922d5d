"""`tsp report`: where a program's cycles and its memory go."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from base.errors import TspError
from base.files import check_outputs, write_whole
from compiler.frontend.files import sources
from program.program import Program
from program.rack import AnyProgram, RackProgram
from report import breakdown, critical, links, page, picture, rack_page, trace
from run.programs import open_any

from . import show
from .options import Rack, named_files

WIDTH = 110
"""Letters that the tables may take."""


def report(
    program: Annotated[Path, typer.Argument(help="Program file (or checkpoint: its program for the default chip).")],
    rack: Rack = None,
    chip: Annotated[int | None, typer.Option(help="One chip of a rack.  [default: all]")] = None,
    bucket: Annotated[int | None, typer.Option(help="Context bucket, from 0.  [default: the last]")] = None,
    trace_file: Annotated[Path | None, typer.Option("--trace", help="Write a trace for ui.perfetto.dev.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with the schedule, space by time.")] = None,
    svg: Annotated[Path | None, typer.Option(help="Write only the picture of the longest segment.")] = None,
) -> None:
    """Say which operation takes which cycles, what lies where, and draw the schedule."""
    check_outputs((trace_file, html, svg), [*sources(program), *named_files(rack)])
    compiled = _chosen(open_any(program, rack=rack), chip)
    number = len(compiled.buckets) - 1 if bucket is None else bucket
    breakdown.check_bucket(compiled.buckets, number)
    longest = picture.longest_segment(compiled, number)
    if isinstance(compiled, RackProgram):
        makers = {trace_file: lambda: _json(trace.rack_trace(compiled, number)),
                  html: lambda: rack_page.page(compiled, number, program.name),
                  svg: lambda: picture.rack_svg(compiled, number, longest,
                                                 critical.critical_path(compiled, number))}
    else:
        makers = {trace_file: lambda: _json(trace.chrome_trace(compiled, number)),
                  html: lambda: page.page(compiled, number, program.name),
                  svg: lambda: picture.segment_svg(compiled, number, longest)}
    write_whole({path: make().encode(errors="replace") for path, make in makers.items() if path})
    if isinstance(compiled, RackProgram):
        _print_rack(compiled, number)
    else:
        _print(compiled, number)


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":")) + "\n"


def _chosen(program: AnyProgram, chip: int | None) -> AnyProgram:
    """A rack's program, or that of one of its chips. Raises TspError."""
    if chip is None:
        return program
    if not isinstance(program, RackProgram):
        raise TspError(f"the program is for one chip, config {program.config.name}: leave out --chip")
    if not 0 <= chip < len(program.chips):
        raise TspError(f"chip must be in 0..{len(program.chips) - 1}, those of rack {program.rack.name}, not {chip}")
    return program.chips[chip]


def _print_rack(program: RackProgram, number: int) -> None:
    bucket = program.buckets[number]
    served = program.positions(bucket)
    print(f"bucket {number} of {len(program.buckets)}: positions {served[0]}..{served[-1]}, {bucket.period:,} "
          f"{program.cycles_of_what} on rack {program.rack.name} ({len(program.chips)} chips)\n")
    _show(_chips(program, number))
    _show(_links(program, number))
    path = critical.critical_path(program, number)
    _show(_path(path))
    show.out.print(f"{critical.summary(path)}. {critical.NOTE}\n", style="dim")
    _show(_buckets(program))
    show.out.print("--chip N tells the operations, the memory and the queues of one chip", style="dim")


def _chips(program: RackProgram, number: int) -> Table:
    table = _table("chip", "config", "MXM busy", "VXM busy", "exposed", "of it links", "weight bytes", "SRAM", texts=2)
    for f in links.chip_figures(program, number):
        table.add_row(str(f.chip), program.rack.chips[f.chip].name,
                      *(f"{cycles:,} ({cycles / f.period:.0%})" for cycles in (f.mxm, f.vxm, f.exposed, f.waiting)),
                      f"{f.weight_bytes:,}", f"{f.sram:.1%}")
    return table


def _links(program: RackProgram, number: int) -> Table:
    table = _table("link", "to", "latency", "flits", "of slots", "", texts=2)
    for t in links.traffic(program, number):
        table.add_row(str(t.near), str(t.far), str(t.latency), f"{t.flits:,}", f"{t.slots:,}", f"{t.share:.1%}")
    return table


def _path(path: Sequence[critical.Part]) -> Table:
    table = _table("critical path", "where", "operation", "from cycle", "cycles", "waiting", "a token", texts=3)
    for part in path:
        name = part.segment + (f", {part.turns} turns" if part.turns > 1 else "")
        table.add_row(Text(name, "bold"), "", "", f"{part.start:,}", f"{part.length:,}", "",
                      f"{part.length * part.turns:,}")
        for step in part.steps:
            table.add_row("", step.where, step.label, f"{step.first:,}", f"{step.cycles:,}", f"{step.waiting:,}",
                          f"{step.cycles * part.turns:,}")
    return table


def _print(program: Program, number: int) -> None:
    bucket = program.buckets[number]
    served = program.positions(bucket)
    print(f"bucket {number} of {len(program.buckets)}: positions {served[0]}..{served[-1]}, {bucket.period:,} "
          f"{program.cycles_of_what} on {program.config.name}\n")
    _show(_operations(program, number))
    _show(_totals(program, number))
    show.out.print(page.NOTE + "\n", style="dim")
    for table in (_buckets(program), _sram(program), _queues(program)):
        _show(table)


def _show(table: Table) -> None:
    """Print a table and an empty line; wider than the terminal rather than with cut words."""
    show.plain(max(show.out.width, WIDTH)).print(table)
    print(flush=True)


def _table(*columns: str, texts: int = 1) -> Table:
    """A table whose first `texts` columns are texts, the others numbers."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for n, column in enumerate(columns):
        table.add_column(column, justify="left" if n < texts else "right", no_wrap=True)
    return table


def _operations(program: Program, number: int) -> Table:
    table = _table("operation", "segment", "turns", "cycles", "span", "MXM busy", "VXM busy", "exposed", texts=2)
    for o in breakdown.operations(program, number):
        table.add_row(o.label, o.segment, str(o.turns), f"{o.first:,}..{o.last:,}",
                      *(f"{cycles:,}" for cycles in (o.span, o.mxm, o.vxm, o.exposed)))
    return table


def _totals(program: Program, number: int) -> Table:
    period = program.buckets[number].period
    table = _table("segment", "cycles a turn", "turns", "MXM busy", "VXM busy", "exposed", "weight bytes",
                   "a token", "")
    found = breakdown.totals(program, number)
    for t in found:
        table.add_row(t.segment, f"{t.length:,}", str(t.turns), f"{t.mxm:,}", f"{t.vxm:,}", f"{t.exposed:,}",
                      f"{t.weight_bytes:,}", f"{t.length * t.turns:,}", f"{t.length * t.turns / period:.1%}")
    mxm, vxm, exposed = (sum(getattr(t, name) * t.turns for t in found) for name in ("mxm", "vxm", "exposed"))
    table.add_row("token", "", "", f"{mxm:,}", f"{vxm:,}", f"{exposed:,}", f"{sum(t.weight_bytes for t in found):,}",
                  f"{period:,}", "100.0%")
    return table


def _buckets(program: AnyProgram) -> Table:
    table = _table("positions", program.cycles_of_what, "roofline fraction")
    for bucket in program.buckets:
        served = program.positions(bucket)
        table.add_row(f"{served[0]}..{served[-1]}", f"{bucket.period:,}",
                      f"{program.roofline_fraction(served[len(served) // 2]):.3f}")
    table.add_row("mean", f"{program.mean_cycles:,.1f}", f"{program.roofline_fraction():.3f}")
    return table


def _sram(program: Program) -> Table:
    table = _table("slice", "tensor", "from quad", "quads", "of slice", texts=2)
    for name, tensors in breakdown.sram_map(program).items():
        used, there = program.sram_use()[name]
        table.add_row(name, Text(f"{len(tensors)} tensors", "bold"), "", f"{used:,}", f"{used / there:.1%}")
        for t in tensors:
            table.add_row("", t.name, f"{t.addr:,}", f"{t.quads:,}", f"{t.share:.1%}")
    return table


def _queues(program: Program) -> Table:
    table = _table("queue", "words", "of", "")
    for name, (used, there) in program.queue_use().items():
        table.add_row(name, f"{used:,}", f"{there:,}", f"{used / there:.0%}")
    return table
