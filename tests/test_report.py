"""Reports on a program: figures that add up, a trace that Perfetto opens, and a page with everything in it."""

import base64
import gzip
import json
import re
import xml.etree.ElementTree as ElementTree
from itertools import pairwise
from pathlib import Path

import pytest
from programs import small_program

from base.errors import TspError
from cli.main import app
from program.file import save
from report import breakdown, names, page, picture, streams, trace, web

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def program():
    return small_program()


@pytest.fixture(scope="module")
def file(program, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "small.tsp"
    save(program, path)
    return path


def numbers(program) -> range:
    return range(len(program.buckets))


# ---- figures ----


def test_every_cycle_of_the_period_is_accounted_for(program):
    for number in numbers(program):
        totals = breakdown.totals(program, number)
        assert sum((t.mxm + t.exposed) * t.turns for t in totals) == program.buckets[number].period
        exposed = sum(o.exposed * o.turns for o in breakdown.operations(program, number))
        assert exposed == sum(t.exposed * t.turns for t in totals if t.segment != breakdown.BETWEEN)


def test_matrix_work_covers_the_weights(program):
    """No fewer MAC cycles than both matrix units need for the bytes they consume; idle intervals are the rest."""
    for (segment, events), total in zip(breakdown.by_segment(program, 0), breakdown.totals(program, 0), strict=False):
        assert total.mxm * total.turns * program.config.macs >= segment.weight_bytes
        assert sum(last - first + 1 for first, last in breakdown.idle(segment, events)) == total.exposed


def test_operations_are_those_of_the_schedule(program):
    for number in numbers(program):
        found, events = breakdown.operations(program, number), program.events(number)
        assert {(o.segment, o.label) for o in found} == {(e.segment, e.label) for e in events}
        for name in {o.segment for o in found}:
            begins = [o.first for o in found if o.segment == name]
            assert begins == sorted(begins)
        assert all(0 <= max(o.mxm, o.vxm) <= o.span for o in found)
        assert sum(o.vxm for o in found) == sum(e.last - e.first + 1 for e in events if e.engine == "alu")


def test_the_memory_map_is_complete_and_free_of_overlaps(program):
    found = breakdown.sram_map(program)
    assert {name: sum(t.quads for t in tensors) for name, tensors in found.items()} == {
        name: used for name, (used, _) in program.sram_use().items()}
    taken = set()
    for symbol in program.symbols.values():
        for layer in range(program.model.n_layers if symbol.stride else 1):
            first = symbol.addr + layer * symbol.stride
            quads = {(symbol.slice, quad) for quad in range(first, first + symbol.quads)}
            assert not quads & taken
            taken |= quads


def test_rows_follow_the_chip(program):
    names = list(dict.fromkeys(queue for queue, _ in breakdown.tracks(program, program.events(0))))
    assert names == ["MXM_W", "MEM_W1", "MEM_W0", "VXM", "MEM_E0", "MEM_E1", "SXM_E", "MXM_E"]


def test_a_bucket_that_is_not_there_is_refused(program):
    with pytest.raises(TspError, match=re.escape(f"bucket must be in 0..{len(program.buckets) - 1}, not 99")):
        breakdown.operations(program, 99)


# ---- trace ----


def test_the_trace_is_one_token_without_overlaps(program):
    for number in numbers(program):
        made = json.loads(json.dumps(trace.chrome_trace(program, number)))
        events = [event for event in made["traceEvents"] if event["ph"] == "X"]
        period, by_track = program.buckets[number].period, {}
        for event in events:
            assert event["ts"] >= 0 and event["dur"] >= 1 and event["ts"] + event["dur"] <= period
            by_track.setdefault((event["pid"], event["tid"]), []).append((event["ts"], event["ts"] + event["dur"]))
        for spans in by_track.values():
            assert all(end <= start for (_, end), (start, _) in pairwise(sorted(spans)))
        named = {(e["pid"], e["tid"]) for e in made["traceEvents"] if e["name"] == "thread_name"}
        assert named == set(by_track)
        turns = {segment.name: segment.turns for segment in program.buckets[number].segments}
        bursts = [event for event in events if event["pid"] != trace.TOKEN]
        assert len(bursts) == sum(turns[event.segment] for event in program.events(number))


# ---- picture ----


def test_the_drawings_hold_every_burst_within_their_borders(program):
    for segment, events in breakdown.by_segment(program, 0):
        root = ElementTree.fromstring(picture.segment_svg(program, 0, segment.name))
        width, height = float(root.attrib["width"]), float(root.attrib["height"])
        for box in root.iter(f"{SVG}rect"):
            x, y, w, h = (float(box.attrib.get(name, 0)) for name in ("x", "y", "width", "height"))
            assert min(x, y) >= 0 and x + w <= width and y + h <= height
        titles = [title.text or "" for title in root.iter(f"{SVG}title")]
        assert len(titles) == len(events) + len(breakdown.order(events))


def test_the_drawing_shows_every_value_on_its_way(program):
    """A band for each burst and direction of a segment that drives what somebody takes."""
    for segment, events in breakdown.by_segment(program, 0):
        begins = {(event.queue, event.first) for event in events}
        wanted = [band for band in streams.bands(program, 0) if (band.queue, band.start) in begins]
        root = ElementTree.fromstring(picture.segment_svg(program, 0, segment.name))
        assert len([path for path in root.iter(f"{SVG}path") if "opacity" in path.attrib]) == len(wanted) > 0


def test_rows_have_names_for_a_reader(program):
    rows = {names.row_name(queue, engine) for queue, engine in breakdown.tracks(program, program.events(0))}
    drawn = ElementTree.fromstring(picture.segment_svg(program, 0, "layer"))
    assert rows <= {text.text for text in drawn.iter(f"{SVG}text")}
    assert {"matrix unit west: multiply", "memory E0: read", "vector unit", "lane switch east: switch"} <= rows


def test_every_operation_of_the_compiler_belongs_to_a_family(program):
    for number in numbers(program):
        for label in breakdown.order(program.events(number)):
            assert names.family(label) is not names.OTHER, label


def test_the_page_names_every_operation_and_needs_nothing_else(program):
    text = page.page(program, 0, "small <&>")
    for label in breakdown.order(program.events(0)):
        assert f"</span>{label}</td>" in text
    assert "small &lt;&amp;&gt;" in text
    assert not re.search(r"<link|src=|href=|url\(|@import|^import ", text, re.MULTILINE)
    data = re.search(r'id="schedule.bin">([^<]+)<', text)
    assert data and gzip.decompress(base64.b64decode(data[1])).startswith(web.MAGIC)


def test_scripts_that_define_one_name_twice_are_refused(tmp_path: Path):
    (tmp_path / "one.js").write_text('import { a } from "./two.js";\nexport const b = a;\nfunction c() {}\n')
    (tmp_path / "two.js").write_text("export const a = 1;\n")
    assert web.joined(tmp_path / "one.js", tmp_path) == (
        "// two.js\nconst a = 1;\n\n// one.js\nconst b = a;\nfunction c() {}\n")
    (tmp_path / "two.js").write_text("export const a = 1;\nfunction c() {}\n")
    with pytest.raises(TspError, match=r"one.js and two.js both define 'c'"):
        web.joined(tmp_path / "one.js", tmp_path)


# ---- command ----


def test_the_command_prints_and_writes(file: Path, program, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    outputs = {"--trace": tmp_path / "t.json", "--html": tmp_path / "s.html", "--svg": tmp_path / "s.svg"}
    options = [text for name, path in outputs.items() for text in (name, str(path))]
    assert app(["report", str(file), "--bucket", "0", *options]) == 0
    printed = capsys.readouterr().out
    assert f"{program.buckets[0].period:,} cycles a token" in printed
    assert all(label in printed for label in breakdown.order(program.events(0)))
    assert json.loads(outputs["--trace"].read_text())["otherData"]["period_cycles"] == program.buckets[0].period
    assert outputs["--html"].read_text() == page.page(program, 0, "small.tsp")
    assert "layer" in outputs["--svg"].read_text()


@pytest.mark.parametrize(("change", "options", "why"), [
    (lambda data: data[:1000], [], "cut short"),
    (lambda data: data, ["--bucket", "77"], "bucket must be in"),
    (lambda data: data, ["--html", "/nowhere/s.html"], "cannot write"),
    (lambda data: data, ["--html", "s.html", "--svg", "/nowhere/s.svg"], "cannot write"),
])
def test_what_is_refused_is_one_line(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                     monkeypatch: pytest.MonkeyPatch, change, options, why: str):
    bad = tmp_path / "bad.tsp"
    bad.write_bytes(change(file.read_bytes()))
    monkeypatch.chdir(tmp_path)
    assert app(["report", str(bad), *options]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["bad.tsp"]
    captured = capsys.readouterr()
    assert why in captured.err and captured.err.count("\n") == 1 and not captured.out
