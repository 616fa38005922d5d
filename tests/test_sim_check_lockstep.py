"""Model and RTL agree in every cycle on random legal programs; and the comparison notices what is wrong."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_programs import ILLEGAL, image_of

from arch.config import CONFIGS, REGISTERS, ChipConfig
from arch.host_map import Space
from arch.row import queues
from program.image import Image
from sim.check.lockstep import Mismatch, lockstep
from sim.check.random_programs import random_image
from sim.cycle.chip import ModelChip

TINY = CONFIGS["tiny"]
ALL_REGISTERS = replace(CONFIGS["small"], registers=tuple(REGISTERS))
QUICK = {"tiny": 12, "micro": 6, "small": 4, "ulx3s": 4}
NIGHTLY = {"tiny": 1200, "micro": 200, "small": 200, "ulx3s": 250, "wide": 150, "mega": 150, "large": 50}
"""Programs by config."""


class ModelAsRtl:
    """A second model that shows itself as the RTL does; `fault` may spoil the chip in each cycle."""

    def __init__(self, config: ChipConfig, fault=lambda chip: None):
        self.chip = ModelChip(config)
        self.fault = fault
        self.ahead = ModelChip(config)  # one cycle ahead, to know what the present cycle writes

    def host_write(self, space: Space, addr: int, data: int) -> None:
        for chip in (self.chip, self.ahead):
            chip.host_write(space, addr, data)
        if space is Space.CONTROL and addr == 0:
            self.chip.step()
            self.ahead.step()
            self.ahead.step()

    def load(self, image: Image) -> None:
        for chip in (self.chip, self.ahead):
            chip.load(image)

    def step(self, cycles: int = 1) -> None:
        for _ in range(cycles):
            for chip in (self.chip, self.ahead):
                chip.step()
                self.fault(chip)

    def streams(self, direction: str) -> np.ndarray:
        return self.chip.streams.values("ew".index(direction))

    def driven(self, direction: str) -> np.ndarray:
        return self.chip.streams.driven("ew".index(direction))

    def probe(self, name: str) -> int:
        if name == "parked":
            return sum(icu.parked << n for n, icu in enumerate(self.chip.icus.values()))
        if name == "issued":
            return sum((icu.issued == self.chip.now) << n for n, icu in enumerate(self.ahead.icus.values()))
        return 0

    def writes(self, queue: str) -> Mapping[str, int]:
        """Differences between this cycle's state and the next one's, as the unit's probe names them."""
        now, then = self.chip.units[queue].state(), self.ahead.units[queue].state()
        changes = {name: np.flatnonzero((now[name] != then[name]).reshape(len(now[name]), -1).any(1)) for name in now}
        return _WRITES[self.chip.icus[queue].queue.unit](then, {name: int(rows[0]) if len(rows) else None
                                                   for name, rows in changes.items()})


def _number(array: np.ndarray) -> int:
    return int.from_bytes(np.ascontiguousarray(array).tobytes(), "little")


def _group(lanes: np.ndarray) -> int:
    return _number(lanes.astype("<i4").view(np.uint8).reshape(16, 4).T)


def _mem(then, row) -> dict[str, int]:
    index = then["index"][row["index"] or 0].tolist()
    return {"we": -1 & (1 << 64) - 1 if row["mem"] is not None else 0, "addr": row["mem"] or 0,
            "data": _number(then["mem"][row["mem"] or 0]), "index_we": row["index"] is not None,
            "index": row["index"] or 0, "index_data.offset": index[0], "index_data.lanes": index[1],
            "index_data.planes": index[2]}


def _vxm(then, row) -> dict[str, int]:
    return {"rf_we": row["rf"] is not None, "rf_index": row["rf"] or 0, "rf_data": _group(then["rf"][row["rf"] or 0]),
            "er_we": row["er"] is not None, "er_index": row["er"] or 0, "er_data": _number(then["er"][row["er"] or 0])}


def _mxm(then, row) -> dict[str, int]:
    return {"act_we": row["act"] is not None, "act_index": row["act"] or 0,
            "act_data": _number(then["act"][row["act"] or 0]), "acc_we": 0xFFFF if row["acc"] is not None else 0,
            "acc_index": row["acc"] or 0, "acc_data": _number(then["acc"][row["acc"] or 0].astype("<i4"))}


