"""What the chips of a rack exchange, as operations: all-gather, reduce-scatter, broadcast and all-reduce.

Each is a call at the same point of the program of all chips of a group. What it makes are transfers (`exchange`) like
any other cluster: the scheduler overlaps them with whatever does not depend on them.
"""

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from arch.config import PLANES
from arch.isa import Alu, ErUse, Fmt, Red
from arch.rack import MAX_CHIPS
from arch.vectors import SIDES
from base.errors import TspError
from compiler.ir import BURST_SLOT, Act, As, Cluster, Mem, Stream

from .builder import Builder
from .exchange import Exchange, Hop, direct, part_of, pass_by, route, send, sent_interval, take, ways

SUM_SLOT = 0
"""Reduction slot of a sum of chips at both ends of the row."""


def all_gather(b: Builder, name: str, parts: Sequence[range], planes: int = 1, *, lift: int = 0,
               acts: Mapping[int, Mapping[str, Act]] | None = None,
               own: Callable[[Cluster], Stream] | None = None) -> None:
    """Give all chips the parts of a tensor that each of them has.

    name: the tensor, which has a place for all parts on every chip. parts: by chip, the quads of it that the chip
    sends; those of this chip are written before, if not by `own`. planes: the lower planes of the quads that are sent.
    lift: on other chips than its own, a part lies so many planes higher: an arithmetic shift then gives it its sign.
    acts: by chip, activation entries that its part, of one plane, is loaded into as well. own: adds to a cluster what
    makes this chip's part, one plane; the flits are sent from the stream of it, of which SRAM holds nothing. Its
    interval must be `sent_interval`.
    """
    exchange = b.exchange
    assert exchange
    number, acts = exchange.number(), acts or {}
    for source in exchange.order:
        if not (part := parts[source]):
            continue
        hops = exchange.routes[source]
        if own:
            near, hops = [hop for hop in hops if hop.chip == source], [hop for hop in hops if hop.chip != source]
            _at_once(b, exchange, (number, source), near, name, part, acts.get(source, {}), own)
        for n, hop in enumerate(hops):
            for plane in range(planes):
                pass_by(b, exchange, (number, source, n, plane), hop, name, part,
                      plane + (lift if hop.chip != source else 0), plane + lift, acts.get(source, {}))


def _at_once(b: Builder, exchange: Exchange, key: Hashable, hops: Sequence[Hop], name: str, quads: range,
             acts: Mapping[str, Act], own: Callable[[Cluster], Stream]) -> None:
    """The hops of a part that is sent as it is made."""
    chips = frozenset[int]().union(*(hop.chips for hop in hops))
    for hop in hops:
        for port, late in hop.takers:
            if port.chip == b.chip:
                take(b, exchange, key, chips, name, quads, 0, port, late, acts)
    if any(hop.chip == b.chip for hop in hops):
        part = part_of(b, exchange, name, key, chips)
        stream = own(part)
        for hop in hops:
            part.send(stream, hop.side, hop.ports, 0)


def all_gather_one(b: Builder, name: str, sources: Sequence[int], own: Callable[[Cluster], Stream]) -> None:
    """Give all chips the lowest plane of one quad of each of some chips: of a tensor with a place for each chip.

    own: adds to a cluster what makes this chip's in the VXM; where all chips are linked with each other, it is sent
    from there.
    """
    exchange = b.exchange
    assert exchange
    chips = range(len(exchange.rack.chips))

    def made(cluster: Cluster) -> Stream:
        stream = own(cluster)
        cluster.write(stream, b.tensor(name, b.chip, 1))
        return stream

    if not exchange.rack.meshed:
        if b.chip in sources:
            made(b.cluster(name))
        all_gather(b, name, [range(chip, chip + (chip in sources)) for chip in chips])
        return
    for source in filter(sources.__contains__, exchange.order):
        mem = replace(b.tensor(name, source, 1), planes=1)
        multicast(b, name, source, chips, count=1, planes=1, own=made, keep=partial(_keep, mem))


