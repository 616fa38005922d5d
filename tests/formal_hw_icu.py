"""Proof of the instruction queues: which word is issued in which cycle."""

from dataclasses import replace
from itertools import accumulate

from amaranth.asserts import AnyConst
from amaranth.hdl import Cat, Const, Module, Signal, Value
from formal import Opened, Proof, Property, free, implies, latched

from arch.config import ChipConfig
from arch.isa import (
    ADDR_BITS,
    DELAY_BITS,
    HEADER,
    LOOP_LEVELS,
    MIN_DELAY,
    UNIT_OPS,
    Op,
    width,
)
from arch.latencies import latencies
from arch.queue_store import Part, Store, store_of
from arch.row import Queue, queues
from hw.burst import fields, is_op
from hw.icu import Icu, stages
from hw.idioms import any_of

CONFIG = ChipConfig(name="formal", mem_depths=(16, 16), icu_depth=16, vxm_icu_depth=16, buckets=2, ports=(0, 1),
                    icu_words=((16,), (16,), (8, 16), (16, 8), (16,)))
FETCH = replace(CONFIG, registers=("fetch", "control"))
QUEUES = {queue.name: queue for queue in queues(CONFIG)}


class Content:
    """What a queue's memories hold at an address, in this cycle."""

    def __init__(self, m: Module, body: Opened, store: Store, addr: Value):
        self.entry = body.submodules.queue.read_port(domain="comb")
        m.d.comb += self.entry.addr.eq(addr)
        bits = {HEADER["op"].bits + n: self.entry.data.delay[n] for n in range(store.delay_bits)}
        for n, (part, number) in enumerate(numbers(store, self.entry.data.number)):
            words = body.submodules[f"words{n}"].read_port(domain="comb")
            m.d.comb += words.addr.eq(number)
            bits |= dict(zip(part.kept, words.data, strict=True))
        self.word = Signal(1 + max(bits))
        m.d.comb += self.word.eq(Cat(bits.get(n, 0) for n in range(len(self.word))))


def numbers(store: Store, number: Value) -> list[tuple[Part, Value]]:
    """The parts of a store and what names their values in the number of a word, part 0 lowest."""
    ends = list(accumulate(part.number_bits for part in store.parts))
    return [(part, number[end - part.number_bits : end]) for part, end in zip(store.parts, ends, strict=True)]


class Level:
    """A loop level of the reference: where its body begins, the turns wanted and finished, and the address offset."""

    def __init__(self, k: int):
        self.home, self.count, self.turns = Signal(5, name=f"home{k}"), Signal(12, name=f"n{k}"), Signal(12)
        self.stride, self.offset = Signal(ADDR_BITS, name=f"step{k}"), Signal(ADDR_BITS, name=f"sum{k}")


