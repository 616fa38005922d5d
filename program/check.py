"""Checks a program file whose checksum is right: its parts must fit each other and the chip."""

from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise

import numpy as np

from arch import isa, queue_store, row
from arch.legal import instruction
from arch.vectors import SIDES, ceil_div
from base.errors import TspError

from .integer import MATRICES, array_shapes, from_arrays, model_sizes
from .program import EVENT_COLUMNS, TOGETHER, Program, Symbol
from .rack import COMMON, AnyProgram, RackProgram
from .weights import SOURCES, Stored, base_of, join, whole_shape

REGISTER = 32
"""Bits of host registers for periods, limits and positions."""
HOST_SYMBOLS = ("logits", "noise", "position", "temperature", "token", "tokens")
"""Tensors that the host reads and writes."""
OF_LOGITS = ("logits", "noise")
"""Those that a chip of a rack has only if it holds rows of the classifier."""
OF_CHOICE = (*OF_LOGITS, "temperature", "tokens")
"""The same, of chips that work on several sequences."""


def check_any(program: AnyProgram) -> None:
    """`check` of a program for a chip, or for a rack and each of its chips."""
    if not isinstance(program, RackProgram):
        check(program)
        return
    for n, chip in enumerate(program.chips):
        for fault in _faults(chip, _SHARED):
            raise TspError(f"the program is damaged: on chip {n}, {fault}: compile it again")
    for fault in _together(program):
        raise TspError(f"the program is damaged: {fault}: compile it again")
    join((share for chip in program.chips for share in chip.shares()), model_sizes(program.arrays))


def check(program: Program) -> None:
    """Raises TspError that names the first part of a program that contradicts another part, or does not fit the
    chip."""
    for fault in _faults(program, (*_SHARED, _complete)):
        raise TspError(f"the program is damaged: {fault}: compile it again")


def _faults(program: Program, parts: Iterable[Callable[[Program], Iterator[str]]]) -> Iterator[str]:
    for part in parts:
        yield from part(program)


def _together(program: RackProgram) -> Iterator[str]:
    """Faults between the chips of a rack."""
    first = program.chips[0]
    groups = len({tuple(chip.channels.get("layers", ())) for chip in program.chips})
    for n, chip in enumerate(program.chips):
        if chip.config != program.rack.chips[n]:
            yield f"the program of chip {n} must be for config {program.rack.chips[n].name}, not {chip.config.name}"
        if [(b.limit, b.period) for b in chip.buckets] != [(b.limit, b.period) for b in first.buckets]:
            yield f"limits and periods of buckets must be the same on chip {n} as on chip 0"
        if chip.sequences not in (1, groups) or chip.periods_a_token != chip.sequences:
            yield f"sequences must be 1 or {groups}, one a group of chips, not {chip.sequences} on chip {n}"
        for name in COMMON:
            if name != "arrays" and getattr(chip, name) != getattr(first, name):
                yield f"{name} must be the same on chip {n} as on chip 0"
    known = np.concatenate([chip.logit_tokens() for chip in program.chips])
    if missing := set(range(program.model.vocab_size)) - set(known.tolist()):
        yield f"the logit of token {min(missing)} must be on a chip"


def _buckets(program: Program) -> Iterator[str]:
    buckets, config, context = program.buckets, program.config, program.context
    if not 1 <= context <= program.model.seq_len:
        yield f"its context must be in 1..{program.model.seq_len} (the model's), not {context}"
    if not 1 <= len(buckets) <= config.buckets:
        yield f"it must have 1..{config.buckets} buckets, not {len(buckets)}"
    limits = [bucket.limit for bucket in buckets]
    if any(one >= other for one, other in pairwise([0, *limits])):
        yield f"limits of buckets must rise from 1 on, not be {limits}"
    most = ((1 << REGISTER) - 1) // max(1, program.periods_a_token)
    if not context <= limits[-1] <= most:
        yield f"the last bucket's limit must be in {context} (the context)..{most}, not {limits[-1]}"
    if any(limit >= context for limit in limits[:-1]):
        yield f"only the last bucket may reach the context of {context}; limits are {limits}"
    least = isa.least_period(config)
    for number, bucket in enumerate(buckets):
        if not least <= bucket.period < 1 << REGISTER:
            yield f"the period of bucket {number} must be in {least}..{(1 << REGISTER) - 1}, not {bucket.period}"
        for segment in bucket.segments:
            end = segment.start + segment.length * segment.turns
            if min(segment.start, segment.length - 1, segment.turns - 1, segment.weight_bytes) < 0 or (
                    end > bucket.period):
                yield f"segment {segment.name} of bucket {number} does not lie in its period of {bucket.period}"


def _starts(program: Program) -> Iterator[str]:
    names = {queue.name for queue in row.queues(program.config)}
    if set(program.starts) != names:
        yield f"it must have starts of queues {', '.join(sorted(names))}, not of {', '.join(sorted(program.starts))}"
    for name, starts in program.starts.items():
        words = len(program.queues[name])
        if len(starts) != len(program.buckets):
            yield f"queue {name} must have a start for each of {len(program.buckets)} buckets, not {len(starts)}"
        if bad := [start for start in starts if not 0 <= start < words]:
            yield f"a start of queue {name} must be less than its {words} words, not {bad[0]}"


