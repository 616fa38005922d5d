"""Options that more than one command has: those of a compilation."""

from pathlib import Path
from typing import Annotated

import typer

from arch.config import CONFIGS, DEFAULT_CONFIG
from arch.rack import RACKS
from base.errors import TspError

Config = Annotated[str | None, typer.Option(help=f"Chip: {', '.join(CONFIGS)}.  [default: {DEFAULT_CONFIG}]")]
Rack = Annotated[str | None, typer.Option(help=f"Several chips as one: {', '.join(RACKS)}, or a file of your own, "
                                               "NAME.json.")]
Tensor = Annotated[int | None, typer.Option(help="Chips of a rack that divide the rows of each matrix, in groups of so "
                                                 "many.  [default: the longest context, then the fewest cycles]")]
Pipeline = Annotated[int | None, typer.Option(help="Groups of a rack's chips, each of which holds consecutive layers.  "
                                                   "[default: as for --tensor]")]
Sequences = Annotated[int | None, typer.Option(help="Independent sequences: 2 on one chip, at the same time; or in "
                                                    "flight on a rack, one for each group of chips.  [default: 1]")]
LinkFaults = Annotated[str | None, typer.Option(
    help="Faults of a simulated rack's links: errors=RATE,seed=N for wrong bits; delay=CYCLES or cut, with "
         "link=PORT,at=POSITION.")]
Context = Annotated[int | None, typer.Option(help="Positions served.  [default: the checkpoint's, or what fits]")]
Weights = Annotated[str | None, typer.Option(help="int8 or int4.  [default: int8]")]
Scales = Annotated[str | None, typer.Option(help="Scales of activations: static, dynamic, robust, or measured, the "
                                                 "best of "
                                                 "them.  [default: measured]")]
Text = Annotated[Path | None, typer.Option(help="UTF-8 file to calibrate static scales on.  [default: what the model "
                                                "itself writes]")]
TokenizerFile = Annotated[Path | None, typer.Option(help="tokenizer.bin, .json, .model or GGUF.  [default: next to the "
                                                         "checkpoint]")]


def check_clock(clock: float) -> None:
    """Raises TspError unless the clock is a number of MHz."""
    if not 0 < clock < 1e6:
        raise TspError(f"clock must be more than 0 and less than 1000000 MHz, not {clock}")


def named_files(rack: str | None, text: Path | None = None) -> list[Path]:
    """The files that these options name, which no output may replace."""
    return [*([Path(rack)] if rack and rack not in RACKS else []), *([text] if text else [])]
