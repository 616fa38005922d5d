"""Writes the generated blocks of README.md and docs/*.md, and a picture: `python -m docs.generate [--check | --rtl]`.

A block stands between `<!-- generated: NAME -->` and `<!-- end generated -->`; NAME is a key of `BLOCKS`. Blocks of
the instruction set come from `arch.isa`; figures and stories come from compiling and running the shipped model. The
blocks that need the RTL (`make sim` and `make bench` as they ran) are renewed by `--rtl` only, because speeds are the
machine's own.
"""

import argparse
import ast
import functools
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import base.one_thread  # noqa: F401  before anything that imports numpy
from arch import host_map, isa, latencies, row, tables
from arch.config import CONFIGS, DEFAULT_CONFIG, REGISTERS
from arch.isa import Field, LinkOp, Op
from compiler.fit import fit
from compiler.frontend.load import load_checkpoint
from plan import claims
from plan.machines import GPUS, GROQCHIP, machine_of
from plan.plan import make_plan
from plan.shapes import PRESETS
from program.program import Program
from program.rack import RackProgram
from report import links, picture
from run.devices import open_device
from run.programs import open_any, open_program
from run.session import Session
from run.story import begin
from run.story import plan as plan_story

from .scaling import FIGURES

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"(<!-- generated: ([\w-]+) -->\n)(.*?)(<!-- end generated -->)", re.DOTALL)
MODEL = Path("models/stories263k.bin")
PICTURE = ROOT / "docs" / "img" / "schedule.svg"
PROMPT, TEMPERATURE, SEEDS = "Once upon a time", 0.7, (2, 6, 10)
STATUS = {
    "tiny": "random programs in lockstep, unit benches; too small for the shipped model",
    "micro": "`small` with one VXM lane for four vector lanes ([folded](docs/decisions/0017-folded-vxm.md)), for the "
             "smallest FPGAs: [56 MHz on an ECP5-25F, 45 MHz and more on a GW2A-18](docs/guide/fpga.md); too small for "
             "the shipped model",
    "small": "4 lanes, for smaller FPGAs: [61 MHz on an ECP5-45F](docs/guide/fpga.md); too small for the shipped model",
    "ulx3s": "8 lanes, the default of everything; [routed on an ECP5-85F and a GW5AST-138](docs/guide/fpga.md)",
    "wide": "16 lanes, as much of all else, and [`drain_max`](docs/decisions/0029-static-keys.md), for simulation and "
            "int4; "
            "[too wide for an ECP5-85F](docs/lab/routing.md)",
    "mega": "16 lanes, 256 multiply-accumulates a cycle, for a [GW5AST-138](docs/guide/fpga.md); not routed yet",
    "large": "simulation of larger models only",
    "sram28": "simulation of racks: 28 MiB, the chip of `card`, `node` and `rack` ([racks](docs/guide/racks.md))",
    "sram220": "simulation of a model of 135 million weights: the 220 MiB of SRAM of the published machine's chip",
}


SET_UP = ("creating", "installing", "program of", "compiling", "building", "simulator of")
"""How lines of `make sim` begin that are there at the first call, or differ with it."""


