"""`tsp bench-api` and `tsp watch`: how long the answers of a server take.

The HTTP client is imported when a command of these begins: no other command waits for it.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from base.errors import TspError
from base.files import check_output, write_whole
from latency import summary
from latency.sample import Sample

from .show import plain

if TYPE_CHECKING:
    from latency.watch import State

WIDTH = 110
"""Letters that the table may take."""
LEAST_WINDOW = 3
ALARM = 3
"""The exit code of an alarm of `tsp watch`."""
NAMES = {"ttft_ms": "time to first token, ms", "itl_ms": "between tokens, ms", "tpot_ms": "a token of an answer, ms",
         "e2el_ms": "end to end, ms", "tps": "tokens/s"}

Url = Annotated[str, typer.Argument(help="Base URL of the server: http://127.0.0.1:8000/v1.")]
Model = Annotated[str | None, typer.Option(help="Name of a model.  [default: the server's first]")]
Prompt = Annotated[str, typer.Option(help="Prompt of all requests.")]
Tokens = Annotated[int, typer.Option(help="Most tokens of an answer.")]
KeyFile = Annotated[Path | None, typer.Option(help="File that holds the key.  [default: $OPENAI_API_KEY, or none]")]
Timeout = Annotated[float, typer.Option(help="Seconds to wait for the next piece of an answer.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def bench_api(
    url: Url,
    requests: Annotated[int, typer.Option(help="Requests to measure.")] = 100,
    concurrency: Annotated[int, typer.Option(help="Requests at once.")] = 1,
    model: Model = None,
    prompt: Prompt = "Once upon a time",
    tokens: Tokens = 32,
    api_key: KeyFile = None,
    timeout: Timeout = 60.0,
    svg: Annotated[Path | None, typer.Option(help="File for a drawing of the distribution of times (ECDF).")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure time to first token, between tokens and end to end, of an OpenAI-compatible server."""
    _at_least(1, requests=requests, concurrency=concurrency, tokens=tokens, timeout=timeout)
    if svg:
        check_output(svg)
    import asyncio

    from rich.progress import Progress

    from latency import bench, ecdf
    from latency.api import Api

    async def run(api: Api) -> bench.Bench:
        async with api:
            question, _ = await api.question(model, prompt, tokens)
            with Progress(console=Console(stderr=True), transient=True) as progress:
                task = progress.add_task(question.model, total=requests)
                return await bench.run(api, question, requests=requests, concurrency=concurrency,
                                       progress=lambda done: progress.update(task, completed=done))

    found = asyncio.run(run(Api(url, key=_key(api_key), seconds=timeout)))
    if svg:
        write_whole({svg: ecdf.svg(found.samples, f"{found.question.model} at {url}").encode()})
    if as_json:
        print(json.dumps(found.as_json()))
        return
    total = sum(sample.tokens for sample in found.samples)
    print(f"{found.question.model} by {found.question.path} at {found.url}: {len(found.samples)} requests, "
          f"{found.concurrency} at once, {total:,} tokens in {found.seconds:.2f} s, {total / found.seconds:,.1f} "
          "tokens/s in all")
    for said, count in found.failed.items():
        print(f"{count} requests failed: {said}")
    _show(found.samples)


def _show(samples: Sequence[Sample]) -> None:
    out, told = plain(WIDTH), summary.cycles(samples)
    if cached := sorted({sample.cached for sample in samples if sample.cached}):
        out.print(f"prompt tokens in the server's cache: {', '.join(map(str, cached))}")
    out.print()
    out.print(_table(samples, told))
    out.print(f"\npercentiles: {summary.METHOD} interpolation; 99th from n = {summary.LEAST_P99} on")
    out.print(_chip_line(told))


def _table(samples: Sequence[Sample], told: dict[str, object] | None) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for n, name in enumerate(("", "clock", "n", "mean", "std", "CV", "p50", "p95", "p99")):
        table.add_column(name, justify="right" if n > 1 else "left", no_wrap=True)
    wall, chip = summary.table(samples), summary.table(samples, on_chip=True)
    for metric, name in NAMES.items():
        table.add_row(name, "wall", *_cells(wall[metric]))
        if told:
            table.add_row("", "on chip", *_cells(chip[metric]))
    return table


