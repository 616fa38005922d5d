"""What a page carries of a compiled program: one binary file, which payload.js reads.

An 8-byte magic, the length of a JSON header (4 bytes, little-endian), the header, then raw sections, each aligned to 4
bytes: `sections` of the header names their offsets from the first one's, and lengths. The page decodes instruction
words itself, by the tables of the instruction set in the header, so it shows what the chip fetches.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from compiler import report
from compiler.program import DEFAULT_CLOCK_MHZ, Program
from hw import config as chips
from hw import isa
from hw.store import Numbers
from sim.verilated import probe_table

from . import walk

MAGIC = b"TSPPAGE1"
ALIGN = 4
WORD_BYTES = 16
"""Of a host word."""
ENUMS = (isa.Dir, isa.Func, isa.Alu, isa.Sat, isa.Red, isa.Src, isa.Fmt, isa.Rep, isa.ErUse, isa.Order, isa.Wfmt)
LATENCIES = ("START", "ENGINE", "MIN_DELAY", "MEM_READ", "VXM_DRIVE", "VXM_RF", "VXM_REDUCE_DRIVE", "SXM_DRIVE",
             "MXM_LOAD", "MXM_ACC", "MXM_DRAIN", "HOST_READ")


def payload(program: Program, name: str) -> bytes:
    """The file. name: of the program, for its reader."""
    sections = dict(_sections(program))
    table, at = {}, 0
    for key, data in sections.items():
        table[key] = [at, len(data)]
        at += -(-len(data) // ALIGN) * ALIGN
    header = json.dumps(_header(program, name) | {"sections": table}, separators=(",", ":")).encode()
    header += b" " * (-len(header) % ALIGN)
    body = b"".join(data + bytes(-len(data) % ALIGN) for data in sections.values())
    return MAGIC + len(header).to_bytes(4, "little") + header + body


def _header(program: Program, name: str) -> dict[str, Any]:
    config, model = program.config, program.model
    debug = replace(config, debug=True)
    return {
        "name": name,
        "config": {"name": config.name, "lanes": config.lanes, "groups": config.groups, "streams": config.streams,
                   "depths": list(config.mem_depths), "macs": config.macs, "sram": config.sram_bytes,
                   "fold": config.vxm_fold, "rows": config.rows, "buckets": config.buckets,
                   "positions": chips.POSITIONS, "planes": chips.PLANES},
        "model": {"dim": model.dim, "layers": model.n_layers, "heads": model.n_heads, "kv_heads": model.n_kv_heads,
                  "hidden": model.hidden_dim, "vocab": model.vocab_size, "seq_len": model.seq_len},
        "context": program.context,
        "clock": DEFAULT_CLOCK_MHZ,
        "bytes_read": [program.bytes_read(0), program.bytes_read(1) - program.bytes_read(0)],
        "buckets": [{"limit": b.limit, "period": b.period,
                     "segments": [{"name": s.name, "start": s.start, "length": s.length, "passes": s.passes}
                                  for s in b.segments]} for b in program.buckets],
        "symbols": {key: [s.slice, s.addr, s.quads, s.stride] for key, s in program.symbols.items()},
        "maps": {str(number): list(lanes) for number, lanes in program.maps.items()},
        "queues": [{"name": q.name, "unit": q.unit, "position": q.position, "slice": q.slice,
                    "words": len(program.queues[q.name]), "bytes": _word_bytes(q),
                    "starts": list(program.starts[q.name])} for q in isa.queues(config)],
        "row": [queue.name for queue in report.row_of_chip(program)],
        "labels": walk.labels(program),
        "probes": {key: [entry.offset, entry.size] for key, entry in probe_table(debug).items()},
        "isa": _isa(),
    }


def _isa() -> dict[str, Any]:
    """Operations with their engines and fields, as `hw.isa` has them."""
    def fields(op: isa.Op) -> list[list[Any]]:
        return [[name, f.bits, int(f.signed), f.kind.__name__ if f.kind else "", f.doc]
                for name, f in isa.FIELDS[op].items()]

    return {
        "ops": {op.value: [op.name, isa.ENGINES.get(op, ""), fields(op)] for op in isa.Op},
        "enums": {kind.__name__: {member.value: member.name for member in kind} for kind in ENUMS},
        "op_bits": isa.HEADER["op"].bits, "delay_bits": isa.DELAY_BITS,
        "time": {key: getattr(isa, key) for key in LATENCIES},
        "spaces": {space.name: space.value for space in isa.Space},
        "control": {register.name: register.value for register in isa.Control},
        "traps": {trap.value: trap.name for trap in isa.Trap},
    }


def _word_bytes(queue: isa.Queue) -> int:
    """Bytes of an instruction word: whole host words."""
    return -(-isa.width(queue.unit) // (8 * WORD_BYTES)) * WORD_BYTES


def _sections(program: Program) -> Iterator[tuple[str, bytes]]:
    """SRAM images; of each queue its words, the host address of each, and what each works for; the tokenizer."""
    for name, data in sorted(program.image.items()):
        yield f"image/{name}", np.ascontiguousarray(data).tobytes()
    config = replace(program.config, debug=True)
    marks = walk.marks(program)
    for number, queue in enumerate(isa.queues(config)):
        words, number_of, size = program.queues[queue.name], Numbers(config, queue), _word_bytes(queue)
        addresses = [isa.icu_address(number, n, number_of(word), 0) for n, word in enumerate(words)]
        yield f"words/{queue.name}", b"".join(word.to_bytes(size, "little") for word in words)
        yield f"addresses/{queue.name}", np.array(addresses, "<u4").tobytes()
        yield f"marks/{queue.name}", marks[queue.name].astype(np.uint8).tobytes()
    yield "tokenizer", program.tokenizer
