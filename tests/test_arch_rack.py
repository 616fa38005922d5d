"""Racks: named ones and those of files, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from racks import CHIP, ring

from arch.identity import chip_digest
from arch.rack import RACKS, SLACKS, WATCHED, Link, Oscillators, Port, RackConfig, linked, shelves
from arch.rack_file import rack_of
from base.errors import TspError
from fpga.host.links import AHEAD, ahead
from hw.link.frame import crc_frames
from hw.link.parameters import MOST_SLACK, LinkParameters
from hw.linked_chip import settle_cycles

PAIR = RACKS["pair"]
FILE = {
    "chips": [{"config": "ulx3s", "ports": [0, 1], "slot": 2}] * 2,
    "links": [{"ports": ["0.E0", "1.E0"], "latency": 11}],
}


def test_the_named_pair():
    assert rack_of("pair") is PAIR
    assert [chip.name for chip in PAIR.chips] == ["ulx3s_linked"] * 2
    assert PAIR.across[Port(0, "E", 0)] == (Port(1, "E", 0), 11)
    assert dict(PAIR.depths) == {0: 0, 1: 1}


def test_a_rack_of_a_file_is_the_named_one(tmp_path: Path):
    (tmp_path / "desk.json").write_text(json.dumps(FILE))
    rack = rack_of(str(tmp_path / "desk.json"))
    assert rack.name == "desk" and (rack.chips, rack.links) == (PAIR.chips, PAIR.links)
    assert rack.digest() == PAIR.digest() != ring(2).digest()


def test_clocks_of_their_own_count_only_where_there_are_some(tmp_path: Path):
    own = {"oscillators": {"ppm": 50, "slack": 3}}
    (tmp_path / "desk.json").write_text(json.dumps(FILE | own))
    rack = rack_of(str(tmp_path / "desk.json"))
    assert rack.oscillators == Oscillators(ppm=50.0, slack=3) and (rack.slack, PAIR.slack) == (3, 0)
    assert rack.as_json()["oscillators"] == own["oscillators"] and "oscillators" not in PAIR.as_json()
    assert rack.digest() != PAIR.digest() != replace(rack, oscillators=Oscillators(ppm=50.0, slack=4)).digest()
    assert replace(rack, oscillators=None).digest() == PAIR.digest()


def test_what_the_links_of_chips_with_clocks_of_their_own_need():
    assert SLACKS[1] == MOST_SLACK
    for rack in RACKS.values():
        slow = replace(rack, oscillators=Oscillators(ppm=100.0, slack=SLACKS[1]),
                       links=tuple(replace(link, latency=63) for link in rack.links))
        slot = rack.chips[0].slot
        assert AHEAD < ahead(slow) < 256 and ahead(rack) == AHEAD
        assert ahead(slow) * slot + settle_cycles(LinkParameters(ratio=2)) < WATCHED


def test_rings_reach_every_chip():
    assert dict(ring(5).depths) == {0: 0, 1: 1, 4: 1, 2: 2, 3: 2}
    assert ring(1).across[Port(0, "E", 0)] == (Port(0, "W", 0), 9)


def test_the_rack_of_nine_cards():
    rack = RACKS["rack"]
    linked_with = {chip: {far.chip for near, (far, _) in rack.across.items() if near.chip == chip}
                   for chip in range(18)}
    assert len(rack.links) == 72 and {len(far) for far in linked_with.values()} == {8}
    for size in (2, 3, 6):  # the chips of a group, and groups that follow each other
        groups = [range(first, first + size) for first in range(0, 18, size)]
        assert all(rack.part(group).meshed for group in groups)
        assert all(linked_with[one[n]] & {*other} for one, other in zip(groups, groups[1:] + groups[:1], strict=True)
                   for n in range(size // 2 if size < 6 else size))
    assert max(len(set(range(18)) - far - {chip}) for chip, far in linked_with.items()) == 9
    assert all({chip, *far}.union(*(linked_with[n] for n in far)) == {*range(18)} for chip, far in linked_with.items())


def test_a_part_of_a_rack():
    part = RACKS["rack"].part(range(6, 8))
    assert len(part.chips) == 2 and len(part.links) == 1 and part.meshed
    with pytest.raises(TspError, match="rack ring of 4: chips 1 to 2 must be linked with each other"):
        replace(ring(4), links=ring(4).links[:1] + ring(4).links[2:]).part(range(1, 3))


def test_too_many_shelves_for_the_ports():
    with pytest.raises(TspError, match="a chip has at most 8 ports, and 9 are needed"):
        shelves("rack", "sram28", 5, 6)


def link(one: str, other: str, latency: int = 9) -> Link:
    return Link(ports=(Port.parse(one), Port.parse(other)), latency=latency)


REFUSED = [
    ((CHIP, CHIP), (), "chip 1 must be linked to chip 0"),
    ((CHIP, CHIP), (link("0.E0", "2.W0"),), r"port 2\.W0 must belong to one of the 2 chips"),
    ((CHIP, CHIP), (link("0.E1", "1.W0"),), r"port 0\.E1 must be one of the 1 ports"),
    ((CHIP, CHIP), (link("0.E0", "1.W0"), link("0.E0", "1.E0")), r"port 0\.E0 must be linked once, not twice"),
    ((CHIP, CHIP), (link("0.E0", "1.W0", 64),), r"must be in 1\.\.63 cycles, not 64"),
    ((CHIP, replace(CHIP, slot=2)), (link("0.E0", "1.W0"),), "must connect chips with the same slot, not 4 and 2"),
    ((CHIP, replace(CHIP, lanes=4)), (link("0.E0", "1.W0"),), "must connect chips with the same lanes, not 8 and 4"),
    ((), (), r"it must have 1\.\.64 chips, not 0"),
]


@pytest.mark.parametrize(("chips", "links", "what"), REFUSED)
def test_refusals(chips: tuple, links: tuple[Link, ...], what: str):
    with pytest.raises(TspError, match=f"^rack mine: .*{what}"):
        RackConfig(name="mine", chips=chips, links=links)


BAD_FILES = [
    ("{", "line 1"), ("[]", "must hold a JSON object"), ('{"chips": []}', "rack bad: links must be given"),
    ("[" * 100_000, "not valid JSON"), (json.dumps(FILE | {"chips": 2}), "chips: input should be a valid list, not 2"),
    (json.dumps(FILE | {"oscilators": {"ppm": 100, "slack": 3}}), "oscilators is not a field that racks"),
    (json.dumps(FILE | {"oscillators": {}}), r"oscillators\.ppm must be given"),
    (json.dumps(FILE | {"oscillators": []}), "oscillators must be a JSON object"),
    (json.dumps(FILE | {"oscillators": {"ppm": 100, "slack": 2.5}}), r"slack: input should be a valid int"),
    (json.dumps(FILE | {"links": [{"ports": [0, 1], "latency": 11}]}), r"links\.0\.ports\.0: input should be"),
    (json.dumps(FILE | {"links": [{"ports": ["0.E0"], "latency": 11}]}), r"links\.0\.ports must be two, not"),
    (json.dumps(FILE | {"links": [{"ports": ["0.E0", "1.E\u00b2"], "latency": 11}]}), "bad: a port must be written"),
    (json.dumps(FILE | {"links": [{"ports": ["0.E0", "1.E0"], "latency": 11.7}]}), r"valid integer, not 11\.7"),
    (json.dumps(FILE | {"links": [{"ports": ["0.E0", "1.E0"], "latency": float("inf")}]}), "valid integer, not inf"),
    (json.dumps(FILE | {"chips": [{"config": "ulx3s", "ports": [0, 1.5], "slot": 2}] * 2}), r"valid integer, not 1\.5"),
    (json.dumps(FILE | {"chips": [{"config": "huge", "ports": [0, 1], "slot": 2}]}), "config must be one of"),
    (json.dumps(FILE | {"links": [{"ports": ["0.E0", "1"], "latency": 11}]}), "a port must be written like 0.E0"),
    (json.dumps(FILE | {"chips": [{"config": "ulx3s", "ports": [0, 9], "slot": 2}] * 2}), r"ports must be two numbers"),
    (json.dumps(FILE | {"oscillators": {"ppm": 100}}), r"oscillators\.slack must be given"),
    (json.dumps(FILE | {"oscillators": {"ppm": 100, "slack": 0}}), r"the slack must be in 1\.\.20 cycles, not 0"),
    (json.dumps(FILE | {"oscillators": {"ppm": 55_000, "slack": 3}}), "at most 1000, not 55000"),
]


@pytest.mark.parametrize(("text", "what"), BAD_FILES)
def test_bad_files(text: str, what: str, tmp_path: Path):
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(TspError, match=what) as refused:
        rack_of(str(path))
    assert "\n" not in str(refused.value)


def test_an_unknown_rack_is_refused():
    with pytest.raises(TspError, match=r"a rack must be pair, card, node, rack or a file NAME\.json, not 'trio'"):
        rack_of("trio")


def test_links_count_in_the_identity_only_where_there_are_some():
    plain = replace(CHIP, ports=(0, 0))
    assert chip_digest(plain) != chip_digest(CHIP) != chip_digest(replace(CHIP, slot=2))
    assert chip_digest(linked("ulx3s", (0, 0), 4)) == chip_digest(replace(linked("ulx3s", (0, 0), 4), slot=4))


@pytest.mark.parametrize(("lanes", "pins", "ratio"), [(4, 5, 1), (8, 9, 1), (8, 9, 2), (16, 18, 2)])
def test_the_contract_is_the_links(lanes: int, pins: int, ratio: int):
    """A token's last slot and the next one's first ones hold as many control frames as show a wrong CRC."""
    quiet = replace(CHIP, lanes=lanes).quiet_slots
    assert crc_frames(LinkParameters(lanes=lanes, pins=pins, ratio=ratio)) <= quiet + 1
