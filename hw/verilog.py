"""Amaranth to Verilog, complete with what is written in Verilog itself."""

import re
from pathlib import Path

from amaranth.back import verilog
from amaranth.hdl import Elaboratable

RAM = Path(__file__).with_name("ram.v")
SECONDS = 40.0
"""What a chip takes to become Verilog on a quiet machine, about."""


def convert(component: Elaboratable, name: str) -> str:
    """The component's Verilog, its top module called `name`, its ports those of its signature; see `complete`."""
    return verilog.convert(component, name=name, emit_src=False, strip_internal_attrs=True)


def complete(text: str) -> str:
    """The same Verilog, followed by hw/ram.v where it has such banks."""
    return f"{text}\n{RAM.read_text()}" if re.search(r"^\s*ram #\(", text, re.MULTILINE) else text
