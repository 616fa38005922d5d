"""What the host of a rack of boards refuses, and what it says of links that do not train, without a simulator."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
from board_racks import BOARDS, OTHER, OWN_CLOCKS, ROOT
from fake_board import FakeBoard, FakeLine, Memory

from arch.host_map import Control, Space
from arch.link_map import COMMAND, RACK, RACK_STATUS, STATUS, LinkRegister, link_address, pack, unpack
from arch.rack import RackConfig
from base.errors import TspError
from cli.link_test import complaints, eyes_of
from cli.main import app
from fpga import simulate
from fpga.host import board, links, rack
from fpga.host.frames import reads
from fpga.host.link_test import EndReport
from fpga.host.links import Links, LinkStatus
from fpga.protocol import WORD_BYTES, Identity
from hw.link.receive import Fault
from hw.link.train import State
from sim.device.hosted_chip import HostPort


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(board, "HELLO", (0.01, 0.02))
    monkeypatch.setattr(links, "PATIENCE", 0.05)


# ---- which boards ----


def fakes(monkeypatch: pytest.MonkeyPatch, *identities: Identity | None) -> list[str]:
    """Ports of boards with these identities; None is silent."""
    lines: dict[str, FakeLine] = {}
    for n, identity in enumerate(identities):
        fake = FakeBoard(Memory())
        if identity:
            fake.identity = identity.pack()
        else:
            fake.feed = lambda byte: b""  # type: ignore[method-assign]
        lines[f"/dev/fake{n}"] = FakeLine(fake)
    monkeypatch.setattr(rack, "open_line", lines.__getitem__)
    return list(lines)


ROOT_BOARD = Identity.of(BOARDS.chips[0], 50.0)
OTHER_BOARD = Identity.of(BOARDS.chips[1], 50.0, 1)


def test_boards_in_their_order(monkeypatch: pytest.MonkeyPatch):
    ports = fakes(monkeypatch, ROOT_BOARD, OTHER_BOARD)
    found, mhz = rack.open_boards(ports, BOARDS)
    assert [one.identity for one in found] == [ROOT_BOARD, OTHER_BOARD] and mhz == 50.0


@pytest.mark.parametrize(("boards", "words"), [
    ((OTHER_BOARD, ROOT_BOARD), "fake0 is a board that takes its clock from a link, so it cannot be chip 0"),
    ((ROOT_BOARD, ROOT_BOARD), "must take its clock from its link 0, but takes it from its own oscillator"),
    ((ROOT_BOARD, replace(OTHER_BOARD, clock_link=2)), "must take its clock from its link 0, but takes it from its "
                                                       "link 1"),
    ((ROOT_BOARD, replace(OTHER_BOARD, clock_khz=45_000)), "must have one clock, not /dev/fake0 50 MHz, /dev/fake1 45"),
    ((ROOT_BOARD, replace(OTHER_BOARD, config="tiny", digest="0" * 16)), "load the bitstream of the rack's chip"),
    ((ROOT_BOARD, None), "no board answers .* takes the clock of the link"),
    ((None, OTHER_BOARD), "fake0: no board answers"),
    ((ROOT_BOARD,), "rack twins has 2 chips, so --device must name as many serial ports"),
])
def test_boards_that_are_refused(monkeypatch: pytest.MonkeyPatch, boards: Sequence[Identity | None], words: str):
    with pytest.raises(TspError, match=words):
        rack.open_boards(fakes(monkeypatch, *boards), BOARDS)


def test_boards_with_clocks_of_their_own(monkeypatch: pytest.MonkeyPatch):
    other = replace(OTHER_BOARD, clock_link=0)
    rack.open_boards(fakes(monkeypatch, ROOT_BOARD, other), OWN_CLOCKS)
    with pytest.raises(TspError, match="must take its clock from its own oscillator, but takes it from its link 0"):
        rack.open_boards(fakes(monkeypatch, ROOT_BOARD, OTHER_BOARD), OWN_CLOCKS)


def test_an_identity_says_whose_clock_the_board_has():
    assert Identity.unpack(OTHER_BOARD.pack()) == OTHER_BOARD
    assert ROOT_BOARD.pack()[6:8] == b"\0\0"  # as boards before links had it


def test_registers_of_links_are_read_whole():
    found = list(reads(Space.CONTROL, [Control.RUN.value, link_address(0, LinkRegister.STATUS)]))
    assert [read.width for read in found] == [8, WORD_BYTES]
    assert sum(STATUS.values()) <= 8 * WORD_BYTES


# ---- training ----


@dataclass
class Wire:
    """One end in a rack of ends that train as `hw.link.train` does, but for time. dead: a line that comes in here."""

    state: State = State.FAILED
    lane: int = 0
    dead: int | None = None
    clock: bool = True
    late: bool = False


class FakeChip(HostPort):
    """A chip with one link. Its end trains when it is told to while the other end sends the training word."""

    def __init__(self, wires: dict[int, Wire], number: int, slack: int = 0) -> None:
        self.config, self.wires, self.number, self.slack = BOARDS.chips[number], wires, number, slack

    def write(self, accesses) -> None:
        for one in accesses:
            address, word = int(one["addr"]), int(one["data"][0])
            if address == link_address(0, LinkRegister.COMMAND) and unpack(COMMAND, word)["retrain"]:
                self._retrain()

    def _retrain(self) -> None:
        mine, other = self.wires[self.number], self.wires[1 - self.number]
        if not mine.clock:
            mine.state = State.NO_CLOCK
        elif mine.dead is not None:
            mine.state, mine.lane = State.FAILED, mine.dead
        elif other.state is State.LINKED:
            mine.state = State.FAILED  # it hears frames
        elif other.state is State.TRAINED:
            mine.state = other.state = State.LINKED
        else:
            mine.state = State.TRAINED

    def read(self, space: Space, addrs: Sequence[int]) -> list[int]:
        mine = self.wires[self.number]
        if list(addrs) == [RACK]:
            return [pack(RACK_STATUS, slack=self.slack)]
        up = all(wire.state is State.LINKED for wire in self.wires.values()) and not mine.late
        errors = 1 << Fault.LATENCY.value if mine.late else 0
        return [pack(STATUS, state=mine.state.value, lane=mine.lane, up=up, errors=errors) for _ in addrs]


def trained(one: Wire, other: Wire) -> None:
    wires = {0: one, 1: other}
    Links(BOARDS, [FakeChip(wires, n) for n in range(2)]).bring_up()


@pytest.mark.parametrize("before", [(State.FAILED, State.FAILED), (State.LINKED, State.LINKED),
                                    (State.LINKED, State.FAILED), (State.NO_CLOCK, State.TRAINED)])
def test_links_come_up_from_any_state(before: tuple[State, State]):
    wires = Wire(before[0]), Wire(before[1])
    trained(*wires)
    assert [wire.state for wire in wires] == [State.LINKED] * 2


@pytest.mark.parametrize(("one", "other", "words"), [
    (Wire(), Wire(dead=3), "the line of data pin 3 from port 0.E0 to port 1.E0 does not train"),
    (Wire(dead=2), Wire(), "the line of data pin 2 from port 1.E0 to port 0.E0 does not train"),
    (Wire(), Wire(clock=False), "no clock comes to port 1.E0 from port 0.E0: is the cable plugged in"),
    (Wire(), Wire(late=True), r"port 1\.E0 cannot release frames 15 cycles after they were sent"),
])
def test_lines_that_do_not_train_are_named(one: Wire, other: Wire, words: str):
    with pytest.raises(TspError, match=words) as refused:
        trained(one, other)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("made_for", "given", "words"), [
    (BOARDS, 2, "must have links with one clock, not with a slack of 2 cycles for clocks of their own"),
    (OWN_CLOCKS, 0, "must have links with a slack of 2 cycles for clocks of their own, not with one clock"),
])
def test_chips_built_for_other_clocks_are_refused(made_for: RackConfig, given: int, words: str):
    wires = {n: Wire() for n in range(2)}
    with pytest.raises(TspError, match=f"chip 0 of rack twins {words}: load a bitstream that was built for the rack"):
        Links(made_for, [FakeChip(wires, n, given) for n in range(2)]).bring_up()
    Links(made_for, [FakeChip(wires, n, made_for.slack) for n in range(2)]).bring_up()


def test_a_status_in_words():
    status = LinkStatus.of(pack(STATUS, state=State.LINKED.value, up=1, errors=1 << Fault.CRC.value, corrected=7))
    assert status.up and status.faults == (Fault.CRC,) and status.corrected == 7
    assert links.words(status) == "CRC"


def test_a_report_is_good_without_faults_and_narrow_eyes():
    report = EndReport(port=OTHER, far=ROOT, declared=15, eyes=[[True] * 4, [False, True, False]])
    assert report.narrow == [1] and not report.good
    assert EndReport(port=OTHER, far=ROOT, declared=15).good


def test_what_a_link_test_says():
    report = EndReport(port=OTHER, far=ROOT, declared=15, faults=(Fault.CRC,), eyes=[[False, True, True], [True] * 3])
    assert complaints(report) == ["the link from 0.E0 to 1.E0 had errors beyond correction: CRC"]
    assert eyes_of(report)[1:] == ["  data pin  0  .##", "  data pin  1  ###"]
    narrow = replace(report, faults=(), eyes=[[True] * 3, [False, True, False]])
    assert complaints(narrow) == ["the eye of data pin 1 from 0.E0 to 1.E0 is narrow: check its wire, or use a shorter "
                                  "cable"]


@pytest.mark.parametrize(("arguments", "words"), [
    (["rtl"], "ports must be serial ports such as"),
    (["/dev/a,/dev/b", "--seconds", "0"], "--seconds must be more than 0"),
    (["/dev/a,/dev/b", "--trainings", "0"], "--trainings must be in 1..10000, not 0"),
    (["/dev/a,/dev/b", "--rack", "trio"], "a rack must be pair"),
    (["/dev/a"], "rack pair has 2 chips"),
    (["/dev/none0,/dev/none1"], "/dev/none0: no such port"),
])
def test_link_tests_that_are_refused(arguments: list[str], words: str, capfd: pytest.CaptureFixture[str]):
    assert app(["link-test", *arguments]) == 2
    error = capfd.readouterr().err
    assert words in error and error.count("\n") == 1


@pytest.mark.parametrize(("options", "words"), [
    ({"board": "ulx3s_pair0"}, "is one of rack pair: simulate all of them with --rack pair"),
    ({"cable": "delay=3"}, "--cable is between boards of a rack"),
    ({"rack": "pair", "config": "tiny"}, "--rack sets the boards and their clock: leave out --config"),
    ({"rack": "trio"}, "a rack must be pair"),
    ({"rack": ""}, "a rack must be pair"),
])
def test_simulated_racks_that_are_refused(options: dict[str, str], words: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match="2"):
        simulate.main(**{"config": None, "mhz": None, "baud": 0, "board": "", "rack": None, "cable": "", **options})
    error = capsys.readouterr().err
    assert error.startswith("fpga.simulate: ") and words in error and error.count("\n") == 1


def test_a_rack_is_of_this_many_ports():
    alone = RackConfig(name="one", chips=BOARDS.chips[:1], links=())
    with pytest.raises(TspError, match="rack one has 1 chips"):
        rack.open_boards(["/dev/a", "/dev/b"], alone)
