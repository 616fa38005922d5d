"""Last part of a token: final norm, logits and scores, the choice of the next token.

Block "finish"; a large vocabulary adds "classifier" (a loop) and "choose".
"""

from dataclasses import replace

from arch import config as cfg
from arch.config import PLANES
from arch.isa import Alu, Func, Red, Sat
from compiler.ir import BURST_SLOT, Imm, Iota, Mem, Reg
from compiler.place.placement import ACROSS, COMPARED

from .builder import Builder
from .classifier import Best, classify, turn_greatest
from .collectives import all_gather
from .exchange import direct, part_of
from .index import INDEX_TOKENS, index_turn, load_index, one_hot_mask, own_masks, register_of
from .norm import gain_of, norm
from .state import TokenState

BYTE = 256
"""Tokens that a byte tells apart."""
ALL_PLANES = (1 << PLANES) - 1
"""Mask of all planes of a quad."""


def finish(b: Builder, state: TokenState) -> None:
    """Reads the residual, and of the table "tokens" whether the next token is known. Writes "logits", "z", "token",
    "position" and the table's next entry; returns the registers of `state`."""
    acts, er = norm(b, state, "final norm", gain=gain_of(b, "g_final"), site="final_norm",
                    post=b.shifts.norm_f)
    if b.geometry.together > 1:  # single registers are taken from these first, and the residual's stay neighbours
        b.free(state.cos, state.sin, state.residual)
        for ring in b.accumulators.values():
            ring.restart()  # it holds two bursts of logits
    else:
        b.free(state.residual, state.cos, state.sin, state.mask)
    b.free_exponent(state.shift)
    b.free_exponent(state.bytes)
    share = b.geometry.share
    two = bool(share) and _in_bytes(b)
    known = b.regs(1) if two or ((b.placement.vocabulary.turns or b.geometry.together > 1) and not share) else None
    position, threshold = _known_token(b, known)
    best = classify(b, acts, er, threshold)
    if two:
        assert known
        _choose_of_two(b, best, known, threshold)
    elif share:
        _choose_of_all(b, best)
    elif best.turns:
        assert known
        _choose_in_turn(b, best, known)
    else:
        _choose(b, best, known)
    keep_position(b, position)
    b.free(best.score)
    b.free(threshold, position)
    b.free_exponent(er)


def _known_token(b: Builder, least: Reg | None) -> tuple[Reg, Reg]:
    """(the next position, the least score to search for: INT_MAX if the table holds the next token, else INT_MIN).

    That token, or INT_MAX if there is none, begins the minimum in reduction slot 3, which the choice is, and goes to
    the register `least`.
    """
    label = "choose"
    position, low, mine, known, threshold = (b.regs(1) for _ in range(5))
    b.op(label, a=b.tensor("position"), alu=Alu.ADD, c=Imm(1), dst=position)
    index_next_token(b, position)
    b.op(label, a=position, alu=Alu.AND, c=Imm(b.geometry.lanes - 1), dst=low)
    b.op(label, a=Iota(), alu=Alu.EQ, c=low, dst=mine)
    cluster = b.cluster(label)
    picked, _ = cluster.alu(a=next_token(b), alu=Alu.AND, c=mine)
    b.alu(cluster, a=b.across_lanes(cluster, picked, Red.SUM), dst=known)
    int_max = {"a": Imm(-1), "pre": 1, "logical": 1}
    b.cluster(label).alu(**int_max, alu=Alu.AND, c=known, red=Red.MIN, red_slot=3, dst=least)
    b.op(label, a=known, alu=Alu.LT, c=Imm(0), dst=threshold)
    b.op(label, **int_max, alu=Alu.XOR, c=threshold, dst=threshold)
    b.free(low, mine, known)
    return position, threshold


def keep_position(b: Builder, position: Reg) -> None:
    """The sequence goes on at this position. One of several goes on at the cache's last one at most: it may have ended
    long ago, and nothing stops it."""
    g = b.geometry
    last = {} if g.sequences == 1 else {"alu": Alu.MIN, "c": Imm(g.chunks * g.lanes - 1)}
    b.op("choose", a=position, **last, dst=b.tensor("position"))


