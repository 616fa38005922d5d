"""A token's schedule as a Chrome trace for ui.perfetto.dev. Units are processes, and engines are threads."""

from typing import Any

from program.program import Event, Program, Segment

from . import breakdown

TOKEN = 0
"""Process of the token itself, with its segments, turn by turn. Units are 1, 2, .. in the order of the chip's row."""


def chrome_trace(program: Program, number: int) -> dict[str, Any]:
    """The trace of one token of bucket `number`, with every turn of every loop. A cycle is shown as a microsecond."""
    bucket = breakdown.get_bucket(program, number)
    tracks = breakdown.tracks(program, program.events(number))
    events = _names(program, tracks)
    for segment, own in breakdown.by_segment(program, number):
        for turn in range(segment.turns):
            events.append(_complete(segment.name, TOKEN, 0, segment.start + turn * segment.length, segment.length,
                                    {"segment": segment.name, "turn": turn, "turns": segment.turns}))
            events += [_burst(event, segment, turn, *_ids(program, tracks, event)) for event in own]
    served = program.positions(bucket)
    about = {"config": program.config.name, "bucket": number, "period_cycles": bucket.period,
             "positions": f"{served[0]}..{served[-1]}", "unit": "1 us = 1 cycle"}
    return {"displayTimeUnit": "ms", "otherData": about, "traceEvents": events}


def _ids(program: Program, tracks: list[tuple[str, str]], event: Event) -> tuple[int, int]:
    """Process and thread of an event."""
    queues = list(dict.fromkeys(queue for queue, _ in tracks))
    engines = [engine for queue, engine in tracks if queue == event.queue]
    return 1 + queues.index(event.queue), engines.index(event.engine)


def _burst(event: Event, segment: Segment, turn: int, pid: int, tid: int) -> dict[str, Any]:
    args = {"op": event.op, "label": event.label, "segment": event.segment, "turn": turn}
    return _complete(event.label, pid, tid, event.first + turn * segment.length, event.last - event.first + 1, args)


def _complete(name: str, pid: int, tid: int, first: int, cycles: int, args: dict[str, Any]) -> dict[str, Any]:
    return {"ph": "X", "name": name, "pid": pid, "tid": tid, "ts": first, "dur": cycles, "args": args}


def _names(program: Program, tracks: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """Metadata: names and order of processes and threads."""
    found = [_meta("process_name", TOKEN, 0, name=f"token on {program.config.name}"),
             _meta("process_sort_index", TOKEN, 0, sort_index=TOKEN), _meta("thread_name", TOKEN, 0, name="segments")]
    for pid, queue in enumerate(dict.fromkeys(queue for queue, _ in tracks), start=1):
        found += [_meta("process_name", pid, 0, name=queue), _meta("process_sort_index", pid, 0, sort_index=pid)]
        for tid, engine in enumerate(engine for name, engine in tracks if name == queue):
            found += [_meta("thread_name", pid, tid, name=engine), _meta("thread_sort_index", pid, tid, sort_index=tid)]
    return found


def _meta(what: str, pid: int, tid: int, /, **args: Any) -> dict[str, Any]:
    return {"ph": "M", "name": what, "pid": pid, "tid": tid, "args": args}