def files() -> list[Path]:
    """Every file that may hold generated blocks."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """(name, contents) of the blocks in a text."""
    return ((found[2], found[3]) for found in BLOCK.finditer(text))


def renewed(text: str, rtl: bool = False) -> str:
    """The text with its blocks written anew."""

    def fresh(found: re.Match[str]) -> str:
        if found[2] in RTL_BLOCKS and not rtl:
            return found[0]
        return found[1] + BLOCKS[found[2]]().rstrip("\n") + "\n" + found[4]

    return BLOCK.sub(fresh, text)


def table(*rows: tuple[str, ...]) -> str:
    """A Markdown table; the first row is the head."""
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    lines.insert(1, "|" + "---|" * len(rows[0]))
    return "\n".join(lines)


# --- the instruction set ---------------------------------------------------------------------------------------------


@functools.cache
def _source(module: str) -> tuple[ast.Module, list[str]]:
    text = Path(sys.modules[module].__file__ or "").read_text()
    return ast.parse(text), text.splitlines()


def _docstrings() -> dict[str, str]:
    """What the string behind each module constant says."""
    body = _source(isa.__name__)[0].body
    return {node.targets[0].id: " ".join(after.value.value.split())
            for node, after in itertools.pairwise(body)
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
            and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            and isinstance(after.value.value, str)}


def _comments(kind: type) -> dict[str, str]:
    """What the `#:` comment beside each member of an enumeration says."""
    tree, lines = _source(kind.__module__)
    node = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == kind.__name__)
    members = [item for item in node.body if isinstance(item, ast.Assign)]
    return {item.targets[0].id: lines[item.lineno - 1].partition("#:")[2].strip()  # type: ignore[attr-defined]
            for item in members}


def _enum(kind: Any) -> str:
    comments = _comments(kind)
    return table(("value", "name", "meaning"),
                 *((str(member.value), f"`{member.name}`", comments.get(member.name, "")) for member in kind))


def _latencies() -> str:
    names = ("START", "ENGINE", "MIN_DELAY", "MIN_DELAY_JUMP", "MEM_READ", "MEM_WRITE_TO_READ", "MEM_INDEX",
             "VXM_DRIVE", "VXM_RF", "VXM_REDUCE_DRIVE", "SXM_DRIVE", "SXM_TRANSPOSE", "MXM_LOAD",
             "MXM_ACC", "MXM_DRAIN", "C2C_SEND", "C2C_RECEIVE", "HOST_READ")
    said = _docstrings()
    return table(("constant", "cycles", "from → to"),
                 *((f"`{name}`", str(getattr(isa, name)), said[name]) for name in names))


def _registers() -> str:
    return table(("register", "where", "one cycle longer"),
                 *((f"`{name}`", where, ", ".join(f"`{longer.upper()}`" for longer in latencies.ADDED[name]) or "none")
                   for name, where in REGISTERS.items()))


def _opcodes() -> str:
    unit = {op: name for name, ops in isa.UNIT_OPS.items() for op in ops}
    ops = (*Op, *LinkOp)
    fields = {op: ", ".join(f"`{name}`" for name in isa.FIELDS[op]) or "none" for op in ops}
    return table(("opcode", "operation", "unit", "bits", "fields after the header"),
                 *((str(op.value), f"`{op.name}`", unit.get(op, "every queue"), str(isa.layout(op).size),
                    fields[op])
                   for op in ops))


def _icu() -> str:
    comments = _comments(Op)
    return table(("operation", "meaning"), *((f"`{op.name}`", comments[op.name] or "ends the body of a `LOOP`")
                                             for op in isa.ICU_OPS))


def _widths() -> str:
    return table(("queues of", "word", "operations"),
                 *((unit, f"{isa.width(unit)} bits", ", ".join(f"`{op.name}`" for op in (*isa.ICU_OPS, *ops)))
                   for unit, ops in isa.UNIT_OPS.items()))


def _kind(spec: Field) -> str:
    low, high = spec.range
    return f"`{spec.kind.__name__}`" if spec.kind else f"{low}..{high}"


def _fields() -> str:
    """A table for every layout that some operations share."""
    parts = ["Every word begins with the header.\n", _layout(isa.HEADER, 0)]
    layouts: dict[tuple, list[isa.AnyOp]] = {}
    for op in (*Op, *LinkOp):
        if isa.FIELDS[op]:
            layouts.setdefault(tuple(isa.FIELDS[op].items()), []).append(op)
    start = sum(spec.bits for spec in isa.HEADER.values())
    for items, ops in layouts.items():
        parts += ["\n### " + ", ".join(f"`{op.name}`" for op in ops) + "\n", _layout(dict(items), start)]
    return "\n".join(parts)


def _layout(fields: Any, at: int) -> str:
    rows = []
    for name, spec in fields.items():
        doc = spec.doc or (_enum_doc(spec.kind) if spec.kind else "")
        rows.append((f"{at}..{at + spec.bits - 1}" if spec.bits > 1 else str(at), f"`{name}`", _kind(spec), doc))
        at += spec.bits
    return table(("bits", "field", "values", "meaning"), *rows)


def _enum_doc(kind: type) -> str:
    return " ".join((kind.__doc__ or "").split()).split(". ")[0].rstrip(".")


def _enums() -> str:
    kinds = (isa.Dir, isa.Src, isa.Fmt, isa.Func, isa.Alu, isa.Sat, isa.Rep, isa.ErUse, isa.Red, isa.Order, isa.Wfmt)
    return "\n\n".join(f"### `{kind.__name__}`\n\n{' '.join((kind.__doc__ or '').split())}\n\n{_enum(kind)}"
                       for kind in kinds)


def _queues() -> str:
    rows = []
    for config in CONFIGS.values():
        for n, queue in enumerate(row.queues(config)):
            rows.append((config.name, str(n), f"`{queue.name}`", str(queue.position),
                         str(row.queue_depth(config, queue))))
    return table(("config", "number", "queue", "position", "instructions"), *rows)


def _tables() -> str:
    return table(("function", "first word", "words", "fraction bits within a segment"),
                 *((f"`{func.name}`", str(t.start), str(t.segments), str(t.frac_bits) if t.frac_bits else "direct")
                   for func, t in tables.TABLES.items()))


# --- figures of the shipped model ------------------------------------------------------------------------------------


@functools.cache
def program(config: str = DEFAULT_CONFIG) -> Program:
    """The shipped model."""
    return open_program(ROOT / MODEL, config=config)


def _configs() -> str:
    model = load_checkpoint(ROOT / MODEL).config
    rows = [("config", "SRAM", "int8 MACs a cycle", "cycles a token", "of the SRAM roofline", "use")]
    for config in CONFIGS.values():
        cycles, fraction = "", ""
        if fit(model, config).context:
            found = program(config.name)
            periods = [bucket.period for bucket in found.buckets]
            cycles = f"{min(periods):,}..{max(periods):,}, mean {found.mean_cycles:,.0f}"
            fraction = f"{found.roofline_fraction():.1%}"
        rows.append((f"`{config.name}`", f"{config.sram_bytes / 1024:,.0f} KiB", str(config.macs), cycles, fraction,
                     STATUS[config.name]))
    return table(*rows)


def _buckets() -> str:
    rows = [("positions", "cycles a token", "of the SRAM roofline in the middle")]
    for bucket in program().buckets:
        served = program().positions(bucket)
        rows.append((f"{served[0]}..{served[-1]}", f"{bucket.period:,}",
                     f"{program().roofline_fraction(served[len(served) // 2]):.1%}"))
    rows.append(("mean", f"{program().mean_cycles:,.1f}", f"{program().roofline_fraction():.1%}"))
    return table(*rows)


def _segments() -> str:
    rows = [("positions", *(f"{s.name}" for s in program().buckets[0].segments), "period")]
    for bucket in program().buckets:
        served = program().positions(bucket)
        rows.append((f"{served[0]}..{served[-1]}", *(
            f"{s.turns} x {s.length:,}" if s.turns > 1 else f"{s.length:,}" for s in bucket.segments),
            f"{bucket.period:,}"))
    return table(*rows)


def told(seed: int) -> str:
    """A story as the reference device tells it."""
    session = Session(open_device("reference", program().config), program())
    story = begin(session, plan_story(program(), PROMPT, temperature=TEMPERATURE, seed=seed))
    return "".join(step.text for step in story.steps()).strip()


def _stories() -> str:
    return "\n\n".join(f"> {told(seed)}\n>\n> *seed {seed}*" for seed in SEEDS)


# --- planning --------------------------------------------------------------------------------------------------------

PLANNED, PLANNED_CONTEXT, PLANNED_BATCH = "llama-3-8b", 4096, 64


def _plan_models() -> str:
    rows: list[tuple[str, ...]] = [("model", "parameters", "for a token", "context", "KV cache, int8", "chips, fp16",
                                    "int8", "int4")]
    for name, shape in PRESETS.items():
        context = min(shape.context, PLANNED_CONTEXT)
        plans = {precision: make_plan(name, precision=precision, context=context)
                 for precision in ("fp16", "int8", "int4")}
        rows.append((f"`{name}`", f"{shape.parameters / 1e9:.3g} B", f"{shape.active_parameters / 1e9:.3g} B",
                     f"{context:,}", f"{plans['int8'].need.kv / 1e6:,.0f} MB",
                     *[f"{plan.chips:,}" for plan in plans.values()]))
    return table(*rows)


def _plan_roofline() -> str:
    plans = {p: make_plan(PLANNED, precision=p, context=PLANNED_CONTEXT, batch=PLANNED_BATCH) for p in ("fp16", "int8")}
    rows = [("", *(f"{side.machine.title}, {p}" for p, plan in plans.items() for side in plan.sides))]
    sides = [side for plan in plans.values() for side in plan.sides]
    for name, cell in {
        f"machines that hold it at batch {PLANNED_BATCH}": lambda side: f"{side.count:,}",
        "ridge point, operations a byte": lambda side: f"{side.ridge:.1f}",
        "batch from which compute limits": lambda side: f"{side.compute_bound_batch:,}" if side.compute_bound_batch
        else "none",
        "the same at a context of 1": lambda side: f"{side.compute_bound_short:,}" if side.compute_bound_short
        else "none",
        "tokens/s at batch 1, at most": lambda side: f"{side.single:,.0f}",
        "the same, machines in turn": lambda side: f"{side.in_turn:,.0f}",
        f"tokens/s at batch {PLANNED_BATCH}, at most": lambda side: f"{side.batched:,.0f}",
    }.items():
        rows.append((name, *map(cell, sides)))
    return table(*rows)


def _plan_claims() -> str:
    return table(("said", "arithmetic", "so"), *map(tuple, claims.claims()))


def _plan_constants() -> str:
    rows = [("machine", "constant", "value", "unit", "source")]
    for machine in (GROQCHIP, *GPUS, machine_of(CONFIGS["large"])):
        figures = {"memory": machine.memory, "bandwidth": machine.bandwidth,
                   **{f"bandwidth of {name}": figure for name, figure in machine.paths.items()},
                   **{f"peak, {precision}": figure for precision, figure in machine.peak.items()},
                   **({"programs, at most": machine.programs} if machine.programs else {})}
        rows += [(machine.title, name, f"{figure.value:.5g}", figure.unit, figure.source)
                 for name, figure in figures.items()]
    return table(*rows)


def _plan_shapes() -> str:
    rows: list[tuple[str, ...]] = [("model", "dim", "hidden", "layers", "heads", "KV heads", "head size",
                                    "vocabulary", "context", "source")]
    for name, s in PRESETS.items():
        sizes = (s.dim, s.hidden, s.layers, s.heads, s.kv_heads, s.head_dim, s.vocab, s.context)
        rows.append((f"`{name}`", *map(str, sizes), s.source))
    return table(*rows)


def _made(target: str) -> str:
    environment = os.environ | {"COLUMNS": "10000"}
    done = subprocess.run(["make", "--no-print-directory", target], cwd=ROOT, env=environment, text=True, check=True,
                          capture_output=True)
    lines = [line.rstrip() for line in done.stdout.strip().splitlines() if not line.startswith(SET_UP)]
    return f"```\n$ make {target}\n" + "\n".join(lines) + "\n```"


CHAT = ("chat", "smollm2", "--context", "2048", "--tokens", "48")
QUESTION = "What is the capital of France?"


def _chat() -> str:
    """A question to SmolLM2, as a terminal shows it. Needs `tsp get smollm2`, and some minutes."""
    done = subprocess.run([sys.executable, "-m", "cli.main", *CHAT], input=f"{QUESTION}\n", cwd=ROOT, check=True,
                          capture_output=True, text=True)
    took = next(line for line in done.stderr.splitlines() if "predicted" in line)
    return f"```\n$ tsp {' '.join(CHAT)}\n> {QUESTION}\n{done.stdout.strip()}\n{took}\n```"


# --- racks -----------------------------------------------------------------------------------------------------------


@functools.cache
def rack_program() -> RackProgram:
    """The shipped model on two chips."""
    found = open_any(ROOT / MODEL, rack="pair")
    assert isinstance(found, RackProgram)
    return found


def _rack_cycles() -> str:
    rows = [("", "cycles a token", "mean", "tokens/s at 50 MHz", "SRAM used of each chip")]
    for name, each in ((f"one `{DEFAULT_CONFIG}`", program()), ("`pair`", rack_program())):
        periods = [bucket.period for bucket in each.buckets]
        chips = each.chips if isinstance(each, RackProgram) else (each,)
        uses = [[sum(quads) for quads in zip(*chip.sram_use().values(), strict=True)] for chip in chips]
        rows.append((name, f"{min(periods):,}..{max(periods):,}", f"{each.mean_cycles:,.0f}",
                     f"{each.tokens_per_second(50):,.0f}", ", ".join(f"{used / there:.0%}" for used, there in uses)))
    return table(*rows)


def _rack_links() -> str:
    return table(("from", "to", "latency", "flits a token", "of slots"),
                 *((str(t.near), str(t.far), f"{t.latency} cycles", f"{t.flits:,}", f"{t.share:.1%}")
                   for t in links.traffic(rack_program(), 0)))


def _rack_scaling() -> str:
    found = json.loads(FIGURES.read_text())
    counts = sorted({int(count) for own in found.values() for count in own["cycles"]})
    rows = []
    for name, own in found.items():
        cycles = {int(count): value for count, value in own["cycles"].items()}
        rows.append((name, f"`{own['config']}`", *(
            f"{cycles[count]:,} ({cycles[1] / cycles[count]:.2f})" if count in cycles else "" for count in counts)))
    return table(("model", "chips", *(str(count) for count in counts)), *rows)


RACK_RUN = ("run", MODEL.as_posix(), "--rack", "pair", "--prompt", PROMPT)


def _rack_run() -> str:
    done = subprocess.run([sys.executable, "-m", "cli.main", *RACK_RUN], cwd=ROOT, check=True, text=True,
                          capture_output=True, env=os.environ | {"COLUMNS": "10000"})
    lines = [line.rstrip() for line in done.stdout.strip().splitlines() if not line.startswith(SET_UP)]
    return f"```\n$ tsp {shlex.join(RACK_RUN)}\n" + "\n".join(lines) + "\n```"


RTL_BLOCKS = {"sim": lambda: _made("sim"), "bench": lambda: _made("bench"), "chat": _chat, "rack-run": _rack_run}
"""Blocks that `--rtl` alone renews."""
BLOCKS: dict[str, Callable[[], str]] = {
    "isa-latencies": _latencies, "registers": _registers,
    "isa-opcodes": _opcodes, "isa-icu": _icu, "isa-widths": _widths,
    "isa-fields": _fields, "isa-enums": _enums, "isa-queues": _queues, "isa-spaces": lambda: _enum(host_map.Space),
    "isa-control": lambda: _enum(host_map.Control), "isa-traps": lambda: _enum(host_map.Trap), "tables": _tables,
    "configs": _configs, "buckets": _buckets, "segments": _segments, "stories": _stories,
    "plan-models": _plan_models, "plan-roofline": _plan_roofline, "plan-claims": _plan_claims,
    "plan-constants": _plan_constants, "plan-shapes": _plan_shapes,
    "rack-cycles": _rack_cycles, "rack-links": _rack_links, "rack-scaling": _rack_scaling,
    **RTL_BLOCKS,
}
"""Contents of a block, by name."""


def schedule() -> str:
    """The picture: a turn of the shipped model's layers, for its first positions."""
    return picture.segment_svg(program(), 0, picture.longest_segment(program(), 0))


def main() -> int:
    """Write the blocks and the picture, or with --check say which differ; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m docs.generate", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 if a block is out of date")
    parser.add_argument("--rtl", action="store_true", help="also write the output of `make sim`, which runs the RTL")
    options = parser.parse_args()
    stale = []
    for path, new in [*((path, renewed(path.read_text(), rtl=options.rtl)) for path in files()), (PICTURE, schedule())]:
        if new != path.read_text():
            stale.append(path.relative_to(ROOT).as_posix())
            if not options.check:
                path.write_text(new)
    print("\n".join(f"{'out of date' if options.check else 'written'}: {name}" for name in stale) or "all up to date")
    return int(options.check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
