"""The static verifier against what it must accept, what it must refuse, and the strict cycle model as judge."""

import time
from collections import Counter
from dataclasses import replace
from functools import cache
from random import Random
from typing import Any

import numpy as np
import pytest
from checkpoints import random_checkpoint, small_config

from arch.config import CONFIGS, ChipConfig
from arch.host_map import Control, Space, Trap
from arch.isa import (
    ENGINE,
    FIELDS,
    HEADER,
    MIN_DELAY_JUMP,
    START,
    VXM_DRIVE,
    VXM_REDUCE_DRIVE,
    Dir,
    DrainMax,
    EncodingError,
    Fmt,
    Instr,
    Op,
    Red,
    Src,
    decode,
    encode,
    layout,
    vxm_late,
)
from arch.legal import IllegalProgram
from arch.numerics import Index
from arch.row import queues
from arch.vectors import quads_of_int32
from base.errors import TspError
from compiler.ir import Stream
from compiler.lower.qkv import permutations
from compiler.lower.token import lower_token
from compiler.place.placement import Placement, place
from compiler.quantize.quantizer import quantize
from compiler.schedule.assemble import Code, assemble
from compiler.schedule.scheduler import schedule_block
from compiler.verify import index_reach
from compiler.verify.index_reach import Product, check_products, index_bounds, index_least
from compiler.verify.proof import VerifyReport, verify_bucket
from program.image import Image
from sim.check.random_instructions import MAX_OFFSET
from sim.check.random_programs import random_image
from sim.cycle.chip import ModelChip
from sim.cycle.core import ProgramError
from sim.cycle.units import MemModel

TINY = CONFIGS["tiny"]
FOLDED = replace(TINY, vxm_fold=4)
PERIOD = 200
RANDOM_BOUNDS = {(f"{side}{n}", register): MAX_OFFSET for side in "WE" for n in range(3) for register in range(1, 8)}
Program = dict[str, list[int]]

# ---- programs by hand ----


def program(**given: list[tuple[int, Instr]]) -> Program:
    """Words of all queues of `tiny`; (cycle of dispatch after START, instruction) where given, then SYNC."""
    words = {}
    for queue in queues(TINY):
        at, instrs = 0, [Instr(Op.NOP)]
        for cycle, instr in given.get(queue.name, []):
            instrs[-1] = Instr(instrs[-1].op, cycle - at, instrs[-1].fields)
            instrs.append(instr)
            at = cycle
        words[queue.name] = [encode(instr) for instr in [*instrs, Instr(Op.SYNC)]]
    return words


def read(**fields) -> Instr:
    return Instr(Op.READ, fields={"dir": Dir.E, "planes": 15, "stride": 1, **fields})


def write(**fields) -> Instr:
    return Instr(Op.WRITE, fields={"dir": Dir.E, "planes": 15, "stride": 1, **fields})


def alu(**fields) -> Instr:
    return Instr(Op.ALU, fields=fields)


COPY = {"MEM_W0": [(2, read(count=4))], "MEM_E0": [(6, write(count=4, addr=8))]}
"""Four quads from MEM_W0 to MEM_E0: the READ's data are driven in e + 2 and sampled two positions on."""


def test_copy_is_legal_and_reported():
    report = verify_bucket(TINY, program(**COPY), PERIOD, {})
    assert report.lines() == ["MEM_W0 word 1 (READ) -> E0 -> MEM_E0 word 1 (WRITE): 16"]
    assert (report.elements, report.unread) == (8, ())
    assert report.last == START + 6 + 1 + 3 + 2


def test_overwritten_on_its_way_shows_in_the_flows():
    later = {name: [(at + VXM_DRIVE, instr) for at, instr in words] for name, words in COPY.items()}
    report = verify_bucket(TINY, program(**later, VXM=[(8, alu(dst_e=1))]), PERIOD, {})
    flows = {(report.words[f.producer].queue.name, f.samples) for f in report.flows}
    assert flows == {("MEM_W0", 12), ("VXM", 4)}


