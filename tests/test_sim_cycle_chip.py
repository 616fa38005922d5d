"""The cycle model against cycles and values worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest
from small_programs import FIRST, ILLEGAL, image_of, op, read, wait, write

from arch import isa, numerics, row
from arch.config import CONFIGS, MEM_E, MEM_W, MXM_E, MXM_W, SXM_E, VXM
from arch.host_map import Control, Space, address
from arch.identity import chip_digest
from arch.isa import Alu, Dir, ErUse, Fmt, Func, Instr, Op, Order, Red, Rep, Sat, Src, Wfmt
from sim.cycle.chip import ModelChip
from sim.cycle.core import ProgramError

TINY = CONFIGS["tiny"]
LANES = TINY.lanes
LARGE = CONFIGS["large"]
FOLDED = replace(TINY, vxm_fold=4)


def machine(programs: dict[str, list[Instr]], period: int = 200, config=TINY, strict: bool = True) -> ModelChip:
    """A chip loaded with a small program."""
    chip = ModelChip(config, strict=strict)
    image = image_of(programs, period, config)
    chip.load(image)
    return chip


def begin(chip: ModelChip, cycle: int) -> ModelChip:
    """Start a token in cycle 0 and step to `cycle`."""
    chip.host_write(Space.CONTROL, Control.RUN.value, 1)
    return go(chip, cycle)


def go(chip: ModelChip, cycle: int) -> ModelChip:
    while chip.now < cycle:
        chip.step()
    return chip


def stream(chip: ModelChip, direction: Dir, position: int, group: int = 0) -> np.ndarray:
    """uint8 [plane, lane] of a group's register."""
    return chip.streams.values(direction.value)[position, 4 * group : 4 * group + 4]


def driven(chip: ModelChip, direction: Dir, position: int, group: int = 0) -> int:
    return int(chip.streams.driven(direction.value)[position]) >> 4 * group & 15


def lanes(planes: np.ndarray) -> np.ndarray:
    """int64 lanes of uint8 [plane, lane]."""
    return np.ascontiguousarray(planes.T).view("<i4")[:, 0].astype(np.int64)


def ints(chip: ModelChip, name: str, quad: int) -> np.ndarray:
    return lanes(chip.mem(name)[quad])


def put(chip: ModelChip, name: str, quad: int, values) -> None:
    data = np.asarray(np.broadcast_to(values, LANES), "<i4")
    chip.load_mem(name, np.ascontiguousarray(data).view(np.uint8).reshape(LANES, 4).T[None], quad)


# --- time, queues, sequencer -----------------------------------------------------------------------------------------


def test_tokens_take_exactly_their_buckets_period():
    chip = machine({})
    chip.load_buckets([(50, 2), (71, 3), (11, 100)])
    for name in chip.icus:
        chip.load_starts(name, [0, 0, 0])
    assert chip.run(5) == [50, 50, 71, 11, 11]
    assert chip.host_read(Space.CONTROL, Control.POSITION.value) == 5
    assert chip.host_read(Space.CONTROL, Control.TOKEN_CYCLES.value) == 11
    assert chip.host_read(Space.CONTROL, Control.RUN.value) == 0
    chip.host_write(Space.CONTROL, Control.POSITION.value, 1)
    assert chip.run(2) == [50, 71]


def test_first_dispatch_and_delays():
    chip = begin(machine({"VXM": [wait(5), wait(2), wait(4000)]}, period=5000), 0)
    times = {}
    while chip.running:
        icu = chip.icus["VXM"]
        times.setdefault(icu.pc, chip.now)
        chip.step()
    # A word dispatched in cycle t has advanced the program counter in t + 1.
    assert times == {0: 0, 1: FIRST + 1, 2: FIRST + 6, 3: FIRST + 8, 4: FIRST + 4008}