def _queues(program: Program) -> Iterator[str]:
    for queue in row.queues(program.config):
        words, depth = program.queues[queue.name], row.queue_depth(program.config, queue)
        if len(words) > depth:
            yield f"queue {queue.name} must hold at most {depth} words, not {len(words)}"
        first: dict[int, int] = {}
        for number, word in enumerate(words):
            first.setdefault(word, number)
        keep = queue_store.Numbers(program.config, queue)
        for word, number in first.items():
            instruction(program.config, queue, number, word)
            try:
                keep(word)
            except ValueError as error:
                yield str(error)


def _maps(program: Program) -> Iterator[str]:
    config = program.config
    for number, lanes in program.maps.items():
        if not 0 <= number < config.sxm_maps:
            yield f"numbers of lane maps must be in 0..{config.sxm_maps - 1}, not {number}"
        if sorted(lanes) != list(range(config.lanes)) or not isa.routable(lanes):
            yield f"map {number} must be a permutation of {config.lanes} lanes that the crossbar can do, not {lanes}"


def _image(program: Program) -> Iterator[str]:
    depths = row.slice_depths(program.config)
    for name, data in program.image.items():
        if name not in depths:
            yield f"its image has a slice {name!r}, the chip only {', '.join(depths)}"
        if len(data) > depths[name]:
            yield f"the image of slice {name} must be of at most {depths[name]} quads, not {len(data)}"


def _symbols(program: Program) -> Iterator[str]:
    depths = row.slice_depths(program.config)
    layers = len(program.channels.get("layers", range(program.model.n_layers)))
    for name, symbol in program.symbols.items():
        if symbol.slice not in depths or symbol.slice not in program.image:
            yield f"tensor {name!r} lies in slice {symbol.slice!r}, which is not one of {', '.join(program.image)}"
        end = symbol.addr + symbol.quads + (layers - 1) * symbol.stride
        if symbol.addr < 0 or symbol.quads < 1 or symbol.stride < 0 or end > depths[symbol.slice]:
            yield f"tensor {name!r} must lie within the {depths[symbol.slice]} quads of slice {symbol.slice}"
    needed = _host_quads(program)
    if missing := [name for name in needed if name not in program.symbols]:
        yield f"tensor {missing[0]!r}, which the host needs, is missing"
    for name, least in needed.items():
        if (there := _quads(program.symbols[name], layers)) < least:
            yield f"tensor {name!r} must have {least} quads, not {there}"


def _quads(symbol: Symbol, layers: int) -> int:
    """Quads of a tensor in all layers."""
    return symbol.quads * (layers if symbol.stride else 1)


