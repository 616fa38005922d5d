"""The bridge and its serial line in Amaranth's simulator, against a board in Python."""

import itertools
import random
import zlib
from fractions import Fraction
from typing import Any

import pytest
from amaranth.sim import Simulator
from fake_board import FakeBoard, Memory, Noise

from arch.config import CONFIGS
from arch.host_map import Control, Space
from arch.isa import HOST_READ
from base.errors import TspError
from fpga import boards
from fpga.gateware.bridge import Bridge
from fpga.gateware.uart import BITS, Crc, Receiver, Sender, divisor_of, in_parts
from fpga.host.board import BAUD
from fpga.host.frames import Read, Replies, Write
from fpga.protocol import FILL, HEADER_SEED, IDENTITY, SYNC, TAGS, Identity, Status, header, with_crc

WORDS = [0x0123456789ABCDEF_FEDCBA9876543210, 0xA5A5A5A5A5A5A5A5, 0, 1 << 127]


# ---- the line ----


@pytest.mark.parametrize("board", boards.BOARDS.values(), ids=list(boards.BOARDS))
def test_the_baud_rate_of_a_board_is_met(board):
    assert board.baud == BAUD
    reached = board.mhz * 1e6 / divisor_of(board.mhz, board.baud)
    assert abs(reached / board.baud - 1) < 0.005


@pytest.mark.parametrize("divisor", [3, Fraction(7, 2), Fraction(101, 17)])
def test_divisors_that_are_refused(divisor):
    with pytest.raises(ValueError, match="divisor must be at least 4"):
        in_parts(divisor)


@pytest.mark.parametrize("divisor", [4, 5, Fraction(25, 3), Fraction(50, 3), Fraction(65, 16)])
def test_bytes_at_many_speeds(divisor):
    """A sender's bits last what they must on average, and a receiver whose bits are 2 % off takes them."""
    sender: Any = Sender(divisor=divisor)
    data = [0x00, 0xFF, 0xA5, 0x5A, 0x01, 0x80]
    levels = []

    async def send(ctx):
        ctx.set(sender.valid, 1)
        for byte in data:
            ctx.set(sender.data, byte)
            while not ctx.get(sender.ready):
                await ctx.tick()
                levels.append(ctx.get(sender.line))
            await ctx.tick()
            levels.append(ctx.get(sender.line))
        ctx.set(sender.valid, 0)
        for _ in range(int(2 * BITS * divisor)):
            await ctx.tick()
            levels.append(ctx.get(sender.line))

    simulate(sender, send)
    whole = levels.index(1, levels.index(0))  # byte 0: a start bit and eight bits of 0
    assert abs(whole - levels.index(0) - 9 * divisor) <= 1
    assert received(levels, divisor) == data
    for off in (Fraction(98, 100), Fraction(102, 100)):
        if divisor >= 8:
            stretched = [levels[int(n / off)] for n in range(int(len(levels) * off))]
            assert received(stretched, divisor) == data


def received(levels, divisor) -> list[int]:
    receiver: Any = Receiver(divisor=divisor)
    found = []

    async def receive(ctx):
        for level in [1, 1, 1, *levels, *[1] * 40]:
            ctx.set(receiver.line, level)
            await ctx.tick()
            if ctx.get(receiver.valid):
                found.append(ctx.get(receiver.data))

    simulate(receiver, receive)
    return found


def test_crc_is_that_of_zlib():
    crc: Any = Crc()
    data = bytes(range(40))

    async def run(ctx):
        for size, seed in itertools.product((0, 1, 7, 40), (0, 1)):
            ctx.set(crc.clear, 1)
            ctx.set(crc.seed, seed)
            await ctx.tick()
            ctx.set(crc.clear, 0)
            for byte in data[:size]:
                await feed(ctx, byte)
            value = ctx.get(crc.value)
            assert value == zlib.crc32(data[:size], seed)
            for byte in value.to_bytes(4, "little"):
                assert not ctx.get(crc.good)
                await feed(ctx, byte)
            assert ctx.get(crc.good)

    async def feed(ctx, byte):
        ctx.set(crc.data, byte)
        ctx.set(crc.valid, 1)
        await ctx.tick()
        ctx.set(crc.valid, 0)
        for _ in range(8):
            assert ctx.get(crc.busy)
            await ctx.tick()
        assert not ctx.get(crc.busy)

    simulate(crc, run)


def simulate(design, *benches):
    simulator = Simulator(design)
    simulator.add_clock(1e-6)
    for bench in benches:
        simulator.add_testbench(bench)
    simulator.run()


# ---- frames ----


