"""The sequencer: starts token after token, each after the exact period of the one before."""

from amaranth.hdl import Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from arch.config import ChipConfig
from arch.host_map import COUNTER, WORD, Control, Trap
from arch.identity import chip_digest

from .idioms import register


class Sequencer(wiring.Component):
    """Runs tokens: start pulses whose distances are the periods of the static bucket table.

    Writing n to RUN starts n tokens. A token's bucket is the first table entry whose limit is beyond the token's
    position. The next start pulse, or the end of the run, comes exactly `period` cycles after the token's start pulse.
    Every queue must have parked by then, and every engine have finished; otherwise Trap.NOT_PARKED is set. A position
    beyond all buckets ends the run with Trap.ADDRESS. The next token's entry is looked up while a token runs, so a
    period must be at least `arch.isa.least_period`.

    RUN is ignored while tokens run, but for this: like POSITION and BUCKET it begins the look-up anew, so that one
    written in the last `least_period` cycles of a token may delay the next token's start. A host writes none of them
    before RUN reads as 0. POSITION never starts a token, not even behind a run that ended with Trap.ADDRESS.

    config: the chip.

    wdata, bucket_we, bucket_addr, control_we, control: as of `HostPort`.
    start, bucket: start pulse, and the token's bucket in that cycle.
    running: from RUN to the end of the last token's period.
    ready, begin: of a chip with links: the first token of a run is due; its start pulse comes in the next cycle.
    token_end: of such a chip: the last cycle of a token, before the next start pulse.
    idle: all queues are parked and no engine is busy. traps: trap pulses of all units. errors: sticky.
    """

    def __init__(self, *, config: ChipConfig):
        self._config = config
        super().__init__({
            "wdata": In(WORD), "bucket_we": In(1), "bucket_addr": In(8),
            "control_we": In(len(Control)), "control": Out(COUNTER).array(len(Control)),
            "start": Out(1), "bucket": Out(range(config.buckets)), "running": Out(1),
            "idle": In(1), "traps": In(len(Trap)), "errors": Out(len(Trap)),
            **({"ready": Out(1), "begin": In(1), "token_end": Out(1)} if any(config.ports) else {}),
        })

    def elaborate(self, platform):
        m = Module()
        left, position, timer = Signal(32), Signal(32), Signal(32)
        count, cycles, token_cycles = Signal(32), Signal(COUNTER), Signal(32)
        waiting = Signal()  # a start pulse is due as soon as its bucket is known
        ends = Signal()  # the token's period ends with this cycle
        over = Signal()  # ... ended with the last cycle
        launch = Signal()
        entry, period, found, lost = self._look_up(m, position, launch)
        run_we, position_we = self.control_we[Control.RUN.value], self.control_we[Control.POSITION.value]
        due = waiting | (ends & (left != 1))
        m.d.comb += ends.eq(timer == 1)
        if any(self._config.ports):
            m.d.comb += [self.ready.eq(waiting & found), self.token_end.eq(ends),
                         launch.eq(found & (waiting & self.begin | ends & (left != 1)))]
        else:
            m.d.comb += launch.eq(due & found)
        m.d.sync += [
            self.start.eq(launch), self.bucket.eq(entry), over.eq(ends),
            waiting.eq(due & ~self._launched(launch, found) & ~lost),
            cycles.eq(cycles + 1), count.eq(Mux(self.start, 1, count + 1)),
        ]
        with m.If(timer != 0):
            m.d.sync += timer.eq(timer - 1)
        with m.If(launch):
            m.d.sync += [timer.eq(period), position.eq(position + 1)]
        with m.If(ends):
            m.d.sync += left.eq(left - 1)
        with m.If((ends & (left == 1)) | (due & lost)):
            m.d.sync += [self.running.eq(0), left.eq(0)]
        with m.If(over):
            m.d.sync += token_cycles.eq(count)
        with m.If(run_we & ~self.running):
            some = self.wdata[:32] != 0
            m.d.sync += [left.eq(self.wdata), self.running.eq(some), waiting.eq(some)]
        with m.If(position_we):
            m.d.sync += position.eq(self.wdata)
        self._errors(m, over, due & lost)
        values = {Control.RUN: left, Control.POSITION: position, Control.CYCLES: cycles,
                  Control.TOKEN_CYCLES: token_cycles, Control.ERRORS: self.errors,
                  Control.IDENTITY: Const(int(chip_digest(self._config), 16), COUNTER)}
        m.d.comb += [self.control[register.value].eq(value) for register, value in values.items()]
        return m

    def _launched(self, launch: Value, found: Value) -> Value:
        """A chip with links keeps waiting where its bucket is known, too."""
        return launch if any(self._config.ports) else found

    def _errors(self, m: Module, over: Value, lost: Value) -> None:
        own = Signal(len(Trap))
        idle = self.idle
        if "control" in self._config.registers:
            over, idle = register(m, over, "ended"), register(m, idle, "was_idle")
        m.d.comb += [own[Trap.NOT_PARKED.value].eq(over & ~idle), own[Trap.ADDRESS.value].eq(lost)]
        kept = Mux(self.control_we[Control.ERRORS.value], 0, self.errors)
        m.d.sync += self.errors.eq(kept | own | self.traps)

    def _look_up(self, m: Module, position: Value, launch: Value) -> tuple[Value, Value, Value, Value]:
        """(entry, period, found, lost) for `position`. Positions grow, so the search goes on from the last token's."""
        m.submodules.table = table = Memory(shape=64, depth=self._config.buckets, init=[])
        read, write = table.read_port(), table.write_port()
        entry = Signal(range(self._config.buckets))
        reading, looking, found, lost = Signal(), Signal(), Signal(), Signal()
        period = Signal(32, reset_less=True)
        m.d.comb += [read.addr.eq(entry), write.addr.eq(self.bucket_addr), write.data.eq(self.wdata),
                     write.en.eq(self.bucket_we)]
        m.d.sync += [reading.eq(0), looking.eq(reading)]
        with m.If(looking):
            m.d.sync += period.eq(read.data[:32])
            with m.If(read.data[32:] > position):
                m.d.sync += found.eq(1)
            with m.Elif(entry == self._config.buckets - 1):
                m.d.sync += lost.eq(1)
            with m.Else():
                m.d.sync += [entry.eq(entry + 1), reading.eq(1)]
        restart = self.bucket_we | self.control_we[Control.POSITION.value] | self.control_we[Control.RUN.value]
        with m.If(launch | restart):
            m.d.sync += [reading.eq(1), looking.eq(0), found.eq(0), lost.eq(0)]
        with m.If(restart):
            m.d.sync += entry.eq(0)
        return entry, period, found, lost
