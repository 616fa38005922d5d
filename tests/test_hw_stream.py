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
    config = replace(CONFIGS[name], lanes=lanes, debug=True)
    streams = Streams(config=config, queues=queues(config))
    result = run_cocotb(streams, "bench_hw_stream", toplevel_name="streams", env={"CONFIG": name, "LANES": str(lanes)})
    assert len(result.passed) == 3