def _keep(mem: Mem, cluster: Cluster, stream: Stream) -> None:
    cluster.write(stream, mem)


def reduce_scatter(b: Builder, sources: Sequence[int], planes: int, own: Callable[[range], None]) -> Mem:
    """The sums that some chips' addends add up to, of this chip's vectors of the residual, times
    2 ** (8 * (PLANES - planes)). All chips of the group must be linked with each other.

    sources: the chips that have addends. planes: byte planes that hold any sum of some of the addends. own: writes this
    chip's addends of some vectors to the tensor "parts". It is called for the vectors of each chip, last for those of
    this one, whose addends then hide the transfers. Whole numbers may be added in any order, so no bit depends on it.
    """
    exchange, share = b.exchange, b.geometry.share
    assert exchange and share
    chips = len(share.residual)
    for step in range(1, chips):
        if b.chip in sources:
            own(share.residual[(b.chip + step) % chips])
        for source in sources:
            target = (source + step) % chips
            _hand_addends(b, exchange, source, target, sources, share.residual[target], planes)
    if b.chip not in sources:
        return _sum_of_others(b, sources)
    own(share.residual[b.chip])
    part, done = share.residual[b.chip], b.tensor("complete")
    fields = {"a": b.tensor("parts", part.start, len(part)), "pre": -8 * (PLANES - planes), "n": len(part)}
    if len(sources) > 1:
        fields |= {"alu": Alu.ADD, "c": _sum_of_others(b, sources)}
    b.op("sum", **fields, dst=done)
    return done


def _hand_addends(b: Builder, exchange: Exchange, source: int, target: int, sources: Sequence[int], part: range,
                  planes: int) -> None:
    """A chip's addends of another one's vectors, which lie in the upper planes there, so that they have their sign."""
    number, (hop,) = exchange.number(), direct(exchange, source, [target])
    for plane in range(planes):
        key = number, plane
        if b.chip == source:
            send(b, exchange, key, hop, "parts", part, plane)
        elif b.chip == target:
            ((port, late),) = hop.takers
            taken = part_of(b, exchange, "sums", key, hop.chips, late)
            stream = taken.receive(port.side, port.number, 1 << plane + PLANES - planes, len(part),
                                   sent_interval(b, len(part)))
            place = _at_end(b, sources, port.side).index(source)
            mem = b.tensor(f"sums {port.side}", place * len(part), len(part))
            taken.write(stream, replace(mem, planes=1 << plane + PLANES - planes))


def _at_end(b: Builder, sources: Sequence[int], end: str) -> list[int]:
    """The other chips among some whose flits come in at an end of the row."""
    assert b.exchange
    return [chip for chip in sources if chip != b.chip and b.exchange.ends[chip] == end]


def _sum_of_others(b: Builder, sources: Sequence[int]) -> Mem:
    """What the addends of other chips add up to, vector by vector."""
    total, ends = b.tensor("total"), {end: len(chips) for end in SIDES if (chips := _at_end(b, sources, end))}
    slot = BURST_SLOT if len(ends) == 1 else SUM_SLOT
    for v in range(total.count):
        for n, (end, count) in enumerate(ends.items()):
            cluster, found = b.cluster("sum"), b.tensor(f"sums {end}", 0, count * total.count)
            fields = {"a": found[v :: total.count], "n": count, "red_slot": slot, "red_keep": int(n > 0)}
            _, summed = cluster.alu(**fields, red=Red.SUM)
        cluster.write(summed, total[v : v + 1])
    return total