class IcuProof(Proof):
    """A queue that runs any legal program, is started in any cycles and loaded while it is parked.

    The reference is one instruction: `place` is the address of the word that is issued `wait` cycles from now.
    """

    def __init__(self, queue: Queue, icu=None, config: ChipConfig = CONFIG):
        self._queue, self._store, self._icu, self._config = queue, store_of(config, queue), icu or Icu, config

    def build(self, m):
        icu, store, times = self._icu(config=self._config, queue=self._queue), self._store, latencies(self._config)
        early = "control" in self._config.registers
        body = Opened(m, "icu", icu)
        free(m, icu.start, icu.bucket, icu.load_we, icu.load_addr, icu.load_number, icu.load_data,
             icu.table_we, icu.table_addr, icu.table_data)
        entry = body.submodules.table.read_port(domain="comb")
        m.d.comb += entry.addr.eq(icu.bucket)
        running, place, wait = Signal(), Signal(5), Signal(DELAY_BITS)
        level, levels = Signal(range(LOOP_LEVELS + 1)), [Level(k) for k in range(LOOP_LEVELS)]
        issue = Signal()
        word = Content(m, body, store, place).word
        word = Cat(word, Const(0, width(self._queue.unit) - len(word)))  # no instruction of a C2C has bits there
        loop = fields(Op.LOOP, word)
        m.d.comb += issue.eq(running & (wait == 0))
        self._step(m, issue, place, level, levels, loop)
        with m.If(issue):
            m.d.sync += wait.eq(loop.delay - 1)
            with m.If(loop.op == Op.SYNC):
                m.d.sync += running.eq(0)
        with m.Else():
            m.d.sync += wait.eq(wait - 1)
        with m.If(icu.start):
            m.d.sync += [running.eq(1), place.eq(entry.data), wait.eq(times.start - 1), level.eq(0)]
            m.d.sync += [it.offset.eq(0) for it in levels]
        self.assume(
            implies(icu.load_we, ~running), *([~(icu.load_we & icu.start)] if early else []),
            implies(icu.start, entry.data < store.depth),
            implies(issue, (place < store.depth) & (loop.delay >= MIN_DELAY)),
            implies(issue & (loop.op == Op.SYNC), loop.delay != MIN_DELAY),  # as the property of loading says
            implies(issue & (loop.op == Op.LOOP), (level < LOOP_LEVELS) & (loop.count != 0)),
            implies(issue & (loop.op == Op.END_LOOP), (level > 0) & (loop.delay >= times.min_delay_jump)),
        )
        self.claim(
            icu.parked == ~running,
            icu.valid == (issue & any_of([is_op(loop.op, op) for op in UNIT_OPS[self._queue.unit]])),
            implies(issue, icu.word == word),
            *[icu.offsets[k] == it.offset for k, it in enumerate(levels) if self._queue.unit == "MEM"],
        )
        self._tie(m, icu, body, running, place, wait, issue)
        self._tie_loops(body, level, levels)

    def _step(self, m: Module, issue: Signal, place: Signal, level: Signal, levels: list[Level], loop) -> None:
        """What an issued word does to the place of the next one."""
        with m.If(issue):
            m.d.sync += place.eq(place + 1)
        for k, it in enumerate(levels):
            with m.If(issue & (loop.op == Op.LOOP) & (level == k)):
                m.d.sync += [it.home.eq(place + 1), it.count.eq(loop.count), it.turns.eq(0),
                             it.stride.eq(loop.stride), it.offset.eq(0), level.eq(k + 1)]
            with m.If(issue & (loop.op == Op.END_LOOP) & (level == k + 1)):
                m.d.sync += it.turns.eq(it.turns + 1)
                with m.If(it.turns + 1 == it.count):
                    m.d.sync += [level.eq(k), it.offset.eq(0)]
                with m.Else():
                    m.d.sync += [place.eq(it.home), it.offset.eq(it.offset + it.stride)]

    def _tie(self, m: Module, icu: Icu, body: Opened, running: Signal, place: Signal, wait: Signal,
             issue: Signal) -> None:
        """The stages of the fetch, by the reference."""
        pc, fill, ahead = body["pc"], body["fill"], stages(self._config)
        left = sum(fill[1:], fill[0])  # moves that are still to be made
        contents = [Content(m, body, self._store, (pc - behind)[:5]) for behind in range(1, ahead)]
        fetched = [body.submodules.queue.read_ports[0].data]
        if "fetch" in self._config.registers:
            fetched.append(body["held"])
        if "control" in self._config.registers:
            shown = fields(Op.NOP, icu.word)
            delay, op = shown.delay[: self._store.delay_bits], shown.op
            known = any_of([is_op(op, unit_op) for unit_op in UNIT_OPS[self._queue.unit]])
            decoded = {"at_once": delay == MIN_DELAY, "soon": delay == MIN_DELAY + 1, "loop": op == Op.LOOP,
                       "end_loop": op == Op.END_LOOP, "sync": op == Op.SYNC, "known": known,
                       "due": body["timer"] == MIN_DELAY + 1, "last0": body["left0"] == 1,
                       "last1": body["left1"] == 1}
            self.tie(*[body.all(name)[0] == value for name, value in decoded.items()])
        self.tie(
            body["issued"] == issue, body["active"] == running,
            implies(running & issue, pc == (place + ahead)[:5]),
            implies(running & ~issue, (pc == (place + ahead - 1 - left)[:5]) & (body["timer"] == wait + MIN_DELAY)),
            implies(running, (fill & (fill + 1)) == 0), implies(running & fill[0], wait > left),
            *[implies(running & ~fill[-n], Value.cast(held) == Value.cast(content.entry.data))
              for n, (held, content) in enumerate(zip(fetched, contents, strict=False), 1)],
            implies(running & (fill == 0), body.all("following")[0] == contents[-1].word),
        )

    def _tie_loops(self, body: Opened, level: Signal, levels: list[Level]) -> None:
        self.tie(body["level"] == level, level <= LOOP_LEVELS)
        for k, it in enumerate(levels):
            self.tie(
                implies(level > k, (body[f"body{k}"] == it.home) & (it.turns < it.count)
                        & (body[f"left{k}"] == it.count - it.turns)
                        & (body[f"stride{k}"] == it.stride)),
                implies(level <= k, it.offset == 0),
            )


