"""Space by time: a program's schedule as an SVG for people to read.

The upper part shows each operation from its first burst to its last. The lower part has a row for every engine, in the
order of the chip's row, west to east. A burst has the colour of its operation's family. A slanted band shows the values
that a burst drives, on their way to the unit that takes them. In rose cycles no matrix unit works.

The drawing of a rack has such rows for each chip, and a slanted band for the flits of each SEND on their way to the
RECEIVE of another chip; a line, if there are more than two chips. The critical path is red: bars above the rows of the
chips that it leads through, and lines from one to the next.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from arch import row
from arch.isa import C2C_SEND
from program.program import Event, Program, Segment
from program.rack import RackProgram

from . import breakdown, names, streams
from .critical import Part, Step
from .links import Hop, hops

LEFT = 196
"""Pixels left of cycle 0, for the names of the rows."""
ROW = 15
LANE = 17
AXIS = 22
TITLE = 26
GAP = 7
"""Pixels between two units."""
LETTER = 6.2
"""Most pixels of a letter in a label."""
WIDTH = (900, 8000)
"""Least and greatest width of a drawing, in pixels."""
FULL_SCALE = 2.0
"""Pixels a cycle, if WIDTH allows it."""


Rows = dict[tuple[str, str], int]
"""Pixel of the top of each row, by queue and engine."""


@dataclass(frozen=True)
class Sheet:
    """Scale of a drawing: pixels a cycle, and the segment whose first cycle is at the left edge."""

    segment: Segment
    scale: float

    def x(self, cycle: int) -> float:
        """Pixel of the beginning of a cycle, counted from the token's start pulse."""
        return round(LEFT + (cycle - self.segment.start) * self.scale, 1)

    def width(self, first: int, last: int) -> float:
        """Pixels of cycles first..last."""
        return round((last - first + 1) * self.scale, 1)


def segment_svg(program: Program, number: int, name: str) -> str:
    """The drawing of one turn of a segment of bucket `number`."""
    segment, events = next((s, own) for s, own in breakdown.by_segment(program, number) if s.name == name)
    sheet = _sheet(segment)
    fill = {label: names.family(label).colour for label in breakdown.order(events)}
    legend, lanes = _spans(sheet, events, fill)
    top = TITLE + AXIS + lanes * LANE + GAP
    rows, bottom = _places(breakdown.tracks(program, program.events(number)), top)
    body = [*_bands(sheet, program, number, events, rows), *_rows(sheet, events, rows)]
    return _svg(sheet, _title(program, number, segment), _idle(sheet, events, top, bottom), [*legend, *body], bottom)


KEY_ENGINES = ("mac", "alu", "sxm", "lanes", "send", "receive")
"""Engines that the drawing of a large rack has rows for."""
FEW_CHIPS = 2
"""Chips of a rack whose drawing has rows for all engines."""


PATH = "#a8122f"
"""Colour of the critical path."""


def rack_svg(program: RackProgram, number: int, name: str, path: Sequence[Part] = ()) -> str:
    """The drawing of one turn of a segment of bucket `number` on all chips of a rack, with its part of a path."""
    own = [next(((s, found) for s, found in breakdown.by_segment(chip, number) if s.name == name), None)
           for chip in program.chips]
    segment = next(found[0] for found in own if found)
    sheet = _sheet(segment)
    every = [event for found in own if found for event in found[1]]
    fill = {label: names.family(label).colour for label in breakdown.order(every)}
    legend, lanes = _spans(sheet, every, fill)
    steps = next((part.steps for part in path if (part.segment, part.start) == (name, segment.start)), ())
    y, body, idle, places = TITLE + AXIS + lanes * LANE + GAP, list[str](), list[str](), list[Rows]()
    for chip, found in enumerate(own):
        events = found[1] if found else []
        rows = [track for track in breakdown.tracks(program.chips[chip], events)
                if len(own) <= FEW_CHIPS or track[1] in KEY_ENGINES]
        body.append(f'<text x="8" y="{y + 12}" font-weight="600">chip {chip}</text>')
        body += [_path_bar(sheet, step, y) for step in steps if step.chip == chip and not step.link]
        place, bottom = _places(rows, y + ROW)
        idle += _idle(sheet, events, y + ROW, bottom)
        body += _rows(sheet, events, place)
        places.append(place)
        y = bottom + 2 * GAP
    taken = {(step.link[0], step.first) for step in steps if step.link}
    flights = [hop for hop in hops(program, number) if hop.segment == name]
    if len(own) > FEW_CHIPS:
        body += [_flight_line(sheet, hop, places) for hop in flights]
    else:
        body += [_flight(sheet, hop, places) for hop in flights]
    body += [_flight_line(sheet, hop, places, PATH) for hop in flights if (hop.near, hop.first - C2C_SEND) in taken]
    turns = f", one of {segment.turns} passes" if segment.turns > 1 else ""
    title = (f"{name}: {segment.length:,} cycles{turns} (rack {program.rack.name}; rose: no matrix unit of the chip "
             f"works; dark: flits between chips{'; red: the critical path' * bool(steps)})")
    return _svg(sheet, title, idle, [*legend, *body], y)


