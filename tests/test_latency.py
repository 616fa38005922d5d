"""Latency of a server: what is read from a stream, the figures, the commands, and what they refuse."""

import json
import socket
import statistics
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from api_stub import CLOCK, CYCLES, Stub, serving
from serving import running, shipped

from cli.latency import ALARM
from cli.main import app
from latency import summary
from latency.ecdf import svg
from latency.sample import Reader, Sample
from program.tokenizer import Tokenizer

QUICK = ["--tokens", "4"]


def sample(*arrivals: float, end: float) -> Sample:
    reader = Reader(0.0)
    for arrival in arrivals:
        reader.take({"choices": [{"delta": {"content": "x"}}]}, arrival)
    found = reader.sample(end)
    assert found is not None
    return found


def test_times_of_a_stream():
    reader = Reader(10.0)
    reader.take({"choices": [{"delta": {"role": "assistant", "content": ""}}]}, 10.1)
    reader.take({"choices": [{"delta": {"content": "a"}}]}, 10.5)
    reader.take({"choices": [{"delta": {"content": ""}}], "x_tsp": {"token": 7, "predicted_cycles": 5,
                                                                    "measured_cycles": 5}}, 10.7)
    reader.take({"choices": [{"text": "b"}]}, 11.0)
    reader.take({"choices": [{"delta": {}, "finish_reason": "stop"}]}, 11.5)
    found = reader.sample(12.0)
    assert found and found.ttft == pytest.approx(0.5) and found.e2el == pytest.approx(2.0)
    assert found.gaps == pytest.approx((0.2, 0.3)) and found.tokens == 3 and found.chip is None


def test_a_stream_without_a_token_is_no_sample():
    assert Reader(0.0).sample(1.0) is None


def test_figures_are_those_of_an_oracle():
    values = [float(n * n % 97) for n in range(1, 120)]
    found = summary.summarise(values)
    assert found["mean"] == pytest.approx(statistics.mean(values))
    assert found["std"] == pytest.approx(statistics.stdev(values))
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    assert [found["p50"], found["p95"], found["p99"]] == pytest.approx([cuts[49], cuts[94], cuts[98]])
    assert found["cv_percent"] == pytest.approx(100 * statistics.stdev(values) / statistics.mean(values))


@pytest.mark.parametrize(("n", "p99"), [(99, False), (100, True)])
def test_a_99th_percentile_wants_100_values(n: int, p99: bool):
    assert (summary.summarise([float(value) for value in range(n)])["p99"] is not None) is p99


def test_few_values_tell_little():
    assert set(summary.summarise([]).values()) == {0, None}
    assert summary.summarise([3.0]) == {"n": 1, "mean": 3.0, "std": None, "cv_percent": None, "p50": 3.0, "p95": 3.0,
                                      "p99": None}


def test_bench_gives_the_keys_that_others_have(capsys: pytest.CaptureFixture[str]):
    with serving(Stub()) as url:
        assert app(["bench-api", url, "--requests", "12", "--json", *QUICK]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"p50_latency_ms", "p95_latency_ms", "mean_tps", "std_tps", "cv_percent"} <= found.keys()
    assert found["completed"] == 12 and found["tokens"] == 48 and found["percentile_method"] == "linear"
    wall, chip = found["wall"], found["on_chip"]
    assert wall["itl_ms"]["n"] == 36 and wall["ttft_ms"]["p99"] is None
    assert wall["e2el_ms"]["mean"] >= 8 and found["p50_latency_ms"] == wall["e2el_ms"]["p50"]
    token = CYCLES / CLOCK / 1e3
    assert chip["itl_ms"]["mean"] == pytest.approx(token) and chip["itl_ms"]["std"] == pytest.approx(0, abs=1e-12)
    assert chip["ttft_ms"]["mean"] == pytest.approx(3 * token) and chip["e2el_ms"]["mean"] == pytest.approx(6 * token)
    assert found["cycles"]["predicted_cycles"] == found["cycles"]["measured_cycles"] == 12 * 6 * CYCLES
    assert found["cached_tokens"] == [2] * 12


