"""Proof of the serial line: what Sender takes is what Receiver gives."""

from fractions import Fraction

from amaranth.hdl import Cat, Const, Mux, ResetSignal, Signal
from formal import Opened, Proof, Property, free, implies, latched

from fpga.boards import BOARDS
from fpga.gateware.uart import BITS, Receiver, Sender, divisor_of

STOP = BITS - 1
"""Bit of a frame: 0 is the start bit, 1..8 the byte, 9 the stop bit, which goes on where nothing is sent."""


class UartProof(Proof):
    """A sender, its line, and a receiver of the same divisor; bytes come at any times, back to back too.

    `since` counts cycles from the one in which a byte was taken (0: none is on its way). Bit n of its frame, `at`, is
    on the line where n * divisor < since <= (n + 1) * divisor.
    """

    def __init__(self, divisor: int | Fraction, sender=None, receiver=None):
        self._divisor = Fraction(divisor)
        self._sender, self._receiver = sender or Sender, receiver or Receiver

    def build(self, m):
        bit, cycle = self._divisor.numerator, self._divisor.denominator  # in parts of a cycle
        sender, receiver = self._sender(divisor=self._divisor), self._receiver(divisor=self._divisor)
        sends, receives = Opened(m, "sender", sender), Opened(m, "receiver", receiver)
        free(m, sender.data, sender.valid)
        m.d.comb += receiver.line.eq(sender.line)
        taken = sender.valid & sender.ready
        byte = latched(m, sender.data, taken, "byte")
        frame = BITS * bit // cycle  # cycles of a frame
        stop = (STOP * bit + bit // 2) // cycle + 2  # in which the receiver samples the stop bit
        since, at = Signal(range(frame + 4)), Signal(4, init=STOP)
        m.d.sync += since.eq(Mux((since == 0) | (since == frame + 3), 0, since + 1))
        with m.If((at != STOP) & ((since + 1) * cycle > (at + 1) * bit)):
            m.d.sync += at.eq(at + 1)
        with m.If(taken):
            m.d.sync += [since.eq(1), at.eq(0)]
        before, earlier = Signal(4, init=STOP), Signal(4, init=STOP)  # `at` one and two cycles ago
        m.d.sync += [before.eq(at), earlier.eq(before)]

        def line(place):
            return Cat(0, byte, Const(-1, 7)).bit_select(place, 1)

        self.assume(~ResetSignal("sync"))
        self.claim(
            sender.ready == ((since == 0) | (since > frame)),
            sender.line == line(at),
            receiver.valid == (since == stop + 1),
            implies(receiver.valid, receiver.data == byte),
        )
        for place, ago in ((at, 0), (before, 1), (earlier, 2)):
            on = (since > ago) & (since <= frame + ago)
            now = (since - ago) * cycle
            self.tie(implies(on, (place * bit < now) & (now <= (place + 1) * bit)), implies(~on, place == STOP))
        left, timer, bits = sends["left"], sends["timer"], sends["bits"]
        self.tie(
            since <= frame + 3,
            left == Mux((since == 0) | (since > frame), 0, BITS - at),
            implies(left != 0, since * cycle + timer == (at + 1) * bit),
            *[implies(left == BITS - n, bits == Cat(byte, Const(-1, BITS))[n : n + 9]) for n in range(BITS)],
        )
        left, timer = receives["left"], receives["timer"]
        self.tie(
            receives["line"] == line(earlier),
            (left != 0) == ((since >= 4) & (since <= stop)), left <= STOP,
            implies(left != 0, (since - 2) * cycle + timer == (BITS - left) * bit + bit // 2),
            implies((left != 0) & (left != STOP), timer < bit),
            *[implies(left == STOP - n, receiver.data[8 - n :] == byte[:n]) for n in range(1, 9)],
        )


def _property(divisor: int | Fraction) -> Property:
    return Property(
        name=f"uart: {divisor} cycles a bit", top=lambda: UartProof(divisor), depth=4,
        claim="a byte that Sender takes is the one that Receiver gives, 9.5 bits and 3 cycles later, back to back or "
              "not; where none was taken, the line is idle and Receiver gives none")


PROPERTIES = [_property(divisor) for divisor in sorted({
    Fraction(4), Fraction(65, 16), *(divisor_of(board.mhz, board.baud) for board in BOARDS.values())})]
