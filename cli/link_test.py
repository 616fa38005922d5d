"""`tsp link-test`: whether boards hear each other, and how well."""

from collections.abc import Sequence
from typing import Annotated

import typer
from rich.table import Table

from arch.rack import RACKS, RackConfig
from arch.rack_file import rack_of
from base.errors import TspError
from fpga.host.link_test import EndReport, LinkTest
from fpga.host.rack import BoardChips, open_boards
from run.devices import is_port, ports_of

from .show import plain

WORSE = 1
"""The exit code where links work, but not well."""
MOST_SECONDS, MOST_TRAININGS = 86_400.0, 10_000


def link_test(
    ports: Annotated[str, typer.Argument(help="Serial ports of the boards, in the order of the rack's chips, with "
                                              "commas: /dev/ttyUSB0,/dev/ttyUSB1.")],
    rack: Annotated[str, typer.Option(help=f"{', '.join(RACKS)}, or a file of your own, NAME.json.")] = "pair",
    seconds: Annotated[float, typer.Option(help="How long wrong bits are counted.")] = 2.0,
    trainings: Annotated[int, typer.Option(help="How often the links are trained.")] = 8,
    eyes: Annotated[bool, typer.Option(help="Measure the eye of every pin.")] = True,
) -> None:
    """Test the links of boards: training, wrong bits, latencies, and the eye of every pin.

    Exits with 0 if all is well, with 1 if bits were wrong beyond correction or an eye is narrow, with 2 if a line does
    not train.
    """
    if not is_port(ports):
        raise TspError(f"ports must be serial ports such as /dev/ttyUSB0,/dev/ttyUSB1, not {ports!r}")
    if not 0 < seconds <= MOST_SECONDS:
        raise TspError(f"--seconds must be more than 0 and at most {MOST_SECONDS:g}, not {seconds:g}")
    if not 1 <= trainings <= MOST_TRAININGS:
        raise TspError(f"--trainings must be in 1..{MOST_TRAININGS}, not {trainings}")
    config, out, notes = rack_of(rack), plain(), plain(stderr=True)
    check_ports(ports_of(ports), config)
    boards, mhz = open_boards(ports_of(ports), config)
    chips = BoardChips(config, boards)
    try:
        reports = LinkTest(chips.links, notes.print).run(seconds, trainings, eyes)
    finally:
        chips.close()
    out.print(f"rack {config.name} at {mhz:g} MHz: trained {trainings} times, each time at the declared latency")
    out.print(summary(reports))
    for report in reports:
        for line in eyes_of(report):
            out.print(line)
    bad = [line for report in reports for line in complaints(report)]
    for line in bad:
        out.print(line)
    if bad:
        raise typer.Exit(WORSE)
    out.print("all links are good")


def check_ports(ports: Sequence[str], rack: RackConfig) -> None:
    """Raises TspError unless there is a port for each chip, and links to be tested."""
    if not rack.links:
        raise TspError(f"rack {rack.name} has no links to be tested: name another with --rack")
    if len(ports) != len(rack.chips) or len(set(ports)) < len(ports) or not all(ports):
        raise TspError(f"rack {rack.name} has {len(rack.chips)} chips: name as many different serial ports, the root's "
                       f"first, not {','.join(ports)} (--rack names another rack)")


def summary(reports: list[EndReport]) -> Table:
    """One line an end."""
    table = Table()
    for name, side in (("from", "left"), ("to", "left"), ("latency", "right"), ("works at", "right"),
                       ("bits", "right"), ("corrected", "right"), ("errors", "left"), ("buffer level", "left")):
        table.add_column(name, justify=side)  # type: ignore[arg-type]
    for report in reports:
        levels = ", ".join(f"{level} ({times} x)" for level, times in sorted(report.levels.items()))
        table.add_row(str(report.far), str(report.port), f"{report.declared}",
                      ranges(report.latencies) or "none", f"{report.bits:,}",
                      f"{report.corrected:,}", ", ".join(fault.name for fault in report.faults) or "none", levels)
    return table


def ranges(numbers: list[int]) -> str:
    """"10..13, 15" of [10, 11, 12, 13, 15]."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}..{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def eyes_of(report: EndReport) -> list[str]:
    """A picture of each pin's eye: the settings of its input delay, # where no bit was wrong."""
    if not report.eyes:
        return []
    return [f"eyes of the lines from {report.far} to {report.port}, by setting of the input delay (# no bit wrong):",
            *(f"  data pin {pin:2}  {''.join('.#'[good] for good in eye)}" for pin, eye in enumerate(report.eyes))]


def complaints(report: EndReport) -> list[str]:
    """What is not well, a line each."""
    found = []
    if report.faults:
        found.append(f"the link from {report.far} to {report.port} had errors beyond correction: "
                     f"{', '.join(fault.name for fault in report.faults)}")
    found += [f"the eye of data pin {pin} from {report.far} to {report.port} is narrow: check its wire, or use a "
              "shorter cable" for pin in report.narrow]
    return found
