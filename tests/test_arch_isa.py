"""Encodings: every field's limits, round trips, and that the structs of the RTL lie where `encode` puts the bits."""

from dataclasses import replace
from typing import Any

import pytest
from amaranth.lib import data
from hypothesis import given, settings
from hypothesis import strategies as st

from arch import isa, row
from arch.config import CONFIGS
from arch.isa import FIELDS, HEADER, ICU_OPS, UNIT_OPS, EncodingError, Instr, LinkOp, Op, Src

EVERY_FIELD = replace(CONFIGS["tiny"], drain_max=True)
"""A chip with all fields that not all chips have."""
ALL_FIELDS = [(op, name) for op in (*Op, *LinkOp) for name in ("delay", *FIELDS[op])]


def unit_of(op) -> str:
    return "C2C" if isinstance(op, LinkOp) else ""


def instr(op, name, value):
    if name == "delay":
        return Instr(op, value)
    return Instr(op, fields={name: value})


def spec_of(op, name):
    return HEADER["delay"] if name == "delay" else FIELDS[op][name]


def members(spec) -> Any:
    return spec.kind


def legal(spec, name):
    """Legal values of a field, as integers."""
    if name in ("b_fmt", "c_fmt"):
        return [member.value for member in isa.HALVES]
    if spec.kind:
        return [member.value for member in members(spec)]
    return list(spec.range)


@pytest.mark.parametrize(("op", "name"), ALL_FIELDS, ids=[f"{op.name}.{name}" for op, name in ALL_FIELDS])
def test_field_limits(op, name):
    spec = spec_of(op, name)
    values = legal(spec, name)
    for value in values:
        if name == "alu" and value == isa.Alu.INDEX.value:
            continue
        decoded = isa.decode(isa.encode(instr(op, name, value)), unit_of(op))
        got: Any = decoded.delay if name == "delay" else getattr(decoded, name)
        assert (got.value if spec.kind else got) == value
    for value in (max(values) + 1, min(values) - 1) if not spec.kind else (1 << spec.bits, -1):
        with pytest.raises(EncodingError, match=rf"{op.name}\.{name} must be in .*, not {value}"):
            isa.encode(instr(op, name, value))


def test_a_field_of_another_operation_is_refused():
    with pytest.raises(EncodingError, match="NOP has no field 'addr'"):
        isa.encode(Instr(Op.NOP, fields={"addr": 1}))
    with pytest.raises(AttributeError, match="NOP has no field 'addr'"):
        _ = Instr(Op.NOP).addr


def test_stray_bits_and_illegal_members_are_refused():
    with pytest.raises(EncodingError, match="stray bits"):
        isa.decode(isa.encode(Instr(Op.SYNC)) | 1 << 16)
    low = isa.layout(Op.ALU)["func"].offset
    with pytest.raises(EncodingError, match=r"ALU\.func must be a Func, not 15"):
        isa.decode(isa.encode(Instr(Op.ALU)) | 15 << low)
    with pytest.raises(EncodingError, match=r"ALU\.func must be a Func, not 15"):
        isa.encode(Instr(Op.ALU, fields={"func": 15}))


def test_two_registers_at_one_port_are_refused():
    word = isa.encode(Instr(Op.ALU, fields={"b_src": Src.RF, "c_src": Src.RF, "b_rf": 3, "c_rf": 3}))
    for name in ("b_rf", "b_inc", "c_rf", "c_inc"):
        with pytest.raises(EncodingError, match="ALU: operands b and c must not be two registers"):
            isa.decode(word ^ 1 << isa.layout(Op.ALU)[name].offset)
    with pytest.raises(EncodingError, match="ALU: operands b and c must not be two registers"):
        isa.encode(Instr(Op.ALU, fields={"b_src": Src.RF, "c_src": Src.RF, "c_rf": 1}))


def test_index_yields_iota():
    index: dict[str, Any] = {"alu": isa.Alu.INDEX, "b_src": Src.IOTA}
    word = isa.encode(Instr(Op.ALU, fields=index))
    assert isa.decode(word).alu is isa.Alu.INDEX
    for wrong in ({"b_src": Src.E}, {"b_fmt": isa.Fmt.LO16}):
        with pytest.raises(EncodingError, match="ALU: operand b of INDEX must be IOTA as I32"):
            isa.encode(Instr(Op.ALU, fields=index | wrong))


@pytest.mark.parametrize("name", ["b_fmt", "c_fmt"])
def test_bytes_are_for_operand_a(name):
    with pytest.raises(EncodingError, match="ALU: operands b and c must not be single bytes"):
        isa.encode(Instr(Op.ALU, fields={name: isa.Fmt.B2}))


@st.composite
def instructions(draw):
    op = draw(st.sampled_from([*Op, *LinkOp]))
    fields = {name: draw(st.sampled_from(list(members(spec))) if spec.kind else st.integers(*spec.range))
              for name, spec in FIELDS[op].items()}
    if op is Op.ALU:
        fields |= {"c_rf": fields["b_rf"], "c_inc": fields["b_inc"]}
        fields |= {name: draw(st.sampled_from(isa.HALVES)) for name in ("b_fmt", "c_fmt")}
        if fields["alu"] is isa.Alu.INDEX:
            fields |= {"b_src": Src.IOTA, "b_fmt": isa.Fmt.I32}
    return Instr(op, draw(st.integers(*HEADER["delay"].range)), fields)