def _sxm(then, row) -> dict[str, int]:
    at = row["transpose"] or 0
    return {"row_we": row["transpose"] is not None, "row_index": at, "row_data": _number(then["transpose"][at])}


_WRITES = {"MEM": _mem, "VXM": _vxm, "MXM": _mxm, "SXM": _sxm}


def small(seed: int) -> tuple[Image, int]:
    return random_image(TINY, seed, attempts=150)


def test_a_model_agrees_with_itself():
    lockstep(TINY, small(3), ModelAsRtl(TINY))


def _stream_byte(chip: ModelChip) -> None:
    if chip.now >= 60:
        chip.streams.sample(0, 4, 0, "")[5] ^= 1 << 17


def _driven_bit(chip: ModelChip) -> None:
    if chip.now == 60:
        chip.streams._driven[1][chip.streams._slot(1, 2)] ^= 2


def _register(chip: ModelChip) -> None:
    if chip.now >= 60:
        state: Any = chip.units["VXM"]
        state.rf_vectors[3] = state.rf_vectors[3] + 1


def _memory(chip: ModelChip) -> None:
    if chip.now == 60:
        chip.mem("MEM_W1")[200, 3, 7] ^= 1


@pytest.mark.parametrize(("fault", "what"), [
    (_stream_byte, "e streams"), (_driven_bit, "w driven"), (_register, "VXM rf"), (_memory, "MEM_W1 quad")])
def test_faults_are_found(fault, what):
    with pytest.raises(Mismatch, match=what) as mismatch:
        lockstep(TINY, small(3), ModelAsRtl(TINY, fault))
    assert 60 <= mismatch.value.cycle <= 62 or what.startswith(("MEM", "e streams"))


def rtl_agrees(config: ChipConfig, examples: int, derandomize: bool) -> None:
    """Random programs, until one differs: that one hypothesis makes as short as it can, and prints its arguments."""
    from sim.rtl.chip import VerilatedChip

    @settings(max_examples=examples, deadline=None, derandomize=derandomize)
    @given(attempts=st.integers(1, 800), seed=st.integers(0, 2**32 - 1))
    def agrees(attempts: int, seed: int) -> None:
        with VerilatedChip(config, debug=True) as rtl:
            model = lockstep(config, random_image(config, seed, attempts), rtl)
            assert rtl.errors() == set()
            for queue in model.icus:
                if queue.startswith("MEM"):
                    assert (rtl.read_mem(queue) == model.mem(queue)).all()

    agrees()


@pytest.mark.parametrize("name", QUICK)
def test_rtl_agrees_with_the_model_in_every_cycle(name):
    rtl_agrees(CONFIGS[name], QUICK[name], derandomize=True)


def test_rtl_with_all_optional_registers_agrees():
    rtl_agrees(ALL_REGISTERS, 4, derandomize=True)


@pytest.mark.nightly
@pytest.mark.parametrize("name", NIGHTLY)
def test_rtl_agrees_with_the_model_on_many_programs(name):
    """Other programs every night."""
    rtl_agrees(CONFIGS[name], NIGHTLY[name], derandomize=False)


@pytest.mark.parametrize("case", ILLEGAL.values(), ids=ILLEGAL)
def test_rtl_traps_what_the_model_traps(case):
    """The very bit, and nothing before the cycle in which the model raises."""
    from sim.rtl.chip import VerilatedChip

    trap, cycle, queue, programs, period = case
    with VerilatedChip(TINY, debug=True) as rtl:
        rtl.load(image_of(programs, period))
        rtl.host_write(Space.CONTROL, 0, 1)
        while rtl.probe("parked"):
            rtl.step()
        seen, names = [], [queue.name for queue in queues(TINY)]
        for now in range(1, period + 8):  # the first cycle in which queues are not parked is the one behind the pulse
            seen += [(now, name) for name in names if rtl.probe(f"traps_{name}") >> trap.value & 1]
            rtl.step()
        assert trap in rtl.errors()
        assert not seen or seen[0] == (cycle, queue)