def next_token(b: Builder) -> Mem:
    """The vector of the token table that holds the next position's."""
    register = register_of(b.placement, INDEX_TOKENS)
    return b.placement.tensors["tokens"].mem(0, 1, index=register, cells=(("tokens", b.placement.sequence),))


def index_next_token(b: Builder, position: Reg) -> None:
    """W0's index register of the token table, for the next position."""
    label, masks = "next position", b.regs(1)
    one_hot_mask(b, label, position, b.geometry.lanes - 1, one="one_lane", rest=own_masks(b, "planes"), dst=masks)
    load_index(b, label, position, shift=b.config.lane_bits, scale="one", masks=masks, slices=["W0"],
               register=INDEX_TOKENS, own=True)
    b.free(masks)


def _choose(b: Builder, best: Best, known: Reg | None) -> None:
    """The known token, or the first of the greatest score: among the vectors that are not searched yet, or else the
    early choice, the least of the two. Frees the register of the early choice. known: the known token, or INT_MAX, if
    not in reduction slot 3; freed, too."""
    label, fields = "choose", {}
    if known and best.early:
        b.op(label, a=known, alu=Alu.MIN, c=best.early, dst=best.early)
        b.free(known)
    elif known:
        best = replace(best, early=known)
    if best.early:
        fields = {"alu": Alu.MIN, "c": best.early}
        b.free(best.early)
    cluster = b.cluster(label)
    _, least = cluster.alu(a=b.tensor("z", 0, best.unsearched), alu=Alu.INDEX, b=Iota(), c=best.score,
                           n=best.unsearched, red=Red.MIN, red_slot=3, red_keep=int(not known))
    token, _ = b.alu(cluster, a=b.across_lanes(cluster, least, Red.MIN), **fields, dst=b.tensor("token"))
    cluster.write(token, next_token(b))


def _choose_in_turn(b: Builder, best: Best, known: Reg) -> None:
    """`_choose` with a loop: first the turn that found the greatest score is searched for, then its scores. If no turn
    found it, the last one is searched in vain. known: the known token, or INT_MAX; freed like the early choice."""
    label = "choose"
    turn, start, chosen = (b.regs(1) for _ in range(3))
    _find_turn(b, best, turn, start)
    if best.early:
        b.op(label, a=known, alu=Alu.MIN, c=best.early, dst=known)
    _search_turn(b, best, start, chosen)
    cluster = b.cluster(label)
    token, _ = b.alu(cluster, a=chosen, alu=Alu.MIN, c=known, dst=b.tensor("token"))
    cluster.write(token, next_token(b))
    b.free(turn, start, chosen, known, best.early)


def _find_turn(b: Builder, best: Best, turn: Reg, start: Reg) -> None:
    """turn, start = lanes times the number of the first turn that found the greatest score, and its first token. E0's
    index register of the turn's scores is loaded."""
    label, lanes, vectors = "choose", b.geometry.lanes, 2 * b.placement.vocabulary.body
    cluster = b.cluster(label)
    tops = replace(turn_greatest(b), count=best.turns, stride=vectors)
    _, first = cluster.alu(a=tops, alu=Alu.INDEX, b=Iota(), c=best.score, n=best.turns, red=Red.MIN,
                           red_slot=BURST_SLOT)
    b.alu(cluster, a=b.across_lanes(cluster, first, Red.MIN), alu=Alu.MIN, c=Imm(lanes * (best.turns - 1)), dst=turn)
    load_index(b, label, turn, shift=b.config.lane_bits, scale="turn", masks=b.constant("planes"), slices=["E0"],
               register=index_turn(b.placement))
    b.op(label, a=turn, func=Func.MUL, b=Imm(vectors), dst=start)


def _search_turn(b: Builder, best: Best, start: Reg, chosen: Reg) -> None:
    """chosen = the first token with the greatest score among those of the turn that begins with token `start`."""
    cluster, vectors = b.cluster("choose"), 2 * b.placement.vocabulary.body
    scores = replace(b.tensor("z", 0, vectors), index=index_turn(b.placement))
    _, least = cluster.alu(a=scores, alu=Alu.INDEX, b=Iota(), c=best.score, n=vectors, red=Red.MIN, red_slot=BURST_SLOT)
    b.alu(cluster, a=b.across_lanes(cluster, least, Red.MIN), alu=Alu.ADD, c=start, dst=chosen)


