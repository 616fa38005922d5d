"""Racks on the command line: compiled, told on every device, reported, and refused in one line."""

import io
import json
import re
import xml.etree.ElementTree as ElementTree
from contextlib import nullcontext
from pathlib import Path

import pytest
from checkpoints import random_checkpoint, small_config, write_llama2c
from programs import write_letters
from small_racks import SHARED, shared

from cli.main import app
from program.file import save
from report import links, picture, trace
from report.breakdown import by_segment

RACK = {"chips": [{"config": "tiny", "ports": [0, 1], "slot": 4}] * 2,
        "links": [{"ports": ["0.E0", "1.E0"], "latency": 9}]}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint, a rack of one's own, and a program that is compiled for it."""
    folder = tmp_path_factory.mktemp("rack")
    write_llama2c(folder / "model.bin", random_checkpoint(small_config(**SHARED)))
    write_letters(folder / "tokenizer.bin", SHARED["vocab_size"])
    (folder / "desk.json").write_text(json.dumps(RACK))
    (folder / "loose.json").write_text(json.dumps(RACK | {"links": []}))
    (folder / "broken.json").write_text("{")
    (folder / "single.json").write_text(json.dumps({"chips": RACK["chips"][:1], "links": []}))
    save(shared(), folder / "shared.tsp")
    return folder