def test_nested_loops_repeat_and_offset_relative_addresses():
    """Outer 3 turns of stride 16, inner 2 turns of stride 4; level 0 is the outer."""
    body = [op(Op.LOOP, count=3, stride=16), op(Op.LOOP, count=2, stride=4),
            *(read(1, rel=rel, delay=4) for rel in (0, 1, 2, 3)), op(Op.END_LOOP, 4), op(Op.END_LOOP, 6),
            read(2, rel=3)]
    chip = begin(machine({"MEM_E0": body}, period=400), 0)
    seen = []
    while chip.running:
        if driven(chip, Dir.E, SXM_E):
            quads = (chip.mem("MEM_E0") == stream(chip, Dir.E, SXM_E)).all((1, 2))
            seen.append((chip.now, int(np.flatnonzero(quads)[0])))
        chip.step()
    expected, cycle = [], FIRST + 2
    for outer in range(3):
        cycle += 2
        for inner in range(2):
            for rel in range(4):
                expected.append((cycle + 4, 1 + 16 * outer * (rel & 1) + 4 * inner * (rel >> 1)))
                cycle += 4
            cycle += 4
        cycle += 6
    assert seen == [*expected, (cycle + 4, 2)]


def test_bucket_chooses_start_pc():
    chip = ModelChip(TINY)
    for name in chip.icus:
        program = [read(3), op(Op.SYNC), read(7), op(Op.SYNC)] if name == "MEM_E0" else [op(Op.SYNC)]
        chip.load_queue(name, [isa.encode(instr) for instr in program])
        chip.load_starts(name, [0, 2] if name == "MEM_E0" else [0, 0])
    put(chip, "MEM_E0", 3, 333)
    put(chip, "MEM_E0", 7, 777)
    chip.load_buckets([(20, 1), (20, 9)])
    chip.host_write(Space.CONTROL, Control.RUN.value, 2)
    first = FIRST + isa.ENGINE + isa.MEM_READ + 1
    assert lanes(stream(go(chip, first), Dir.E, SXM_E))[0] == 333
    assert lanes(stream(go(chip, 20 + first), Dir.E, SXM_E))[0] == 777


# --- MEM -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "direction", "position", "hops"), [
    ("MEM_E0", Dir.E, SXM_E, 1), ("MEM_E0", Dir.E, MXM_E, 2), ("MEM_E0", Dir.W, VXM, 1), ("MEM_E1", Dir.W, MXM_W, 4),
    ("MEM_W0", Dir.E, VXM, 1), ("MEM_W1", Dir.E, MXM_E, 4), ("MEM_W0", Dir.W, MXM_W, 2),
])
@pytest.mark.parametrize("weights", [0, 1])
def test_read_is_driven_and_travels(name, direction, position, hops, weights):
    outward = Dir.E if name[4] == "E" else Dir.W
    if weights and direction is not outward:
        position, hops, direction = (MXM_E if outward is Dir.E else MXM_W), 2, outward
    chip = machine({name: [read(5, direction, count=3, interval=2, stride=-2, weights=weights)]})
    begin(chip, 0)
    for cycle in range(FIRST + 1 + 2 + hops + 8):
        element, rest = divmod(go(chip, cycle).now - (FIRST + 1 + 2 + hops), 2)
        present = rest == 0 and 0 <= element < 3
        assert driven(chip, direction, position, weights) == (15 if present else 0)
        expected = chip.mem(name)[5 - 2 * element] if present else np.zeros((4, LANES))
        assert (stream(chip, direction, position, weights) == expected).all()


def test_read_drives_only_its_planes():
    chip = machine({"MEM_E0": [read(5, Dir.W, planes=0b0101)], "MEM_E1": [read(6, Dir.W, planes=0b1000)]})
    begin(chip, FIRST + 4)
    assert driven(chip, Dir.W, VXM) == 0b1101
    assert (stream(chip, Dir.W, VXM)[[0, 2]] == chip.mem("MEM_E0")[5, [0, 2]]).all()
    assert (stream(chip, Dir.W, VXM)[3] == chip.mem("MEM_E1")[6, 3]).all()
    assert not stream(chip, Dir.W, VXM)[1].any()


def test_write_commits_one_cycle_behind_its_sample():
    # W0 reads eastward: driven in 6, before MEM_E in 6 + 2 = 8.
    sample = FIRST + 1 + 2 + 2
    chip = machine({"MEM_W0": [read(5)], "MEM_E0": [wait(sample - 1 - FIRST), write(9, planes=0b0111)]})
    before = chip.mem("MEM_E0")[9].copy()
    begin(chip, sample + 1)
    assert (chip.mem("MEM_E0")[9] == before).all()
    go(chip, sample + 2)
    assert (chip.mem("MEM_E0")[9, :3] == chip.mem("MEM_W0")[5, :3]).all()
    assert (chip.mem("MEM_E0")[9, 3] == before[3]).all()