def _choose_of_all(b: Builder, best: Best) -> None:
    """The same among the tokens of all chips of a rack.

    Each sends its greatest score, and its first token that has it, or a number beyond all tokens. Where the next token
    is known, all scores are INT_MAX and no chip has such a token.
    """
    share, label = b.geometry.share, "choose"
    assert share
    chips = len(share.vocab)
    scores, tokens = b.tensor("best", 0, chips), b.tensor("best", chips, chips)
    all_gather(b, "best", [range(chip, chip + 1) for chip in range(chips)], PLANES)
    planes, sat = (2, Sat.S16) if b.geometry.tokens < 1 << 15 else (3, Sat.S18)
    _first_of_chip(b, best, sat, tokens[b.chip : b.chip + 1])
    all_gather(b, "best", [range(chips + chip, chips + chip + 1) for chip in range(chips)], planes)
    less = b.regs(chips) if chips <= COMPARED else b.tensor("less")
    _compare(b, best, scores, less)
    cluster = b.cluster(label)
    _, least = cluster.alu(a=less, pre=1, logical=1, alu=Alu.OR, c=tokens, n=chips, red=Red.MIN, red_slot=3, red_keep=1)
    token = b.across_lanes(cluster, least, Red.MIN)
    cluster.write(token, b.tensor("token"))
    cluster.write(token, next_token(b))
    b.free(best.early, less)


def _in_bytes(b: Builder) -> bool:
    """Whether two chips share the vocabulary, and a byte tells which of its tokens a chip has found: there are 256 in
    all, or 256 on the first chip and at most as many on the second."""
    share, lanes = b.geometry.share, b.geometry.lanes
    if not share or len(share.vocab) != 2 or b.placement.vocabulary.turns:
        return False
    second = share.vocab[1]
    return second.stop * lanes <= BYTE or (second.start * lanes == BYTE and second.stop * lanes <= 2 * BYTE)


def _choose_of_two(b: Builder, best: Best, known: Reg, threshold: Reg) -> None:
    """`_choose_of_all` for two chips. A token's byte goes from the VXM of one to that of the other, where an operation
    chooses (docs/decisions/0037-a-byte-chooses-the-token.md). Both do that in the same cycles.

    Each chip finds out whether it has lost while the tokens are on their way. Of equal scores the first chip's wins;
    where the next token is known, both have found it and none loses. known: that token, or INT_MAX; freed.
    """
    share, exchange, label, chip = b.geometry.share, b.exchange, "choose", b.chip
    assert share and exchange
    first, far = (share.vocab[number].start * b.geometry.lanes for number in (chip, 1 - chip))
    all_gather(b, "best", [range(1), range(1, 2)], PLANES)
    lost, token, kept = (b.regs(1) for _ in range(3))
    (hop,), (other,) = (direct(exchange, *way) for way in ((chip, [1 - chip]), (1 - chip, [chip])))
    ((port, late),) = other.takers
    flag = b.tensor(f"lost {ACROSS[port.side]}")  # which comes from where no flit does
    _find_loser(b, best, threshold, lost, flag)
    b.cluster(label).alu(a=known, alu=Alu.SUB, c=Imm(first), red=Red.MIN, red_slot=BURST_SLOT)
    if best.early:
        b.cluster(label).alu(a=best.early, red=Red.MIN, red_slot=BURST_SLOT, red_keep=1)
    part = part_of(b, exchange, label, (exchange.number(), "choice"), frozenset({0, 1}))
    n, last = best.unsearched, max(map(len, share.vocab))  # the searches of both chips end in the same cycle
    _, least = part.alu(a=b.tensor("z", 0, n), alu=Alu.INDEX, b=Iota(), c=best.score, n=n, at=last - n, red=Red.MIN,
                        red_slot=BURST_SLOT, red_keep=1)
    found, _ = b.alu(part, a=b.across_lanes(part, least, Red.MIN), alu=Alu.ADD, c=Imm(first), dst=token)
    part.send(found, hop.side, hop.ports, 0)
    flit = part.receive(port.side, port.number, ALL_PLANES, 1, 1, at=part.anchor + late)
    at = flit.arrival(cfg.VXM)[1] - part.latencies.vxm_rf
    if far == BYTE:  # what the flit lacks, and more than any token of this chip
        part.alu(a=lost, func=Func.MUL, b=Imm(-far), alu=Alu.MAX, c=token, at=at, dst=kept)
    else:
        part.alu(a=token, alu=Alu.ANDN, c=lost, at=at, dst=kept)
    chosen, _ = part.alu(a=flit, pre=8 * (PLANES - 1), logical=1, func=Func.MUL, b=flag, alu=Alu.RSUB, c=kept)
    part.write(chosen, b.tensor("token"))
    part.write(chosen, next_token(b))
    b.free(best.early, known, lost, token, kept)


