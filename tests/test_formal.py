"""Proofs of queues, burst engines, stream registers, accumulators and the serial line; and that each can fail."""

from collections.abc import Callable
from types import ModuleType

import formal
import pytest
from formal import Proof, Property, mutated, prove
from formal_fpga_gateware_uart import UartProof
from formal_hw_burst import BurstProof
from formal_hw_c2c import C2cProof
from formal_hw_icu import FETCH, QUEUES, IcuProof, LoadProof
from formal_hw_link import ElasticProof, SecdedProof, StartProof
from formal_hw_mxm import FileProof, LoopsProof
from formal_hw_stream import StreamProof

from arch.isa import Op


@pytest.mark.parametrize("item", [pytest.param(item, id=item.name, marks=[pytest.mark.nightly] if item.long else [])
                                  for item in formal.properties()])
def test_proof(item: Property):
    verdict = prove(item)
    assert verdict.status == "PASS", f"{verdict.failed}: {verdict.folder}"


def icu(module: ModuleType) -> Proof:
    return IcuProof(QUEUES["MEM_E0"], module.Icu)


def fetch(module: ModuleType) -> Proof:
    return IcuProof(QUEUES["MEM_E0"], module.Icu, FETCH)


def load(module: ModuleType) -> Proof:
    return LoadProof(QUEUES["MEM_E0"], module.Icu)


def burst(module: ModuleType) -> Proof:
    return BurstProof(Op.DRAIN, module.Burst)


def folded(module: ModuleType) -> Proof:
    return BurstProof(Op.ALU, module.Burst, fold=4)


def single(module: ModuleType) -> Proof:
    return BurstProof(Op.INDEX, module.Burst)


def loops(module: ModuleType) -> Proof:
    return LoopsProof(module.MacLoops)


def accumulators(module: ModuleType) -> Proof:
    return FileProof(module.Mxm)


def uart(module: ModuleType) -> Proof:
    return UartProof(4, module.Sender, module.Receiver)


def c2c(module: ModuleType) -> Proof:
    return C2cProof(module)


def code(module: ModuleType) -> Proof:
    return SecdedProof(32, 5, module)


def elastic(module: ModuleType) -> Proof:
    return ElasticProof(2, module=module)


def moved(module: ModuleType) -> Proof:
    return ElasticProof(1, 4, module)


def start(module: ModuleType) -> Proof:
    return StartProof(2, False, module)