@pytest.mark.parametrize("gap", [0, 1, 2])
def test_read_after_write(gap):
    """A READ sees a WRITE that sampled two cycles earlier, not one of the same cycle, and traps in between."""
    sample = FIRST + 1 + 2 + 2 + 3
    # Two quads pass three cycles apart; the second is written to 13 in cycle `sample`.
    programs = {"MEM_W0": [read(5, count=2, interval=3)],
                "MEM_E0": [wait(sample - 4 - FIRST), write(9, count=2, interval=3, stride=4, delay=3 + gap), read(13)]}
    chip = machine(programs)
    old, new = chip.mem("MEM_E0")[13].copy(), chip.mem("MEM_W0")[5].copy()
    if gap == 1:
        with pytest.raises(ProgramError, match=f"cycle {sample + 1}: MEM_E0: BANK_CONFLICT"):
            begin(chip, 30)
    else:
        begin(chip, sample + gap + 3)
        assert (stream(chip, Dir.E, SXM_E) == (new if gap else old)).all()


def test_index_register_offsets_and_masks():
    chip = machine({
        "MEM_W0": [read(20), read(5)],
        "MEM_E0": [wait(4), op(Op.INDEX, index=3, dir=Dir.E), write(7, index=3), wait(20), read(2, Dir.W, index=3)],
    })
    put(chip, "MEM_W0", 20, [40, 0x8003, 0b0110, *[0] * 13])
    old = chip.mem("MEM_E0")[47].copy()
    begin(chip, FIRST + 5)
    assert chip.state()["MEM_E0.index"].tolist()[3] == [0, 0xFFFF, 15]
    go(chip, FIRST + 6)
    assert chip.state()["MEM_E0.index"].tolist()[3] == [40, 0x8003, 6]
    go(chip, FIRST + 20)
    expected = old.copy()
    for lane in (0, 1, 15):
        expected[1:3, lane] = chip.mem("MEM_W0")[5, 1:3, lane]
    assert (chip.mem("MEM_E0")[47] == expected).all()
    go(chip, FIRST + 4 + 2 + 2 + 20 + 4)
    expected = chip.mem("MEM_E0")[42].copy()
    expected[[0, 3]] = 0
    assert driven(chip, Dir.W, VXM) == 15
    assert (stream(chip, Dir.W, VXM) == expected).all()


# --- VXM -------------------------------------------------------------------------------------------------------------

E_VXM = FIRST + 1
"""Cycle in which a VXM burst dispatched first samples."""


def test_vxm_drives_both_ways_with_rep():
    alu = op(Op.ALU, a_src=Src.IOTA, c_src=Src.IMM, imm=-3, alu=Alu.ADD, count=2, interval=3, dst_e=1, dst_w=1,
             rep=Rep.REP16)
    chip = begin(machine({"VXM": [alu]}), E_VXM + isa.VXM_DRIVE)
    assert driven(chip, Dir.E, MEM_E) == driven(chip, Dir.W, MEM_W) == 0
    go(chip, E_VXM + isa.VXM_DRIVE + 1)
    y = (np.arange(LANES) - 3 & 0xFFFF) * 0x10001
    assert (lanes(stream(chip, Dir.E, MEM_E)) & 0xFFFFFFFF == y).all()
    assert (lanes(stream(chip, Dir.W, MEM_W)) & 0xFFFFFFFF == y).all()
    go(chip, E_VXM + isa.VXM_DRIVE + 4)
    assert (lanes(stream(chip, Dir.E, MEM_E)) == (np.arange(LANES) + 13) * 0x10001).all()


def test_vxm_writes_registers_and_exponents_exactly_once_readable():
    programs = {"VXM": [op(Op.ALU, a_src=Src.IOTA, c_src=Src.IMM, imm=200, alu=Alu.ADD, rf_we=1, rf=4, rf_inc=1,
                           er_we=1, er_dst=2, count=2)]}
    chip = begin(machine(programs), E_VXM + isa.VXM_DRIVE)
    assert not chip.state()["VXM.rf"].any()
    state = go(chip, E_VXM + isa.VXM_DRIVE + 1).state()
    assert (state["VXM.rf"][4] == np.arange(LANES) + 200).all() and not state["VXM.rf"][5].any()
    assert (state["VXM.er"][2] == (np.arange(LANES) + 200).astype(np.int8)).all()
    state = go(chip, E_VXM + isa.VXM_DRIVE + 2).state()
    assert (state["VXM.rf"][5] == np.arange(LANES) + 216).all()
    assert (state["VXM.er"][2] == (np.arange(LANES) + 216).astype(np.int8)).all()


