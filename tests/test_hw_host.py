"""Host port and sequencer together, cycle by cycle (bench_hw_host.py)."""

from dataclasses import replace
from typing import Any

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import Out

from arch.config import CONFIGS
from hw.host import HostPort
from hw.sequencer import Sequencer
from sim.check.cocotb_runner import run_cocotb

CONFIG = replace(CONFIGS["tiny"], buckets=5)
SEQUENCER = ("start", "bucket", "running", "idle", "traps")
"""Ports of the sequencer that are not between it and the host port."""


class Host(wiring.Component):
    """Host port and sequencer, as the chip connects them."""

    def __init__(self):
        self._port: Any = HostPort(config=CONFIG)
        self._sequencer: Any = Sequencer(config=CONFIG)
        self._outward = [(self._port, name) for name in self._port.signature.members if name != "control"]
        self._outward += [(self._sequencer, name) for name in SEQUENCER]
        super().__init__({name: part.signature.members[name] for part, name in self._outward})

    def elaborate(self, platform):
        m = Module()
        m.submodules.port, m.submodules.sequencer = port, sequencer = self._port, self._sequencer
        m.d.comb += [
            sequencer.wdata.eq(port.wdata), sequencer.bucket_we.eq(port.bucket_we),
            sequencer.bucket_addr.eq(port.small_addr), sequencer.control_we.eq(port.control_we),
            *(port.control[n].eq(value) for n, value in enumerate(sequencer.control)),
        ]
        for part, name in self._outward:
            ours, theirs = getattr(self, name), getattr(part, name)
            m.d.comb += ours.eq(theirs) if part.signature.members[name].flow is Out else theirs.eq(ours)
        return m


def test_host():
    result = run_cocotb(Host(), "bench_hw_host", toplevel_name="host")
    assert len(result.passed) == 13