FAULTS = [
    (icu, "hw.icu", "timer.eq(delay)", "timer.eq(delay + 1)"),
    (icu, "hw.icu", "timer.eq(self._latencies.start)]", "timer.eq(self._latencies.start + 1)]"),
    (load, "hw.icu", "(loaded.delay == MIN_DELAY), 2, 0)", "(loaded.delay == MIN_DELAY), 0, 0)"),
    (icu, "hw.icu", "else left == 1", "else left == 2"),
    (fetch, "hw.icu", "last.eq(left == 2)", "last.eq(left == 1)"),
    (icu, "hw.icu", "level == k + 1)", "level == 1)"),
    (icu, "hw.icu", "offset.eq(offset + stride), pc", "offset.eq(stride), pc"),
    (icu, "hw.icu", "m.d.sync += active.eq(0)", "pass"),
    (icu, "hw.icu", "issued.eq(issue & ~self.start)", "issued.eq(issue)"),
    (icu, "hw.icu", "pc.eq(pc + move)", "pc.eq(pc + issue)"),
    (icu, "hw.icu", "issue | fill[0]", "fill[0]"),
    (icu, "hw.icu", "body.eq(behind)", "body.eq(pc)"),
    (icu, "hw.icu", "move, entry.number[number]", "move, entry.number"),
    (load, "hw.icu", "load.addr.eq(loads.addr)", "load.addr.eq(loads.number)"),
    (load, "hw.icu", "loads.number[where]", "loads.number"),
    (fetch, "hw.icu", "timer == MIN_DELAY + 2) & ~self.start", "timer == MIN_DELAY + 2)"),
    (fetch, "hw.icu", "soon.eq(following.delay == MIN_DELAY + 1)", "soon.eq(following.delay == MIN_DELAY)"),
    (burst, "hw.burst", "wait.eq(op.interval - self._fold)", "wait.eq(op.interval)"),
    (burst, "hw.burst", "else self.word.count)", "else self.word.count + 1)"),
    (burst, "hw.burst", "self.start & self.busy & ~self.last", "self.start & self.busy"),
    (burst, "hw.burst", "index.eq(index + 1)", "index.eq(index)"),
    (folded, "hw.burst", "self.part == self._fold - 1", "self.part == 0"),
    (folded, "hw.burst", "wait.eq(op.interval - self._fold)", "wait.eq(op.interval - 1)"),
    (folded, "hw.burst", "self.last.eq(self.done &", "self.last.eq(self.active &"),
    (single, "hw.burst", "left.eq(1 if", "left.eq(2 if"),
    (StreamProof, "hw.stream", "row[p][plane_bits", "row[0][plane_bits"),
    (StreamProof, "hw.stream", "Mux(drive, data, value)", "data"),
    (StreamProof, "hw.stream", "Mux(drive, data, value)", "value | Mux(drive, data, 0)"),
    (StreamProof, "hw.stream", "in producers)]))", "in producers[:1])]))"),
    (StreamProof, "hw.stream", "beyond in (MEM_W, MEM_E)", "beyond == MEM_E"),
    (StreamProof, "hw.stream", "if group in self._config.", "if group <= 1 or group in self._config."),
    (StreamProof, "hw.stream", "return low <= p <= high", "return low < p <= high"),
    (StreamProof, "hw.stream", "p != (WEIGHTS", "p - 1 != (WEIGHTS"),
    (loops, "hw.mxm", "act + 1 == op.acts", "act == op.acts"),
    (loops, "hw.mxm", "with m.If(~by_row | act_last):", "with m.If(~by_row | acc_last):"),
    (accumulators, "hw.mxm", "control[0], control[self._last]", "control[0], control[self._last - 1]"),
    (accumulators, "hw.mxm", "mac.op.clear & mac.first", "mac.op.clear"),
    (accumulators, "hw.mxm", "here.lanes.eq(Mux(mac.active, lanes8, 0))", "here.lanes.eq(lanes8)"),
    (accumulators, "hw.mxm", "engine.word.acc, Const(1)", "engine.word.acc, Const(0)"),
    (uart, "fpga.gateware.uart", "left.eq(BITS),", "left.eq(BITS - 1),"),
    (uart, "fpga.gateware.uart", "Cat(self.data[1:], line)", "Cat(line, self.data[:-1])"),
    (uart, "fpga.gateware.uart", "self._bit // 2 - 2 *", "self._bit // 2 - 3 *"),
    (c2c, "hw.c2c", "Mux(sender.active, sender.op.ports[:ports], 0)", "sender.op.ports[:ports]"),
    (c2c, "hw.c2c", "word_select(sender.op.plane, bits)", "word_select(receiver.op.port, bits)"),
    (c2c, "hw.c2c", "Mux(receiver.active, receiver.op.planes, 0)", "Mux(receiver.active, 15, 0)"),
    (code, "hw.link.secded", "kept ^ Cat(hits)", "kept"),
    (code, "hw.link.secded", "syndrome.any() & ~single", "syndrome.any()"),
    (code, "hw.link.secded", "self.syndrome.eq(found ^ code.inverted)", "self.syndrome.eq(found)"),
    (elastic, "hw.link.elastic", "self.entry.eq(self.entry + 1)", "self.entry.eq(self.entry + 2)"),
    (elastic, "hw.link.elastic", "read.addr.eq(self.entry)", "read.addr.eq(self.entry + 1)"),
    (elastic, "hw.link.elastic", "write.addr.eq(place[part_bits:])", "write.addr.eq(place)"),
    (moved, "hw.link.elastic", "slot.eq(slot + slots)", "slot.eq(slot + slots + 1)"),
    (start, "hw.link.counter", "(slot + 1)[:SLOT_BITS]", "slot[:SLOT_BITS]"),
    (start, "hw.link.counter", "waiting & begins & self", "begins & self"),
    (start, "hw.link.counter", "asked.eq(self.go | follows)", "asked.eq(follows)"),
]


@pytest.mark.parametrize(("proof", "module", "old", "new"), FAULTS,
                         ids=[f"{fault[0].__name__}: {fault[3]}" for fault in FAULTS])
def test_a_faulty_unit_is_refuted(proof: Callable[[ModuleType], Proof], module: str, old: str, new: str):
    faulty = mutated(module, old, new)
    depth = 45 if proof is uart else 9 if proof is accumulators else 16
    item = Property(name="", claim="", top=lambda: proof(faulty), depth=depth, cut="t:$mul")
    verdict = prove(item, refute=True)
    assert verdict.status == "FAIL"
