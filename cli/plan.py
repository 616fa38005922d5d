"""`tsp plan`: what a model needs of a chip, before there is any."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from arch.config import CONFIGS
from arch.rack import LINKED, RACKS
from arch.rack_file import rack_of
from base.errors import TspError
from base.progress import progress
from plan.cycles import Cycles
from plan.divided import Divided
from plan.machines import CHIPS_A_CARD, GROQCHIP
from plan.need import WEIGHT_BYTES
from plan.plan import DEFAULT_CHIP, DEFAULT_PRECISION, Plan, make_plan
from plan.shapes import PRESETS
from program.file import check_checkpoint
from program.program import DEFAULT_CLOCK_MHZ
from run.models import find_model

from .models import MODELS
from .show import plain

WIDTH = 110
"""Letters that the tables may take."""


def plan(
    model: Annotated[str, typer.Argument(help=f"{', '.join(PRESETS)}; or {MODELS}; only the sizes are read.")],
    chip: Annotated[str | None, typer.Option(help=f"{', '.join((GROQCHIP.name, *CONFIGS))}.  [default: "
                                                  f"{DEFAULT_CHIP}]")] = None,
    precision: Annotated[str, typer.Option(help=f"{', '.join(WEIGHT_BYTES)}.")] = DEFAULT_PRECISION,
    context: Annotated[int | None, typer.Option(help="Positions of each sequence.  [default: the model's]")] = None,
    batch: Annotated[int, typer.Option(help="Sequences at once.")] = 1,
    rack: Annotated[str | None, typer.Option(help=f"In place of a chip: {', '.join(RACKS)}, or NAME.json.")] = None,
    tensor: Annotated[int | None, typer.Option(help="Chips of a group that divide the rows of each matrix.")] = None,
    pipeline: Annotated[int | None, typer.Option(help="Groups of chips, each with consecutive layers.")] = None,
    sequences: Annotated[int | None, typer.Option(help="Sequences of a program, as for `tsp fit`.  "
                                                       "[default: 1]")] = None,
    scales: Annotated[str | None, typer.Option(help="Scales of activations: static, dynamic or robust.  [default: "
                                                    "static]")] = None,
    cycles: Annotated[bool, typer.Option("--cycles", help="Also schedule a token, even where the model does not fit: "
                                                          "some seconds to minutes.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
) -> None:
    """Say from shapes alone how many chips a model needs, and the bounds of its speed there and on GPUs."""
    if chip is not None and rack is not None:
        raise TspError("a plan is for one kind of chip: give --chip or --rack, not both")
    wanted = model if model.lower() in PRESETS else str(find_model(model))
    check_checkpoint(Path(wanted))
    machine = None if rack is None else rack_of(rack)
    kind = machine.chips[0].name.removesuffix(LINKED) if machine else DEFAULT_CHIP if chip is None else chip
    with progress("scheduling"):
        found = make_plan(wanted, chip=kind, rack=machine, precision=precision, context=context, batch=batch,
                          tensor=tensor, pipeline=pipeline, cycles=cycles, scales=scales, sequences=sequences)
    if as_json:
        print(json.dumps(found.as_json()))
        return
    print(_head(found))
    for table in (_bytes(found), _chips(found)):
        _print(table)
    if found.divided:
        _print(_divided(found, found.divided), _assumptions(found.divided.cycles) if found.divided.cycles else ())
    _print(_roofline(found))
    print("\nBounds count weights and cache at the peak rates below; links, host and everything else cost nothing.")
    for machine, name, figure in found.sources():
        print(f"  {machine} {name}: {figure.value:.4g} {figure.unit}; {figure.source}")


def _print(table: Table, notes: Iterable[str] = ()) -> None:
    """A table below an empty line, and notes on it."""
    print(flush=True)
    plain(WIDTH).print(table)
    for note in notes:
        plain(WIDTH).print(note)


def _head(plan: Plan) -> str:
    shape = plan.shape
    active = f" ({shape.active_parameters / 1e9:.1f} B of them for a token)" if shape.experts > 1 else ""
    found = "" if shape.source == shape.name else f"; sizes: {shape.source}"
    return (f"{shape.name}: {_count(shape.parameters)} parameters{active}, {plan.precision}, context "
            f"{plan.context:,}, batch {plan.batch:,}{found}")


def _bytes(plan: Plan) -> Table:
    need = plan.need
    table = _table(f"on {plan.chip.name}", "bytes", "")
    table.add_row("weights", f"{need.weights:,}", _size(need.weights))
    table.add_row("scales and gains", f"{need.scales:,}", _size(need.scales))
    table.add_row("KV cache", f"{need.kv:,}", _size(need.kv))
    if need.state:
        table.add_row("tables and work space", f"{need.state:,}", _size(need.state))
    table.add_row("all that", f"{need.model:,}", _size(need.model))
    where = " (a memory of their own)" if need.programs_apart else ", at most"
    table.add_row(f"programs{where}", f"{need.programs:,}", _size(need.programs))
    return table


def _chips(plan: Plan) -> Table:
    table = _table(f"chips of {_size(plan.chip.memory.value)}", "")
    table.add_row("for the weights alone", f"{plan.weights_alone:,}")
    table.add_row("for all but programs", f"{plan.chips:,}")
    if not plan.need.programs_apart:
        table.add_row("with programs at most", f"{plan.chips_most:,}")
    names = {"cards": f"cards of {CHIPS_A_CARD} chips", "racks": "racks of 9 such cards (18 chips)",
             "nodes_of_8": "nodes of 8 chips, as built", "racks_of_72": "racks of 9 nodes (72 chips)"}
    for name, count in plan.packaging.items():
        table.add_row(names[name], f"{count:,}")
    return table


def _divided(plan: Plan, divided: Divided) -> Table:
    memory = plan.chip.memory.value
    table = _table(f"{divided.pipeline} x {divided.tensor} chips", "")
    places = ("the first group", *(["the fullest between"] if len(divided.bytes) > 2 else []), "the last group")
    for place, own, layers in zip(places, divided.bytes, divided.layers, strict=False):
        table.add_row(f"bytes of a chip, {place if divided.pipeline > 1 else 'the only group'} ({layers} layers)",
                      " to ".join(dict.fromkeys(f"{_size(count)} ({count / memory:.0%})"
                                                for count in (min(own), max(own)))))
    table.add_row("SRAM of each is enough, all slices together", "yes" if divided.most <= memory else "no")
    found = divided.cycles
    tokens = divided.tokens_a_period
    what = (f"{tokens} tokens" if tokens > 1 else
            "a token" if divided.sequences == 1 else f"a token, {divided.sequences} sequences in flight")
    table.add_row(f"cycles of {what}, for the matrices alone, at least", f"{divided.least_cycles:,}")
    for period in found.periods if found else ():
        table.add_row(f"cycles of {what}, scheduled, positions {period.first}..{period.last}",
                      f"{period.cycles:,} ({tokens * DEFAULT_CLOCK_MHZ * 1e6 / period.cycles:,.0f} tokens/s "
                      f"at {DEFAULT_CLOCK_MHZ:g} MHz)")
    return table


def _assumptions(found: Cycles) -> Iterator[str]:
    """What scheduled cycles are, and what they stand on."""
    yield (f"Scheduled from shapes, not measured, for {found.scales} scales: the first and the last of {found.buckets} "
           "context buckets. A program's cycles are within 2 % of that.")
    if found.plan:
        yield f"Divided by {found.plan}."
    if found.assumed:
        yield f"The model does not fit these chips. Assumed: {'; '.join(found.assumed)}."
    if found.beyond:
        yield f"No program can be made for such chips, for instructions lack the bits: {', '.join(found.beyond)}."


def _roofline(plan: Plan) -> Table:
    table = _table("roofline", *(side.machine.title for side in plan.sides))
    rows = {
        "machines": lambda side: f"{side.count:,}",
        "bandwidth of one": lambda side: f"{_size(side.machine.bandwidth.value)}/s",
        "peak of one": lambda side: f"{side.machine.operations(plan.precision) / 1e12:.4g} T/s",
        "ridge point, operations a byte": lambda side: f"{side.ridge:.1f}",
        "batch from which compute limits": lambda side: _turn(side.compute_bound_batch),
        "the same at a context of 1": lambda side: _turn(side.compute_bound_short),
        "tokens/s at batch 1, at most": lambda side: _rate(side.single),
        "the same, machines in turn": lambda side: _rate(side.in_turn),
    }
    if plan.batch > 1:
        rows[f"tokens/s at batch {plan.batch:,}, at most"] = lambda side: _rate(side.batched)
    for name, cell in rows.items():
        table.add_row(name, *map(cell, plan.sides))
    return table


def _turn(batch: int | None) -> str:
    return "none" if batch is None else f"{batch:,}"


def _rate(tokens: float) -> str:
    return f"{tokens:,.0f}" if tokens >= 100 else f"{tokens:.3g}"


def _count(number: int) -> str:
    return f"{number / 1e9:.2f} B" if number >= 1e9 else f"{number:,}"


def _size(count: float) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.4g} {unit}"
    return f"{count:.0f} B"


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for n, column in enumerate(columns):
        table.add_column(column, justify="right" if n else "left")
    return table