REFUSED = {
    "too early for the data": (COPY | {"MEM_E0": [(5, write(count=4))]}, Trap.EMPTY_READ,
                               f"MEM_E0 word 1, cycle {START + 6}"),
    "plane not driven": (COPY | {"MEM_W0": [(2, read(count=4, planes=7))]}, Trap.EMPTY_READ, "plane 3"),
    "other group": (COPY | {"MEM_W0": [(2, read(weights=1, count=4))]}, Trap.EMPTY_READ, "holds no value"),
    "two drives": ({"MEM_W0": [(2, read(count=4))], "MEM_W1": [(2, read(count=1))]}, Trap.COLLISION, "and so does"),
    "engine busy": ({"MEM_W0": [(2, read(count=4)), (5, read())]}, Trap.ENGINE_BUSY, f"until cycle {START + 6}"),
    "address": ({"MEM_W0": [(2, read(addr=254, count=3))]}, Trap.ADDRESS,
                f"cycle {START + 5}: ADDRESS: READ: address must be in"),
    "negative address": ({"MEM_W0": [(2, read(addr=1, count=3, stride=-1))]}, Trap.ADDRESS, "not 1048575"),
    "index beyond": ({"MEM_W0": [(2, read(addr=250, index=1))]}, Trap.ADDRESS, "offsets up to 7"),
    "outward": ({"MEM_E1": [(2, read())]}, Trap.ADDRESS, "only slice 0 drives the vector group outward"),
    "bank": (COPY | {"MEM_E0": [(6, write(count=4, addr=8)), (8, read(addr=9))]}, Trap.BANK_CONFLICT, "quad 9"),
    "bank by index": (COPY | {"MEM_E0": [(6, write(count=4, addr=8)), (8, read(addr=2, index=1))]}, Trap.BANK_CONFLICT,
                      "may read quad 9"),
    "result and reduction": ({"VXM": [(2, alu(count=2, red=Red.SUM, red_e=1)), (4, alu(dst_e=1))]},
                             Trap.COLLISION, "VXM word 1"),
    "register": ({"VXM": [(2, alu(rf_we=1, rf=30, rf_inc=1, count=3))]}, Trap.ADDRESS, "register must be in 0..31"),
    "operand": ({"VXM": [(2, alu(a_src=Src.W, a_fmt=Fmt.B2))]}, Trap.EMPTY_READ, "plane 2 of W group 0"),
    "map": ({"SXM_E": [(2, Instr(Op.PERMUTE, fields={"map": 16}))]}, Trap.ADDRESS, "map must be"),
    "reduce": ({"SXM_E": [(2, Instr(Op.REDUCE, fields={"red": Red.MAXABS}))]}, Trap.OPCODE, "MAXABS"),
    "transpose": ({"SXM_E": [(2, Instr(Op.TRANSPOSE_OUT, fields={"count": 17}))]}, Trap.ADDRESS, "transpose row"),
    "activation": ({"MXM_E": [(2, Instr(Op.MAC, fields={"act": 15, "acts": 2}))]}, Trap.ADDRESS, "activation entry"),
    "weights": ({"MXM_E": [(2, Instr(Op.MAC))]}, Trap.EMPTY_READ, "E group 1"),
    "maximum": ({"MXM_E": [(2, Instr(Op.DRAIN, fields={"max": DrainMax.MORE}))]}, Trap.OPCODE,
                "config tiny has no maximum in its drains"),
    "too long": ({"MEM_W0": [(2, read(count=100, interval=2))]}, Trap.NOT_PARKED, "an element executes after"),
    "lands late": ({"MEM_W0": [(2, read(count=197 - START))]}, Trap.NOT_PARKED, "its effect comes after"),
    "wrong unit": ({"MEM_W0": [(2, alu())]}, Trap.OPCODE, "ALU is not an operation of MEM"),
    "endless": ({"MEM_W0": [(2, Instr(Op.LOOP, fields={"count": 99})), (4, Instr(Op.END_LOOP, MIN_DELAY_JUMP))]},
                Trap.NOT_PARKED, "dispatched after"),
    "no loop": ({"MEM_W0": [(2, Instr(Op.END_LOOP, MIN_DELAY_JUMP))]}, Trap.OPCODE, "END_LOOP has no LOOP"),
    "open loop": ({"MEM_W0": [(2, Instr(Op.LOOP))]}, Trap.OPCODE, "SYNC stands within a loop"),
    "deep": ({"MEM_W0": [(2 * n, Instr(Op.LOOP)) for n in (1, 2, 3)]}, Trap.OPCODE, "nested too deeply"),
    "after SYNC": ({"MEM_W0": [(2, Instr(Op.SYNC))]}, Trap.OPCODE, "follow SYNC"),
}