@pytest.fixture(autouse=True)
def inside(files: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(files)


def told(capfd: pytest.CaptureFixture[str], *arguments: str) -> dict:
    assert app(["run", *arguments, "--json"]) == 0
    return json.loads(capfd.readouterr().out)


def test_compile_says_how_full_each_chip_is(capfd: pytest.CaptureFixture[str]):
    assert app(["compile", "model.bin", "--rack", "desk.json", "-o", "desk.tsp", "--accept-quality"]) == 0
    out = capfd.readouterr().out
    assert "desk.tsp: rack desk, 2 chips, context 40" in out
    assert "SRAM slice   chip 0   chip 1" in out and "C2C_E" in out


def test_a_program_file_is_told_on_every_device(capfd: pytest.CaptureFixture[str]):
    """Its rack is in the file."""
    options = ("shared.tsp", "--temperature", "1", "--seed", "4", "--tokens", "9")
    reference, model = (told(capfd, *options, "--device", device) for device in ("reference", "model"))
    assert model["config"] == "twins" and model["measured_cycles"] == model["predicted_cycles"]
    for name in ("tokens", "logits_digest", "text"):
        assert model[name] == reference[name]


def test_faults_are_told_in_a_line(capfd: pytest.CaptureFixture[str]):
    options = "shared.tsp", "--device", "model", "--tokens", "9", "--link-faults", "errors=5e-4,seed=1"
    assert app(["run", *options]) == 0
    last = capfd.readouterr().out.splitlines()[-1]
    assert last.startswith("links: ") and "wrong bits corrected without a cycle changed" in last


def test_a_chat_over_lines_with_errors_tells_of_them(capfd: pytest.CaptureFixture[str],
                                                     monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("ab\n"))
    assert app(["chat", "shared.tsp", "--device", "model", "--chat-template", "plain", "--tokens", "3",
                "--link-faults", "errors=5e-4,seed=1"]) == 0
    assert "wrong bits corrected without a cycle changed" in capfd.readouterr().err.splitlines()[-1]


def test_fit_says_how_many_chips_are_needed(capfd: pytest.CaptureFixture[str]):
    assert app(["fit", "model.bin", "--rack", "desk.json", "--cycles"]) == 0
    out = capfd.readouterr().out
    assert "desk        40" in out and "cycles hold for static scales" in out
    assert app(["fit", "model.bin", "--rack", "desk.json", "--scales", "measured"]) == 2
    assert "scales must be one of static, dynamic, robust, not 'measured'" in capfd.readouterr().err
    assert app(["fit", "model.bin", "--config", "tiny"]) == 0
    out = capfd.readouterr().out
    assert re.search(r"tiny +does not fit", out) and re.search(r"2 x tiny +40 +\d+% \d+%", out)
    assert app(["fit", "model.bin", "--config", "small"]) == 0  # more chips than the model has K/V heads
    assert re.search(r"3 x small +40 ", capfd.readouterr().out)


def test_a_conversation(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("abc\n"))
    assert app(["chat", "shared.tsp", "--chat-template", "plain", "--device", "model", "--tokens", "3"]) == 0
    assert "measured" in capfd.readouterr().err


REFUSED = [
    (["run", "model.bin", "--rack", "desk"], "a rack must be pair"),
    (["run", "model.bin", "--rack", "none.json"], "none.json: cannot read it: No such file"),
    (["run", "model.bin", "--rack", "broken.json"], "broken.json: not valid JSON: "),
    (["run", "model.bin", "--rack", ""], "a rack must be pair"),
    (["fit", "model.bin", "--config", ""], "config must be one of"),
    (["run", "model.bin", "--scales", ""], "scales must be one of"),
    (["run", "model.bin", "--weights", ""], "weights must be one of"),
    (["compile", "model.bin", "--rack", "desk.json", "-o", "desk.json"], "the command reads this very file"),
    (["report", "shared.tsp", "--rack", "desk.json", "--html", "desk.json"], "the command reads this very file"),
    (["plan", "model.bin", "--rack", "desk.json", "--chip", "large"], "give --chip or --rack, not both"),
    (["plan", "shared.tsp"], "is a program, not a checkpoint"),
    (["run", "model.bin", "--rack", "loose.json"], "chip 1 must be linked to chip 0"),
    (["run", "model.bin", "--rack", "desk.json", "--config", "tiny"], "give --config or --rack, not both"),
    (["run", "model.bin", "--tensor", "2"], "--tensor and --pipeline divide a model among the chips of a rack"),
    (["fit", "model.bin", "--pipeline", "2"], "--tensor and --pipeline divide a model among the chips of a rack"),
    (["fit", "model.bin", "--sequences", "3"], "sequences on one chip must be 1 or 2, not 3: give --rack"),
    (["run", "model.bin", "--sequences", "0"], "sequences on one chip must be 1 or 2, not 0: give --rack"),
    (["run", "model.bin", "--rack", "desk.json", "--tensor", "3"], "--tensor must divide its 2 chips"),
    (["run", "shared.tsp", "--tensor", "2"], "--tensor is for checkpoints only"),
    (["run", "shared.tsp", "--rack", "pair"], "is for rack twins"),
    (["run", "shared.tsp", "--config", "tiny"], "is for rack twins"),
    (["run", "shared.tsp", "--device", "/dev/ttyUSB0"], "must name as many serial ports"),
    (["run", "shared.tsp", "--vcd", "a.vcd"], "waveforms show one chip"),
    (["run", "shared.tsp", "--link-faults", "errors=x"], "errors must be a number, not 'x'"),
    (["run", "shared.tsp", "--link-faults", "errors=2"], "must be a probability"),
    (["run", "shared.tsp", "--link-faults", "melt"], "link faults must be of errors, seed, delay, cut, link, at"),
    (["run", "shared.tsp", "--link-faults", "cut=1"], "cut takes no value"),
    (["run", "shared.tsp", "--link-faults", ""], "link faults must be of errors"),
    (["run", "shared.tsp", "--link-faults", "cut,cut"], "cut must be given once"),
    (["run", "shared.tsp", "--link-faults", "delay=nan"], "delay must be a number of cycles"),
    (["run", "shared.tsp", "--link-faults", "errors=1e-5,link=0.E0"], "link has no effect without cut or delay"),
    (["run", "shared.tsp", "--link-faults", "errors=0,seed=1.5"], "seed must be a whole number, not '1.5'"),
    (["run", "shared.tsp", "--device", "model", "--link-faults", "cut,at=40"], "at must be in 0..39"),
    (["chat", "shared.tsp", "--chat-template", "plain", "--clock", "0"], "clock must be more than 0"),
    (["chat", "shared.tsp", "--chat-template", "plain", "--tokens", "-1"], "tokens must be at least 1, not -1"),
    (["chat", "shared.tsp", "--chat-template", "plain", "--temperature", "nan"], "temperature must be in 0..10"),
    (["chat", "shared.tsp", "--chat-template", "plain", "--top-p", "nan"], "top_p must be in 0..1"),
    (["link-test", "/dev/a"], "rack pair has 2 chips: name as many different serial ports"),
    (["link-test", "/dev/a,/dev/a"], "rack pair has 2 chips: name as many different serial ports"),
    (["link-test", "/dev/a", "--rack", "single.json"], "rack single has no links to be tested"),
    (["serve", "shared.tsp", "--drain-seconds", "nan"], "--drain-seconds must be at least 0, not nan"),
    (["run", "shared.tsp", "--link-faults", "cut,seed=3"], "seed has no effect without errors"),
    (["run", "shared.tsp", "--link-faults", "cut,link=0.W0"], "its ports are 0.E0, 1.E0"),
    (["run", "shared.tsp", "--device", "reference", "--link-faults", "cut"], "only simulated racks have link faults"),
    (["page", "shared.tsp", "-o", "a.html"], "not for one chip"),
    (["report", "shared.tsp", "--chip", "2"], "chip must be in 0..1"),
    (["report", "shared.tsp", "--bucket", "7"], "bucket must be in 0..2"),
    (["compile", "shared.tsp", "-o", "b.tsp"], "is a program, not a checkpoint"),
]


@pytest.mark.parametrize(("arguments", "words"), REFUSED)
def test_what_is_refused_is_one_line(arguments: list[str], words: str, capfd: pytest.CaptureFixture[str]):
    assert app(arguments) == 2
    out, err = capfd.readouterr()
    assert words in err.splitlines()[-1] and err.splitlines()[-1].startswith("tsp: ") and "Traceback" not in err
    assert not out


@pytest.mark.parametrize("machine", [["--rack", "desk.json"], ["--config", "tiny"]])
def test_a_fit_tells_that_it_works(machine: list[str], monkeypatch: pytest.MonkeyPatch):
    told: list[str] = []

    def progress(what: str) -> nullcontext[None]:
        told.append(what)
        return nullcontext()

    monkeypatch.setattr("cli.main.progress", progress)
    assert app(["fit", "model.bin", *machine]) == 0
    assert told[0] == "fitting model.bin"


def test_a_lost_line_is_one_line(capfd: pytest.CaptureFixture[str]):
    assert app(["run", "shared.tsp", "--device", "model", "--link-faults", "cut,at=3"]) == 1
    out, err = capfd.readouterr()
    assert out.endswith("\n")  # the story's line is ended
    assert err.splitlines()[-1] == (
        "tsp: device model: the token at position 3 is lost: link error UNDERFLOW at port 1.E0")


# --- report ----------------------------------------------------------------------------------------------------------


def test_report_tells_of_chips_and_links(capfd: pytest.CaptureFixture[str], tmp_path: Path):
    paths = {kind: tmp_path / f"out.{kind}" for kind in ("json", "html", "svg")}
    assert app(["report", "shared.tsp", "--trace", str(paths["json"]), "--html", str(paths["html"]),
                "--svg", str(paths["svg"])]) == 0
    out = capfd.readouterr().out
    assert "cycles a token on rack twins (2 chips)" in out and "0.E0   1.E0" in out
    assert "critical path" in out and "0.E0 to 1.E0   outputs" in out
    page = paths["html"].read_text()
    assert page.count("<svg id=") == 3 and "http" not in page.replace("http://www.w3.org/2000/svg", "")
    ElementTree.parse(paths["svg"])
    assert json.loads(paths["json"].read_text())["otherData"]["config"] == "twins"
    assert app(["report", "shared.tsp", "--chip", "1"]) == 0
    assert "cycles a token on tiny_linked" in capfd.readouterr().out


def test_every_send_has_its_receive():
    """In the cycle of the arrival, as often, under the same name."""
    for number in range(len(shared().buckets)):
        taken = sorted((chip, e.first, e.last, e.label) for chip, own in enumerate(shared().chips)
                       for e in own.events(number) if e.engine == "receive")
        sent = sorted((hop.far.chip, hop.arrival, hop.arrival + hop.last - hop.first, hop.label)
                      for hop in links.hops(shared(), number))
        assert sent == taken and sent


def test_figures_of_chips_and_links_add_up():
    period = shared().buckets[0].period
    for chip in links.chip_figures(shared(), 0):
        assert chip.mxm + chip.exposed == chip.period == period and 0 < chip.waiting < chip.exposed < period
    for line in links.traffic(shared(), 0):
        assert 0 < line.flits < line.slots == period // 4


def test_the_trace_has_all_chips_and_arrows_that_end_in_a_receive():
    events = trace.rack_trace(shared(), 0)["traceEvents"]
    named = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    assert {"chip 0: VXM", "chip 1: C2C_E", "links"} <= set(named.values())
    slices = [e for e in events if e["ph"] == "X"]
    for kind, end in (("s", "links"), ("f", "C2C_E")):
        arrows = [e for e in events if e["ph"] == kind]
        assert arrows
        for arrow in arrows:
            assert named[arrow["pid"]].endswith(end)
            assert any((e["pid"], e["tid"]) == (arrow["pid"], arrow["tid"]) and
                       e["ts"] <= arrow["ts"] < e["ts"] + e["dur"] for e in slices)
    assert len({e["id"] for e in events if e["ph"] == "s"}) == sum(e["ph"] == "f" for e in events)


def test_the_picture_has_every_burst_and_every_flight():
    svg = ElementTree.fromstring(picture.rack_svg(shared(), 0, "layer"))
    titles = [node.text or "" for node in svg.iter("{http://www.w3.org/2000/svg}title")]
    bursts = sum(len(events) for own in shared().chips for segment, events in by_segment(own, 0)
                 if segment.name == "layer")
    assert sum(" cycles " in title and ":" in title and "flits" not in title and "(" not in title
               for title in titles) == bursts
    assert sum("flits from" in title for title in titles) == sum(
        hop.segment == "layer" for hop in links.hops(shared(), 0))