def test_bench_asks_many_at_once_and_with_a_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "key").write_text("secret\n")
    stub = Stub(seconds=lambda number: 0.05)
    with serving(stub) as url:
        assert app(["bench-api", url, "--requests", "8", "--concurrency", "4", "--api-key", str(tmp_path / "key"),
                    *QUICK]) == 0
    assert stub.most_at_once == 4 and set(stub.keys) == {"Bearer secret"}
    assert stub.seen[-1]["stream_options"] == {"include_usage": True} and stub.seen[-1]["max_tokens"] == 4
    out = capsys.readouterr().out
    assert "on chip: measured cycles at 50 MHz" in out and "4 at once" in out


def test_a_model_without_a_chat_template_completes(capsys: pytest.CaptureFixture[str]):
    stub = Stub(chat=False)
    with serving(stub) as url:
        assert app(["bench-api", f"{url}/v1", "--requests", "3", "--json", *QUICK]) == 0
    assert json.loads(capsys.readouterr().out)["endpoint"] == "completions"
    assert "prompt" in stub.seen[-1]


@pytest.mark.parametrize(("stub", "line"), [
    (Stub(chip=False), "the server tells nothing of a chip"), (Stub(timed=False), "nothing is measured"),
    (Stub(off=1), "BROKEN PROMISE: 3 requests"),
])
def test_bench_says_what_is_known_of_the_chip(stub: Stub, line: str, capsys: pytest.CaptureFixture[str]):
    with serving(stub) as url:
        assert app(["bench-api", url, "--requests", "3", *QUICK]) == 0
    assert line in capsys.readouterr().out


