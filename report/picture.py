"""Space by time: a program's schedule as an SVG that a person can read, and as a page with its tables.

Above, the operations from their first burst to their last; below, every engine in the order of the chip's row, west
to east, with each burst in its operation's colour. Rose: no matrix unit works in these cycles.
"""

import colorsys
from dataclasses import dataclass
from html import escape

from program.program import Event, Program, Segment

from . import figures

LEFT = 118
"""Pixels left of cycle 0, for the names of the rows."""
ROW = 15
LANE = 17
AXIS = 22
TITLE = 26
GAP = 7
"""Pixels between two units."""
LETTER = 6.2
"""Pixels of a letter, at most, in the size of the labels."""
WIDTH = (900, 8000)
"""Pixels that a drawing should at least, and may at most, be wide."""
FULL_SCALE = 2.0
"""Pixels a cycle, where WIDTH allows it."""
GOLDEN = 0.618033988749895

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1c2430; background: #fff; margin: 24px auto; padding: 0 20px;
       max-width: 1500px; }
h1 { font-size: 22px; } h2 { font-size: 17px; margin-top: 32px; }
.scroll { overflow-x: auto; border: 1px solid #dde2ea; border-radius: 6px; padding: 6px; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th { text-align: right; font-weight: 600; border-bottom: 1px solid #8a94a6; padding: 3px 12px; }
td { text-align: right; padding: 2px 12px; border-bottom: 1px solid #edf0f4; }
th:first-child, td:first-child { text-align: left; padding-left: 4px; }
.swatch { display: inline-block; width: 11px; height: 11px; border-radius: 2px; margin-right: 7px; }
p.note { color: #5a6474; max-width: 900px; }
"""


@dataclass(frozen=True)
class Sheet:
    """Scale of a drawing: pixels a cycle, and the segment whose first cycle is at the left."""

    segment: Segment
    scale: float

    def x(self, cycle: int) -> float:
        """Pixel of the beginning of a cycle, counted from the token's start pulse."""
        return round(LEFT + (cycle - self.segment.start) * self.scale, 1)

    def width(self, first: int, last: int) -> float:
        """Pixels of cycles first..last."""
        return round((last - first + 1) * self.scale, 1)


def colours(labels: list[str]) -> dict[str, str]:
    """A colour a label; neighbours in the list differ most."""
    found = {}
    for n, label in enumerate(labels):
        lightness, saturation = ((0.62, 0.62), (0.50, 0.58), (0.72, 0.70))[n % 3]
        red, green, blue = colorsys.hls_to_rgb((0.58 + n * GOLDEN) % 1, lightness, saturation)
        found[label] = "#" + "".join(f"{round(255 * part):02x}" for part in (red, green, blue))
    return found


def segment_svg(program: Program, number: int, name: str) -> str:
    """One pass of a segment of bucket `number`."""
    segment, events = next((s, own) for s, own in figures.by_segment(program, number) if s.name == name)
    low, high = (pixels / max(segment.length, 1) for pixels in WIDTH)
    sheet = Sheet(segment, min(max(FULL_SCALE, min(low, 2 * FULL_SCALE)), high))
    fill = colours(figures.order(events))
    rows = figures.tracks(program, program.events(number))
    legend, lanes = _spans(sheet, events, fill)
    top = TITLE + AXIS + lanes * LANE + GAP
    body, bottom = _rows(sheet, events, rows, fill, top)
    right = max(sheet.x(segment.start + segment.length) + 12, LEFT + 600)
    idle = [f'<rect x="{sheet.x(a)}" y="{top}" width="{sheet.width(a, b)}" height="{bottom - top}"/>'
            for a, b in figures.idle(segment, events)]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{right:g}" height="{bottom + 8}" '
        f'viewBox="0 0 {right:g} {bottom + 8}" font-family="system-ui, Helvetica, Arial, DejaVu Sans, sans-serif" '
        'font-size="11" fill="#1c2430">',
        f'<rect width="{right:g}" height="{bottom + 8}" fill="#fff"/>',
        f'<text x="8" y="17" font-size="13" font-weight="600">{escape(_title(program, number, segment))}</text>',
        '<g fill="#fbe6e8">', *idle, "</g>", *_axis(sheet, bottom), *legend, *body, "</svg>",
    ]
    return "\n".join(parts) + "\n"


def longest_segment(program: Program, number: int) -> str:
    """Name of the segment in which a token of bucket `number` spends most cycles."""
    return max(figures.get_bucket(program, number).segments, key=lambda s: s.length * s.passes).name


def _title(program: Program, number: int, segment: Segment) -> str:
    served = program.positions(program.buckets[number])
    turns = f", one of {segment.passes} passes" if segment.passes > 1 else ""
    return (f"{segment.name}: {segment.length:,} cycles{turns} ({program.config.name}, positions "
            f"{served[0]}..{served[-1]}; rose: no matrix unit works)")


def _axis(sheet: Sheet, bottom: int) -> list[str]:
    """Numbers of cycles since the token's start pulse, and thin lines down."""
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
    """The legend: each operation from first to last burst with its name, in as few lanes as hold them; the lanes."""
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
    """Attribute of letters on a colour: white on the dark ones."""
    red, green, blue = bytes.fromhex(colour[1:])
    return ' fill="#fff"' if 0.30 * red + 0.59 * green + 0.11 * blue < 125 else ""


def _rows(sheet: Sheet, events: list[Event], rows: list[tuple[str, str]], fill: dict[str, str],
          top: int) -> tuple[list[str], int]:
    """A row an engine, with its bursts; where the last one ends."""
    parts, y, unit = [], top, rows[0][0] if rows else ""
    end = sheet.x(sheet.segment.start + sheet.segment.length)
    for queue, engine in rows:
        y += GAP * (queue != unit)
        unit = queue
        parts += [f'<text x="{LEFT - 6}" y="{y + 11}" text-anchor="end">{escape(queue)} {escape(engine)}</text>',
                  f'<path d="M{LEFT} {y + ROW}H{end}" stroke="#e4e8ee" stroke-width="0.7"/>']
        parts += [_burst(sheet, e, fill[e.label], y) for e in events if (e.queue, e.engine) == (queue, engine)]
        y += ROW
    return parts, y


def _burst(sheet: Sheet, event: Event, colour: str, y: int) -> str:
    cycles = f"{event.first}..{event.last}" if event.last > event.first else f"{event.first}"
    width = max(sheet.width(event.first, event.last) - 0.4, 0.8)
    return (f'<rect x="{sheet.x(event.first)}" y="{y + 1}" width="{width:g}" height="{ROW - 2}" fill="{colour}">'
            f'<title>{escape(event.label)}: {event.op}, cycles {cycles}</title></rect>')


# --- page ----------------------------------------------------------------------------------------------------------


def page(program: Program, number: int, name: str) -> str:
    """A page without anything from outside: every segment's drawing and the tables. name: of the program."""
    bucket = figures.get_bucket(program, number)
    served = program.positions(bucket)
    drawings = [f'<h2>{escape(segment.name)}</h2><div class="scroll">'
                f'{segment_svg(program, number, segment.name)}</div>' for segment in bucket.segments]
    about = (f"Bucket {number} of {len(program.buckets)}: a token at positions {served[0]}..{served[-1]} takes exactly "
             f"{bucket.period:,} cycles on {program.config.name}. Rows are the engines of the chip's units, west to "
             "east; a burst has its operation's colour; hover over it for its cycles, counted from the token's start "
             "pulse. In rose cycles no matrix unit works.")
    return (f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(name)}: schedule</title>'
            f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>\n'
            f'<h1>{escape(name)}</h1><p class="note">{escape(about)}</p>\n' + "\n".join(drawings)
            + "<h2>Cycles by operation</h2>" + _operation_table(program, number)
            + "<h2>Buckets</h2>" + _bucket_table(program) + "</body></html>\n")


def _operation_table(program: Program, number: int) -> str:
    rows, heads = [], ("operation", "segment", "passes", "first", "last", "span", "MXM busy", "VXM busy", "exposed")
    by_name = {segment.name: colours(figures.order(own)) for segment, own in figures.by_segment(program, number)}
    for o in figures.operations(program, number):
        swatch = f'<span class="swatch" style="background:{by_name[o.segment][o.label]}"></span>'
        rows.append((swatch + escape(o.label), escape(o.segment), o.passes, o.first, o.last, o.span, o.mxm, o.vxm,
                     o.exposed))
    for t in figures.totals(program, number):
        rows.append((f"<b>{escape(t.segment)}</b>", "", t.passes, "", "", t.length, t.mxm, t.vxm, t.exposed))
    return '<div class="scroll">' + _table(heads, rows) + "</div>" + f'<p class="note">{escape(NOTE)}</p>'


NOTE = ("Cycles of one pass. Span: from an operation's first burst to its last, so spans overlap. Exposed: no matrix "
        "unit works, laid to the first begun of the operations at work. Over all segments, (MXM busy + exposed) times "
        "passes is the token's period.")


def _bucket_table(program: Program) -> str:
    rows = []
    for bucket in program.buckets:
        served = program.positions(bucket)
        rows.append((f"positions {served[0]}..{served[-1]}", f"{bucket.period:,}",
                     f"{program.roofline_fraction(served[len(served) // 2]):.3f}"))
    rows.append(("mean", f"{program.mean_cycles:,.1f}", f"{program.roofline_fraction():.3f}"))
    return _table(("bucket", "cycles a token", "roofline fraction"), rows)


def _table(heads: tuple[str, ...], rows: list[tuple]) -> str:
    head = "".join(f"<th>{text}</th>" for text in heads)
    body = "\n".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table>"
