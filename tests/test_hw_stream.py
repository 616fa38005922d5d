"""The stream registers against a reference, cycle by cycle (bench_hw_stream.py)."""

from dataclasses import replace

from hw.config import CONFIGS
from hw.isa import queues
from hw.stream import Streams
from sim.cocotb_runner import run_cocotb

CONFIG = replace(CONFIGS["tiny"], debug=True)


def test_streams():
    positions = tuple(queue.position for queue in queues(CONFIG))
    streams = Streams(config=CONFIG, positions=positions)
    result = run_cocotb(streams, "bench_hw_stream", toplevel_name="streams")
    assert len(result.passed) == 3