@pytest.mark.parametrize("given, rule, text", REFUSED.values(), ids=REFUSED)
def test_refused(given, rule, text):
    with pytest.raises(IllegalProgram) as error:
        verify_bucket(TINY, program(**given), PERIOD, {("W0", 1): 7, ("E0", 1): 7})
    assert error.value.rule is rule and text in str(error.value) and "\n" not in str(error.value)


def test_reduction_and_result_in_neighbouring_cycles():
    verify_bucket(TINY, program(VXM=[(2, alu(red=Red.SUM, red_e=1)), (4, alu(dst_e=1))]), PERIOD, {})


@pytest.mark.parametrize("config", [TINY, FOLDED])
def test_last_effect_of_the_vxm(config):
    at = PERIOD - START - ENGINE - VXM_REDUCE_DRIVE - vxm_late(config)
    assert verify_bucket(config, program(VXM=[(at, alu())]), PERIOD, {}).last == PERIOD
    with pytest.raises(IllegalProgram, match="its effect comes after"):
        verify_bucket(config, program(VXM=[(at + 1, alu())]), PERIOD, {})


def test_program_as_a_whole():
    words = program()
    two_registers = encode(alu(b_src=Src.RF, c_src=Src.RF)) ^ 1 << layout(Op.ALU)["b_rf"].offset
    for change, period, text in (
        ({}, 10, "period must be at least"), ({"MEM_W0": []}, PERIOD, "ends without SYNC"),
        ({"MEM_W7": []}, PERIOD, "queues must be"), ({"VXM": [encode(Instr(Op.NOP))] * 600}, PERIOD, "holds 512 words"),
        ({"VXM": [0]}, PERIOD, "delay must be at least"), ({"VXM": [1 << 200]}, PERIOD, "stray bits"),
        ({"VXM": [two_registers]}, PERIOD, "b and c must not be two registers"),
    ):
        with pytest.raises(IllegalProgram, match=text):
            verify_bucket(TINY, words | change, period, {})


@pytest.mark.parametrize("op", [Op.TRANSPOSE_IN, Op.TRANSPOSE_OUT])
def test_chip_without_transposition(op):
    config = replace(TINY, sxm_transpose=False)
    with pytest.raises(IllegalProgram, match=f"config .* has no {op.name}"):
        verify_bucket(config, program(SXM_E=[(2, Instr(op))]), PERIOD, {})


def test_undeclared_index_register():
    with pytest.raises(IllegalProgram, match="no declared bound"):
        verify_bucket(TINY, program(MEM_W0=[(2, read(index=3))]), PERIOD, {("W0", 2): 1})


