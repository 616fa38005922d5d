"""The stream registers against a reference, cycle by cycle (bench_hw_stream.py)."""

from dataclasses import replace

import pytest

from arch.config import CONFIGS
from arch.row import queues
from hw.stream import Streams
from sim.check.cocotb_runner import run_cocotb


@pytest.mark.parametrize(("name", "lanes"), [("tiny", 16), ("tiny", 4), ("ulx3s", 8)])
def test_streams(name: str, lanes: int):
    """`ulx3s` has two weight groups, both of which slice 0 may drive."""
    bench(name, lanes)


@pytest.mark.nightly
def test_streams_of_four_states():
    """In Icarus Verilog: no slot that was driven or cleared has an unknown bit (X)."""
    bench("tiny", 4, "icarus")


def bench(name: str, lanes: int, simulator: str | None = None) -> None:
    """Run the bench; all its tests pass."""
    config = replace(CONFIGS[name], lanes=lanes, debug=True)
    streams = Streams(config=config, queues=queues(config))
    result = run_cocotb(streams, "bench_hw_stream", toplevel_name="streams", env={"CONFIG": name, "LANES": str(lanes)},
                        simulator=simulator)
    assert len(result.passed) == 3
