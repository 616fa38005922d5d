"""What a page carries of a compiled program: its schedule (`report.web`), and what the chip is loaded with."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from arch import host_map
from arch.row import queues, slices
from base.errors import TspError
from program.image import bucket_accesses, map_accesses, mem_addresses, queue_accesses, start_accesses
from program.program import Program
from report import web
from sim.rtl.chip import deep_slices, probe_table

from .tokenizer import page_tokenizer


def payload(program: Program, name: str) -> bytes:
    """The file. name: of the program, for its reader. Raises TspError where a page cannot hold the program."""
    if program.sequences > 1:
        raise TspError(f"a page runs one sequence, the program has {program.sequences}: compile without --sequences")
    tokenizer = page_tokenizer(program.tokenizer)
    header = web.schedule_header(program, name) | _loading(program)
    return web.container(header, web.schedule_sections(program) | dict(_sections(program)) | {"tokenizer": tokenizer})


def _loading(program: Program) -> dict[str, Any]:
    """What the chip's host needs to know.

    mem_bases: host address of quad 0 of each slice. deep: depths of the banks of slices that are filled directly.
    """
    config = replace(program.config, debug=True)
    return {
        "mem_bases": {name: int(mem_addresses(config, queue.name, 0, 1)[0]) for name, queue in slices(config).items()},
        "deep": deep_slices(config),
        "probes": {key: [entry.offset, entry.size] for key, entry in probe_table(config).items()},
        "spaces": {space.name: space.value for space in host_map.Space},
        "offsets": {space.name: {name: host_map.offset(space, name) for name in fields}
                    for space, fields in host_map.FIELDS.items()},
        "control": {register.name: register.value for register in host_map.Control},
        "traps": {trap.value: trap.name for trap in host_map.Trap},
    }


def _sections(program: Program) -> Iterator[tuple[str, bytes]]:
    """SRAM images; the host address of each instruction's lowest part; writes of all tables."""
    config = replace(program.config, debug=True)
    for name, data in sorted(program.image.items()):
        yield f"image/{name}", np.ascontiguousarray(data).tobytes()
    for queue in queues(config):
        writes = queue_accesses(config, queue.name, program.queues[queue.name])
        parts = web.word_bytes(queue) * 8 // host_map.WORD
        yield f"addresses/{queue.name}", writes["addr"][parts - 1 :: parts].tobytes()
    tables = [start_accesses(config, name, pcs) for name, pcs in program.starts.items()]
    tables.append(bucket_accesses(config, [(bucket.period, bucket.limit) for bucket in program.buckets]))
    tables += [map_accesses(number, lanes) for number, lanes in program.maps.items()]
    yield "tables", np.concatenate(tables).tobytes()