def all_reduce_max(b: Builder, own: Callable[[Cluster], Stream], er: int) -> None:
    """Exponent register `er` = the greatest of the numbers, a signed byte in any lane, that all chips make.

    own: adds to a cluster what makes this chip's. The tensor "exponents" keeps them.
    """
    all_gather_one(b, "exponents", _all_chips(b), own)
    cluster, every = b.cluster("exponent"), replace(b.tensor("exponents"), planes=1)
    _, greatest = cluster.alu(a=As(every, Fmt.B0), n=every.count, red=Red.MAX, red_slot=BURST_SLOT)
    b.alu(cluster, a=b.across_lanes(cluster, greatest, Red.MAX), er_dst=er)


def all_reduce_sum(b: Builder, own: Callable[[Cluster], Stream], bytes_: int) -> tuple[Cluster, Stream]:
    """The sum of the numbers that all chips make, as a vector whose neighbouring lanes, PLANES of them, add up to it.
    Numbers wrap, so their order changes no bit.

    own: adds to a cluster what makes this chip's, the same in every lane. bytes_: the exponent register
    `TokenState.bytes`. A number has four bytes, which a single flit holds: a byte in each of four neighbouring lanes.
    The tensor "squares" keeps them.
    """
    shift = {"er_use": ErUse.PRE, "er": bytes_, "round": 0}
    all_gather_one(b, "squares", _all_chips(b), lambda cluster: cluster.alu(a=own(cluster), **shift)[0])
    cluster, every = b.cluster("sum of squares"), b.tensor("squares")
    return cluster, cluster.alu(a=every, **shift, er_neg=1, alu=Alu.AND, c=b.constant("bytes"), n=every.count,
                                red=Red.SUM, red_slot=BURST_SLOT)[1]


def _all_chips(b: Builder) -> range:
    """All chips of the group."""
    assert b.exchange
    return range(len(b.exchange.rack.chips))


def multicast(b: Builder, label: str, source: int, targets: Sequence[int], *, count: int, planes: int,
              own: Callable[[Cluster], Stream], keep: Callable[[Cluster, Stream], None], plane: int = 0) -> None:
    """Give some chips, each linked with the source, a byte plane of `count` vectors as they are made. A source without
    others to give it to makes them all the same.

    own: adds to a cluster what makes them, at a `sent_interval`. plane: the one that is sent. keep: adds to a taker's
    cluster what becomes of the flits, each on the planes of a mask.
    """
    exchange = b.exchange
    assert exchange
    hops = direct(exchange, source, targets)
    key, chips = (exchange.number(), source), frozenset({source}).union(*(hop.chips for hop in hops))
    for hop in hops:
        for port, late in hop.takers:
            if port.chip == b.chip:
                part = part_of(b, exchange, label, key, chips, late)
                keep(part, part.receive(port.side, port.number, planes, count, sent_interval(b, count)))
    if b.chip == source and not hops:
        own(b.cluster(label))
    elif b.chip == source:
        part = part_of(b, exchange, label, key, chips)
        stream = own(part)
        for hop in hops:
            part.send(stream, hop.side, hop.ports, plane)


def broadcast(b: Builder, name: str, quads: range, planes: int, sources: range, targets: range,
              among: Collection[int] = range(MAX_CHIPS)) -> None:
    """Give some chips the lower planes of quads of a tensor that others have. Chips on the way get them, too.

    name: of the tensor on this chip. sources, targets: as the whole rack counts chips. among: chips that may be on the
    way.

    Raises TspError if there is no way.
    """
    exchange = b.exchange.between if b.exchange else None
    assert exchange
    hops = ways(exchange.rack, route(exchange.rack, sources, among), targets)
    reached = {port.chip for hop in hops for port, _ in hop.takers}
    if missing := set(targets) - reached - set(sources):
        raise TspError(f"rack {exchange.rack.name}: chip {min(missing)} must be linked with one of chips "
                       f"{sources.start} to {sources.stop - 1} for sequences in flight")
    number = exchange.number()
    for n, hop in enumerate(hops):
        for plane in range(planes):
            pass_by(b, exchange, (number, "between", n, plane), hop, name, quads, plane, plane, {})
