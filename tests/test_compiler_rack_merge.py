"""One schedule of several chips: the order of transfers, SENDs that begin with slots, and the ways of flits."""

import pytest
from racks import CHIP, ring

from arch import isa
from arch.isa import LinkOp
from arch.rack import Link, Port, RackConfig
from arch.row import C2C
from base.errors import TspError
from compiler.ir import Block, Cluster, Mem, Part
from compiler.lower.exchange import route, ways
from compiler.rack.merge import merged, part_of
from compiler.schedule.scheduler import overlap, schedule_at, schedule_block

LATENCY = 9
BOTH = frozenset({0, 1})


def sends(key: int, chips: frozenset[int] = BOTH) -> Part:
    part = Part("send", CHIP, key=key, chips=chips)
    part.send(part.read(Mem("E0", key, 3), C2C["E"], interval=CHIP.slot), "E", 1, 0)
    return part


def takes(key: int, chips: frozenset[int] = BOTH) -> Part:
    part = Part("take", CHIP, key=key, chips=chips, late=LATENCY)
    part.write(part.receive("W", 0, 1, 3, CHIP.slot), Mem("W0", 10 + key, 3))
    return part


def test_a_transfer_is_scheduled_as_one_on_both_chips():
    schedule = schedule_block(merged({chip: Block("block", clusters=[make(n) for n in range(4)])
                                       for chip, make in enumerate((sends, takes))}))
    at = {op: sorted(p.at for p in schedule.placed if p.burst.op is op) for op in LinkOp}
    assert {p.burst.chip for p in schedule.placed if p.burst.op is LinkOp.RECEIVE} == {1}
    assert all((isa.START + cycle) % CHIP.slot == 0 for cycle in at[LinkOp.SEND])
    assert at[LinkOp.RECEIVE] == [cycle + LATENCY for cycle in at[LinkOp.SEND]]
    assert sorted(b - a for a, b in zip(at[LinkOp.SEND], at[LinkOp.SEND][1:], strict=False)) == [3 * CHIP.slot] * 3


def test_a_part_of_a_schedule_keeps_its_times():
    blocks = {chip: Block("block", clusters=[make(n, frozenset({4, 7})) for n in range(4)])
              for chip, make in ((4, sends), (7, takes))}
    whole = schedule_block(merged(blocks))
    for chip in blocks:
        part = schedule_at(*part_of(blocks, whole.starts, [chip]), whole.length)
        assert [(p.burst.op, p.at) for p in part.placed] == [(p.burst.op, p.at) for p in whole.placed
                                                             if p.burst.chip == chip]


def test_lengths_stay_multiples_of_a_slot():
    block = merged({0: Block("block", 3, clusters=[sends(0)]), 1: Block("block", 3, clusters=[takes(0)])})
    schedule = schedule_block(block)
    (first, _) = overlap([schedule] * 2, step=4)
    assert first.length < schedule.length and (schedule.length - first.length) % 4 == 0


def test_chips_must_agree_about_the_order_of_transfers():
    with pytest.raises(ValueError, match="disagree about their next transfer"):
        merged({0: Block("block", clusters=[sends(0), sends(1)]), 1: Block("block", clusters=[takes(1), takes(0)])})
    with pytest.raises(TspError, match="chip 1 takes 2 turns of block 'layer', chip 0 3 of 'layer'"):
        merged({0: Block("layer", 3), 1: Block("layer", 2)})


def test_flits_that_cannot_all_begin_slots():
    cluster = Cluster("odd", CHIP)
    cluster.send(cluster.read(Mem("E0", 0, 3), C2C["E"]), "E", 1, 0)
    with pytest.raises(ValueError, match="'odd' sends flits that do not all begin with slots"):
        schedule_block(Block("block", clusters=[cluster]))


def test_ways_of_flits():
    """In a ring of four, flits go both ways round; in a row of four, only one way, and over all of it."""
    hops = route(ring(4), [0])
    assert [(hop.chip, hop.side, [port.chip for port, _ in hop.takers]) for hop in hops] == [
        (0, "W", [3]), (0, "E", [1]), (3, "W", [2])]
    line = RackConfig(name="line", chips=(CHIP,) * 4, links=tuple(
        Link(ports=(Port(n, "E", 0), Port(n + 1, "W", 0)), latency=9) for n in range(3)))
    assert [hop.chip for hop in route(line, [3])] == [3, 2, 1]
    assert [(hop.chip, hop.ports, hop.takers[0][0]) for hop in ways(line, route(line, [0]), [2])] == [
        (0, 1, Port(1, "W", 0)), (1, 1, Port(2, "W", 0))]
    assert ways(ring(4), route(ring(4), [0]), [1])[0].takers == ((Port(1, "W", 0), 9),)


def test_flits_that_several_chips_have_come_from_the_nearest():
    assert [(hop.chip, [port.chip for port, _ in hop.takers]) for hop in route(ring(6), range(2))] == [
        (0, [5]), (1, [2]), (5, [4]), (2, [3])]
    hops = route(ring(6), range(2), among=range(4))
    assert [(hop.chip, [port.chip for port, _ in hop.takers]) for hop in hops] == [(1, [2]), (2, [3])]
    assert ways(ring(6), hops, [2]) == hops[:1]