def test_an_offset_wider_than_its_register(monkeypatch: pytest.MonkeyPatch):
    """The registers of a chip grow with its slices; in one where they had not, the program is refused."""
    deep, words = replace(TINY, mem_depths=(256, 100_000)), program(MEM_W1=[(2, read(index=1))])
    assert (TINY.index_bits, deep.index_bits) == (16, 17)
    verify_bucket(deep, words, PERIOD, {("W1", 1): 99_999})
    monkeypatch.setattr(ChipConfig, "index_bits", 16)
    verify_bucket(deep, words, PERIOD, {("W1", 1): 0xFFFF})
    with pytest.raises(IllegalProgram, match="index register 1 has 16 bits, too few for offsets up to 65536"):
        verify_bucket(deep, words, PERIOD, {("W1", 1): 0x10000})


def sweeps() -> dict[str, list[dict]]:
    """Families of programs that cross a border of legality, a step at a time."""
    result, reduction = alu(rf_we=1, dst_e=1), alu(count=2, red=Red.SUM, red_e=1)
    return {
        "bank": [COPY | {"MEM_E0": [(6, write(count=4, addr=8)), (at, read(addr=addr, count=2))]}
                 for at in range(7, 15) for addr in range(7, 12)],
        "reductions": [{"VXM": [(2, reduction), (at, result)]} for at in range(3, 9)],
        "drives": [{"MEM_W0": [(6, read(count=2, planes=planes))], "VXM": [(4, result)],
                    "MEM_W1": [(at, read(planes=6, count=2))]} for at in range(3, 10) for planes in (1, 8, 12)],
        "samples": [COPY | {"MEM_E0": [(at, write(count=count))]} for at in range(3, 12) for count in range(1, 5)],
        "engine": [{"MEM_W0": [(2, read(count=3, interval=2)), (at, read())]} for at in range(3, 12)],
        "addresses": [{"MEM_W0": [(2, read(addr=addr, count=3, stride=stride))]}
                      for addr in (0, 1, 2, 253, 254, 255) for stride in (-1, 0, 1)],
        "entries": [{"VXM": [(2, alu(rf_we=1, rf=rf, rf_inc=inc, count=3))]} for rf in (29, 30, 31) for inc in (0, 1)],
    }


def folded_sweeps() -> dict[str, list[dict]]:
    """The same of a VXM that is at work for four cycles with an element."""
    results, total = alu(count=2, interval=5, dst_e=1), alu(count=2, interval=4, red=Red.SUM, red_e=1)
    return {
        "interval": [{"VXM": [(2, alu(count=2, interval=interval))]} for interval in range(1, 8)],
        "one element": [{"VXM": [(2, alu()), (at, alu())]} for at in range(3, 9)],
        "engine": [{"VXM": [(2, results), (at, results)]} for at in range(7, 16)],
        "results": [{"VXM": [(2, results)], "MEM_E0": [(at, write(count=2, interval=5))]} for at in range(10, 20)],
        "reduction": [{"VXM": [(2, total)], "MEM_E0": [(at, write())]} for at in range(14, 24)],
    }


@pytest.mark.parametrize(("config", "family"), [*((TINY, family) for family in sweeps()),
                                                *((FOLDED, family) for family in folded_sweeps())])
def test_borders_are_those_of_the_model(config, family):
    verdicts = set()
    for given in (folded_sweeps if config is FOLDED else sweeps)()[family]:
        words, found = program(**given), None
        try:
            verify_bucket(config, words, PERIOD, {})
        except IllegalProgram as error:
            found = error.rule
        trap = judge(Image(config=config, queues={}, starts={}, buckets=[]), words, PERIOD)
        assert found is (trap.trap if isinstance(trap, ProgramError) else trap), (given, trap)
        verdicts.add(found)
    assert None in verdicts and len(verdicts) > 1


# ---- compiled programs ----


@cache
def compiled(name: str, **changes) -> tuple[Placement, list[Code]]:
    """A small random model in two context buckets."""
    checkpoint, config = random_checkpoint(small_config(**changes)), CONFIGS[name]
    model = quantize(checkpoint, context=checkpoint.config.seq_len, lanes=config.lanes)
    rate = checkpoint.config.rope_theta ** (-np.arange(0, model.head_size, 2) / model.head_size)
    placement = place(config, model, rate)
    return placement, [
        assemble(config, [schedule_block(block) for block in lower_token(placement, chunks, chunks - 1)], chunks)
        for chunks in range(1, placement.geometry.chunks + 1)]