def _host_quads(program: Program) -> dict[str, int]:
    """Quads that the host touches, by tensor. The token table also has an entry after the last position; of sequences
    in flight, tables say which is the present one."""
    lanes, logits = program.config.lanes, len(program.logit_tokens())
    found = dict.fromkeys(HOST_SYMBOLS, 1) | {"tokens": program.context // lanes + 1}
    found |= dict.fromkeys(OF_LOGITS, ceil_div(logits, lanes))
    if "noise_rest" in program.symbols:
        found["noise_rest"] = program.symbols["noise_rest"].quads // program.copies("noise_rest")
        found["noise"] -= found["noise_rest"]
    found = {name: quads * program.copies(name) for name, quads in found.items()}
    if program.periods_a_token > 1:
        found |= {"current": 1, "next": program.sequences}
    absent = () if logits else OF_LOGITS if program.sequences == 1 else OF_CHOICE
    return {name: quads for name, quads in found.items() if name not in absent}


def _schedule(program: Program) -> Iterator[str]:
    rows = program.schedule
    if rows.ndim != 2 or rows.shape[1] != len(EVENT_COLUMNS):
        yield f"its schedule must have {len(EVENT_COLUMNS)} columns, not the shape {rows.shape}"
    bucket, texts, first, last = rows[:, 0], rows[:, 1:6], rows[:, 6], rows[:, 7]
    if ((bucket < 0) | (bucket >= len(program.buckets))).any():
        yield f"its schedule must be of buckets 0..{len(program.buckets) - 1}"
    if ((texts < 0) | (texts >= len(program.texts))).any():
        yield f"its schedule must name texts 0..{len(program.texts) - 1}"
    periods = np.array([b.period for b in program.buckets])
    if ((first < 0) | (first > last) | (last >= periods[bucket])).any():
        yield "bursts of its schedule must lie within their bucket's period"
    segments = [{segment.name for segment in b.segments} for b in program.buckets]
    queues = {queue.name for queue in row.queues(program.config)}
    for number, queue, segment in np.unique(rows[:, [0, 2, 5]], axis=0).tolist():
        if program.texts[queue] not in queues:
            yield f"its schedule names a queue {program.texts[queue]!r}, which the chip lacks"
        if program.texts[segment] not in segments[number]:
            yield f"its schedule names a segment {program.texts[segment]!r}, which bucket {number} lacks"


def _model(program: Program) -> Iterator[str]:
    """Faults of the reference device's integer model."""
    if unknown := set(program.four_bit) - set(MATRICES):
        yield f"it has no matrix {min(unknown)!r} to hold in four bits"
    sizes = model_sizes(program.arrays)
    model = from_arrays(program.arrays | _weightless(sizes))
    wanted = {"context": program.context, "lanes": program.config.lanes, "vocab": program.model.vocab_size,
              "layers": program.model.n_layers}
    for name, value in wanted.items():
        if getattr(model, name) != value:
            yield f"the integer model's {name} must be {value}, not {getattr(model, name)}"
            return
    yield from _numbers(program)
    yield from _weights(program, sizes)


def _numbers(program: Program) -> Iterator[str]:
    """Faults of the numbers that say what a chip of a rack holds."""
    for name, count in {"layers": program.model.n_layers, "logits": program.model.vocab_size}.items():
        numbers = program.channels.get(name)
        if numbers is None:
            continue
        if numbers.ndim != 1 or (len(numbers) and not -1 <= numbers.min() <= numbers.max() < count):
            yield f"channels {name} must be a list of numbers below {count}"
            return
        if name == "layers" and len(np.unique(numbers[numbers >= 0])) != len(numbers):
            yield "channels layers must be different numbers from 0 on"


def _weightless(sizes: dict[str, int]) -> dict[str, np.ndarray]:
    """Matrices of the right shapes, all 0. They take no memory."""
    shapes = array_shapes(sizes)
    return {name: np.broadcast_to(np.zeros((), np.int8), shapes[name]) for name in (*MATRICES, "embedding")}


def _weights(program: Program, sizes: dict[str, int]) -> Iterator[str]:
    """Faults of the stored matrices: they must be the model's."""
    if unknown := {name for name in program.stored if base_of(name) not in SOURCES}:
        yield f"its stored matrices must be {', '.join(SOURCES)}, not {min(unknown)}"
        return
    for name, stored in program.stored.items():
        layers, rows, columns = whole_shape(base_of(name), sizes)
        own = len(program.channels.get("layers", range(layers))) if _layered(base_of(name), sizes) else 1
        if stored.layers != own or set(stored.groups) != {*SIDES}:
            yield f"matrix {name} must be stored once a layer, on both sides"
            return
        yield from _channels(program, name, {"W": rows, "E": rows, "inputs": columns})
        yield from _parts(program, stored)


def _layered(name: str, sizes: dict[str, int]) -> bool:
    return len(array_shapes(sizes)[SOURCES[name][0]]) == 3


def _complete(program: Program) -> Iterator[str]:
    """Faults of a chip that is alone: it must hold every matrix, all layers and all logits."""
    if set(program.stored) - {"embedding"} != set(SOURCES) - {"embedding"}:
        yield f"its stored matrices must be {', '.join(SOURCES)}, not {', '.join(program.stored)}"
    if program.sequences not in (1, TOGETHER) or program.periods_a_token != 1:
        yield f"it must serve 1 or {TOGETHER} sequences together, not {program.sequences}"
    if part := {"layers", "logits"} & set(program.channels):
        yield f"it must have no channels {min(part)}, which are those of a chip of a rack"


def _channels(program: Program, name: str, counts: dict[str, int]) -> Iterator[str]:
    """Faults of a stored matrix's rows and columns: they must be channels of the model, in whole steps and vectors."""
    config = program.config
    per_step = config.rows * (2 if program.stored[name].four_bit else 1)
    for kind, count in counts.items():
        channels, whole = program.channels.get(f"{name}/{kind}"), config.lanes if kind == "inputs" else per_step
        if channels is None or channels.ndim != 1 or len(channels) % whole:
            yield f"channels {kind} of matrix {name} must be there, a multiple of {whole}"
        elif len(channels) and not (channels.min() >= -1 and channels.max() < count):
            yield f"channels {kind} of matrix {name} must be in -1..{count - 1}"


def _parts(program: Program, stored: Stored) -> Iterator[str]:
    """Faults of a stored matrix's parts: they must hold the whole matrix and lie in the image."""
    config, name = program.config, stored.name
    per_step = config.rows * (2 if stored.four_bit else 1)
    columns = len(program.channels.get(f"{name}/inputs", ())) // config.lanes
    for side, groups in stored.groups.items():
        needed = len(program.channels.get(f"{name}/{side}", ())) // per_step * columns
        if len(groups) != config.weight_groups or any(sum(p.quads for p in parts) < needed for parts in groups):
            yield f"matrix {name} must have {needed} quads in each of {config.weight_groups} groups of side {side}"
        for part in (part for parts in groups for part in parts):
            last = part.addr + part.quads + (stored.layers - 1) * part.stride
            if min(part.addr, part.quads, part.stride) < 0 or last > len(program.image.get(part.slice, ())):
                yield f"matrix {name} must lie within the image of slice {part.slice}"


_SHARED = (_buckets, _starts, _queues, _maps, _image, _symbols, _schedule, _model)
"""Checks of every program, alone on its chip or part of a rack's."""
