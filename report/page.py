"""The page of `tsp report`: tables, and a token's schedule, drawn by the same scripts as on the chip's own page."""

from html import escape

from program.program import Program

from . import breakdown, names, web

STYLE = """
:root { --ink: #1c2430; --dim: #5a6474; --line: #dde2ea; --stripe: #f4f6f9; --paper: #fff; }
@media (prefers-color-scheme: dark) {
  :root { color-scheme: dark; --ink: #e7e9ec; --dim: #9aa4b1; --line: #2d343d; --stripe: #1d222a; --paper: #14181d; }
}
body { font: 15px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 24px auto;
       padding: 0 20px; max-width: 1500px; }
h1 { font-size: 22px; } h2 { font-size: 17px; margin-top: 32px; }
canvas { display: block; width: 100%; }
#overview { height: 26px; margin: 10px 0 4px; cursor: pointer; }
#chart { touch-action: pan-y; }
#tools { display: flex; flex-wrap: wrap; gap: 8px; align-items: center; }
#detail { min-height: 64px; color: var(--dim); }
button, select { font: inherit; color: inherit; background: var(--paper); border: 1px solid var(--line);
                 padding: 4px 10px; border-radius: 6px; }
#legend { list-style: none; display: flex; flex-wrap: wrap; gap: 4px 18px; padding: 0; }
#legend i, .swatch { display: inline-block; width: 11px; height: 11px; border-radius: 2px; margin-right: 7px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th { text-align: right; font-weight: 600; border-bottom: 1px solid var(--dim); padding: 3px 12px; }
td { text-align: right; padding: 2px 12px; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; padding-left: 4px; }
p.note { color: var(--dim); max-width: 900px; }
"""
NOTE = ("Cycles of one turn. Span: from an operation's first burst to its last, so spans overlap. Exposed: no matrix "
        "unit works, laid to the first begun of the operations at work. Over all segments, (MXM busy + exposed) times "
        "turns is the token's period.")


def page(program: Program, number: int, name: str) -> str:
    """The page, which loads no other files.

    number: number of the bucket that it shows first.
    name: name of the program.
    """
    bucket = breakdown.get_bucket(program, number)
    served = program.positions(bucket)
    about = (f"A token at positions {served[0]}..{served[-1]} takes exactly {bucket.period:,} cycles on "
             f"{program.config.name}. Cycles run to the right, from the token's start pulse; the chip's units lie "
             "below each other from west to east. A bar is a burst of a unit, a slanted band what it puts on a stream, "
             "one place a cycle. Point at a bar for its instruction; ctrl and wheel, or two fingers, zoom.")
    data = web.container(web.schedule_header(program, name), web.schedule_sections(program))
    script = web.script(web.joined(web.SCRIPTS / "report.js", web.SCRIPTS))
    return (f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(name)}: schedule</title>'
            f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>\n'
            f'<h1>{escape(name)}</h1><p class="note">{escape(about)}</p>\n{_tools(program, number)}'
            '<canvas id="overview"></canvas>\n<canvas id="chart"></canvas>\n<ul id="legend"></ul>\n'
            '<p id="detail"></p>\n'
            f"<h2>Cycles by operation</h2>{_operation_table(program, number)}"
            f"<h2>Buckets</h2>{_bucket_table(program)}"
            f'{web.packed("schedule.bin", data)}{script}</body></html>\n')


def _tools(program: Program, number: int) -> str:
    """The controls that select the bucket, and the part of it that is shown."""
    options = []
    for n, bucket in enumerate(program.buckets):
        served = program.positions(bucket)
        options.append(f'<option value="{n}"{" selected" if n == number else ""}>positions {served[0]}..{served[-1]}: '
                       f"{bucket.period:,} cycles</option>")
    segments = "".join(f'<button type="button" data-segment="{escape(segment.name)}">{escape(segment.name)}</button>'
                       for segment in program.buckets[number].segments)
    return (f'<div id="tools"><select id="bucket" aria-label="Bucket">{"".join(options)}</select>'
            f'<button type="button" id="zoom-fit">whole token</button>{segments}'
            '<button type="button" id="zoom-in" aria-label="Closer">+</button>'
            '<button type="button" id="zoom-out" aria-label="Farther">&minus;</button></div>\n')


def _operation_table(program: Program, number: int) -> str:
    rows, heads = [], ("operation", "segment", "turns", "first", "last", "span", "MXM busy", "VXM busy", "exposed")
    for o in breakdown.operations(program, number):
        swatch = f'<span class="swatch" style="background:{names.family(o.label).colour}"></span>'
        rows.append((swatch + escape(o.label), escape(o.segment), o.turns, o.first, o.last, o.span, o.mxm, o.vxm,
                     o.exposed))
    for t in breakdown.totals(program, number):
        rows.append((f"<b>{escape(t.segment)}</b>", "", t.turns, "", "", t.length, t.mxm, t.vxm, t.exposed))
    return f'<div class="scroll">{html_table(heads, rows)}</div><p class="note">{escape(NOTE)}</p>'


def _bucket_table(program: Program) -> str:
    rows = []
    for bucket in program.buckets:
        served = program.positions(bucket)
        rows.append((f"positions {served[0]}..{served[-1]}", f"{bucket.period:,}",
                     f"{program.roofline_fraction(served[len(served) // 2]):.3f}"))
    rows.append(("mean", f"{program.mean_cycles:,.1f}", f"{program.roofline_fraction():.3f}"))
    return html_table(("bucket", program.cycles_of_what, "roofline fraction"), rows)


def html_table(heads: tuple[str, ...], rows: list[tuple]) -> str:
    """A table of HTML; cells are HTML, too."""
    head = "".join(f"<th>{text}</th>" for text in heads)
    body = "\n".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table>"