def test_refused_requests_count(capsys: pytest.CaptureFixture[str]):
    with serving(Stub(status=429, refuse_from=4)) as url:
        assert app(["bench-api", url, "--requests", "6", "--json", *QUICK]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["completed"] == 3 and [*found["failed"].values()] == [3] and "queue is full" in str(found["failed"])


def test_the_plot_is_a_picture_of_all_curves(tmp_path: Path):
    with serving(Stub()) as url:
        assert app(["bench-api", url, "--requests", "4", "--svg", str(tmp_path / "ecdf.svg"), *QUICK]) == 0
    text = (tmp_path / "ecdf.svg").read_text()
    ElementTree.fromstring(text)
    for name in ("time to first token", "between tokens", "end to end"):
        assert f"{name}, wall clock" in text and f"{name}, on the chip" in text


def test_the_plot_rises_to_one_in_as_many_steps_as_values():
    found = svg([sample(0.001, 0.003, end=0.01), sample(0.002, 0.005, end=0.02)], "x")
    lines = [element.get("d", "") for element in ElementTree.fromstring(found).iter() if element.get("stroke-width")]
    steps = [line for line in lines if "V" in line]
    assert len(steps) == 3 and {line.count("V") for line in steps} == {2}
    assert {line.rsplit("V", 1)[1] for line in steps} == {"44.0"}


def test_watch_is_quiet_while_times_agree(capsys: pytest.CaptureFixture[str]):
    with serving(Stub(seconds=lambda number: 0.01)) as url:
        assert app(["watch", url, "--window", "3", "--requests", "5", "--interval", "0", "--limit", "200", "--json",
                    *QUICK]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["requests"] for line in lines] == [1, 2, 3, 4, 5]
    assert {"p50_ms", "p95_ms", "p99_ms", "mean_tps"} <= lines[0].keys()
    assert lines[1]["cv_percent"] is None and lines[2]["cv_percent"] is not None
    assert lines[-1]["on_chip_cv_percent"] == pytest.approx(0, abs=1e-9) and not any(line["alarm"] for line in lines)


def test_watch_raises_an_alarm(capsys: pytest.CaptureFixture[str]):
    slow_from = 5  # the first request is the trial
    with serving(Stub(seconds=lambda number: 0.05 if number >= slow_from else 0.002)) as url:
        assert app(["watch", url, "--window", "3", "--requests", "20", "--interval", "0", "--limit", "60",
                    *QUICK]) == ALARM
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("ALARM: CV of e2el is ") and "more than 60 %" in last


def test_watch_holds_the_chip_to_its_promise(capsys: pytest.CaptureFixture[str]):
    with serving(Stub(off=1)) as url:
        assert app(["watch", url, "--requests", "2", "--interval", "0", "--keep-going", *QUICK]) == ALARM
    out = capsys.readouterr().out
    assert out.count("ALARM: the chip took 24001 cycles, 24000 were predicted") == 2


@pytest.mark.parametrize("device", ["reference", pytest.param("rtl", marks=pytest.mark.nightly)])
def test_the_server_of_this_project_tells_of_its_chip(device: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Cycles are those of the program: predicted ones, and measured ones where the device has time."""
    with running(folder=tmp_path, devices=(device,)) as server:
        assert app(["bench-api", server.url, "--requests", "2", "--json", *QUICK]) == 0
        assert app(["watch", server.url, "--requests", "3", "--window", "3", "--interval", "0", "--limit", "200",
                    *QUICK]) == 0
    told, *lines = capsys.readouterr().out.splitlines()
    found, program = json.loads(told), shipped()
    prompt = len(Tokenizer.from_bytes(program.tokenizer).encode("Once upon a time"))
    cycles = [program.cycles(position) for position in range(prompt - 1, prompt + 3)]
    clock = found["cycles"]["clock_mhz"]
    assert found["cached_tokens"] == [prompt - 1] * 2 and found["endpoint"] == "chat/completions"
    assert found["cycles"]["predicted_cycles"] == 2 * sum(cycles) and found["cycles"]["mismatches"] == 0
    assert found["cycles"]["measured_cycles"] == (None if device == "reference" else 2 * sum(cycles))
    assert found["on_chip"]["e2el_ms"]["mean"] == pytest.approx(sum(cycles) / clock / 1e3)
    between = found["on_chip"]["itl_ms"]
    assert between["n"] == 6 and between["std"] == 0 == len({*cycles}) - 1
    assert between["mean"] == pytest.approx(cycles[1] / clock / 1e3)
    assert len(lines) == 3 and lines[-1].endswith("on chip 0.0 %")


@pytest.mark.parametrize("command", ["bench-api", "watch"])
@pytest.mark.parametrize(("stub", "path", "said"), [
    (Stub(), "/v2", "GET models answers 404: not found"),
    (Stub(models=b"<html>"), "/v1", "gives no list of models"),
    (Stub(models={"data": []}), "/v1", "the server has no model"),
    (Stub(status=401), "/v1", "answers 401: the queue is full"),
    (Stub(cut=True), "/v1", "uncorrectable error"),
    (Stub(words=()), "/v1", "had no token"),
    (Stub(ends=False), "/v1", "the answer stops before its end"),
])
def test_what_is_no_server_of_ours_is_one_line(command: str, stub: Stub, path: str, said: str,
                                               capsys: pytest.CaptureFixture[str]):
    with serving(stub) as url:
        assert app([command, url + path, "--requests", "2", *QUICK]) == 2
    out, err = capsys.readouterr()
    assert not out and said in err and err.count("\n") == 1 and url in err


@pytest.mark.parametrize("command", ["bench-api", "watch"])
def test_a_dead_url_is_one_line(command: str, capsys: pytest.CaptureFixture[str]):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        assert app([command, url]) == 2
    err = capsys.readouterr().err
    assert f"{url}: cannot connect" in err and err.count("\n") == 1


def test_a_server_that_stops_is_one_line(capsys: pytest.CaptureFixture[str]):
    with serving(Stub(seconds=lambda number: 1.5)) as url:
        assert app(["bench-api", url, "--timeout", "1", *QUICK]) == 2
    assert "the answer stops" in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "said"), [
    (["bench-api", "nonsense"], "this is not the URL of a server"), (["bench-api", "ftp://x"], "not the URL"),
    (["bench-api", "http://x", "--requests", "0"], "requests must be at least 1"),
    (["bench-api", "http://x", "--api-key", "/nonexistent"], "cannot read the key"),
    (["watch", "http://x", "--window", "2"], "window must be at least 3"),
    (["watch", "http://x", "--metric", "speed"], "metric must be one of"),
    (["watch", "http://x", "--limit", "nan"], "limit must be at least 0"),
])
def test_wrong_arguments_are_one_line(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]):
    assert app(arguments) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1