def test_a_folded_vxm_drives_late_and_writes_in_time():
    alu = op(Op.ALU, a_src=Src.IOTA, count=2, interval=4, rf_we=1, rf=4, rf_inc=1, red=Red.SUM, red_e=1, dst_w=1)
    chip = begin(machine({"VXM": [alu]}, config=FOLDED), E_VXM + isa.VXM_DRIVE)
    assert not chip.state()["VXM.rf"].any()
    assert (go(chip, E_VXM + isa.VXM_DRIVE + 1).state()["VXM.rf"][4] == np.arange(LANES)).all()
    assert not driven(go(chip, E_VXM + isa.VXM_DRIVE + 3), Dir.W, MEM_W)
    assert (lanes(stream(go(chip, E_VXM + isa.VXM_DRIVE + 4), Dir.W, MEM_W)) == np.arange(LANES)).all()
    assert not driven(go(chip, E_VXM + 4 + isa.VXM_REDUCE_DRIVE + 3), Dir.E, MEM_E)
    total = stream(go(chip, E_VXM + 4 + isa.VXM_REDUCE_DRIVE + 4), Dir.E, MEM_E)
    assert (lanes(total) == 2 * np.arange(LANES) + LANES).all()


@pytest.mark.parametrize(("count", "interval", "gap", "trap"), [
    (2, 3, 9, 0), (2, 4, 9, None), (2, 4, 8, None), (2, 4, 7, 7), (1, 1, 4, None), (1, 1, 3, 3)])
def test_a_folded_vxm_is_busy_for_a_while(count: int, interval: int, gap: int, trap: int | None):
    """A burst, and another `gap` cycles later: the second word to be dispatched too early, or the first's interval."""
    programs = {"VXM": [op(Op.ALU, gap, count=count, interval=interval), op(Op.ALU)]}
    begin(machine(programs), 60)
    chip = machine(programs, config=FOLDED)
    if trap is None:
        begin(chip, 60)
        return
    with pytest.raises(ProgramError, match=f"cycle {FIRST + trap}: VXM: ENGINE_BUSY"):
        begin(chip, 60)


@pytest.mark.parametrize("late", [0, 1])
def test_vxm_register_read_latency(late):
    """An element executing VXM_RF cycles after another sees its result; one cycle earlier it does not."""
    programs = {"VXM": [op(Op.ALU, isa.VXM_RF - 1 + late, a_src=Src.IMM, imm=7, rf_we=1, rf=1),
                        op(Op.ALU, a_src=Src.RF, a_rf=1, alu=Alu.ADD, c_src=Src.IMM, imm=100, rf_we=1, rf=2)]}
    chip = begin(machine(programs), 40)
    assert chip.state()["VXM.rf"][2].tolist() == [107 if late else 100] * LANES


@pytest.mark.parametrize("red", [Red.SUM, Red.MAX, Red.MIN, Red.MAXABS])
def test_vxm_reduction(red):
    count, interval = 5, 3
    programs = {"MEM_W0": [read(10, count=count, stride=1, interval=interval)],
                "VXM": [wait(3), op(Op.ALU, a_src=Src.E, count=count, interval=interval, red=red, red_e=1)]}
    chip = machine(programs)
    expected = numerics.reduce(red, np.stack([ints(chip, "MEM_W0", 10 + i) for i in range(count)]), 0)
    last = FIRST + 1 + 2 + 1 + (count - 1) * interval
    begin(chip, last + isa.VXM_REDUCE_DRIVE)
    assert not driven(chip, Dir.E, MEM_E)
    go(chip, last + isa.VXM_REDUCE_DRIVE + 1)
    assert (lanes(stream(chip, Dir.E, MEM_E)) == expected).all()


def test_vxm_reductions_in_slots_continue():
    def alu(imm: int, slot: int, keep: int) -> Instr:
        return op(Op.ALU, 2, a_src=Src.IMM, imm=imm, red=Red.SUM, red_slot=slot, red_keep=keep, red_e=1, count=2)

    chip = machine({"VXM": [alu(1, 0, 0), alu(10, 1, 0), alu(100, 0, 1), alu(1000, 1, 1), alu(5, 0, 0)]})
    begin(chip, 0)
    for n, expected in enumerate((2, 20, 202, 2020, 10)):
        go(chip, FIRST + 2 * n + isa.ENGINE + 1 + isa.VXM_REDUCE_DRIVE + 1)
        assert (lanes(stream(chip, Dir.E, MEM_E)) == expected).all()


