"""`python -m run.campaign KIND CASES`: what no test has the time for, on all processors, with results that are kept.

`programs` runs random programs on the cycle model and on the RTL side by side (`sim.check`); the number of a case makes
its program. `faults` lets a rack tell a story over lines with errors, of which the number is the seed, and holds each
token against the integer reference.
"""

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

import base.one_thread  # noqa: F401  before anything that imports numpy
from arch.config import CONFIGS, ChipConfig, config_of
from arch.rack import RackConfig
from arch.rack_file import rack_of
from base.cache import content_key, source_digest
from base.campaign import Campaign, Part, Result, cases_of
from base.command import run
from base.errors import TspError
from program.rack import RackProgram
from sim.check.lockstep import Mismatch, lockstep
from sim.check.racks import random_images
from sim.check.random_programs import random_image
from sim.device.protocol import BrokenPromise
from sim.device.rack import RackDevice
from sim.device.reference_device import ReferenceDevice
from sim.lines import LineFaults, Lines
from sim.rack import ModelRack
from sim.rtl.chip import VerilatedChip, library
from sim.rtl.linked import VerilatedRack

from .programs import open_any
from .sampling import Sampling
from .session import Session

ROOT = Path(__file__).parents[1]
SOURCES = tuple(ROOT / name for name in ("arch", "hw", "program", "sim"))
"""What results depend on, besides a program."""
DIFFERS = "differs"
"""Of a result: what is wrong."""
PROGRAMS, FAULTS = "programs", "faults"


def random_program(config: ChipConfig, case: int) -> Result:
    """A random program on model and RTL of a chip."""
    program = random_image(config, case)
    with VerilatedChip(config, debug=True) as rtl:
        try:
            lockstep(config, program, rtl)
        except Mismatch as error:
            return {DIFFERS: str(error)}
    return {"tokens": program[1]}


def random_rack_program(rack: RackConfig, case: int) -> Result:
    """A random program on the models of a rack's chips, and on their RTL in one thread."""
    images, tokens = random_images(rack, case)
    model, rtl = ModelRack(rack), VerilatedRack(rack, threads=1)
    try:
        for racks in (model, rtl):
            for chip, image in zip(racks.chips, images, strict=True):
                chip.load(image)
        expected, found = model.run(tokens), rtl.run(tokens)
        if expected != found:
            return {DIFFERS: f"model {expected}, RTL {found}"}
        for n, (ours, theirs) in enumerate(zip(model.chips, rtl.chips, strict=True)):
            for name in images[n].mems:
                if (ours.read_mem(name) != theirs.read_mem(name)).any():
                    return {DIFFERS: f"{name} of chip {n}"}
    finally:
        rtl.close()
    return {"tokens": tokens, "flits": sum(found.sent.values())}


def story_with_faults(path: Path, errors: float, device: str, tokens: int, case: int) -> Result:
    """A story of a rack over lines with errors. Counts what the code corrected, and tokens that were run again.

    device: rtl or model.
    """
    program = open_any(path)
    assert isinstance(program, RackProgram)
    lines = Lines(program.rack, LineFaults(errors=errors, seed=case))
    racks = VerilatedRack(program.rack, threads=1) if device == "rtl" else ModelRack(program.rack)
    chips, reference = RackDevice(device, racks, lines), ReferenceDevice()
    count = min(tokens, program.context)
    try:
        told = []
        for each in (chips, reference):
            session = Session(each, program)
            session.prompt([max(1, program.first_token)], Sampling(temperature=1.0, seed=case))
            told.append([step.token for step in session.run(count)])
        corrected, failed = chips.link_errors
        if told[0] != told[1]:
            return {DIFFERS: f"the rack tells {told[0]}, the reference {told[1]}"}
        return {"tokens": count, "corrected": corrected, "failed": failed, "again": chips.replays}
    except BrokenPromise as error:
        return {DIFFERS: str(error)}
    finally:
        chips.close()