def _flight(sheet: Sheet, hop: Hop, places: list[Rows]) -> str:
    """Flits on their way from one chip's row to another's."""
    begin = places[hop.near.chip][f"C2C_{hop.near.side}", "send"] + ROW // 2
    end = places[hop.far.chip][f"C2C_{hop.far.side}", "receive"] + ROW // 2
    x, width = sheet.x(hop.first), sheet.width(hop.first, hop.last)
    away = round((hop.arrival - hop.first) * sheet.scale, 1)
    return (f'<path d="M{x:g} {begin}h{width:g}L{x + width + away:g} {end}h{-width:g}z" '
            f'fill="{names.EXCHANGE.colour}" opacity="0.35"><title>{escape(_flight_title(hop))}</title></path>')


def _flight_line(sheet: Sheet, hop: Hop, places: list[Rows], colour: str = "") -> str:
    """The first flit on its way; all of them, and their path, by pointing at it."""
    begin = places[hop.near.chip][f"C2C_{hop.near.side}", "send"] + ROW // 2
    end = places[hop.far.chip][f"C2C_{hop.far.side}", "receive"] + ROW // 2
    look = f'stroke="{colour}" stroke-width="2"' if colour else (
        f'stroke="{names.EXCHANGE.colour}" stroke-width="0.9" opacity="0.3"')
    return (f'<path d="M{sheet.x(hop.first):g} {begin}L{sheet.x(hop.arrival):g} {end}" fill="none" {look}>'
            f"<title>{escape(_flight_title(hop))}</title></path>")


def _flight_title(hop: Hop) -> str:
    return (f"{hop.label}: {hop.count} flits from {hop.near} in cycle {hop.first}, at {hop.far} in cycle "
            f"{hop.arrival}")


def _path_bar(sheet: Sheet, step: Step, y: int) -> str:
    """A step of the critical path in the row of its chip's name."""
    x, width = sheet.x(step.first), sheet.width(step.first, step.end - 1)
    label = step.label if LETTER * len(step.label) + 6 <= width else ""
    return (f'<g><title>critical path: {escape(step.label)}, cycles {step.first}..{step.end - 1}</title>'
            f'<rect x="{x}" y="{y + 1}" width="{max(width - 0.5, 0.8):g}" height="{ROW - 2}" fill="{PATH}"/>'
            f'<text x="{x + 3:g}" y="{y + 12}" fill="#fff">{escape(label)}</text></g>')


def _sheet(segment: Segment) -> Sheet:
    low, high = (pixels / max(segment.length, 1) for pixels in WIDTH)
    return Sheet(segment, min(max(FULL_SCALE, min(low, 2 * FULL_SCALE)), high))


def _idle(sheet: Sheet, events: list[Event], top: int, bottom: int) -> list[str]:
    """The rose of cycles in which no matrix unit works."""
    return [f'<rect x="{sheet.x(a)}" y="{top}" width="{sheet.width(a, b)}" height="{bottom - top}"/>'
            for a, b in breakdown.idle(sheet.segment, events)]


def _svg(sheet: Sheet, title: str, idle: list[str], body: list[str], bottom: int) -> str:
    right = max(sheet.x(sheet.segment.start + sheet.segment.length) + 12, LEFT + 600)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{right:g}" height="{bottom + 8}" '
        f'viewBox="0 0 {right:g} {bottom + 8}" font-family="system-ui, Helvetica, Arial, DejaVu Sans, sans-serif" '
        'font-size="11" fill="#1c2430">',
        f'<rect width="{right:g}" height="{bottom + 8}" fill="#fff"/>',
        f'<text x="8" y="17" font-size="13" font-weight="600">{escape(title)}</text>',
        '<g fill="#fbe6e8">', *idle, "</g>", *_axis(sheet, bottom), *body, "</svg>",
    ]
    return "\n".join(parts) + "\n"


def longest_segment(program: Program | RackProgram, number: int) -> str:
    """Name of the segment in which a token of bucket `number` spends most cycles."""
    chips = program.chips if isinstance(program, RackProgram) else (program,)
    segments = [segment for chip in chips for segment in breakdown.get_bucket(chip, number).segments]
    return max(segments, key=lambda s: s.length * s.turns).name


def _title(program: Program, number: int, segment: Segment) -> str:
    served = program.positions(program.buckets[number])
    turns = f", one of {segment.turns} turns" if segment.turns > 1 else ""
    return (f"{segment.name}: {segment.length:,} cycles{turns} ({program.config.name}, positions "
            f"{served[0]}..{served[-1]}; rose: no matrix unit works)")