def test_vxm_formats_shifts_and_exponents():
    """A whole burst from two streams, registers and exponents, against arch.numerics."""
    alu = op(Op.ALU, a_src=Src.E, a_fmt=Fmt.HI16, b_src=Src.W, b_fmt=Fmt.LO16, c_src=Src.RF, c_rf=0, func=Func.MUL,
             pre=-2, post=3, er_use=ErUse.POST, er=1, er_neg=1, round=1, alu=Alu.RSUB, sat=Sat.S16, count=3, rf_we=1,
             rf=8, rf_inc=1, rep=Rep.REP8)
    setup = op(Op.ALU, 10, a_src=Src.IMM, imm=3, alu=Alu.ADD, c_src=Src.IOTA, rf_we=1, rf=0, er_we=1, er_dst=1)
    programs = {"VXM": [setup, alu], "MEM_W0": [wait(7), read(0, count=3, stride=1)],
                "MEM_E0": [wait(7), read(0, Dir.W, count=3, stride=1)]}
    chip = begin(machine(programs), 40)
    a = numerics.take(np.stack([ints(chip, "MEM_W0", i) for i in range(3)]), Fmt.HI16)
    b = numerics.take(np.stack([ints(chip, "MEM_E0", i) for i in range(3)]), Fmt.LO16)
    c = er = np.arange(LANES) + 3
    assert (chip.state()["VXM.rf"][8:11] == numerics.vxm(alu, a, b, c, er)).all()


def test_vxm_reciprocal_writes_its_exponent():
    programs = {"VXM": [op(Op.ALU, a_src=Src.IMM, imm=1000, func=func, er_we=1, er_dst=i)
                        for i, func in enumerate((Func.RECIP, Func.RSQRT, Func.PASS))]}
    chip = begin(machine(programs), 40)
    assert chip.state()["VXM.er"][:3, 0].tolist() == [9, 4, 1000 - 1024]


# --- MXM -------------------------------------------------------------------------------------------------------------


def mac_machine(mac: Instr, acts: int, steps: int, config=TINY, side: str = "E", drain: int = 0):
    """Loads `acts` activations, streams `steps` quads of weights into one MAC burst."""
    direction = Dir.E if side == "E" else Dir.W
    t_load = FIRST + 1 + 2 + 2  # before the MXM
    slices = range(1, 1 + config.weight_groups)
    programs = {f"MEM_{side}0": [read(0, direction, count=acts, stride=1)],
                **{f"MEM_{side}{g}": [wait(20), read(0, direction, weights=g, count=steps, stride=1)] for g in slices},
                f"MXM_{side}": [wait(t_load - FIRST - 1), op(Op.LOAD, 20 + FIRST + 5 - t_load, act=1, plane=2,
                                                             count=acts), mac]}
    if drain:
        programs[f"MXM_{side}"] += [wait(isa.MXM_ACC + steps - 3), op(Op.DRAIN, acc=0, count=drain)]
    chip = machine(programs, config=config)
    act = chip.mem(f"MEM_{side}0")[:acts, 2].view(np.int8).copy()
    weights = np.concatenate([chip.mem(f"MEM_{side}{g}")[:steps] for g in slices], axis=1).view(np.int8)
    return chip, act, weights, 20 + FIRST + 1 + 2 + 2


def accumulate(acc, act, weights, mac: Instr):
    """Reference: int64 [vectors, 16] after a whole burst."""
    acc = acc.copy().reshape(-1)
    steps = [(j, n) for n in range(mac.accs) for j in range(mac.acts)]
    if mac.order is Order.TILE:
        steps = [(j, n) for j in range(mac.acts) for n in range(mac.accs)]
    for weight, (j, n) in zip(weights, steps, strict=True):
        sums = numerics.dot(weight, act[j], mac.wfmt)
        first = (mac.acc + n) * len(sums) % len(acc)
        target = acc[first : first + len(sums)]
        target[:] = sums if mac.clear and j == 0 else target + sums
    return acc.reshape(-1, LANES)