def main(
    kind: Annotated[str, typer.Argument(help=f"{PROGRAMS} or {FAULTS}")],
    cases: Annotated[str, typer.Argument(help="numbers of the cases: the first and the one behind the last, 0:1000")],
    config: Annotated[str | None, typer.Option(help=f"{PROGRAMS}: of this chip, one of {', '.join(CONFIGS)}")] = None,
    rack: Annotated[str | None, typer.Option(help=f"{PROGRAMS}: or of this rack")] = None,
    program: Annotated[Path | None, typer.Option(help=f"{FAULTS}: program file of a rack")] = None,
    errors: Annotated[float, typer.Option(help=f"{FAULTS}: probability of a wrong bit")] = 1e-5,
    device: Annotated[str, typer.Option(help=f"{FAULTS}: rtl or model")] = "rtl",
    tokens: Annotated[int, typer.Option(help=f"{FAULTS}: tokens of a story")] = 64,
    jobs: Annotated[int, typer.Option(help="cases at a time")] = os.cpu_count() or 1,
    part: Annotated[str, typer.Option(help="the cases of one of several machines, such as 2/8")] = "1/1",
    results: Annotated[Path, typer.Option("--results", "-o", help="folder that keeps the results")] = Path("campaign"),
) -> None:
    """Run cases, skip those that are known, and exit with 1 if any differs."""
    numbers = cases_of(cases)
    if kind == PROGRAMS:
        work, about = _programs(config, rack)
    elif kind == FAULTS:
        work, about = _faults(program, errors, device, tokens)
    else:
        raise TspError(f"the kind of campaign must be {PROGRAMS} or {FAULTS}, not {kind!r}")
    key = content_key(kind, about, source_digest(*SOURCES))
    campaign = Campaign(folder=results, key=key, part=Part.parse(part), jobs=jobs)
    found = campaign.run(numbers, work, _say)
    wrong = [case for case, result in found.items() if DIFFERS in result]
    sums = {name: sum(result.get(name, 0) for result in found.values())
            for name in ("tokens", "flits", "corrected", "failed", "again")}
    counted = ", ".join(f"{count:,} {name}" for name, count in sums.items() if count)
    print(f"{len(found):,} of {len(numbers):,} cases are known{': ' * bool(counted)}{counted}; {len(wrong)} differ")
    if wrong:
        raise SystemExit(1)


def _programs(config: str | None, rack: str | None) -> tuple[Callable[[int], Result], str]:
    """What runs a case, and a text of all that it depends on. Builds the simulator, so that no two cases do."""
    if (config is None) == (rack is None):
        raise TspError(f"{PROGRAMS} need a chip or a rack: give either --config or --rack")
    if rack is not None:
        machine = rack_of(rack)
        VerilatedRack(machine, threads=1).close()
        return partial(random_rack_program, machine), machine.digest()
    chip = config_of(config or "")
    library(replace(chip, debug=True))
    return partial(random_program, chip), repr(chip)


def _faults(program: Path | None, errors: float, device: str, tokens: int) -> tuple[Callable[[int], Result], str]:
    if program is None:
        raise TspError(f"{FAULTS} need a program: give --program, a program file of a rack")
    if device not in ("rtl", "model"):
        raise TspError(f"device must be rtl or model, not {device!r}")
    found = open_any(program)
    if not isinstance(found, RackProgram):
        raise TspError(f"{program}: it must be the program of a rack, not of one chip: compile with --rack")
    LineFaults(errors=errors)
    if tokens < 1:
        raise TspError(f"--tokens must be at least 1, not {tokens}")
    if device == "rtl":
        VerilatedRack(found.rack, threads=1).close()
    text = f"{content_key(program.read_bytes())} {errors} {device} {tokens}"
    return partial(story_with_faults, program.absolute(), errors, device, tokens), text


def _say(case: int, result: Result) -> None:
    text = result.get(DIFFERS)
    told = f"DIFFERS: {text}" if text else ", ".join(f"{count:,} {name}" for name, count in result.items())
    print(f"case {case}: {told}", flush=True)


if __name__ == "__main__":
    run(main, "run.campaign")
