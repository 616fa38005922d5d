"""The page of `tsp report` for a rack: tables, and a picture of every segment with all chips and the links between
them."""

import re
from collections.abc import Sequence
from html import escape

from program.rack import RackProgram

from . import critical, links, picture
from .page import STYLE, html_table

NOTE = ("Cycles of a whole token. Exposed: no matrix unit of the chip works. Of it links: what is laid to a transfer, "
        "the first begun of the operations at work then. A slot holds one flit, a byte plane.")
PICTURE = (".picture { display: flex; overflow-x: auto; background: #fff; border: 1px solid var(--line); } "
           ".picture { margin: 12px 0; } .picture svg { flex: none; } "
           ".names { position: sticky; left: 0; z-index: 1; }")
"""The names of the rows stay at the left while a picture is moved."""


def page(program: RackProgram, number: int, name: str) -> str:
    """The page, which loads no other files.

    number: number of the bucket that it shows.
    name: name of the program.
    """
    bucket = program.buckets[number]
    served = program.positions(bucket)
    about = (f"A token at positions {served[0]}..{served[-1]} takes exactly {bucket.period:,} cycles on rack "
             f"{program.rack.name}, the same on all {len(program.chips)} chips. Cycles run to the right, from the "
             "token's start pulse. A bar is a burst of a unit; a dark band is what one chip sends to another. Point at "
             "either for more.")
    names = dict.fromkeys(segment.name for chip in program.chips for segment in chip.buckets[number].segments)
    path = critical.critical_path(program, number)
    pictures = "\n".join(_picture(picture.rack_svg(program, number, each, path), f"picture{n}")
                         for n, each in enumerate(names))
    return (f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(name)}: schedule</title>'
            f'<meta name="viewport" content="width=device-width"><style>{STYLE}{PICTURE}</style></head><body>\n'
            f'<h1>{escape(name)}</h1><p class="note">{escape(about)}</p>\n'
            f"<h2>Chips</h2>{_chip_table(program, number)}<h2>Links</h2>{_link_table(program, number)}"
            f'<p class="note">{escape(NOTE)}</p>\n<h2>Critical path</h2>{_path_table(path)}'
            f'<p class="note">{escape(f"{critical.summary(path)}. {critical.NOTE}")}</p>\n'
            f"<h2>Schedule</h2>{pictures}</body></html>\n")


def _picture(svg: str, name: str) -> str:
    """A picture under a name, with its left edge twice: once to stay in sight."""
    height, left = re.findall(r' height="(\d+)"', svg)[0], picture.LEFT
    names = (f'<svg class="names" width="{left}" height="{height}" viewBox="0 0 {left} {height}" '
             f'style="margin-right: -{left}px"><use href="#{name}"/></svg>')
    return f'<div class="picture">{names}{svg.replace("<svg ", f"<svg id={chr(34)}{name}{chr(34)} ", 1)}</div>'


def _chip_table(program: RackProgram, number: int) -> str:
    heads = ("chip", "config", "MXM busy", "VXM busy", "exposed", "of it links", "weight bytes", "SRAM")
    return html_table(heads, [
        (f.chip, escape(program.rack.chips[f.chip].name), f"{f.mxm:,}", f"{f.vxm:,}", f"{f.exposed:,}",
         f"{f.waiting:,}", f"{f.weight_bytes:,}", f"{f.sram:.1%}") for f in links.chip_figures(program, number)])


def _link_table(program: RackProgram, number: int) -> str:
    heads = ("link", "to", "latency, cycles", "flits a token", "of slots", "")
    return html_table(heads, [(str(t.near), str(t.far), t.latency, f"{t.flits:,}", f"{t.slots:,}", f"{t.share:.1%}")
                              for t in links.traffic(program, number)])


def _path_table(path: Sequence[critical.Part]) -> str:
    rows = []
    for part in path:
        turns = f", {part.turns} turns" if part.turns > 1 else ""
        rows.append((f"<b>{escape(part.segment)}{turns}</b>", "", "", f"{part.start:,}", f"{part.length:,}", "",
                     f"{part.length * part.turns:,}"))
        rows += [("", step.where, escape(step.label), f"{step.first:,}", f"{step.cycles:,}", f"{step.waiting:,}",
                  f"{step.cycles * part.turns:,}") for step in part.steps]
    return html_table(("segment", "where", "operation", "from cycle", "cycles", "waiting", "a token"), rows)
