"""A token's schedule as a Chrome trace for ui.perfetto.dev. Units are processes, and engines are threads.

Of a rack, the units of all chips are there, and a thread for each direction of each link, with the flits on it.
"""

from typing import Any

from program.program import Event, Program, Segment
from program.rack import RackProgram

from . import breakdown
from .links import hops

TOKEN = 0
"""Process of the token itself, with its segments, turn by turn. Units are 1, 2, .. in the order of the chip's row."""


CHIP = 100
"""Processes of chip n begin with CHIP * n."""


def chrome_trace(program: Program, number: int) -> dict[str, Any]:
    """The trace of one token of bucket `number`, with every turn of every loop. A cycle is shown as a microsecond."""
    return _trace(program, number, _chip(program, number))


def rack_trace(program: RackProgram, number: int) -> dict[str, Any]:
    """The trace of one token on all chips of a rack, with an arrow from each SEND to its flits on a link, and from
    there to the RECEIVE."""
    events = []
    for chip, own in enumerate(program.chips):
        events += _chip(own, number, CHIP * chip, f"chip {chip}: ")
    return _trace(program, number, events + _links(program, number, CHIP * len(program.chips)))


def _trace(program: Program | RackProgram, number: int, events: list[dict[str, Any]]) -> dict[str, Any]:
    bucket = program.buckets[number]
    served = program.positions(bucket)
    about = {"config": program.config.name, "bucket": number, "period_cycles": bucket.period,
             "positions": f"{served[0]}..{served[-1]}", "unit": "1 us = 1 cycle"}
    return {"displayTimeUnit": "ms", "otherData": about, "traceEvents": events}


def _chip(program: Program, number: int, base: int = 0, prefix: str = "") -> list[dict[str, Any]]:
    """The events of one chip. base: added to its processes. prefix: of their names."""
    breakdown.get_bucket(program, number)
    tracks = breakdown.tracks(program, program.events(number))
    events = _names(program, tracks, base, prefix)
    for segment, own in breakdown.by_segment(program, number):
        for turn in range(segment.turns):
            events.append(_complete(segment.name, base + TOKEN, 0, segment.start + turn * segment.length,
                                    segment.length, {"segment": segment.name, "pass": turn,
                                                     "turns": segment.turns}))
            for event in own:
                pid, tid = base + _process(tracks, event.queue), _thread(tracks, event.queue, event.engine)
                events.append(_burst(event, segment, turn, pid, tid))
    return events


def _links(program: RackProgram, number: int, pid: int) -> list[dict[str, Any]]:
    """The events of the links: the slots that hold flits, and an arrow from there to the RECEIVE that takes them."""
    ports = sorted(program.rack.across)
    events = [_meta("process_name", pid, 0, name="links"), _meta("process_sort_index", pid, 0, sort_index=pid)]
    for tid, near in enumerate(ports):
        events += [_meta("thread_name", pid, tid, name=f"{near} to {program.rack.across[near][0]}"),
                   _meta("thread_sort_index", pid, tid, sort_index=tid)]
    segments = [{segment.name: segment for segment in own.buckets[number].segments} for own in program.chips]
    tracks = [breakdown.tracks(own, own.events(number)) for own in program.chips]
    for n, hop in enumerate(hops(program, number)):
        segment, slot = segments[hop.near.chip][hop.segment], program.rack.chips[hop.near.chip].slot
        far, queue = hop.far.chip, f"C2C_{hop.far.side}"
        taker = CHIP * far + _process(tracks[far], queue), _thread(tracks[far], queue, "receive")
        for turn in range(segment.turns):
            late, link = turn * segment.length, (pid, ports.index(hop.near))
            args = {"label": hop.label, "flits": hop.count, "pass": turn, "segment": hop.segment,
                    "arrives": hop.arrival + late}
            events.append(_complete(hop.label, *link, hop.first + late, hop.last - hop.first + slot, args))
            events += _arrow(f"{n}.{turn}", (*link, hop.first + late), (*taker, hop.arrival + late))
    return events


def _arrow(name: str, begin: tuple[int, int, int], end: tuple[int, int, int]) -> list[dict[str, Any]]:
    """From one slice to another, each by process, thread and a cycle in it."""
    common = {"name": "flit", "cat": "flit", "id": name}
    return [{"ph": "s", **common, "pid": begin[0], "tid": begin[1], "ts": begin[2]},
            {"ph": "f", "bp": "e", **common, "pid": end[0], "tid": end[1], "ts": end[2]}]


def _process(tracks: list[tuple[str, str]], queue: str) -> int:
    return 1 + list(dict.fromkeys(name for name, _ in tracks)).index(queue)


def _thread(tracks: list[tuple[str, str]], queue: str, engine: str) -> int:
    return [engine for name, engine in tracks if name == queue].index(engine)


def _burst(event: Event, segment: Segment, turn: int, pid: int, tid: int) -> dict[str, Any]:
    args = {"op": event.op, "label": event.label, "segment": event.segment, "turn": turn}
    return _complete(event.label, pid, tid, event.first + turn * segment.length, event.last - event.first + 1, args)


def _complete(name: str, pid: int, tid: int, first: int, cycles: int, args: dict[str, Any]) -> dict[str, Any]:
    return {"ph": "X", "name": name, "pid": pid, "tid": tid, "ts": first, "dur": cycles, "args": args}


def _names(program: Program, tracks: list[tuple[str, str]], base: int, prefix: str) -> list[dict[str, Any]]:
    """Metadata: names and order of processes and threads."""
    token = base + TOKEN
    found = [_meta("process_name", token, 0, name=f"{prefix}token on {program.config.name}"),
             _meta("process_sort_index", token, 0, sort_index=token), _meta("thread_name", token, 0, name="segments")]
    for pid, queue in enumerate(dict.fromkeys(queue for queue, _ in tracks), start=base + 1):
        found += [_meta("process_name", pid, 0, name=prefix + queue),
                  _meta("process_sort_index", pid, 0, sort_index=pid)]
        for tid, engine in enumerate(engine for name, engine in tracks if name == queue):
            found += [_meta("thread_name", pid, tid, name=engine), _meta("thread_sort_index", pid, tid, sort_index=tid)]
    return found


def _meta(what: str, pid: int, tid: int, /, **args: Any) -> dict[str, Any]:
    return {"ph": "M", "name": what, "pid": pid, "tid": tid, "args": args}