class Recorder(Memory):
    """Memory that keeps every write in order."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[tuple[Space, int, int]] = []

    def host_write(self, space: Space, addr: int, data: int) -> None:
        self.writes.append((space, addr, data))
        super().host_write(space, addr, data)


def rtl(chunks: list[bytes], chip: Recorder, divisor=4) -> bytes:
    """What the bridge answers to chunks of bytes, each sent when all is quiet."""
    identity = Identity.of(CONFIGS["tiny"], 50.0).pack()
    bridge: Any = Bridge(divisor=divisor, identity=identity)
    back = bytearray()

    async def line(ctx):
        for chunk in chunks:
            for byte in chunk:
                for bit in (0, *(byte >> n & 1 for n in range(8)), 1):
                    ctx.set(bridge.rx, bit)
                    await ctx.tick().repeat(divisor)
            heard = -1
            while heard != len(back):
                heard = len(back)
                await ctx.tick().repeat(3 * BITS * divisor)

    async def host_port(ctx):
        while True:
            write, read = ctx.get(bridge.host_write), ctx.get(bridge.host_read)
            if write or read:
                space, addr = ctx.get(bridge.host_space.as_value()), ctx.get(bridge.host_addr)
                data = ctx.get(bridge.host_wdata)
            await ctx.tick()
            if write:
                chip.host_write(Space(space), addr, data)
            if read and space != IDENTITY:
                await ctx.tick().repeat(HOST_READ - 1)
                ctx.set(bridge.host_rdata, chip.host_read(Space(space), addr))
                await ctx.tick()
                ctx.set(bridge.host_rdata, 0)

    async def host(ctx):
        while True:
            await ctx.negedge(bridge.tx)
            byte = 0
            await ctx.tick().repeat(divisor + divisor // 2)
            for n in range(8):
                byte |= ctx.get(bridge.tx) << n
                await ctx.tick().repeat(divisor)
            back.append(byte)

    simulator = Simulator(bridge)
    simulator.add_clock(1e-6)
    simulator.add_testbench(line)
    for bench in (host_port, host):
        simulator.add_testbench(bench, background=True)
    simulator.run()
    return bytes(back)


def check(chunks: list[bytes]) -> tuple[list, list]:
    """Bridge and fake board do and answer the same; (writes, replies)."""
    chips, replies = (Recorder(), Recorder()), Replies()
    for chip in chips:
        chip.update({(Space.CONTROL, Control.CYCLES.value): 1 << 60 | 3, (Space.MEM, 0x1FFFF): 7,
                     (Space.MEM, 0x10000): 9})
    board = FakeBoard(chips[1])
    expected = b"".join(board.feed(byte) for chunk in chunks for byte in chunk)
    assert rtl(chunks, chips[0]) == expected
    assert chips[0].writes == chips[1].writes
    for tag in range(TAGS):
        replies.expect(tag, 1)
    replies.feed(expected)
    return chips[0].writes, [reply.status for reply in iter(replies.next, None)]


def run(addr: int, words: list[int], tag: int, width: int = 16) -> bytes:
    return Write(Space.MEM, width, tuple((addr + n, word) for n, word in enumerate(words))).frame(tag)


def command(register: Control, value: int, tag: int) -> bytes:
    return Write(Space.CONTROL, 4, ((register.value, value),)).frame(tag)


def test_runs_of_all_widths():
    frames = [run(0x400000 + 16 * tag, [word & (1 << 8 * width) - 1 for word in WORDS], tag, width)
              for tag, width in enumerate((16, 1, 15, 4))]
    writes, statuses = check([b"".join(frames)])
    assert [word for _, _, word in writes[:4]] == WORDS and writes[3][:2] == (Space.MEM, 0x400003)
    assert statuses == [Status.TAKEN] * 4


def test_fills():
    frames = run(5, [0] * FILL, 0, 0) + run(500, WORDS[:1], 1) + run(1000, [0], 2, 0) + run(1, [3], 3, 1)
    writes, _ = check([frames])
    assert writes == [*((Space.MEM, 5 + n, 0) for n in range(FILL)), (Space.MEM, 500, WORDS[0]), (Space.MEM, 1000, 0),
                      (Space.MEM, 1, 3)]


def test_scattered_words():
    words = ((0x11223344, 0x55), (4, 0xAABBCC), (0xFFFFFFFF, 0), (0x11223344, 1))
    writes, _ = check([Write(Space.ICU, 3, words).frame(0) + Write(Space.CONTROL, 0, ((4, 0),)).frame(1)])
    assert writes == [*((Space.ICU, *word) for word in words), (Space.CONTROL, 4, 0)]


def test_reads():
    own = [Read(IDENTITY, 0, Identity.WORDS).frame(9), Read(IDENTITY, 1, 1, 3).frame(8)]
    check([run(0x30, WORDS, 0) + Read(Space.MEM.value, 0x30, 4).frame(7), Read(Space.CONTROL.value, 0, 4, 8).frame(6),
           *own, Read(Space.MEM.value, 0x1FFFF, 2, 1).frame(3), run(0x40, WORDS, 1)])


def test_a_command_is_executed_once():
    good, other = command(Control.RUN, 1, 0), command(Control.RUN, 2, 1)
    writes, statuses = check([good, good, other, good, command(Control.RUN, 3, 3), other])
    assert writes == [(Space.CONTROL, 0, 1), (Space.CONTROL, 0, 2)]
    assert statuses == [Status.TAKEN, Status.REFUSED, Status.TAKEN, *[Status.REFUSED] * 3]


@pytest.mark.parametrize("at", [1, 5, 12, 14, 20, 33, 45])
@pytest.mark.parametrize("damage", ["changed", "dropped", "inserted"])
def test_damage_is_repaired_by_repetition(at: int, damage: str):
    """Of a run only words of the run itself change before it is repeated; of a command nothing does."""
    good, places = run(0x20, WORDS[:2], 0), [(Space.MEM, 0x20), (Space.MEM, 0x21)]
    for frame in (good, command(Control.RUN, 7, 0)):
        if at >= len(frame):
            continue
        bad = bytearray(frame)
        match damage:
            case "changed":
                bad[at] ^= 0x10
            case "dropped":
                del bad[at]
            case "inserted":
                bad.insert(at, 0x77)
        writes, _ = check([bytes(bad), bytes(len(frame)), frame, frame])
        if frame is good:
            assert {write[:2]: write[2] for write in writes} == dict(zip(places, WORDS, strict=False))
        else:
            assert writes == [(Space.CONTROL, 0, 7)]


def test_a_record_is_no_header():
    """A record of nine bytes after a SYNC byte, while the bridge looks for a header: only its CRC makes it one."""
    record = bytes([Space.MEM.value, 0, 1, 1, 0, 9, 0, 0, 0])
    for seed, statuses in ((0, []), (HEADER_SEED, [Status.TAKEN])):
        writes, found = check([bytes([SYNC]) + with_crc(record, seed) + with_crc(b"\x07")])
        assert found == statuses and len(writes) == len(statuses)


def test_a_damaged_record_ends_its_frame_without_effect():
    frame = bytearray(Write(Space.ICU, 2, ((1, 2), (3, 4), (5, 6))).frame(0))
    frame[14 + 10 + 1] ^= 1  # the second record's address
    writes, statuses = check([bytes(frame) + bytes(30), run(1, WORDS, 0)])
    assert writes[:2] == [(Space.ICU, 1, 2), (Space.MEM, 1, WORDS[0])]
    assert statuses == [Status.DAMAGED, Status.TAKEN]


@pytest.mark.parametrize("seed", range(2))
def test_noise(seed: int):
    """Both do the same with whatever comes."""
    rng, noise = random.Random(seed), Noise(seed, 60)
    chunks = []
    for tag in range(4):
        words = [rng.choice(WORDS) for _ in range(3)]
        frames = [run(rng.randrange(1 << 15), words, tag // 2), run(9, [0] * 20, tag // 2, 0),
                  command(Control.RUN, tag, 0),
                  Write(Space.ICU, 2, tuple((rng.randrange(1 << 32), n) for n in range(4))).frame(tag // 2)]
        chunks.append(noise(b"".join(rng.sample(frames, 3))) + bytes(120))
    check(chunks)
    assert noise.events > 3


# ---- what is sent ----


def test_fields_that_do_not_fit():
    for field, value in (("tag", 256), ("width", -1), ("count", 1 << 16), ("addr", 1 << 32), ("space", 8)):
        fields: dict[str, Any] = {"space": 0, "tag": 0, "width": 1, "count": 1, "addr": 0} | {field: value}
        with pytest.raises(ValueError, match=f"{field} must be in"):
            header(**fields)


def test_identity():
    mine = Identity.of(CONFIGS["ulx3s"], 62.5)
    assert Identity.unpack(mine.pack()) == mine and mine.clock_khz == 62500 and len(mine.pack()) == 32
    with pytest.raises(TspError, match="not a Metronome board"):
        Identity.unpack(bytes(32))
    with pytest.raises(TspError, match="version 9 of the protocol"):
        Identity.unpack(mine.pack()[:4] + b"\x09\x00" + mine.pack()[6:])
    with pytest.raises(ValueError, match="at most 12 bytes"):
        Identity(config="a" * 13, digest="00" * 8, clock_khz=1).pack()
