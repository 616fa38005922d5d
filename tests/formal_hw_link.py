"""Proofs of the link: its code for all data and errors, its elastic buffer, the start of tokens."""

from amaranth.asserts import AnyConst
from amaranth.hdl import Cat, Const, DomainRenamer, EnableInserter, Mux, Signal, Value
from formal import Opened, Proof, Property, free, implies, latched

from hw.idioms import any_of
from hw.link import counter, elastic, secded
from hw.link.parameters import SLOT_BITS, LinkParameters

AHEAD = 16
UNSEEN = 1, 4
"""The declared bound of the elastic buffer: core cycles that the writer is ahead of what is seen of it, behind a
synchroniser of two cycles. Clocks of one frequency keep it while their phase wanders by less than a core cycle."""


class SecdedProof(Proof):
    """Three decoders, which get a word in one cycle: any word, the same word with one more bit wrong, the word 0.

    A wrong bit adds its column to the syndrome, whatever else is wrong. So the syndrome of any word is the sum of its
    bits' columns and that of the word 0, and what a decoder does follows from its syndrome alone. That this sum is 0
    for all codewords, that no sum of two columns is a column, and that words which come in several cycles are treated
    the same, is tested in test_hw_link_secded.py.
    """

    def __init__(self, data_bits: int, pins: int, module=secded):
        self._code = module.Secded(data_bits=data_bits, pins=pins)

    def build(self, m):
        code = self._code
        any_word, one_more, nothing = (code.decoder(code.beats) for _ in range(3))
        word, wrong = Signal(code.bits), Signal(code.bits)
        free(m, word, wrong)
        self.assume((wrong & (wrong - 1))[: code.bits] == 0)
        for n, (decoder, given) in enumerate(((any_word, word), (one_more, word ^ wrong), (nothing, Const(0)))):
            self.tie(Opened(m, f"decoder{n}", decoder)["total"] == 0)
            m.d.comb += [decoder.beats.eq(given), decoder.last.eq(1)]
        was = latched(m, word, Const(1), "was")
        column = latched(m, any_of([Mux(wrong[n], Const(column, code.check_bits), 0)
                                    for n, column in enumerate(code.columns)]), Const(1), "column")
        started = Signal()
        m.d.sync += started.eq(1)
        hits = [any_word.syndrome == code.columns[place] for place in code.places]
        single = any_of([*hits, *(any_word.syndrome == code.columns[place] for place in code.check_places)])
        self.claim(*(implies(started, claim) for claim in (
            any_word.arrived, any_word.corrected == single, any_word.failed == (any_word.syndrome.any() & ~single),
            any_word.word == was[: code.bits - code.check_bits] ^ Cat(hits),
            any_word.data == Cat(any_word.word[place] for place in code.data_places),
            one_more.syndrome == any_word.syndrome ^ column, nothing.syndrome == code.inverted)))


def gray_of(number: Value, bits: int) -> Value:
    """The Gray code of the lowest bits of a number."""
    return number[:bits] ^ number[1:bits]


