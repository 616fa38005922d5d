"""The instruction control unit: a queue of words, each of which names the cycles until the next."""

from types import SimpleNamespace

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from arch.config import ChipConfig
from arch.host_map import Trap
from arch.isa import (
    ADDR_BITS,
    HEADER,
    ICU_OPS,
    LOOP_LEVELS,
    MIN_DELAY,
    PC_BITS,
    UNIT_OPS,
    Op,
    width,
)
from arch.latencies import latencies
from arch.queue_store import SHALLOW, Part, store_of
from arch.row import Queue, queue_depth

from .burst import fields, is_op
from .idioms import any_of, named, register
from .unit import trap


def stages(config: ChipConfig) -> int:
    """Stages of the fetch."""
    return 3 + ("fetch" in config.registers)


class Icu(wiring.Component):
    """Instruction queue of one unit.

    A `start` pulse in cycle t issues the word at the bucket's start PC in cycle t + `Latencies.start`. Each word issues
    the next one exactly `delay` cycles later: at least MIN_DELAY, or `Latencies.min_delay_jump` after END_LOOP. SYNC
    parks the queue: `parked` is high from the cycle after the SYNC to the next start pulse.

    config, queue: the chip, and which of its queues this is.

    start, bucket: a token begins; which start PC to take.
    word, valid: `valid` marks the cycle in which `word`, an operation of the unit, is dispatched.
    offsets: what each loop level (0: the outer one) adds to relative addresses; 0 outside the loop. MEM queues only.
    load_we, load_addr, load_number, load_data: writes a word into the queue, as number `load_number` of its store.
    table_we, table_addr, table_data: writes the start PC of a bucket.
    traps: DRY and OPCODE pulses (debug builds).

    The fetch has three stages: the queue's entry; the word that the entry names (`arch.queue_store`), with the entry's
    delay; and a register that shows `word`, so that no unit waits for a block RAM. With the optional register "fetch"
    (`ChipConfig.registers`) it has four: the entry is held before it names a word, so that no block RAM's output
    addresses another memory. With the registers "control", a word is decoded before it is shown, and loaded a cycle
    later.

    The stages advance together when a word is issued. When the program counter is set, they advance by themselves until
    only the last one is left: the next move, an issue, shows the first word. So the program counter is as many
    instructions ahead of `word` as there are stages. A SYNC is stored with a delay above MIN_DELAY: nothing is issued
    after it, so its operation need not be known a cycle early.
    """

    def __init__(self, *, config: ChipConfig, queue: Queue):
        self._config = config
        self._queue = queue
        self._ahead, self._fill = stages(config), stages(config) - 1
        self._latencies = latencies(config)
        self._depth = queue_depth(config, queue)
        self._store = store_of(config, queue)
        ports = {
            "start": In(1), "bucket": In(range(config.buckets)),
            "word": Out(width(queue.unit)), "valid": Out(1), "parked": Out(1),
            "load_we": In(1), "load_addr": In(range(self._depth)), "load_number": In(self._store.number_bits),
            "load_data": In(width(queue.unit)),
            "table_we": In(1), "table_addr": In(range(config.buckets)), "table_data": In(PC_BITS),
        }
        if queue.unit == "MEM":
            ports["offsets"] = Out(ADDR_BITS).array(LOOP_LEVELS)
        if config.debug:
            ports["traps"] = Out(len(Trap))
        super().__init__(ports)

    def elaborate(self, platform):
        m = Module()
        m.submodules.table = table = Memory(shape=PC_BITS, depth=self._config.buckets, init=[])
        entry, set_entry = table.read_port(domain="comb"), table.write_port()

        word = Signal(width(self._queue.unit), reset_less=True)
        pc = Signal(range(self._depth + 1 + self._ahead))  # one bit more than needed shows running dry
        fill = Signal(self._fill)  # so many ones as stages are to be filled behind a new pc
        issue = Signal()  # the next word is dispatched in the next cycle
        move = named(m, issue | fill[0], "move")
        following = self._fetch(m, pc, move, word)
        delay = fields(Op.NOP, word).delay
        issued = Signal()  # `word` is dispatched in this cycle
        active = Signal()
        timer = Signal(self._store.delay_bits)  # delay of the last word; one less in each cycle from the second on
        decoded = self._decode(fields(Op.NOP, word))
        due = timer == MIN_DELAY + 1
        if "control" in self._config.registers:
            decoded, due = self._decode_early(m, move, following), self._due_early(m, following, move, issued, timer)
        m.d.comb += [
            entry.addr.eq(self.bucket),
            set_entry.en.eq(self.table_we), set_entry.addr.eq(self.table_addr), set_entry.data.eq(self.table_data),
            issue.eq(active & Mux(issued, decoded.at_once, due)),
            self.word.eq(word),
            self.valid.eq(issued & decoded.known),
            self.parked.eq(~active),
        ]
        m.d.sync += [issued.eq(issue & ~self.start), timer.eq(timer - 1), fill.eq(fill >> 1), pc.eq(pc + move)]
        with m.If(issued):
            m.d.sync += timer.eq(delay)
            with m.If(decoded.sync):
                m.d.sync += active.eq(0)
        level = self._loops(m, word, decoded, issued, pc, fill)
        with m.If(self.start):
            m.d.sync += [active.eq(1), pc.eq(entry.data), fill.eq(-1), timer.eq(self._latencies.start)]
        if self._config.debug:
            self._traps(m, word, issued, pc, move, level)
        return m

    def _decode(self, word: data.View) -> SimpleNamespace:
        """What a word is to its queue: `known` operations are those of the unit."""
        op = word.op
        return SimpleNamespace(
            at_once=word.delay == MIN_DELAY, sync=op == Op.SYNC, loop=op == Op.LOOP, end_loop=op == Op.END_LOOP,
            known=any_of([is_op(op, unit_op) for unit_op in UNIT_OPS[self._queue.unit]]))

    def _decode_early(self, m: Module, move: Signal, following: data.View) -> SimpleNamespace:
        """The same of `word`, from registers that are loaded with it."""
        early = {name: Signal(name=name, reset_less=True) for name in vars(self._decode(following))}
        with m.If(move):
            m.d.sync += [early[name].eq(value) for name, value in vars(self._decode(following)).items()]
        return SimpleNamespace(**early)

    def _due_early(self, m: Module, following: data.View, move: Signal, issued: Signal, timer: Signal) -> Signal:
        """Whether `timer` is MIN_DELAY + 1, from a register."""
        due, soon = Signal(name="due"), Signal(name="soon", reset_less=True)
        with m.If(move):
            m.d.sync += soon.eq(following.delay == MIN_DELAY + 1)
        m.d.sync += due.eq(Mux(issued, soon, timer == MIN_DELAY + 2) & ~self.start)
        return due

    def _fetch(self, m: Module, pc: Signal, move: Signal, word: Signal) -> data.View:
        """The stages: `word` is the instruction that `pc` addressed `stages` moves ago. Returns the one behind it."""
        store = self._store
        shape = data.StructLayout({"number": store.number_bits, "delay": store.delay_bits})
        m.submodules.queue = queue = Memory(shape=shape, depth=store.depth, init=[])
        fetch, load = queue.read_port(), queue.write_port()
        entry, loads = self._entry(m, move, fetch.data), self._loads(m)
        delay = Signal(store.delay_bits, name="following_delay", reset_less=True)
        bits = {HEADER["op"].bits + n: delay[n] for n in range(store.delay_bits)}
        at = 0
        for n, part in enumerate(store.parts):
            number = slice(at, at := at + part.number_bits)
            bits |= self._part(m, n, part, move, entry.number[number], loads, number)
        following = named(m, Cat(bits.get(n, 0) for n in range(len(word))), "following")
        with m.If(move):
            m.d.sync += [delay.eq(entry.delay), word.eq(following)]
        loaded = fields(Op.NOP, loads.data)
        m.d.comb += [
            fetch.addr.eq(pc), fetch.en.eq(move),
            load.en.eq(loads.we), load.addr.eq(loads.addr), load.data.number.eq(loads.number),
            load.data.delay.eq(loaded.delay | Mux((loaded.op == Op.SYNC) & (loaded.delay == MIN_DELAY), 2, 0)),
        ]
        return fields(Op.NOP, following)

    def _entry(self, m: Module, move: Signal, fetched: data.View) -> data.View:
        """The entry that names the following word: the queue's output, or the optional register behind it."""
        if "fetch" not in self._config.registers:
            return fetched
        held = Signal(fetched.shape(), reset_less=True)
        with m.If(move):
            m.d.sync += held.eq(fetched)
        return held

    def _loads(self, m: Module) -> SimpleNamespace:
        """The load port, or registers behind it."""
        port = SimpleNamespace(**{name: getattr(self, f"load_{name}") for name in ("we", "addr", "number", "data")})
        if "control" in self._config.registers:
            return SimpleNamespace(**{name: register(m, value, f"late_{name}") for name, value in vars(port).items()})
        return port

    def _part(self, m: Module, n: int, part: Part, move: Signal, number: Value, loads: SimpleNamespace,
              where: slice) -> dict[int, Value]:
        """The bits of a word that part n of the store holds, one move after their number.

        loads: the load port. where: this part's bits of a number.
        """
        words = Memory(shape=len(part.kept), depth=part.words, init=[],
                       attrs={"ram_style": "distributed" if part.words < SHALLOW else "block"})
        m.submodules[f"words{n}"] = words
        look, enter = words.read_port(), words.write_port()
        m.d.comb += [
            look.addr.eq(number), look.en.eq(move), enter.en.eq(loads.we), enter.addr.eq(loads.number[where]),
            enter.data.eq(Cat(loads.data[bit] for bit in part.kept)),
        ]
        return dict(zip(part.kept, look.data, strict=True))

    def _loops(self, m: Module, word: Signal, decoded: SimpleNamespace, issued: Signal, pc: Signal,
               fill: Signal) -> Signal:
        """Loop levels; returns how many are open."""
        loop = fields(Op.LOOP, word)
        enter, close = issued & decoded.loop, issued & decoded.end_loop
        level = Signal(range(LOOP_LEVELS + 1))
        behind = named(m, (pc - self._fill)[: len(pc)], "behind")  # where the word behind `word` is
        for k in range(LOOP_LEVELS):
            body = Signal.like(pc, name=f"body{k}", reset_less=True)
            left = Signal.like(loop.count, name=f"left{k}", reset_less=True)
            stride = Signal.like(loop.stride, name=f"stride{k}", reset_less=True)
            offset = Signal(ADDR_BITS, name=f"offset{k}")
            early = "control" in self._config.registers
            last = Signal(name=f"last{k}", reset_less=True) if early else left == 1
            with m.If(enter & (level == k)):
                m.d.sync += [body.eq(behind), left.eq(loop.count), stride.eq(loop.stride), level.eq(k + 1)]
                if early:
                    m.d.sync += last.eq(loop.count == 1)
            with m.If(close & (level == k + 1)):
                with m.If(last):
                    m.d.sync += [level.eq(k), offset.eq(0)]
                with m.Else():
                    m.d.sync += [left.eq(left - 1), offset.eq(offset + stride), pc.eq(body), fill.eq(-1)]
                    if early:
                        m.d.sync += last.eq(left == 2)
            with m.If(self.start):
                m.d.sync += offset.eq(0)
            if self._queue.unit == "MEM":
                m.d.comb += self.offsets[k].eq(offset)
        with m.If(self.start):
            m.d.sync += level.eq(0)
        return level

    def _traps(self, m: Module, word: Signal, issued: Signal, pc: Signal, move: Signal, level: Signal) -> None:
        """A word that was never written reads as 0, which is not a legal delay."""
        loop = fields(Op.LOOP, word)
        known = any_of([is_op(loop.op, op) for op in (*ICU_OPS, *UNIT_OPS[self._queue.unit])])
        bad_loop = (loop.op == Op.LOOP) & ((level == LOOP_LEVELS) | (loop.count == 0))
        bad_end = (loop.op == Op.END_LOOP) & ((level == 0) | (loop.delay < self._latencies.min_delay_jump))
        empty = word == 0
        behind = Signal(self._ahead, name="stages")  # whether pc was beyond the last word when a stage was fetched
        with m.If(move):
            m.d.sync += behind.eq(Cat(pc >= self._depth, behind))
        dry = behind[-1]
        trap(m, self, Trap.DRY, issued & (empty | dry))
        trap(m, self, Trap.OPCODE, issued & ~empty & ~dry & (~known | bad_loop | bad_end | (loop.delay < MIN_DELAY)))