MODELS = {
    "small": ("wide", {}),
    "wide": ("wide", {"dim": 64, "hidden_dim": 100, "n_heads": 4, "n_kv_heads": 2, "head_dim": 16}),
    "odd vocabulary": ("wide", {"vocab_size": 390, "shared_classifier": False}),
    "four lanes": ("small", {"vocab_size": 130}),
    "folded": ("micro", {"vocab_size": 130}),
    "eight lanes": ("ulx3s", {"dim": 64, "n_heads": 4, "n_kv_heads": 2, "head_dim": 16}),
    "large": ("large", {"dim": 64, "n_heads": 4, "n_kv_heads": 4, "head_dim": 16}),
}


@pytest.mark.parametrize("name, changes", MODELS.values(), ids=MODELS)
def test_compiled_models_are_legal(name, changes):
    placement, codes = compiled(name, **changes)
    bounds = index_bounds(placement)
    for valid, code in enumerate(codes):
        start, least = time.perf_counter(), index_least(placement, valid)
        report = verify_bucket(CONFIGS[name], code.words, code.bucket.period, bounds, least)
        assert time.perf_counter() - start < 3  # 0.1 s, if nothing else runs
        assert report.unread == ()
        assert planned(code) <= seen(report)


class Greatest(list):
    """Index registers that remember the greatest offset that each ever held."""

    def __init__(self, indices: list[Index]):
        super().__init__(indices)
        self.offsets = dict[int, int]()

    def __setitem__(self, register: int, value: Index) -> None:
        super().__setitem__(register, value)
        self.offsets[register] = max(value.offset, self.offsets.get(register, 0))


def offsets_held(placement: Placement, code: Code, token: int, position: int) -> dict[tuple[str, int], int]:
    """Greatest offset by (slice, register) in the cycle model, of a token at a position of the bucket."""
    config = placement.geometry.config
    chip = ModelChip(config)
    chip.load_buckets([(code.bucket.period, code.bucket.limit)])
    for name, words in code.words.items():
        chip.load_queue(name, words)
        chip.load_starts(name, [0])
    for number, lanes in permutations(config).items():
        chip.load_map(number, lanes)
    for name, data in placement.layout.image().items():
        chip.load_mem(f"MEM_{name}", data)
    for name, value in (("token", token), ("position", position)):
        tensor = placement.tensors[name]
        chip.load_mem(f"MEM_{tensor.slice}", quads_of_int32(np.full((1, config.lanes), value)), tensor.addr)
    chip.host_write(Space.CONTROL, Control.POSITION.value, position)
    held = {}
    for name, unit in chip.units.items():
        if isinstance(unit, MemModel):
            held[name[4:]] = unit.indices = Greatest(unit.indices)
    chip.run(1)
    return {(slice_, register): offset for slice_, indices in held.items()
            for register, offset in indices.offsets.items()}


