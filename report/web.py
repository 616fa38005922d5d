"""The parts of a web page: a program's schedule as data, and scripts joined into one.

A page decodes the instruction words itself, with the tables of the instruction set that come with them. So it shows
what the chip fetches. The data is one binary file, which payload.js reads: an 8-byte magic, the length of a JSON header
(4 bytes, little-endian), the header, and raw sections. Sections are aligned to 4 bytes. `sections` in the header gives
their lengths, and their offsets from the first section.
"""

import base64
import gzip
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from arch import config as chips
from arch import isa, row
from arch.latencies import latencies
from base.errors import TspError
from program.program import DEFAULT_CLOCK_MHZ, Program

from . import breakdown, issue, names, streams

SCRIPTS = Path(__file__).with_name("js")
"""The scripts that draw a schedule on every page."""
MAGIC = b"TSPPAGE1"
ALIGN = 4
WORD_BYTES = 16
"""Bytes of a host word."""
ENUMS = (isa.Dir, isa.DrainMax, isa.Func, isa.Alu, isa.Sat, isa.Red, isa.Src, isa.Fmt, isa.Rep, isa.ErUse, isa.Order,
         isa.Wfmt)
LATENCIES = ("START", "ENGINE", "MEM_READ", "VXM_DRIVE", "VXM_RF", "VXM_REDUCE_DRIVE", "SXM_DRIVE", "MXM_LOAD",
             "MXM_ACC", "MXM_DRAIN", "C2C_RECEIVE")
IMPORT = re.compile(r'^import [^;]*? from "\./(\w+\.js)";\n', re.MULTILINE)
EXPORT = re.compile(r"^export (?=(?:async )?(?:function|class|const|let)\b)", re.MULTILINE)
NAME = re.compile(r"^(?:async )?(?:function|class|const|let) (\w+)", re.MULTILINE)


# --- data ----------------------------------------------------------------------------------------------------------


def container(header: Mapping[str, Any], sections: Mapping[str, bytes]) -> bytes:
    """The binary file of a header and sections."""
    table, at = {}, 0
    for key, data in sections.items():
        table[key] = [at, len(data)]
        at += len(data) + -len(data) % ALIGN
    text = json.dumps({**header, "sections": table}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGN)
    body = b"".join(data + bytes(-len(data) % ALIGN) for data in sections.values())
    return MAGIC + len(text).to_bytes(4, "little") + text + body


def schedule_header(program: Program, name: str) -> dict[str, Any]:
    """Everything except the words that a drawing of the schedule needs.

    name: name of the program, for the reader.
    """
    config, model = program.config, program.model
    return {
        "name": name,
        "config": {"name": config.name, "lanes": config.lanes, "groups": config.groups, "streams": config.streams,
                   "depths": list(config.mem_depths), "macs": config.macs, "sram": config.sram_bytes,
                   "fold": config.vxm_fold, "rows": config.rows, "buckets": config.buckets,
                   "positions": chips.POSITIONS, "vxm": chips.VXM, "planes": chips.PLANES},
        "model": {"dim": model.dim, "layers": model.n_layers, "heads": model.n_heads, "kv_heads": model.n_kv_heads,
                  "hidden": model.hidden_dim, "vocab": model.vocab_size, "seq_len": model.seq_len},
        "context": program.context,
        "clock": DEFAULT_CLOCK_MHZ,
        "bytes_read": [program.bytes_read(0), program.bytes_read(1) - program.bytes_read(0)],
        "buckets": [{"limit": b.limit, "period": b.period,
                     "segments": [{"name": s.name, "start": s.start, "length": s.length, "turns": s.turns}
                                  for s in b.segments]} for b in program.buckets],
        "symbols": {key: [s.slice, s.addr, s.quads, s.stride] for key, s in program.symbols.items()},
        "queues": [{"name": q.name, "unit": q.unit, "position": q.position, "slice": q.slice,
                    "title": names.unit_name(q.name), "words": len(program.queues[q.name]), "bytes": word_bytes(q),
                    "starts": list(program.starts[q.name])} for q in row.queues(config)],
        "row": [queue.name for queue in breakdown.row_of_chip(program)],
        "labels": issue.labels(program),
        "families": [[f.name, f.colour, list(f.labels)] for f in (*names.FAMILIES, names.OTHER)],
        "engine_names": names.ENGINES,
        "isa": _isa(config),
    }


