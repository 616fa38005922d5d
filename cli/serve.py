"""`tsp serve`: an OpenAI-compatible server in front of the chip."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from base.errors import TspError
from base.inputs import read_template
from program.tokenizer import Tokenizer
from run.chat import PLAIN, choose_template
from run.devices import check_name
from run.models import find_model
from run.programs import open_any
from sim.rtl.ranks import current

from .options import Config, Context, Pipeline, Rack, Scales, Sequences, Tensor, Text, TokenizerFile, Weights


def serve(
    program: Annotated[Path, typer.Argument(parser=find_model, metavar="PROGRAM",
                                            help="What `tsp run` takes: a program, a checkpoint, or a model's name.")],
    device: Annotated[list[str] | None, typer.Option(help="reference, model, rtl, or a board's port; repeat it to "
                                                          "serve several answers at once.  [default: rtl]")] = None,
    host: Annotated[str, typer.Option(help="Address to listen at; one that other machines reach needs --api-key.")]
    = "127.0.0.1",
    port: Annotated[int, typer.Option(help="TCP port; 0 takes a free one.")] = 8000,
    api_key: Annotated[Path | None, typer.Option(help="File of keys, one a line; requests without one of them are "
                                                      "refused.")]
    = None,
    name: Annotated[str | None, typer.Option(help="The model's name.  [default: the file's]")] = None,
    alias: Annotated[list[str] | None, typer.Option(help="Another name that clients may use for it; * is any "
                                                         "name.")] = None,
    chat_template: Annotated[str | None, typer.Option(help="Jinja file, or plain: the texts, joined.  "
                                                           "[default: the model's own]")] = None,
    max_queue: Annotated[int, typer.Option(help="Most requests that wait for a device; with 0 a busy device "
                                                "refuses.")] = 64,
    max_seconds: Annotated[float, typer.Option(help="Seconds that a request may wait, and that its answer may "
                                                    "take.")] = 600,
    drain_seconds: Annotated[float, typer.Option(help="Seconds that running answers may take after ctrl-C.")] = 30,
    requests_per_minute: Annotated[int, typer.Option(help="Of each key.")] = 60_000,
    tokens_per_minute: Annotated[int, typer.Option(help="Of each key, prompts included.")] = 6_000_000,
    max_body: Annotated[int, typer.Option(help="Bytes of a request.")] = 1 << 20,
    config: Config = None,
    rack: Rack = None,
    tensor: Tensor = None,
    pipeline: Pipeline = None,
    sequences: Sequences = None,
    context: Context = None,
    weights: Weights = None,
    scales: Scales = None,
    text: Text = None,
    tokenizer: TokenizerFile = None,
) -> None:
    """Serve a model to OpenAI and Groq clients: http://localhost:8000/v1, and a page at http://localhost:8000."""
    try:
        from serve.server import serve as run_server
        from serve.settings import Settings, read_keys
    except ModuleNotFoundError as error:
        raise TspError(f"the server needs {error.name}: pip install 'metronome-tsp[serve]'") from error
    if current():
        raise TspError("tsp serve gives its devices processes of their own, which are not divided among ranks: start "
                       "it without mpirun")
    devices = tuple(check_name(each) for each in device or ["rtl"])
    settings = Settings(name=name or program.stem, aliases=tuple(alias or ()), devices=devices, host=host, port=port,
                        keys=read_keys(api_key) if api_key else (), most=max_queue, seconds=max_seconds,
                        drain=drain_seconds, requests=requests_per_minute, tokens=tokens_per_minute, body=max_body)
    if chat_template not in (None, PLAIN):
        read_template(Path(chat_template))  # before a compilation that may take minutes
    compiled = open_any(program, config=config, rack=rack, tensor=tensor, pipeline=pipeline, sequences=sequences,
                        any_chip=config is None, context=context, weights=weights, scales=scales, text=text,
                        tokenizer=tokenizer, say=_say)
    template = choose_template(chat_template, program, Tokenizer.from_bytes(compiled.tokenizer))
    run_server(settings, compiled, template, _say)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
