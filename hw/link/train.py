"""Training: for every pin the input delay and the bit to count from, for all of them the beat that begins a slot."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import enum, wiring
from amaranth.lib.wiring import In, Out

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
        pin, choice, beat = Signal(range(link.pins)), Signal(range(CHOICES)), Signal(range(link.beats))
        chosen = Signal(link.pins, init=1)  # one bit, that of the pin
        settle = max(SETTLE, link.depth // link.slot)
        tap, timer = Signal(range(max(link.taps, 2))), Signal(range(max(settle, GOOD, FAREWELL)))
        lane = Signal(range(link.pins))
        whole, same, complement = self._compare(m, chosen)
        moved, held = Signal(), Signal()  # since the state was entered, or entered again
        best = _Best(m, tap, choice)
        load, step, loads = Signal(), Signal(), Signal(link.pins)
        m.d.comb += [
            self.state.eq(state), self.lane.eq(lane),
            self.training.eq(state != State.LINKED),
            self.trained.eq((state == State.TRAINED) | (state == State.LEAVE)),
            self.settling.eq((state == State.SETTLE) & whole & ~timer[0]),
            loads.eq(Mux(load, chosen, 0)),
            *([self.delay_load.eq(loads), self.delay_step.eq(Mux(step, chosen, 0))] if link.taps > 1 else []),
        ]
        # A pin's choice changes together with its delay.
        for n in range(link.pins):
            with m.If(loads[n]):
                m.d.sync += self.choice[n].eq(Mux(state == State.PLACE, best.choice, choice))
        last_tap = Const(1) if link.taps == 1 else tap == link.taps - 1

        def go(following: State) -> list:
            return [state.eq(following), timer.eq(0)]

        def change(delay: Signal) -> list:
            return [delay.eq(1), *go(State.SETTLE)]

        first = pin.eq(0), chosen.eq(1)
        m.d.sync += [load.eq(0), step.eq(0)]
        with m.If(whole):
            m.d.sync += timer.eq(timer + 1)
        settled = whole & (timer == settle - 1)
        with m.Switch(state):
            with m.Case(State.SETTLE):
                m.d.sync += [moved.eq(moved & (timer != 0) | self.moving),
                             held.eq(held & (timer != 0) | self.settling & ~self.near)]
                with m.If(settled):
                    with m.If(~moved):
                        m.d.sync += go(State.NO_CLOCK)
                    with m.Elif(~held):
                        m.d.sync += go(State.CHECK)
            with m.Case(State.CHECK), m.If(whole):
                good = same | complement & chosen[0]
                with m.If(~good | (timer == GOOD - 1)):
                    best.update(good)
                    m.d.sync += [tap.eq(tap + 1), *change(step)]
                    with m.If(last_tap):
                        best.end_run()
                        m.d.sync += [tap.eq(0), step.eq(0), load.eq(1), choice.eq(choice + 1)]
                        with m.If(choice == CHOICES - 1):
                            m.d.sync += go(State.PLACE)
            # `tap` counts the steps to the middle. After the last pin, pin 0 is watched again.
            with m.Case(State.PLACE), m.If(settled):
                with m.If(best.short(link.taps)):
                    m.d.sync += [*first, beat.eq(beat + 1), self.slip.eq(~self.slip), *change(load)]
                    with m.If(~chosen[0]):  # with another beat as first, pin 0 fails
                        m.d.sync += lane.eq(pin)
                    with m.If(beat == link.beats - 1):
                        m.d.sync += [load.eq(0), *go(State.FAILED)]
                    best.clear()
                    m.d.sync += [choice.eq(0), tap.eq(0)]
                with m.Elif(tap != best.middle):
                    m.d.sync += [tap.eq(tap + 1), step.eq(1), timer.eq(0)]
                with m.Else():
                    m.d.sync += [pin.eq(pin + 1), chosen.eq(chosen << 1), choice.eq(0), tap.eq(0), *change(load)]
                    best.clear()
                    with m.If(chosen[-1]):
                        m.d.sync += [*first, load.eq(0), *go(State.TRAINED)]
            with m.Case(State.TRAINED), m.If(whole):
                with m.If(~complement):
                    m.d.sync += timer.eq(0)
                with m.Elif(timer == GOOD - 1):
                    m.d.sync += go(State.LEAVE)
            with m.Case(State.LEAVE), m.If(whole & (timer == FAREWELL - 1)):
                m.d.sync += go(State.LINKED)
        with m.If(self.restart):
            m.d.sync += [*first, choice.eq(0), beat.eq(0), tap.eq(0), lane.eq(0), *change(load)]
            best.clear()
        return m

    def _compare(self, m: Module, chosen: Value) -> tuple[Value, Value, Value]:
        """Whether a slot is whole in this cycle; whether the pin has carried the training word in it; the complement
        of the word."""
        link = self._link
        bits = Signal(BEAT * link.ratio)
        seen, whole = Signal(BEAT * link.beats, reset_less=True), Signal()
        m.d.comb += bits.eq(Cat((self.data.word_select(k, link.pins) & chosen).any() for k in range(BEAT * link.ratio)))
        m.d.sync += [seen.eq(Cat(seen[len(bits) :], bits)),
                     whole.eq(self.place[: link.phase_bits] == link.slot - 1)]
        word = WORDS[link.beats]
        return whole, seen == word, seen == (1 << BEAT * link.beats) - 1 - word


class _Best:
    """The longest run of good settings of a pin: its length, where its middle is, and with which choice."""

    def __init__(self, m: Module, tap: Signal, choice: Signal):
        self._m, self._tap = m, tap
        self.run, self.length = (Signal(len(tap) + 1, name=f"best_{name}") for name in ("run", "length"))
        self.middle, self.choice = Signal.like(tap, name="best_middle"), Signal.like(choice, name="best_choice")
        self._now = choice

    def update(self, good: Value) -> None:
        """The present setting is good, or not."""
        m = self._m
        run = self.run + 1
        with m.If(good):
            m.d.sync += self.run.eq(run)
            with m.If(run > self.length):
                m.d.sync += [self.length.eq(run), self.middle.eq(self._tap - (self.run >> 1)),
                             self.choice.eq(self._now)]
        with m.Else():
            m.d.sync += self.run.eq(0)

    def end_run(self) -> None:
        """The next setting is no neighbour of the present one."""
        self._m.d.sync += self.run.eq(0)

    def clear(self) -> None:
        """The next pin."""
        self._m.d.sync += [self.run.eq(0), self.length.eq(0)]

    def short(self, taps: int) -> Value:
        """Whether the run is too short: a single setting says little where there are many."""
        return self.length < min(taps, 2)