def _axis(sheet: Sheet, bottom: int) -> list[str]:
    """The axis: cycles since the token's start pulse, with thin vertical lines."""
    step = next(step for step in (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10**4, 10**5, 10**6)
                if step * sheet.scale >= 70)
    first, end = sheet.segment.start, sheet.segment.start + sheet.segment.length
    parts = ['<g stroke="#d3d9e2" stroke-width="0.7">']
    cycles = [cycle for cycle in range(-(-first // step) * step, end + 1, step)]
    parts += [f'<path d="M{sheet.x(c)} {TITLE + AXIS - 4}V{bottom}"/>' for c in cycles]
    parts += ["</g>", '<g font-size="10" fill="#5a6474" text-anchor="middle">']
    parts += [f'<text x="{sheet.x(c)}" y="{TITLE + 12}">{c:,}</text>' for c in cycles]
    return [*parts, f'<text x="8" y="{TITLE + 12}" text-anchor="start">cycle</text>', "</g>"]


def _spans(sheet: Sheet, events: list[Event], fill: dict[str, str]) -> tuple[list[str], int]:
    """The legend, and its number of lanes: each operation from first to last burst, with its name, in as few lanes as
    possible."""
    parts: list[str] = []
    ends: list[float] = []
    limit = sheet.x(sheet.segment.start + sheet.segment.length)
    for label, colour in fill.items():
        first = min(e.first for e in events if e.label == label)
        last = max(e.last for e in events if e.label == label)
        x, width, letters = sheet.x(first), sheet.width(first, last), LETTER * len(label) + 8
        inside, before = letters <= width, x + width + letters > max(limit, LEFT + 590)
        left = x - letters if before and not inside else x
        right = x + width + (0 if inside or before else letters)
        lane = next((n for n, end in enumerate(ends) if end <= left), len(ends))
        ends[lane : lane + 1] = [right + 3]
        y = TITLE + AXIS + lane * LANE
        at = x + 4 if inside else left + 4 if before else x + width + 4
        parts += [f'<g><title>{escape(label)}: cycles {first}..{last} ({last - first + 1})</title>'
                  f'<rect x="{x}" y="{y}" width="{width}" height="{LANE - 4}" rx="2" fill="{colour}"/>'
                  f'<text x="{at:.1f}" y="{y + 10}"{_ink(colour) if inside else ""}>{escape(label)}</text></g>']
    return parts, len(ends)


def _ink(colour: str) -> str:
    """Attribute of letters on a colour: they are white on dark colours."""
    red, green, blue = bytes.fromhex(colour[1:])
    return ' fill="#fff"' if 0.30 * red + 0.59 * green + 0.11 * blue < 125 else ""




def _places(rows: list[tuple[str, str]], top: int) -> tuple[Rows, int]:
    """The places of the rows, with a gap between units, and the end of the last one."""
    found, y, unit = {}, top, rows[0][0] if rows else ""
    for queue, engine in rows:
        y += GAP * (queue != unit)
        unit = queue
        found[queue, engine] = y
        y += ROW
    return found, y


def _rows(sheet: Sheet, events: list[Event], rows: Rows) -> list[str]:
    """A row for each engine, with its bursts."""
    parts = []
    end = sheet.x(sheet.segment.start + sheet.segment.length)
    for (queue, engine), y in rows.items():
        parts += [f'<text x="{LEFT - 6}" y="{y + 11}" text-anchor="end">{escape(names.row_name(queue, engine))}</text>',
                  f'<path d="M{LEFT} {y + ROW}H{end}" stroke="#e4e8ee" stroke-width="0.7"/>']
        parts += [_burst(sheet, e, y) for e in events if (e.queue, e.engine) == (queue, engine)]
    return parts


def _burst(sheet: Sheet, event: Event, y: int) -> str:
    cycles = f"{event.first}..{event.last}" if event.last > event.first else f"{event.first}"
    width = max(sheet.width(event.first, event.last) - 0.4, 0.8)
    return (f'<rect x="{sheet.x(event.first)}" y="{y + 1}" width="{width:g}" height="{ROW - 2}" '
            f'fill="{names.family(event.label).colour}">'
            f'<title>{escape(event.label)}: {event.op}, cycles {cycles}</title></rect>')


def _bands(sheet: Sheet, program: Program, number: int, events: list[Event], rows: Rows) -> list[str]:
    """Values on their way between units: a parallelogram from the row of the burst to the last unit that takes them."""
    units = {queue.name: queue for queue in row.queues(program.config)}
    spans: dict[int, tuple[int, int]] = {}
    for (queue, _), y in rows.items():
        low, high = spans.get(units[queue].position, (y, y))
        spans[units[queue].position] = min(low, y), max(high, y)
    own = {(event.queue, event.first): event for event in events}
    parts = []
    for band in streams.bands(program, number):
        event = own.get((band.queue, band.start))
        if event is None:
            continue
        hops = abs(band.position - units[band.queue].position)
        begin, (low, high) = rows[event.queue, event.engine], spans[band.position]
        end = max(low, begin) if band.position > units[band.queue].position else min(high, begin)
        x, width, away = sheet.x(band.first), sheet.width(band.first, band.last), round(hops * sheet.scale, 1)
        parts.append(f'<path d="M{x:g} {begin + ROW // 2}h{width:g}L{x + width + away:g} {end + ROW // 2}h{-width:g}z" '
                     f'fill="{names.family(event.label).colour}" opacity="{0.16 if band.group else 0.3}"/>')
    return parts