class LoadProof(Proof):
    """A queue that is loaded: what was written at one address, any, is there until that address is written again.

    A number must stand for one value of its part, and words hold nothing but what the config stores. The delay of a
    SYNC, which means nothing, is never MIN_DELAY.
    """

    def __init__(self, queue: Queue, icu=None):
        self._queue, self._store, self._icu = queue, store_of(CONFIG, queue), icu or Icu

    def build(self, m):
        icu, store = self._icu(config=CONFIG, queue=self._queue), self._store
        body = Opened(m, "icu", icu)
        free(m, icu.start, icu.bucket, icu.load_we, icu.load_addr, icu.load_number, icu.load_data)
        addr = AnyConst(4)
        here = icu.load_we & (icu.load_addr == addr)
        known = Signal()
        m.d.sync += known.eq(known | here)
        word, number = latched(m, icu.load_data, here, "word"), latched(m, icu.load_number, here, "number")
        masks = [part.of(-1) for part in store.parts]
        stored = sum(masks) | store.max_delay << HEADER["op"].bits
        content = Content(m, body, store, addr)
        kept, wanted = fields(Op.NOP, content.word), fields(Op.NOP, word)
        parking = wanted.op == Op.SYNC
        news, olds = numbers(store, icu.load_number), numbers(store, number)
        self.assume(
            (icu.load_data & ~stored) == 0,
            *[implies(known & icu.load_we & ~here & (new == old), (icu.load_data & mask) == (word & mask))
              for mask, (_, new), (_, old) in zip(masks, news, olds, strict=True)],
        )
        self.claim(
            implies(known, (content.entry.data.number == number) & (kept.op == wanted.op)
                    & (content.word >> kept.shape().size == word >> kept.shape().size)),
            implies(known & parking, kept.delay != MIN_DELAY), implies(known & ~parking, kept.delay == wanted.delay),
        )


_WORDS = {"MEM_E0": "two parts", "MEM_E1": "whole words", "MXM_E": "MXM, two parts", "VXM": "VXM", "C2C_E": "C2C"}
"""Queues, and how they store words."""
PROPERTIES = [
    *[Property(name=f"icu: {words}", top=lambda queue=QUEUES[name]: IcuProof(queue), depth=2,
               claim="every word is issued exactly `delay` cycles behind the one before, the first START behind the "
                     "start pulse; loops of both levels repeat `count` times and add `stride` a turn; SYNC parks; a "
                     "start pulse in any cycle starts anew") for name, words in _WORDS.items()],
    Property(name="icu: two parts, register \"fetch\"", depth=2,
             top=lambda: IcuProof(QUEUES["MEM_E0"], config=FETCH),
             claim="the same with the optional register: its START and MIN_DELAY_JUMP are a cycle longer"),
    *[Property(name=f"icu: load, {words}", top=lambda queue=QUEUES[name]: LoadProof(queue), depth=2,
               claim="a word that was loaded is the word at its address, but for the delay of a SYNC")
      for name, words in _WORDS.items()],
]
