"""The whole chip (tiny, debug build): hand-written programs through the host port, values and cycles exact."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import hw
from arch import host_map, isa, numerics
from arch.config import CONFIGS, MEM_E, MEM_W, MXM_E, PLANES, VXM, ChipConfig
from arch.host_map import Control, Trap
from arch.identity import chip_digest
from arch.isa import (
    ENGINE,
    MEM_READ,
    MXM_ACC,
    MXM_DRAIN,
    MXM_LOAD,
    START,
    VXM_DRIVE,
    Alu,
    Dir,
    Instr,
    Op,
    Red,
    Src,
    encode,
)
from arch.row import queues
from sim.cycle.chip import ModelChip
from sim.rtl.chip import TimeoutExceeded, VerilatedChip, chip_verilog
from sim.rtl.toolchain import find

TINY = CONFIGS["tiny"]
LANES = TINY.lanes


def queue_words(events):
    """Words of a queue that dispatches (cycle after the start pulse, operation, fields), then parks."""
    words, now = [], START
    for n, (cycle, op, fields) in enumerate(events):
        if n == 0 and cycle > now:
            words.append(encode(Instr(Op.NOP, cycle - now)))
        following = events[n + 1][0] if n + 1 < len(events) else cycle + isa.MIN_DELAY
        words.append(encode(Instr(op, following - cycle, fields)))
    return [*words, encode(Instr(Op.SYNC))]


def load_program(chip, schedule, table):
    for queue in queues(TINY):
        chip.load_queue(queue.name, queue_words(schedule.get(queue.name, [])))
        chip.load_starts(queue.name, [0] * TINY.buckets)
    chip.load_buckets(table)


def parks(schedule):
    """The cycle after the start pulse from which every queue is parked."""
    return max(events[-1][0] + isa.MIN_DELAY + 1 for events in schedule.values())


def lanes_to_quads(lanes):
    """int32 [n, 16] as uint8 [n, plane, lane]."""
    planes = lanes.astype(np.uint32)[:, None, :] >> (8 * np.arange(PLANES, dtype=np.uint32))[None, :, None]
    return (planes & 255).astype(np.uint8)


def quads_to_lanes(quads):
    return (quads.astype(np.uint32) << (8 * np.arange(PLANES, dtype=np.uint32))[None, :, None]).sum(
        1, dtype=np.uint32).view(np.int32)


COUNT = 8


def add_program():
    """MEM_W0[i] += MEM_E1[i], and MEM_E0[16 + i] := the sum; all of it one burst of COUNT quads."""
    read = START
    sample = read + ENGINE + MEM_READ + (VXM - MEM_W)
    arrive = sample + VXM_DRIVE + 1
    quads = {"count": COUNT, "stride": 1, "planes": 15}
    return {
        "MEM_W0": [(read, Op.READ, {**quads, "dir": Dir.E}), (arrive - ENGINE, Op.WRITE, {**quads, "dir": Dir.W})],
        "MEM_E1": [(read, Op.READ, {**quads, "dir": Dir.W})],
        "VXM": [(sample - ENGINE, Op.ALU, {"count": COUNT, "a_src": Src.E, "c_src": Src.W, "alu": Alu.ADD,
                                           "dst_e": 1, "dst_w": 1})],
        "MEM_E0": [(arrive - ENGINE, Op.WRITE, {**quads, "addr": 16, "dir": Dir.E})],
    }


def test_stream_add_restarts_by_itself(chip):
    rng = np.random.default_rng(1)
    x, y = rng.integers(-(1 << 20), 1 << 20, (2, COUNT, LANES))
    chip.load_mem("MEM_W0", lanes_to_quads(x))
    chip.load_mem("MEM_E1", lanes_to_quads(y))
    schedule = add_program()
    period = parks(schedule) + COUNT
    load_program(chip, schedule, [(period, 3), (period + 7, 4), (period + 1, 100)])
    rewind(chip)
    assert chip.run(6).tolist() == [period] * 3 + [period + 7] + [period + 1] * 2
    assert chip.control(Control.POSITION) == 6
    assert chip.control(Control.TOKEN_CYCLES) == period + 1
    assert chip.control(Control.RUN) == 0
    assert (quads_to_lanes(chip.read_mem("MEM_E0", 16, COUNT)) == x + 6 * y).all()
    assert (quads_to_lanes(chip.read_mem("MEM_W0", 0, COUNT)) == x + 6 * y).all()
    assert chip.errors() == set()


ACTS, ACCS = 3, LANES // TINY.rows


def matrix_program():
    """MEM_E0[40] := the 16 row sums of a matrix of 16 rows and 16 * ACTS columns, activations out of MEM_W0."""
    load = START + ENGINE + MEM_READ + (MXM_E - MEM_W)
    mac = load + MXM_LOAD + ACTS
    drain = mac + ACTS * ACCS - 1 + MXM_ACC
    write = drain + MXM_DRAIN + (MXM_E - MEM_E)
    weights = mac - (MXM_E - MEM_E) - MEM_READ - ENGINE
    return {
        "MEM_W0": [(START, Op.READ, {"addr": 32, "count": ACTS, "stride": 1, "planes": 1, "dir": Dir.E})],
        "MEM_E1": [(weights, Op.READ, {"addr": 64, "count": ACTS * ACCS, "stride": 1, "planes": 15, "weights": 1})],
        "MXM_E": [(load - ENGINE, Op.LOAD, {"count": ACTS}),
                  (mac - ENGINE, Op.MAC, {"acts": ACTS, "accs": ACCS, "clear": 1}),
                  (drain - ENGINE, Op.DRAIN, {})],
        "MEM_E0": [(write - ENGINE, Op.WRITE, {"addr": 40, "planes": 15, "dir": Dir.W})],
    }


def test_matrix_vector_product(chip):
    rng = np.random.default_rng(2)
    weights = rng.integers(-128, 128, (LANES, ACTS, LANES))
    acts = rng.integers(-128, 128, (ACTS, LANES))
    blocks = weights.reshape(ACCS, TINY.rows, ACTS, LANES).swapaxes(1, 2).reshape(-1, TINY.rows, LANES)
    chip.load_mem("MEM_E1", blocks.astype(np.uint8), 64)
    chip.load_mem("MEM_W0", lanes_to_quads(acts), 32)
    schedule = matrix_program()
    period = parks(schedule) + 2
    load_program(chip, schedule, [(period, 1 << 20)])
    rewind(chip)
    assert chip.run(2).tolist() == [period] * 2
    assert chip.errors() == set()
    want = np.einsum("rjl,jl->r", weights, acts)
    steps = [sum(numerics.dot(block, act, isa.Wfmt.INT8) for block, act in zip(row, acts, strict=True))
             for row in blocks.reshape(ACCS, ACTS, TINY.rows, LANES)]
    assert (np.concatenate(steps) == want).all()
    assert (quads_to_lanes(chip.read_mem("MEM_E0", 40, 1))[0] == want).all()


def test_every_cycle_equals_the_model():
    """Streams, driven bits and queues in lockstep from start pulse to end."""
    rng = np.random.default_rng(3)
    quads = rng.integers(0, 256, (3, 96, PLANES, LANES), dtype=np.uint8)
    schedule = add_program()
    with VerilatedChip(TINY, debug=True) as chip:
        assert chip.brief
        model = ModelChip(TINY)
        for device in (chip, model):
            for name, data in zip(("MEM_W0", "MEM_E0", "MEM_E1"), quads, strict=True):
                device.load_mem(name, data)
            load_program(device, schedule, [(parks(schedule) + COUNT, 100)])
            device.host_write(host_map.Space.CONTROL, Control.RUN.value, 3)
        starts = 0
        while not starts or chip.running:
            if chip.token_start:
                starts += 1
                while starts == 1 and not model_starts(model):
                    model.step()
            if starts:
                state = model.state()
                for direction in "ew":
                    driven = state[f"{direction.upper()}_driven"]
                    assert (chip.driven(direction) == driven).all()
                    slots = (driven[:, None] >> np.arange(TINY.streams) & 1).astype(bool)
                    assert (chip.streams(direction) == state[direction.upper()])[slots].all()
                parked = [bool(state[f"{queue.name}.parked"]) for queue in queues(TINY)]
                if not chip.token_start:
                    assert [bool(chip.probe("parked") >> n & 1) for n in range(len(parked))] == parked
                model.step()
            chip.step()
        assert starts == 3
        for name in ("MEM_W0", "MEM_E0", "MEM_E1"):
            assert (chip.read_mem(name) == model.mem(name)).all()


def model_starts(model):
    """The model is in the cycle of a start pulse."""
    return model.sequencer.pulse == model.now


def rewind(chip):
    chip.host_write(host_map.Space.CONTROL, Control.POSITION.value, 0)
    chip.host_write(host_map.Space.CONTROL, Control.ERRORS.value, 0)


@pytest.fixture(scope="module")
def chip():
    with VerilatedChip(TINY, debug=True) as chip:
        yield chip


def test_not_parked_by_one_cycle(chip):
    """SYNC at period - 1 at the latest; a cycle less is trapped."""
    schedule = {"MXM_W": [(20, Op.DRAIN, {})]}
    for period, traps in ((parks(schedule), set()), (parks(schedule) - 1, {Trap.NOT_PARKED})):
        load_program(chip, schedule, [(period, 100)])
        rewind(chip)
        assert chip.run(2).tolist() == [period] * 2
        assert chip.errors() == traps


def test_busy_engine_by_one_cycle(chip):
    """The last element executes at period - 1 at the latest."""
    count = 20
    schedule = {"MEM_W1": [(START, Op.READ, {"count": count, "planes": 15})]}
    last = START + ENGINE + count - 1
    for period, traps in ((last + 1, set()), (last, {Trap.NOT_PARKED})):
        load_program(chip, schedule, [(period, 100)])
        rewind(chip)
        chip.run(1)
        assert chip.errors() == traps


ENGINES = {
    "MEM_W1": [(Op.READ, {"count": 9, "interval": 2}, 17), (Op.WRITE, {"count": 9}, 9), (Op.INDEX, {}, 0)],
    "MXM_E": [(Op.LOAD, {"count": 9}, 9), (Op.MAC, {"acts": 3, "accs": 4}, 12), (Op.DRAIN, {"count": 9}, 9)],
    "VXM": [(Op.ALU, {"count": 9, "red": Red.SUM, "red_e": 1}, 9)],
    "SXM_E": [(Op.PERMUTE, {"count": 9}, 9), (Op.REDUCE, {"count": 9, "red": Red.MAX}, 9),
              (Op.TRANSPOSE_IN, {"count": 9}, 9), (Op.TRANSPOSE_OUT, {"count": 9}, 9)],
}
"""By queue: operations, and for how many cycles their engine is busy."""


@pytest.mark.parametrize(("queue", "op", "fields", "busy"), [
    pytest.param(queue, *case, id=case[0].name) for queue, cases in ENGINES.items() for case in cases])
def test_busy_means_the_same_in_the_model(chip, queue, op, fields, busy):
    """An engine has an element to execute; results in flight, and INDEX, which is none, do not count."""
    schedule = {queue: [(20, op, fields)]}
    least = max(20 + ENGINE + busy, parks(schedule))
    for period in (least, least - 1):
        model = ModelChip(TINY, strict=False)
        load_program(chip, schedule, [(period, 100)])
        load_program(model, schedule, [(period, 100)])
        rewind(chip)
        chip.run(1)
        model.run(1)
        assert chip.control(Control.ERRORS) == model.host_read(host_map.Space.CONTROL, Control.ERRORS.value)
        assert (Trap.NOT_PARKED in chip.errors()) == (period < least)


def test_index_registers_power_up_as_no_index():
    data = np.random.default_rng(5).integers(0, 256, (1, PLANES, LANES), dtype=np.uint8)
    schedule = {"MEM_W0": [(START, Op.READ, {"addr": 7, "planes": 15, "index": 5})],
                "MEM_E0": [(START + MEM_READ + MEM_E - MEM_W, Op.WRITE, {"addr": 9, "planes": 15, "index": 6})]}
    with VerilatedChip(TINY, debug=True) as chip:
        for device in (chip, ModelChip(TINY)):
            device.load_mem("MEM_W0", data, 7)
            load_program(device, schedule, [(40, 100)])
            device.run(1)
            assert (device.read_mem("MEM_E0", 9, 1) == data).all()


def test_collision_and_empty_read(chip):
    burst = {"planes": 15, "count": 3}
    schedule = {"MEM_W0": [(START, Op.READ, burst)], "MEM_W1": [(START + 2, Op.READ, {**burst, "addr": 9})]}
    load_program(chip, schedule, [(40, 100)])
    rewind(chip)
    chip.run(1)
    assert chip.errors() == {Trap.COLLISION}
    schedule = {"MEM_W0": [(START, Op.WRITE, {"planes": 1, "dir": Dir.W})]}
    load_program(chip, schedule, [(40, 100)])
    rewind(chip)
    chip.run(1)
    assert chip.errors() == {Trap.EMPTY_READ}


def test_position_beyond_all_buckets_ends_the_run(chip):
    load_program(chip, {}, [(40, 2), (50, 3)])
    rewind(chip)
    assert chip.run(5).tolist() == [40, 40, 50]
    assert chip.errors() == {Trap.ADDRESS}
    assert not chip.running


def test_run_that_does_not_end_in_time(chip):
    load_program(chip, {}, [(1000, 100)])
    rewind(chip)
    with pytest.raises(TimeoutExceeded, match="2 tokens must end within 500 cycles"):
        chip.run(2, max_cycles=500)
    chip.step(3000)
    assert not chip.running


def test_host_reads(chip):
    assert chip.control(Control.IDENTITY) == int(chip_digest(TINY), 16)
    before = chip.control(Control.CYCLES)
    chip.step(100)
    assert chip.control(Control.CYCLES) == before + 100 + isa.HOST_READ
    rng = np.random.default_rng(4)
    for name in ("MEM_W0", "MEM_W1", "MEM_E0", "MEM_E1"):
        data = rng.integers(0, 256, (256, PLANES, LANES), dtype=np.uint8)
        chip.load_mem(name, data)
        assert (chip.read_mem(name) == data).all()
        word = int.from_bytes(data[77, 2].tobytes(), "little")
        slice_number = ["MEM_W0", "MEM_W1", "MEM_E0", "MEM_E1"].index(name)
        assert chip.host_read(host_map.Space.MEM, slice_number << 22 | 77 << 2 | 2) == word


@pytest.mark.parametrize(("options", "words"), [
    (["--config", "huge"], "--config must be one of tiny, "), (["-o", "none/chip.v"], "cannot write: there is no "
                                                                                      "writable folder "),
    (["-o", "."], "it is not a regular file: name another one"), (["-o", "fifo"], "it is not a regular file"),
    (["--confg", "x"], "No such option: --confg"), (["-o"], "requires an argument"), (["x"], "extra argument"),
])
def test_the_command_refuses_in_one_line(options, words, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    done = subprocess.run([sys.executable, "-m", "hw", *options], cwd=tmp_path, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(Path(hw.__file__).parents[1])}, timeout=60)
    assert done.returncode == 2 and done.stderr.startswith("hw: ") and done.stderr.count("\n") == 1
    assert words in done.stderr and [path.name for path in tmp_path.iterdir()] == ["fifo"]


@pytest.mark.parametrize("config", [
    CONFIGS["ulx3s"], replace(TINY, debug=True),
    *(pytest.param(replace(config, debug=debug), marks=pytest.mark.nightly) for config in CONFIGS.values()
      for debug in (False, True) if (config.name, debug) not in (("ulx3s", False), ("tiny", True))),
], ids=lambda config: config.name + "-debug" * config.debug)
def test_verilog_lints_without_warnings(config: ChipConfig, tmp_path):
    (tmp_path / "chip.v").write_text(chip_verilog(config))
    tools = find()
    waivers = Path(hw.__file__).with_name("lint.vlt")
    done = subprocess.run([tools.verilator, "--lint-only", "-Wall", "--top-module", "chip", waivers, "chip.v"],
                          cwd=tmp_path, env=tools.environment(), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