def _cells(figure: summary.Figures) -> list[str]:
    if not figure["n"]:
        return ["0", "not told"]
    cv = figure["cv_percent"]
    cells = [_number(figure[key]) for key in ("mean", "std", "p50", "p95", "p99")]
    return [f"{figure['n']:,}", *cells[:2], "" if cv is None else f"{cv:.1f} %", *cells[2:]]


def _number(value: float | None) -> str:
    """Four digits at least."""
    return "" if value is None else f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _chip_line(told: dict[str, object] | None) -> str:
    """What the chip's cycles are worth."""
    if not told:
        return "on chip: the server tells nothing of a chip"
    predicted, measured, clock = told["predicted_cycles"], told["measured_cycles"], told["clock_mhz"]
    if measured is None:
        return (f"on chip: {predicted:,} predicted cycles at {clock:g} MHz; nothing is measured, because device "
                f"{told['device']} has no time")
    if told["mismatches"]:
        return (f"on chip: BROKEN PROMISE: {told['mismatches']} requests took other cycles than predicted "
                f"({measured:,}, predicted {predicted:,})")
    return (f"on chip: measured cycles at {clock:g} MHz; {measured:,} measured == {predicted:,} predicted "
            f"({told['device']})")


def watch_api(
    url: Url,
    window: Annotated[int, typer.Option(help="Latest requests that the figures cover.")] = 20,
    metric: Annotated[str, typer.Option(help=f"Metric to watch: {', '.join(summary.METRICS)}.")] = "e2el",
    limit: Annotated[float, typer.Option(help="Coefficient of variation, in percent, above which an alarm is "
                                              "raised.")] = 10.0,
    interval: Annotated[float, typer.Option(help="Seconds between requests.")] = 1.0,
    requests: Annotated[int | None, typer.Option(help="Stop after this many requests.  [default: never]")] = None,
    keep_going: Annotated[bool, typer.Option("--keep-going", help="Continue after an alarm.")] = False,
    model: Model = None,
    prompt: Prompt = "Once upon a time",
    tokens: Tokens = 32,
    api_key: KeyFile = None,
    timeout: Timeout = 60.0,
    as_json: AsJson = False,
) -> None:
    """Watch a server: a line a request, and an alarm (exit code 3) when its times spread more than they may."""
    if metric not in summary.METRICS:
        raise TspError(f"metric must be one of {', '.join(summary.METRICS)}, not {metric!r}")
    _at_least(1, tokens=tokens, timeout=timeout, requests=1 if requests is None else requests)
    _at_least(0, limit=limit, interval=interval)
    _at_least(LEAST_WINDOW, window=window)
    import asyncio

    from latency.api import Api
    from latency.watch import watch

    async def run(api: Api) -> bool:
        alarmed = False
        async with api:
            question, _ = await api.question(model, prompt, tokens)
            async for state in watch(api, question, window=window, metric=metric, limit=limit, interval=interval,
                                     requests=requests):
                print(json.dumps(state.as_json()) if as_json else _line(state, metric), flush=True)
                alarmed = alarmed or bool(state.alarm)
                if state.alarm and not keep_going:
                    break
        return alarmed

    if asyncio.run(run(Api(url, key=_key(api_key), seconds=timeout))):
        raise typer.Exit(ALARM)


def _line(state: "State", metric: str) -> str:
    last, window = state.last, state.monitor
    spread = "" if state.cv is None else f"; CV of {metric} {state.cv:.1f} %"
    if state.chip_cv is not None:
        spread += f", on chip {state.chip_cv:.1f} %"
    line = (f"{state.requests}: {1e3 * last.e2el:,.1f} ms, first token {1e3 * last.ttft:,.1f} ms, "
            f"{last.tokens_per_second:,.1f} tokens/s; p50 {window['p50_ms']:,.1f} ms, p95 {window['p95_ms']:,.1f} ms"
            f"{spread}")
    return f"{line}\nALARM: {state.alarm}" if state.alarm else line


def _at_least(least: float, **values: float) -> None:
    for name, value in values.items():
        if not value >= least:
            raise TspError(f"{name} must be at least {least:g}, not {value:g}")


def _key(path: Path | None) -> str:
    if path is None:
        return os.environ.get("OPENAI_API_KEY", "")
    try:
        lines = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise TspError(f"{path}: cannot read the key: {said}") from None
    if len(lines) != 1 or not lines[0].isascii():
        raise TspError(f"{path}: must hold one key in ASCII")
    return lines[0]
