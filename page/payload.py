"""What a page carries of a compiled program: its schedule (`report.web`), and what the chip is loaded with."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from arch import host_map, row
from arch.queue_store import Numbers
from base.errors import TspError
from program.program import Program
from program.tokenizer import HEADER, KIND_LLAMA2C
from report import web
from sim.rtl.chip import probe_table


def payload(program: Program, name: str) -> bytes:
    """The file. name: of the program, for its reader. Raises TspError where a page cannot hold the program."""
    _, kind, *_ = HEADER.unpack_from(program.tokenizer)
    if kind.rstrip(b"\0") != KIND_LLAMA2C:
        raise TspError("the page's own tokenizer reads llama2.c's tokenizer.bin only, and this program has a "
                       "tokenizer.json: compile the model with a tokenizer.bin (--tokenizer)")
    header = web.schedule_header(program, name) | _loading(program)
    return web.container(header, web.schedule_sections(program) | dict(_sections(program)))


def _loading(program: Program) -> dict[str, Any]:
    """What the chip's host needs to know."""
    debug = replace(program.config, debug=True)
    return {
        "maps": {str(number): list(lanes) for number, lanes in program.maps.items()},
        "probes": {key: [entry.offset, entry.size] for key, entry in probe_table(debug).items()},
        "spaces": {space.name: space.value for space in host_map.Space},
        "control": {register.name: register.value for register in host_map.Control},
        "traps": {trap.value: trap.name for trap in host_map.Trap},
    }


def _sections(program: Program) -> Iterator[tuple[str, bytes]]:
    """SRAM images; the host address of each instruction; the tokenizer."""
    for name, data in sorted(program.image.items()):
        yield f"image/{name}", np.ascontiguousarray(data).tobytes()
    config = replace(program.config, debug=True)
    for number, queue in enumerate(row.queues(config)):
        number_of = Numbers(config, queue)
        addresses = [host_map.icu_address(number, n, number_of(word), 0)
                     for n, word in enumerate(program.queues[queue.name])]
        yield f"addresses/{queue.name}", np.array(addresses, "<u4").tobytes()
    yield "tokenizer", program.tokenizer