def schedule_sections(program: Program) -> dict[str, bytes]:
    """For each queue its words, their operations (`issue.marks`) and their values' reach (`streams.reach_table`).

    Raises TspError if the program has more operations than a mark can name.
    """
    marks, reach = issue.marks(program), streams.reach_table(program)
    found: dict[str, bytes] = {}
    for queue in row.queues(program.config):
        words = program.queues[queue.name]
        found[f"words/{queue.name}"] = b"".join(word.to_bytes(word_bytes(queue), "little") for word in words)
        found[f"marks/{queue.name}"] = marks[queue.name].astype(np.uint8).tobytes()
        found[f"reach/{queue.name}"] = reach[queue.name].tobytes()
    return found


def word_bytes(queue: row.Queue) -> int:
    """Bytes of an instruction word: whole host words."""
    return -(-isa.width(queue.unit) // (8 * WORD_BYTES)) * WORD_BYTES


def _isa(config: chips.ChipConfig) -> dict[str, Any]:
    """Operations with their engines and fields, and the chip's latencies. A link's queue has its own operations."""
    def operation(op: isa.AnyOp) -> list[Any]:
        fields = [[name, f.bits, int(f.signed), f.kind.__name__ if f.kind else "", f.doc]
                  for name, f in isa.FIELDS[op].items() if not f.needs or getattr(config, f.needs)]
        return [op.name, isa.ENGINES.get(op, ""), fields]

    times = latencies(config)
    return {
        "ops": {op.value: operation(op) for op in isa.Op},
        "link_ops": {op.value: operation(op) for op in isa.LinkOp},
        "enums": {kind.__name__: {member.value: member.name for member in kind} for kind in ENUMS},
        "op_bits": isa.HEADER["op"].bits, "delay_bits": isa.DELAY_BITS,
        "time": {key: getattr(times, key.lower(), getattr(isa, key)) for key in LATENCIES},
    }


# --- scripts -------------------------------------------------------------------------------------------------------


def joined(main: Path, *folders: Path) -> str:
    """A module and all its imports as one script, in the order of the imports.

    The sources are plain ES modules, which a browser can also load directly.

    folders: folders with the modules.

    Raises TspError if two modules define the same name at their top level.
    """
    texts: dict[str, str] = {}

    def add(path: Path) -> None:
        text = path.read_text()
        for needed in IMPORT.findall(text):
            if needed not in texts:
                add(next(folder / needed for folder in folders if (folder / needed).exists()))
        texts[path.name] = EXPORT.sub("", IMPORT.sub("", text))

    add(main)
    seen: dict[str, str] = {}
    for name, text in texts.items():
        for word in NAME.findall(text):
            if word in seen:
                raise TspError(f"{name} and {seen[word]} both define {word!r}, but are joined: rename one")
            seen[word] = name
    return "\n".join(f"// {name}\n{text}" for name, text in texts.items())


def script(text: str, kind: str = "module", name: str = "") -> str:
    """A script element. Text that would end it early is escaped."""
    label = f' id="{name}"' if name else ""
    return f'<script type="{kind}"{label}>\n{text.replace("</script", "<" + chr(92) + "/script")}</script>\n'


def packed(name: str, data: bytes) -> str:
    """A script element with compressed data. data.js finds it by its name."""
    text = base64.b64encode(gzip.compress(data, 9, mtime=0)).decode()
    return f'<script type="application/gzip" id="{name}">{text}</script>\n'
