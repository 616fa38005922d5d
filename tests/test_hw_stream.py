"""The stream registers against a reference, cycle by cycle (bench_hw_stream.py)."""

from dataclasses import replace

import pytest

from hw.config import CONFIGS
from hw.isa import queues
from hw.stream import Streams
from sim.cocotb_runner import run_cocotb


@pytest.mark.parametrize("lanes", [16, 4])
def test_streams(lanes: int):
    config = replace(CONFIGS["tiny"], lanes=lanes, debug=True)
    streams = Streams(config=config, queues=queues(config))
    result = run_cocotb(streams, "bench_hw_stream", toplevel_name="streams", env={"LANES": str(lanes)})
    assert len(result.passed) == 3