@pytest.mark.parametrize("config", [TINY, LARGE], ids=lambda c: c.name)
@pytest.mark.parametrize("wfmt", list(Wfmt))
@pytest.mark.parametrize("order", list(Order))
@pytest.mark.parametrize("side", "EW")
def test_mac(config, wfmt, order, side):
    mac = op(Op.MAC, act=1, acc=3, acts=3, accs=7, order=order, wfmt=wfmt, clear=1)
    chip, act, weights, first = mac_machine(mac, 3, 21, config, side)
    zero = np.zeros((config.acc_depth, LANES), np.int64)
    begin(chip, first + 20 + isa.MXM_ACC)
    assert (chip.units[f"MXM_{side}"].state()["act"][1:4] == act).all()
    assert (chip.units[f"MXM_{side}"].state()["acc"] == accumulate(zero, act, weights, mac)).all()


def test_mac_step_is_in_the_accumulator_after_mxm_acc():
    mac = op(Op.MAC, act=1, acc=0, acts=1, accs=2)
    chip, act, weights, first = mac_machine(mac, 1, 2)
    begin(chip, first + isa.MXM_ACC - 1)
    assert not chip.units["MXM_E"].state()["acc"].any()
    acc = go(chip, first + isa.MXM_ACC).units["MXM_E"].state()["acc"]
    assert (acc[0, :4] == numerics.dot(weights[0], act[0], Wfmt.INT8)).all() and not acc[0, 4:].any()


@pytest.mark.parametrize("side", "EW")
def test_drain_sees_the_sum_after_mxm_acc(side):
    mac = op(Op.MAC, act=1, acc=0, acts=2, accs=4, order=Order.TILE, clear=1)
    chip, act, weights, first = mac_machine(mac, 2, 8, side=side, drain=2)
    drain = first + 7 + isa.MXM_ACC  # cycle in which DRAIN executes
    inward, neighbour = (Dir.W, SXM_E) if side == "E" else (Dir.E, 1)
    begin(chip, drain + isa.MXM_DRAIN)
    assert not driven(chip, inward, neighbour, 1)
    go(chip, drain + isa.MXM_DRAIN + 1)
    expected = accumulate(np.zeros((TINY.acc_depth, LANES), np.int64), act, weights, mac)
    assert (lanes(stream(chip, inward, neighbour)) == expected[0]).all() and expected[0].any()


# --- SXM -------------------------------------------------------------------------------------------------------------

SAMPLE_SXM = FIRST + 1 + 2 + 1
MAP = [(lane + 3) % 16 ^ 4 for lane in range(16)]


@pytest.mark.parametrize(("instr", "function"), [
    (op(Op.PERMUTE, map=2), lambda x, i: x[MAP]),
    (op(Op.SHIFT, lane=15, lane_inc=3), lambda x, i: np.roll(x, -(15 + 3 * i))),
    (op(Op.SHIFT, lane=14, lane_inc=1, distribute=1), lambda x, i: np.full(LANES, x[(14 + i) % LANES])),
    *((op(Op.REDUCE, red=red, segment=segment), lambda x, i, red=red, s=segment: numerics.lane_reduce(red, s, x))
      for red in (Red.SUM, Red.MAX, Red.MIN) for segment in range(5)),
], ids=lambda x: f"{x.op.name}" if isinstance(x, Instr) else "")
def test_sxm(instr, function):
    sxm = Instr(instr.op, 2, {**instr.fields, "count": 3, "interval": 2})
    programs = {"MEM_E0": [read(0, count=3, interval=2, stride=1)], "SXM_E": [wait(SAMPLE_SXM - FIRST - 1), sxm]}
    chip = machine(programs)
    chip.load_map(2, MAP)
    begin(chip, SAMPLE_SXM + isa.SXM_DRIVE)
    assert not driven(chip, Dir.W, MEM_E)
    for i in range(3):
        go(chip, SAMPLE_SXM + 2 * i + isa.SXM_DRIVE + 1)
        assert (lanes(stream(chip, Dir.W, MEM_E)) == function(ints(chip, "MEM_E0", i), i)).all()


