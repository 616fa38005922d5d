"""Training: for every pin the input delay and the bit to count from, for all of them the beat that begins a slot."""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import enum, wiring
from amaranth.lib.wiring import In, Out

from ..idioms import any_of
from .lanes import CHOICES
from .parameters import BEAT, DEPTH, WORDS, LinkParameters

SETTLE = DEPTH
"""Slots, at least, from a change at a pin until what is read is sampled behind it."""
GOOD = 16
"""Slots in which a pin must carry the training word for a setting to be good."""
FAREWELL = 16
"""Slots in which the complement is still sent when the other side's has been seen."""


class State(enum.Enum, shape=3):
    """Where training stands."""

    SETTLE = 0  #: a setting has changed, or the reader's distance
    CHECK = 1  #: the setting is tried
    PLACE = 2  #: the pin's delay goes to the middle of its best run of settings
    TRAINED = 3  #: all pins are; the other side's may not be yet
    LEAVE = 4  #: both sides' are
    LINKED = 5  #: frames are sent
    NO_CLOCK = 6  #: failed: the line's clock stands still
    FAILED = 7  #: failed: `lane` carries the training word at no setting


class Trainer(wiring.Component):
    """Trains the pins one after another: tries all delays with all choices of the bit to count from, and takes the
    middle of the longest run of good ones. Where a pin has none, all is tried again with the next beat as first.

    restart: begins anew. data, place, moving: of the elastic buffer's reader.
    delay_load, delay_step: a bit each pin: delay 0; one more. At least SETTLE slots lie between two of them.
    choice: of `hw.link.lanes.Lanes`. slip: of the elastic buffer's writer.
    near: the reader is at its distance; settling: it may be held in this cycle to come there.
    state: `State`. training: the sender must send the training word; trained: its complement.
    lane: while FAILED, the pin that failed.
    """

    def __init__(self, link: LinkParameters):
        self._link = link
        super().__init__({
            "restart": In(1), "data": In(link.ratio * link.beat_bits), "place": In(range(link.depth)),
            "moving": In(1), "near": In(1),
            "delay_load": Out(link.pins), "delay_step": Out(link.pins), "choice": Out(link.pins),
            "slip": Out(1), "state": Out(State), "lane": Out(range(link.pins)),
            "training": Out(1), "trained": Out(1), "settling": Out(1),
        })

    def elaborate(self, platform):
        m, link = Module(), self._link
        state = Signal(State)
        at = {one: Signal(name=f"is_{one.name.lower()}") for one in State}
        m.d.comb += [at[one].eq(state == one) for one in State]
        settle = max(SETTLE, link.depth // link.slot)
        timer = Signal(range(max(settle, GOOD, FAREWELL)))
        choice, beat = Signal(range(CHOICES)), Signal(range(link.beats))
        others = Signal(link.pins, init=(1 << link.pins) - 2)  # a bit each pin, but for the present one's
        tap = Signal(range(max(link.taps, 2)))
        whole, same, complement = self._compare(m, others)
        moved, held = Signal(), Signal()  # since the state was entered, or entered again
        load, step = Signal(), Signal()

        # What ends in this cycle: a change's settling; the check of a setting, or of the other side's training; a pin's
        # settings with one choice, and with all; a pin.
        good, settled, judged, last_tap, short = Signal(), Signal(), Signal(), Signal(), Signal()
        checked, swept, tried, placed, fails, done = (Signal() for _ in range(6))
        best = _Best(m, tap, choice)
        m.d.comb += [
            good.eq(complement & ~others[0] | same & ~at[State.TRAINED]),
            settled.eq(whole & (timer == settle - 1)), judged.eq(whole & (~good | (timer == GOOD - 1))),
            last_tap.eq(1 if link.taps == 1 else tap == link.taps - 1),
            checked.eq(at[State.CHECK] & judged), swept.eq(checked & last_tap),
            tried.eq(swept & (choice == CHOICES - 1)),
            placed.eq(at[State.PLACE] & settled), short.eq(placed & best.short(link.taps)),
            fails.eq(short & (beat == link.beats - 1)), done.eq(placed & ~short & (tap == best.middle)),
        ]
        best.update(m, self.restart, checked, good, swept, short | done)

        m.d.sync += [
            step.eq(checked & ~swept | placed & ~short & ~done),
            load.eq(self.restart | swept | short & ~fails | done & others[-1]),
        ]
        with m.If(whole):
            m.d.sync += timer.eq(timer + 1)
        with m.If(self.restart | checked | at[State.TRAINED] & judged | placed):
            m.d.sync += timer.eq(0)
        # In CHECK it counts settings, in PLACE the steps to the middle.
        with m.If(checked | placed):
            m.d.sync += tap.eq(tap + 1)
        with m.If(self.restart | swept | short | done):
            m.d.sync += tap.eq(0)
        with m.If(swept):
            m.d.sync += choice.eq(choice + 1)
        with m.If(self.restart):
            m.d.sync += choice.eq(0)
        with m.If(short):
            m.d.sync += [beat.eq(beat + 1), self.slip.eq(~self.slip)]
            with m.If(others[0]):  # with another beat as first, pin 0 fails
                m.d.sync += self.lane.eq(number_of(~others))
        with m.If(self.restart):
            m.d.sync += [beat.eq(0), self.lane.eq(0)]
        with m.If(done):  # after the last pin, pin 0 is watched again
            m.d.sync += others.eq(others.rotate_left(1))
        with m.If(self.restart | short):
            m.d.sync += others.eq(others.init)

        with m.Switch(state):
            with m.Case(State.SETTLE):
                m.d.sync += [moved.eq(moved & (timer != 0) | self.moving),
                             held.eq(held & (timer != 0) | self.settling & ~self.near)]
                with m.If(settled & ~moved):
                    m.d.sync += state.eq(State.NO_CLOCK)
                with m.Elif(settled & ~held):
                    m.d.sync += state.eq(State.CHECK)
            with m.Case(State.CHECK), m.If(checked):
                m.d.sync += state.eq(Mux(tried, State.PLACE, State.SETTLE))
            with m.Case(State.PLACE):
                with m.If(short):
                    m.d.sync += state.eq(Mux(fails, State.FAILED, State.SETTLE))
                with m.Elif(done):
                    m.d.sync += state.eq(Mux(others[-1], State.SETTLE, State.TRAINED))
            with m.Case(State.TRAINED), m.If(judged & good):
                m.d.sync += state.eq(State.LEAVE)
            with m.Case(State.LEAVE), m.If(whole & (timer == FAREWELL - 1)):
                m.d.sync += state.eq(State.LINKED)
        with m.If(self.restart):
            m.d.sync += state.eq(State.SETTLE)

        loads, steps = (Signal(link.pins, name=name, reset_less=True) for name in ("loads", "steps"))
        for n in range(link.pins):
            m.d.sync += [loads[n].eq(Mux(others[n], 0, load)), steps[n].eq(Mux(others[n], 0, step))]
            with m.If(loads[n]):  # a pin's choice changes together with its delay
                m.d.sync += self.choice[n].eq(Mux(at[State.PLACE], best.choice, choice))
        if link.taps > 1:
            m.d.comb += [self.delay_load.eq(loads), self.delay_step.eq(steps)]
        m.d.comb += [
            self.state.eq(state), self.training.eq(~at[State.LINKED]),
            self.trained.eq(at[State.TRAINED] | at[State.LEAVE]),
            self.settling.eq(at[State.SETTLE] & whole & ~timer[0]),
        ]
        return m

    def _compare(self, m: Module, others: Value) -> tuple[Value, Value, Value]:
        """Whether a slot is whole in this cycle; whether the pin has carried the training word in it; the complement
        of the word."""
        link = self._link
        count = BEAT * link.ratio
        phase = self.place[: link.phase_bits]
        bits, wanted = Signal(count), Signal(count)
        own = [Signal(count, name=f"own{pin}", reset_less=True) for pin in range(link.pins)]
        begins, ends = Signal(reset_less=True), Signal(reset_less=True)
        parts = [WORDS[link.beats] >> count * n & (1 << count) - 1 for n in range(link.slot)]
        word = Signal(count, reset_less=True)
        for pin, its in enumerate(own):
            m.d.sync += its.eq(Mux(others[pin], 0, Cat(self.data[k * link.pins + pin] for k in range(count))))
        whole, same, complement = (Signal(name=name) for name in ("whole", "same", "complement"))
        m.d.comb += [bits.eq(any_of(own)), wanted.eq(word)]
        m.d.sync += [
            word.eq(Array([Const(part, count) for part in parts])[phase]),
            begins.eq(phase == 0), ends.eq(phase == link.slot - 1), whole.eq(ends),
            same.eq((same | begins) & (bits == wanted)), complement.eq((complement | begins) & (bits == ~wanted)),
        ]
        return whole, same, complement


def number_of(chosen: Value) -> Value:
    """The number of the one bit that is set."""
    bits = range(len(chosen))
    return Cat(Cat(chosen[n] for n in bits if n >> k & 1).any() for k in range((len(chosen) - 1).bit_length()))


class _Best:
    """The longest run of good settings of a pin: its length, where its middle is, and with which choice."""

    def __init__(self, m: Module, tap: Signal, choice: Signal):
        self.run, self.length = (Signal(len(tap) + 1, name=f"best_{name}") for name in ("run", "length"))
        self.middle, self.choice = Signal.like(tap, name="best_middle"), Signal.like(choice, name="best_choice")
        self._tap, self._now = tap, choice

    def update(self, m: Module, restart: Value, checked: Value, good: Value, last: Value, clear: Value) -> None:
        """checked: the present setting is good, or not. last: the next one is no neighbour of it. clear: the next pin
        follows."""
        run = self.run + 1
        with m.If(checked):
            m.d.sync += self.run.eq(run)
            with m.If(good & (self.run == self.length)):  # no run is longer than the longest one
                m.d.sync += [self.length.eq(run), self.middle.eq(self._tap - (self.run >> 1)),
                             self.choice.eq(self._now)]
        with m.If(restart | last | checked & ~good):
            m.d.sync += self.run.eq(0)
        with m.If(restart | clear):
            m.d.sync += self.length.eq(0)

    def short(self, taps: int) -> Value:
        """Whether the run is too short: a single setting says little where there are many."""
        return self.length < min(taps, 2)