class ElasticProof(Proof):
    """Writer and reader work in any cycles, within the declared bound and at any legal level. One beat, any, is
    followed: it is read where it should be, and is what was written.

    slot: cycles of a slot if the reader is moved by slots, in any cycles; 0 if it is not.
    """

    def __init__(self, ratio: int, slot: int = 0, module=elastic):
        self._link = LinkParameters(ratio=ratio, slack=2 if slot else 0)
        self._ratio, self._slot, self._module = ratio, slot, module

    def build(self, m):
        ratio, width = self._ratio, 2
        depth, high = self._link.depth, self._link.high
        places = depth * ratio
        bits, number_bits = (places - 1).bit_length(), places.bit_length() + 2
        writes, reads = Signal(), Signal()
        free(m, writes, reads)
        writer = self._module.Writer(width=width, ratio=ratio, depth=depth)
        reader = self._module.Reader(width=width * ratio, ratio=ratio, depth=depth, slot=self._slot)
        inside, outside = Opened(None, "writer", writer), Opened(None, "reader", reader)
        kept = [inside.submodules[f"part{part}"].read_port(domain="comb") for part in range(ratio)]
        stages, slips = (self._open_synchronizer(*which) for which in ((outside, "gray"), (inside, "slip")))
        m.submodules.writer = DomainRenamer({"rx": "sync"})(EnableInserter({"rx": writes})(inside._body))
        m.submodules.reader = EnableInserter({"sync": reads})(outside._body)
        free(m, writer.beat, reader.hold)
        m.d.comb += [writer.entry.eq(reader.entry), reader.beats.eq(writer.beats), reader.gray.eq(writer.gray),
                     writer.slip.eq(0)]
        # By numbers of more bits than places have: beats written, and what the synchroniser has of that; beats read.
        written, read = (Signal(number_bits, name=name) for name in ("written", "read"))
        first, seen = (Signal(number_bits, name=name, reset_less=True) for name in ("first", "seen"))
        with m.If(writes):
            m.d.sync += written.eq(written + 1)
        with m.If(reads):
            m.d.sync += [first.eq(written), seen.eq(first)]
            with m.If(~reader.hold):
                m.d.sync += read.eq(read + ratio)
        if self._slot:
            self._move(m, reads, reader, outside, read)
        unseen, level = (written - seen)[:number_bits], (seen - read)[:number_bits]
        self.assume(implies(reads, (unseen >= UNSEEN[0] * ratio) & (unseen <= UNSEEN[1] * ratio)
                            & (level < (high + 1) * ratio)))
        # The beat that is followed.
        number = Signal(number_bits)
        m.d.comb += number.eq(AnyConst(number_bits))
        value, alive = Signal(width), Signal()
        with m.If(writes & (written == number)):
            m.d.sync += [value.eq(writer.beat), alive.eq(1)]
        with m.Elif(writes & ((written - number)[:number_bits] == places)):
            m.d.sync += alive.eq(0)
        part = number[: ratio.bit_length() - 1] if ratio > 1 else Const(0, 1)
        reading = reads & (read[ratio.bit_length() - 1 :] == number[ratio.bit_length() - 1 :])
        self.claim(implies(reading & alive, writer.beats.word_select(part, width) == value))
        # It is alive when it is read: what is read has been written, and is not written over.
        ahead = (written - read)[:number_bits]
        self.claim(implies(reads, (ahead >= ratio) & (ahead <= places)))
        age = (written - number - 1)[:number_bits]
        self.tie(implies(alive, age < places), ~inside["slipped"], *(~stage for stage in slips))
        self.tie(writer.gray == gray_of(written, bits))
        self.tie(inside["place"] == written[:bits])
        self.tie(reader.entry == read[ratio.bit_length() - 1 :][: len(reader.entry)])
        self.tie(Const(ratio == 1) | ~read[0])
        self.tie(stages[0] == gray_of(first, bits), stages[1] == gray_of(seen, bits))
        for port in kept:
            m.d.comb += port.addr.eq(number[ratio.bit_length() - 1 :])
        self.tie(*(implies(alive & (part == n), port.data == value) for n, port in enumerate(kept)))

    def _move(self, m, reads: Signal, reader, outside: Opened, read: Signal) -> None:
        """Whole slots are left out or read again, where slots end."""
        slot, ratio = self._slot, self._ratio
        free(m, reader.skip, reader.repeat)
        ends = (read[ratio.bit_length() - 1 :][: (slot - 1).bit_length()] == slot - 1) & ~reader.hold
        for name, pulse, cycles in (("skips", reader.skip, 1 + slot), ("repeats", reader.repeat, 1 - slot)):
            asked = Signal(name=f"asked_{name}")
            with m.If(reads):
                m.d.sync += asked.eq(pulse | asked & ~ends)
            with m.If(reads & asked & ends):
                m.d.sync += read.eq(read + cycles * ratio)
            self.tie(outside[name] == asked)

    def _open_synchronizer(self, unit: Opened, name: str) -> list[Signal]:
        """The registers of a unit's synchroniser."""
        synchronizer = Opened(None, name, unit.submodules[name])
        unit._body._named_submodules[name] = synchronizer._body, None
        return synchronizer["flops"]