@settings(deadline=None)
@given(instructions())
def test_round_trip(instruction):
    assert isa.decode(isa.encode(instruction), unit_of(instruction.op)) == instruction


@settings(deadline=None)
@given(instructions())
def test_layouts_agree_with_encode(instruction):
    bits = isa.encode(instruction)
    view = data.Const(isa.layout(instruction.op, EVERY_FIELD), bits)
    assert (view.op, view.delay) == (instruction.op, instruction.delay)
    for name, value in instruction.fields.items():
        assert getattr(view, name) == value


def test_header_lies_alike_in_every_layout():
    for op in Op:
        layout = isa.layout(op)
        assert (layout["op"].offset, layout["delay"].offset) == (0, HEADER["op"].bits)


def test_every_operation_has_one_home():
    homes = [*ICU_OPS, *(op for ops in UNIT_OPS.values() for op in ops)]
    assert sorted((op for op in homes if isinstance(op, Op)), key=lambda op: op.value) == list(Op)
    assert [op for op in homes if isinstance(op, LinkOp)] == list(LinkOp)
    assert {op.value for op in LinkOp}.isdisjoint(op.value for op in ICU_OPS)


def test_opcodes_of_a_c2c_are_read_by_its_queue():
    word = isa.encode(Instr(LinkOp.SEND, fields={"ports": 3}))
    assert isa.decode(word, "C2C").op is LinkOp.SEND and isa.decode(word, "C2C").ports == 3
    with pytest.raises(ValueError, match="9"):
        isa.decode(word & ~15 | 9, "C2C")


@pytest.mark.parametrize("unit", UNIT_OPS)
def test_words_fit_the_host_words(unit):
    assert isa.width(unit) <= 4 * 128
    for op in (*ICU_OPS, *UNIT_OPS[unit]):
        assert isa.layout(op).size <= isa.width(unit)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=lambda config: config.name)
def test_queues_are_numbered_once(config):
    names = [queue.name for queue in row.queues(config)]
    assert len(set(names)) == len(names)
    assert sum(name.startswith("MEM") for name in names) == 2 * len(config.mem_depths)


@pytest.mark.parametrize("changes, words", [
    ({"lanes": 2}, "lanes must be in 4..16, not 2"), ({"lanes": 12}, "lanes must be a power of two, not 12"),
    ({"vxm_fold": 32}, "vxm_fold must be in 1..16, not 32"),
    ({"vxm_fold": 3}, "vxm_fold must be a power of two, not 3"),
    ({"lanes": 4, "weight_groups": 2, "mem_depths": (64, 64, 64)},
     "weight_groups must be at most 1 with 4 lanes, not 2"),
])
def test_lanes_that_no_chip_has(changes, words):
    with pytest.raises(ValueError, match=words):
        replace(CONFIGS["tiny"], **changes)


def test_sizes_follow_the_lanes():
    small, tiny = CONFIGS["small"], CONFIGS["tiny"]
    assert (small.lane_bits, small.plane_bits, small.group_bits, small.quad_bytes) == (2, 32, 128, 16)
    assert (tiny.lane_bits, tiny.plane_bits, tiny.group_bits, tiny.quad_bytes) == (4, 128, 512, 64)
    assert (small.macs, small.int4, tiny.macs, tiny.int4) == (32, False, 128, True)
    assert not replace(tiny, lanes=8, weight_groups=2, mem_depths=(64, 64, 64)).int4


def test_a_vxm_that_is_not_folded_changes_no_digest():
    """A chip is known by its digest; these have been in bitstreams and program files since before there was a fold."""
    known = {"tiny": "bae35f60fb4c5062", "small": "372bea466a73c759", "large": "0add01f87b4e67f2"}
    assert {name: CONFIGS[name].digest() for name in known} == known
    tiny = CONFIGS["tiny"]
    assert len({replace(tiny, vxm_fold=fold).digest() for fold in (1, 2, 4)}) == 3


def test_what_a_folded_vxm_is_late():
    assert [(isa.vxm_late(replace(CONFIGS["tiny"], vxm_fold=fold)), replace(CONFIGS["tiny"], vxm_fold=fold).vxm_lanes)
            for fold in (1, 2, 16)] == [(0, 16), (1, 8), (15, 1)]


def test_routable_maps():
    """Rotations, broadcasts, exchanges, reversals and what they compose to; not any map."""
    lanes = range(16)
    legal = [[(lane + n) % 16 for lane in lanes] for n in lanes] + [[lane ^ n for lane in lanes] for n in lanes]
    legal += [[n] * 16 for n in lanes] + [[(lane & 12) | 2 for lane in lanes], [(15 - lane) & 7 for lane in lanes]]
    assert all(isa.routable(lanes) for lanes in legal)
    assert not isa.routable([3, 3, 0, 15, *range(12)])
    assert not isa.routable([2 * lane % 15 for lane in lanes])
