"""The board's end of the serial line. It turns frames into host accesses, and sends replies. See `fpga.protocol`."""

from fractions import Fraction

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from arch.host_map import WORD, Space
from arch.isa import HOST_READ
from fpga.protocol import (
    ADDR_BYTES,
    CRC_BYTES,
    HEAD,
    HEADER,
    HEADER_BYTES,
    HEADER_SEED,
    IDENTITY,
    PAGE,
    SYNC,
    WORD_BYTES,
    Status,
)
from hw.idioms import any_of

from .uart import Crc, Receiver, Sender


class Bridge(wiring.Component):
    """Makes the host accesses that the protocol's frames contain.

    The bridge holds one word. It writes the word within 20 cycles of its last byte (in a run) or of its CRC (in a
    scattered frame). A reply begins within 20 cycles of the last byte of its frame. A reply that would begin during
    another one is not sent. That never happens to a host that keeps to the protocol. The bridge does not receive while
    it answers a read.

    divisor: cycles a bit of the line.
    identity: `Identity.pack()` of the board.
    rx, tx: the line.
    host_*: to the chip's host port, from registers.
    """

    def __init__(self, *, divisor: int | Fraction, identity: bytes):
        self._divisor, self._identity = divisor, identity
        super().__init__({
            "rx": In(1, init=1), "tx": Out(1, init=1),
            "host_space": Out(Space), "host_addr": Out(32), "host_wdata": Out(WORD), "host_write": Out(1),
            "host_read": Out(1), "host_rdata": In(WORD),
        })
        self._header, self._word = Signal(HEADER), Signal(WORD, reset_less=True)
        self._expected = Signal(8)
        # Signals between the receiving and the replying part:
        self._status, self._answer = Signal(Status), Signal()  # begin this reply
        self._answering = Signal()
        self._next = Signal()  # a word was written or sent
        self._push, self._byte, self._pull = Signal(), Signal(8), Signal()  # a byte into the word from above; one out
        self._load = Signal()  # load the word that was read
        self._field, self._address = Signal(), Signal()  # a byte into the header; into its address only

    def elaborate(self, platform):
        m = Module()
        header, word = self._header, self._word
        m.d.sync += [self.host_space.eq(header.space), self.host_addr.eq(header.addr), self.host_wdata.eq(word)]
        with m.If(self._push | self._pull | self._load):  # one enable and one multiplexer take one LUT a bit
            m.d.sync += word.eq(Mux(self._load, self.host_rdata | self._own_word(), Cat(word[8:], self._byte)))
        self._update_header(m)
        self._listen(m)
        self._reply(m)
        return m

    def _update_header(self, m: Module) -> None:
        """Shift bytes in, or step to the next word. A field has one enable and one multiplexer: one LUT a bit."""
        header, new = self._header, Signal(HEADER)
        low = (PAGE - 1).bit_length()
        stepped = (header.addr[:low] + 1)[:low]
        m.d.comb += new.eq(Cat(header.as_value()[8:], self._byte))
        with m.If(self._next):
            m.d.comb += [new.count.eq(header.count - 1), new.addr.eq(Cat(stepped, header.addr[low:]))]
        with m.If(self._field):
            m.d.sync += [header[name].eq(new[name]) for name in ("space", "read", "scattered", "tag", "width")]
        with m.If(self._field | self._next):
            m.d.sync += header.count.eq(new.count)
        with m.If(self._field | self._address | (self._next & ~header.scattered)):
            m.d.sync += header.addr.eq(new.addr)

    def _listen(self, m: Module) -> None:
        m.submodules.receiver = receiver = Receiver(divisor=self._divisor)
        m.submodules.rx_crc = crc = Crc()
        header, got, right = self._header, Signal(range(64)), Signal()
        whole = Signal()  # a word has all the bytes that are sent; its upper bytes may be missing
        good, bad = Signal(), Signal()  # the CRC of a record
        scattered, fill, last = header.scattered, (header.width == 0) & ~header.scattered, header.count == 1
        m.d.comb += [receiver.line.eq(self.rx), crc.data.eq(receiver.data), crc.valid.eq(receiver.valid),
                     self._byte.eq(receiver.data)]
        m.d.sync += whole.eq(whole & ~self._next & ~bad)
        with m.If(receiver.valid):
            m.d.sync += got.eq(got + 1)

        def begin(state: str) -> None:
            m.d.sync += got.eq(0)
            m.d.comb += crc.clear.eq(1)
            m.next = state

        def answer(status: Status) -> None:
            m.d.comb += [self._status.eq(status), self._answer.eq(1)]

        with m.FSM(name="listening"):
            with m.State("HUNT"), m.If(receiver.valid & (receiver.data == SYNC)):
                begin("HEADER")
                m.d.comb += crc.seed.eq(HEADER_SEED)
            with m.State("HEADER"):
                m.d.comb += self._field.eq(receiver.valid & (got < HEADER_BYTES))
                with m.If((got == HEADER_BYTES + CRC_BYTES) & ~crc.busy):
                    with m.If(~crc.good):
                        m.next = "HUNT"
                    with m.Elif(header.read):
                        m.next = "READ"
                    with m.Else():
                        m.d.sync += [right.eq(header.tag == self._expected), whole.eq(fill)]
                        with m.If(fill):
                            begin("CRC")
                        with m.Else():
                            begin("DATA")
            with m.State("DATA"):
                address = scattered & (got < ADDR_BYTES)
                with m.If(receiver.valid & (got == header.width + Mux(scattered, ADDR_BYTES - 1, -1))):
                    m.d.sync += [whole.eq(1), got.eq(0)]
                    with m.If(scattered | last):
                        m.next = "CRC"
                m.d.comb += [self._push.eq(receiver.valid & ~address), self._address.eq(receiver.valid & address)]
            with m.State("CRC"), m.If((got == CRC_BYTES) & ~crc.busy):
                begin("HUNT")
                m.d.comb += [good.eq(crc.good & scattered), bad.eq(~crc.good & scattered)]
                with m.If(~crc.good):
                    answer(Status.DAMAGED)
                with m.Else():
                    with m.If(scattered & ~last):
                        m.next = "DATA"
                    with m.Elif(right):
                        answer(Status.TAKEN)
                        m.d.sync += self._expected.eq(self._expected + 1)
                    with m.Else():
                        answer(Status.REFUSED)
            with m.State("READ"), m.If(~self._answering):
                answer(Status.DATA)
                m.next = "ANSWER"
            with m.State("ANSWER"), m.If(~self._answering):
                m.next = "HUNT"
        self._write(m, whole & ~scattered | good, whole, right, again=fill & ~last, drop=bad)

    def _write(self, m: Module, due, whole: Signal, right: Signal, *, again, drop: Signal) -> None:
        """Fill the upper bytes of a whole word with 0, and write it when due; with `again`, also in the next cycle."""
        filled, done = Signal(range(WORD_BYTES + 1)), Signal()
        full = filled == WORD_BYTES
        m.d.comb += done.eq(due & full)
        m.d.sync += self.host_write.eq(done & right)
        with m.If(whole & ~full):
            m.d.comb += [self._push.eq(1), self._byte.eq(0)]
        with m.If(self._push):
            m.d.sync += filled.eq(filled + 1)
        with m.If(done):
            m.d.comb += self._next.eq(1)
        with m.If(done & again):
            m.d.sync += whole.eq(1)
        with m.Elif(done | drop):
            m.d.sync += filled.eq(0)

    def _reply(self, m: Module) -> None:
        m.submodules.sender = sender = Sender(divisor=self._divisor)
        m.submodules.tx_crc = crc = Crc()
        header, word, status = self._header, self._word, Signal(Status)
        tag, sent, wait = Signal(8), Signal(range(WORD_BYTES)), Signal(range(HOST_READ + 2))
        taken = sender.valid & sender.ready
        m.d.comb += [self.tx.eq(sender.line), crc.data.eq(sender.data), crc.valid.eq(taken)]
        with m.If(taken):
            m.d.sync += sent.eq(sent + 1)
        with m.FSM(name="answering") as fsm:
            m.d.comb += self._answering.eq(~fsm.ongoing("IDLE"))
            with m.State("IDLE"):
                m.d.sync += [status.eq(self._status), tag.eq(header.tag), sent.eq(0)]
                with m.If(self._answer):
                    m.next = "HEAD"
            with m.State("HEAD"):
                head = Array([Const(SYNC, 8), status, tag, self._expected])
                m.d.comb += [sender.valid.eq(1), sender.data.eq(head[sent[:2]]), crc.clear.eq(sent == 0)]
                with m.If(taken & (sent == HEAD - 1)):
                    m.d.sync += sent.eq(0)
                    m.next = "CRC"
                    with m.If(status == Status.DATA):
                        m.next = "FETCH"
            with m.State("FETCH"):
                m.d.sync += [self.host_read.eq(wait == 0), wait.eq(wait + 1)]
                with m.If(wait == HOST_READ + 1):
                    m.d.comb += self._load.eq(1)
                    m.d.sync += wait.eq(0)
                    m.next = "WORD"
            with m.State("WORD"):
                m.d.comb += [sender.valid.eq(1), sender.data.eq(word[:8]), self._pull.eq(taken)]
                with m.If(taken & (sent + 1 >= header.width)):
                    m.d.sync += sent.eq(0)
                    m.d.comb += self._next.eq(1)
                    m.next = "FETCH"
                    with m.If(header.count == 1):
                        m.next = "CRC"
            with m.State("CRC"):
                m.d.comb += [sender.valid.eq(~crc.busy), sender.data.eq(crc.value.word_select(sent[:2], 8))]
                with m.If(taken & (sent == CRC_BYTES - 1)):
                    m.next = "IDLE"
        with m.If(fsm.ongoing("CRC")):
            m.d.comb += crc.valid.eq(0)

    def _own_word(self):
        """The identity's word at the address; 0 in other spaces. It is ORed with the chip's data, 0 in this space."""
        header, mine = self._header, self._identity
        words = [mine[n : n + WORD_BYTES] for n in range(0, len(mine), WORD_BYTES)]
        low = header.addr[: (len(words) - 1).bit_length()]
        return any_of([Mux((header.space == IDENTITY) & (low == n), int.from_bytes(word, "little"), 0)
                       for n, word in enumerate(words)])