@pytest.mark.parametrize("name, changes", MODELS.values(), ids=MODELS)
def test_bounds_are_the_greatest_offsets(name, changes, monkeypatch: pytest.MonkeyPatch):
    """Registers without a limit hold at the last position what is declared, and the embedding's at some token."""
    placement, codes = compiled(name, **changes)
    monkeypatch.setattr(ChipConfig, "index_bits", 31)
    lanes, vocab = CONFIGS[name].lanes, placement.geometry.model.vocab
    tokens = {vocab - 1, (vocab - lanes) // lanes * lanes + lanes - 1, (vocab - lanes) // lanes * lanes - 1}
    held = [offsets_held(placement, codes[-1], token, placement.geometry.model.context - 1) for token in sorted(tokens)]
    assert {key: max(offsets[key] for offsets in held) for key in held[0]} == index_bounds(placement)


def test_a_product_that_saturates_is_refused(monkeypatch: pytest.MonkeyPatch):
    placement, _ = compiled(*MODELS["small"][:1])
    check_products(placement)
    for value, scale, text in ((1 << 17, 1, "its operand must be at most 131071"), (1, 1 << 17, "its factor must be"),
                               (1 << 16, 1 << 15, "its product must be at most 2147483647 .* not 2147483648")):
        monkeypatch.setattr(index_reach, "products", lambda _, given=Product("it", value, scale): [given])
        with pytest.raises(TspError, match=f"it: {text}"):
            check_products(placement)


def planned(code: Code) -> set[tuple]:
    """The scheduler's streams: (producer queue, first dispatch, consumer queue, first dispatch), but for weights."""
    ends: dict[Stream, tuple[list, list]] = {}
    for segment, schedule in zip(code.bucket.segments, code.schedules, strict=True):
        for placed in schedule.placed:
            place = placed.burst.queue.name, segment.start + placed.dispatch
            for consumes, streams in enumerate((placed.burst.drives.values(), placed.burst.samples)):
                for stream in streams:
                    ends.setdefault(stream, ([], []))[consumes].append(place)
    return {(*source, *sink) for sources, sinks in ends.values() for source in sources for sink in sinks}


def seen(report: VerifyReport) -> set[tuple]:
    """The same of the flows that the verifier finds."""
    places = [(word.queue.name, int(word.cycles[0])) for word in report.words]
    return {(*places[flow.producer], *places[flow.consumer]) for flow in report.flows}


# ---- random programs, and mutants of them ----


@cache
def random_buckets(name: str, seed: int) -> tuple[Image, list[Program]]:
    """A random image, and its buckets' words."""
    image, _ = random_image(CONFIGS[name], seed, 200)
    programs = []
    for bucket in range(len(image.buckets)):
        part = {}
        for queue, words in image.queues.items():
            starts = [*image.starts[queue], len(words)]
            part[queue] = list(words[starts[bucket] : starts[bucket + 1]])
        programs.append(part)
    return image, programs


@pytest.mark.parametrize("name, seeds", [
    ("tiny", range(12)), ("micro", range(3)), ("small", range(3)), ("ulx3s", range(3)), ("wide", range(3)),
    ("large", range(3))])
def test_random_programs_are_legal(name, seeds):
    for seed in seeds:
        image, programs = random_buckets(name, seed)
        for words, (period, _) in zip(programs, image.buckets, strict=True):
            verify_bucket(CONFIGS[name], words, period, RANDOM_BOUNDS)


class Watched(list):
    """Index registers that remember whether one ever left its declared bound: then nothing was promised."""

    def __init__(self, indices: list[Index], bound: int):
        super().__init__(indices)
        self.bound, self.broken = bound, False

    def __setitem__(self, register: int, value: Index) -> None:
        super().__setitem__(register, value)
        self.broken |= value.offset > self.bound


def judge(image: Image, words: Program, period: int) -> ProgramError | str | None:
    """What the strict model says of two tokens: a trap, "unbounded", "no room" in a queue, or nothing."""
    chip = ModelChip(image.config)
    chip.load_buckets([(period, 2)])
    for name, queue in words.items():
        try:
            chip.load_queue(name, queue)
        except ValueError:
            return "no room"
        chip.load_starts(name, [0])
    for number, lanes in image.maps.items():
        chip.load_map(number, lanes)
    for name, data in image.mems.items():
        chip.load_mem(name, data)
    watched = []
    for queue in queues(image.config):
        unit = chip.units[queue.name]
        if isinstance(unit, MemModel):
            unit.indices = Watched(unit.indices, MAX_OFFSET)
            watched.append(unit.indices)
    try:
        chip.run(2)
        trap = None
    except ProgramError as error:
        trap = error
    return "unbounded" if any(indices.broken for indices in watched) else trap


def mutate(rng: Random, words: Program) -> tuple[Program, str]:
    """One field or delay of one word changed, or one bit flipped."""
    name = rng.choice([name for name, queue in words.items() for _ in queue])
    number = rng.randrange(len(words[name]))
    word = words[name][number]
    instr = decode(word)
    kind = rng.choice(["delay", "field", "field", "field", "bit"])
    if kind == "bit":
        changed, field = word ^ 1 << rng.randrange(max(8, word.bit_length())), "bit"
    elif kind == "delay" or not instr.fields:
        delay = max(HEADER["delay"].range[0], instr.delay + rng.choice([-2, -1, 1, 2, rng.randint(-9, 30)]))
        changed, field = encode(Instr(instr.op, delay, instr.fields)), "delay"
    else:
        field = rng.choice(list(instr.fields))
        spec: Any = FIELDS[instr.op][field]
        value = rng.choice([*spec.kind]) if spec.kind else _near(rng, instr.fields[field], *spec.range)
        try:
            changed = encode(Instr(instr.op, instr.delay, {**instr.fields, field: value}))
        except EncodingError:  # illegal together with another field, which a flipped bit tries
            return mutate(rng, words)
    mutant = {queue: list(part) for queue, part in words.items()}
    mutant[name][number] = changed
    return mutant, f"{name} word {number}: {instr.op.name}.{field}: {decode_or_none(changed)}"


def _near(rng: Random, value: int, low: int, high: int) -> int:
    return min(high, max(low, rng.choice([value - 1, value + 1, value + rng.randint(-8, 8), rng.randint(low, high)])))


def decode_or_none(word: int) -> Instr | None:
    try:
        return decode(word)
    except ValueError:
        return None


def stricter(error: IllegalProgram) -> bool:
    """A documented reason to refuse what the machine happens to run."""
    text = str(error)
    return (error.rule is Trap.BANK_CONFLICT or "offsets up to" in text or "its effect comes after" in text
            or "follow SYNC" in text or "SYNC stands within a loop" in text)


def compare(name: str, mutants: int, seed: int) -> Counter[str]:
    """Verdicts on random mutants; fails if only the model refuses, or the verifier for no documented reason."""
    rng, verdicts = Random(seed), Counter()
    for _ in range(mutants):
        image, programs = random_buckets(name, rng.randrange(8))
        bucket = rng.randrange(len(programs))
        period = image.buckets[bucket][0]
        words, what = mutate(rng, programs[bucket])
        refused = None
        try:
            verify_bucket(image.config, words, period, RANDOM_BOUNDS)
        except IllegalProgram as error:
            refused = error
        trap = judge(image, words, period)
        if trap == "unbounded":
            verdicts["unbounded"] += 1
            continue
        assert refused or not trap, f"{what}: the verifier overlooked: {trap}"
        assert trap or not refused or stricter(refused), f"{what}: refused without reason: {refused}"
        verdicts["both refuse" if trap else "stricter" if refused else "legal"] += 1
        if isinstance(trap, ProgramError):
            verdicts[trap.trap.name] += 1
    return verdicts


@pytest.mark.parametrize("name", ["tiny", "micro"])
def test_mutants(name):
    verdicts = compare(name, 100, seed=1)
    assert verdicts["both refuse"] > 20 and verdicts["legal"] > 20
    assert verdicts["unbounded"] + verdicts["stricter"] < 20


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["tiny", "micro", "small", "ulx3s", "large"])
def test_many_mutants(name):
    verdicts = compare(name, 2000, seed=2)
    often = (Trap.EMPTY_READ, Trap.ADDRESS, Trap.OPCODE, Trap.ENGINE_BUSY, Trap.COLLISION, Trap.NOT_PARKED)
    assert all(verdicts[rule.name] for rule in often), verdicts