def _find_loser(b: Builder, best: Best, threshold: Reg, lost: Reg, flag: Mem) -> None:
    """lost, flag = -1 if the other of two chips has the greatest score, else 0. Where both have it, the second chip has
    lost, unless the next token is known."""
    label, bar = "choose", best.score
    if b.chip:
        bar = b.regs(1)
        b.op(label, a=threshold, pre=31, round=0, alu=Alu.ADD, c=best.score, dst=bar)
        b.free(bar)
    cluster = b.cluster(label)
    result, _ = b.alu(cluster, a=b.tensor("best", 1 - b.chip, 1), alu=Alu.GT, c=bar, dst=lost)
    cluster.write(result, flag)


def _compare(b: Builder, best: Best, scores: Mem, less: Reg | Mem) -> None:
    """less = -1 for each chip whose score is less than another's, 0 for the others. Of two chips, each compares the
    other's score with its own, which spares the greatest of both."""
    label, chip = "choose", b.chip
    if scores.count == 2:
        other = scores[1 - chip : 2 - chip]
        for number, alu in ((chip, Alu.GT), (1 - chip, Alu.LT)):
            b.op(label, a=other, alu=alu, c=best.score, dst=less[number : number + 1])
        return
    greatest, cluster = b.regs(1), b.cluster(label)
    _, top = cluster.alu(a=scores, n=scores.count, red=Red.MAX, red_slot=BURST_SLOT)
    b.alu(cluster, a=b.across_lanes(cluster, top, Red.MAX), dst=greatest)
    b.op(label, a=scores, alu=Alu.LT, c=greatest, n=scores.count, dst=less)
    b.free(greatest)


def _first_of_chip(b: Builder, best: Best, sat: Sat, dst: Mem) -> None:
    """dst = this chip's first token with its greatest score, as all chips count tokens, or the greatest number of a
    format if there is none. It is positive, so that planes which are not sent are 0."""
    share, label = b.geometry.share, "choose"
    assert share
    first = share.vocab[b.chip].start * b.geometry.lanes
    if best.turns:
        turn, start, chosen = (b.regs(1) for _ in range(3))
        _find_turn(b, best, turn, start)
        _search_turn(b, best, start, chosen)
        if best.early:
            b.op(label, a=chosen, alu=Alu.MIN, c=best.early, dst=chosen)
        b.op(label, a=chosen, alu=Alu.ADD, c=Imm(first), sat=sat, dst=dst)
        b.free(turn, start, chosen)
        return
    if best.early:
        b.cluster(label).alu(a=best.early, red=Red.MIN, red_slot=BURST_SLOT)
    cluster = b.cluster(label)
    _, least = cluster.alu(a=b.tensor("z", 0, best.unsearched), alu=Alu.INDEX, b=Iota(), c=best.score,
                           n=best.unsearched, red=Red.MIN, red_slot=BURST_SLOT, red_keep=int(best.early is not None))
    b.alu(cluster, a=b.across_lanes(cluster, least, Red.MIN), alu=Alu.ADD, c=Imm(first), sat=sat, dst=dst)