def test_transpose():
    programs = {"MEM_E0": [read(0, count=16, stride=1)],
                "SXM_E": [wait(SAMPLE_SXM - FIRST - 1), op(Op.TRANSPOSE_IN, 16, count=16, plane=1),
                          op(Op.TRANSPOSE_OUT, count=16)]}
    chip = machine(programs)
    begin(chip, SAMPLE_SXM + 16 + isa.SXM_DRIVE)
    assert (chip.state()["SXM_E.transpose"] == chip.mem("MEM_E0")[:16, 1]).all()
    for i in range(16):
        go(chip, SAMPLE_SXM + 16 + isa.SXM_DRIVE + 1 + i)
        assert (stream(chip, Dir.W, MEM_E) == chip.mem("MEM_E0")[:16, 1, i]).all()


@pytest.mark.parametrize("code", [Op.TRANSPOSE_IN, Op.TRANSPOSE_OUT])
def test_no_transposition(code):
    chip = machine({"SXM_E": [op(code)]}, config=CONFIGS["wide"])
    with pytest.raises(ProgramError, match=f"config .* has no {code.name}"):
        begin(chip, FIRST + 1)


def test_no_maximum_in_the_drains():
    chip = machine({"MXM_E": [op(Op.DRAIN, max=isa.DrainMax.FIRST)]})
    with pytest.raises(ProgramError, match="config tiny has no maximum in its drains"):
        begin(chip, FIRST + 1)


# --- host port -------------------------------------------------------------------------------------------------------


def test_host_port():
    chip = machine({})
    value = 0x0F0E0D0C0B0A09080706050403020100
    chip.host_write(Space.MEM, 3 << 22 | 17 << 2 | 2, value)
    assert chip.mem("MEM_E1")[17, 2].tolist() == list(range(16))
    assert chip.host_read(Space.MEM, 3 << 22 | 17 << 2 | 2) == value
    word = isa.encode(op(Op.ALU, 77, red_e=1))
    for part in (1, 0):
        addr = address(Space.ICU, queue=0, instruction=5, number=9, part=part)
        chip.host_write(Space.ICU, addr, word >> 128 * part & (1 << 128) - 1)
    assert chip.icus["VXM"].words[5] == word
    chip.host_write(Space.MAP, 1, 0xFEDCBA9876543210)
    assert chip.maps[1].tolist() == list(range(16))
    chip.host_write(Space.BUCKET, 1, 5 << 32 | 99)
    assert chip.buckets[1].tolist() == [99, 5]
    chip.host_write(Space.START, 2 << 8 | 3, 44)
    assert chip.icus[row.queues(TINY)[2].name].starts[3] == 44
    assert chip.host_read(Space.CONTROL, Control.IDENTITY.value) == int(chip_digest(TINY), 16)


def test_host_must_not_touch_memory_while_a_token_runs():
    chip = begin(machine({}), 5)
    with pytest.raises(RuntimeError, match="MEM"):
        chip.host_read(Space.MEM, 0)
    assert chip.host_read(Space.CONTROL, Control.RUN.value) == 1


# --- illegal programs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ILLEGAL.values(), ids=ILLEGAL)
def test_illegal_programs_trap(case):
    trap, cycle, queue, programs, period = case
    with pytest.raises(ProgramError) as error:
        machine(programs, period).run(1)
    assert (error.value.trap, error.value.cycle, error.value.queue) == (trap, cycle, queue)
    chip = machine(programs, period, strict=False)
    assert chip.run(1) == [period]
    assert chip.host_read(Space.CONTROL, Control.ERRORS.value) >> trap.value & 1


def test_positions_beyond_all_buckets_end_the_run():
    chip = machine({})
    chip.load_buckets([(20, 2)])
    with pytest.raises(ProgramError, match="cycle 40: sequencer: ADDRESS"):
        chip.run(3)
    chip = machine({}, strict=False)
    chip.load_buckets([(20, 2)])
    assert chip.run(3) == [20, 20] and chip.host_read(Space.CONTROL, Control.RUN.value) == 0


def test_too_short_periods_trap():
    with pytest.raises(ProgramError, match="period must be at least 11, not 10"):
        machine({}, period=10).run(1)


def test_dry_queue_traps():
    chip = machine({})
    chip.load_starts("SXM_E", [40])
    with pytest.raises(ProgramError, match=f"cycle {FIRST}: SXM_E: DRY"):
        chip.run(1)


def test_back_to_back_bursts_are_legal():
    machine({"MEM_E0": [read(0, count=2), read(0, count=5, delay=5), read(0, count=2)]}).run(1)
    machine({"MEM_E0": [read(0, count=16)]}, period=FIRST + 17).run(1)
    machine({"VXM": [wait(16)]}, period=FIRST + 17).run(1)