class StartProof(Proof):
    """A counter of a rack: a START comes from the parent, or the root's sequencer asks, at any time: the token begins
    in the first cycle of the named slot, once, and in no other cycle.

    own_clock: the counter may be set again and again, but not while a START has come and its token has not begun.
    """

    def __init__(self, phase_bits: int, root: bool, module=counter, own_clock: bool = False):
        self._phase_bits, self._root, self._module, self._own_clock = phase_bits, root, module, own_clock

    def build(self, m):
        unit = self._module.Counter(phase_bits=self._phase_bits, own_clock=self._own_clock)
        opened = Opened(m, "counter", unit)
        free(m, unit.go, unit.leave, unit.load, unit.load_value, unit.started, unit.started_slot)
        m.d.comb += [unit.root.eq(int(self._root)), unit.ahead.eq(AHEAD)]
        slot, phase = unit.counter[self._phase_bits :], unit.counter[: self._phase_bits]
        follows = Const(0) if self._root else unit.started & unit.counted
        target, waiting, due, begins = Signal(SLOT_BITS), Signal(), Signal(), Signal()
        if self._own_clock:
            follows &= ~waiting
            self.assume(~(unit.load & waiting))
        asked, wanted = unit.go | follows, Mux(follows, unit.started_slot, slot + AHEAD)
        m.d.comb += due.eq(waiting & ((slot + 1)[:SLOT_BITS] == target) & phase.all())
        with m.If(asked):
            m.d.sync += [target.eq(wanted), waiting.eq(1), begins.eq(0)]
        with m.Else():
            m.d.sync += [begins.eq(due), waiting.eq(waiting & ~due)]
        counted = Signal()
        m.d.sync += counted.eq(unit.counted)
        self.claim(unit.begin == begins, unit.due == (due & ~asked), implies(unit.start, waiting),
                   implies(unit.begin & counted, (slot[:SLOT_BITS] == target) & (phase == 0)))
        self.tie(opened["waiting"] == waiting, implies(waiting | begins, unit.start_slot == target),
                 implies(begins & counted, (slot[:SLOT_BITS] == target) & (phase == 0)))


PROPERTIES = [
    *(Property(name=f"link: SECDED ({check + bits},{bits})", top=lambda bits=bits, pins=pins: SecdedProof(bits, pins),
               depth=1, long=bits > 32,
               claim="the syndrome of any errors in any codeword is the sum of their columns; if that is the column of "
                     "a bit, this bit is corrected; else the codeword is refused")
      for bits, check, pins in ((32, 7, 5), (64, 8, 9))),
    *(Property(name=f"link: elastic buffer, {ratio} beats a cycle", top=lambda ratio=ratio: ElasticProof(ratio),
               depth=3, claim="while its level is legal and the writer is one to four cycles ahead of what is seen of "
                              "it, each beat is read in its turn, after it was written and before it is written over")
      for ratio in (1, 2)),
    *(Property(name=f"link: elastic buffer moved by slots, {ratio} beats a cycle",
               top=lambda ratio=ratio, slot=slot: ElasticProof(ratio, slot), depth=3,
               claim="the same where the reader leaves out slots of "
                     f"{slot} cycles, or reads them again, in any cycles that keep the level legal")
      for ratio, slot in ((1, 4), (2, 2))),
    *(Property(name=f"link: start of {name}", top=lambda root=root, own=own: StartProof(2, root, own_clock=own),
               depth=2, claim="a token begins in the first cycle of the named slot, once, and in no other cycle")
      for name, root, own in (("the root", True, False), ("a chip", False, False),
                              ("a chip with a clock of its own", False, True))),
]
