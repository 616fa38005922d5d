"""The program of a token on a chip of a rack that computes some consecutive layers, alone or with its group.

One sequence: all chips have the same blocks: *begin*, the layers of each stage in turn with a *hand over* between them,
and *finish*. In the layers of other stages a chip does nothing.

A sequence for each stage: each works on another one, and a token takes as many periods as there are stages. The blocks
are *begin*, with all transfers between stages, the stage's own *layers*, and *finish*.
"""

from collections.abc import Collection

from arch.config import PLANES
from arch.isa import Alu
from arch.rack import MAX_CHIPS
from compiler.ir import Block, Imm, Mem
from compiler.place.placement import Placement
from compiler.place.stage import Stage

from .attention import attention
from .begin import begin
from .builder import Builder
from .collectives import broadcast
from .exchange import Exchange
from .feed_forward import feed_forward
from .feed_forward_of_all import feed_forward_of_all
from .finish import finish, index_next_token, keep_position, next_token
from .index import choose_sequence
from .noise import layer_noise
from .product import write_residual
from .state import TokenState


def lower_stage(placement: Placement, chunks: int, valid: int, exchange: Exchange, turns: int) -> list[Block]:
    """The blocks of a token in a context bucket, see `Builder`. turns: of the classifier's loop, on the last chips.

    Raises TspError naming a resource that runs out.
    """
    b = Builder(placement, chunks, valid, exchange)
    own = _stage(b)
    b.open("begin")
    state = begin(b)
    for stage, layers in enumerate(own.layers):
        if stage:
            b.open(f"hand over to {_name(b, stage)}")
            _hand_over(b, state, stage)
        b.open(f"layers of {_name(b, stage)}", len(layers), placement.layout.strides if stage == own.number else {})
        if stage == own.number:
            _layer(b, state)
    b.open("finish")
    if own.last:
        finish(b, state)
    elif turns:
        b.open("classifier", turns)
        b.open("choose")
    _tell_token(b)
    return b.blocks


def lower_in_flight(placement: Placement, chunks: int, exchange: Exchange) -> list[Block]:
    """The blocks of a period in which each stage works on another sequence, see `Builder`. Only the first block has
    transfers between stages. Sequences have positions of their own, so none of the `chunks` is known to be full.

    Raises TspError naming a resource that runs out, or chips that are not linked.
    """
    b = Builder(placement, chunks, 0, exchange)
    own = _stage(b)
    b.open("begin")
    choose_sequence(b)
    broadcast(b, "token", range(1), token_planes(b), _chips(b, len(own.layers) - 1), _chips(b, 0))
    for stage in range(1, len(own.layers)):
        _pass_residual(b, stage, "handed" if own.number == stage - 1 else "arrived",
                       range(_chips(b, stage - 1).start, _chips(b, stage).stop))
    state = begin(b)
    if not own.first:
        _take_residual(b, state, "arrived")
    if not own.last:
        _next_position(b)
    b.open("layers", len(own.layers[own.number]), placement.layout.strides)
    _layer(b, state)
    b.open("finish")
    if own.last:
        finish(b, state)
    else:
        _keep_residual(b, state)
    return b.blocks


def _stage(b: Builder) -> Stage:
    assert b.geometry.stage
    return b.geometry.stage


def _chips(b: Builder, stage: int) -> range:
    """The chips of a stage."""
    size = _group(b)
    return range(stage * size, (stage + 1) * size)


def _group(b: Builder) -> int:
    """Chips of a stage."""
    assert b.exchange
    return len(b.exchange.rack.chips)


def _name(b: Builder, stage: int) -> str:
    return f"chip {stage}" if _group(b) == 1 else f"group {stage}"


def _layer(b: Builder, state: TokenState) -> None:
    attention(b, state)
    (feed_forward_of_all if b.geometry.share else feed_forward)(b, state)
    layer_noise(b)


def _next_position(b: Builder) -> None:
    """The sequence's next period is that of its next position."""
    position = b.regs(1)
    b.op("next position", a=b.tensor("position"), alu=Alu.ADD, c=Imm(1), dst=position)
    keep_position(b, position)
    b.free(position)


def token_planes(b: Builder) -> int:
    """Byte planes of a token. It is positive: the other planes stay 0."""
    return 2 if b.geometry.tokens < 1 << 15 else 3


def _hand_over(b: Builder, state: TokenState, stage: int) -> None:
    """The residual goes from the stage before to this one."""
    if _stage(b).number == stage - 1:
        _keep_residual(b, state)
    _pass_residual(b, stage)
    if _stage(b).number == stage:
        _take_residual(b, state, "handed")


def _keep_residual(b: Builder, state: TokenState) -> None:
    """The residual into "handed", from where it goes to the next stage."""
    b.op("hand over", a=state.residual, n=len(b.geometry.resident), dst=_resident(b, "handed"))


def _pass_residual(b: Builder, stage: int, name: str = "handed", among: Collection[int] = range(MAX_CHIPS)) -> None:
    """The residual goes to a stage from the one before: all of it, or to each chip the part of its counterpart. name:
    of the tensor on this chip. among: chips that may be on the way."""
    share, dim = b.geometry.share, range(b.geometry.dim)
    sources, targets = _chips(b, stage - 1), _chips(b, stage)
    if not (share and share.scattered):
        broadcast(b, name, dim, PLANES, sources, targets, among)
        return
    for part, source, target in zip(share.residual, sources, targets, strict=True):
        broadcast(b, name, part, PLANES, range(source, source + 1), range(target, target + 1), among)


def _take_residual(b: Builder, state: TokenState, name: str) -> None:
    """The residual from the tensor that it arrived in."""
    operation = {"a": _resident(b, name), "n": len(b.geometry.resident), "dst": state.residual}
    write_residual(b, "hand over", [operation], state.shift)


def _resident(b: Builder, name: str) -> Mem:
    """This chip's vectors of a tensor of residuals."""
    return b.tensor(name, b.geometry.resident.start, len(b.geometry.resident))


def _tell_token(b: Builder) -> None:
    """All chips get the next token from the last stage, and go on to the next position."""
    own, label = _stage(b), "tell token"
    last = _chips(b, len(own.layers) - 1)
    everyone = range(last.stop)
    if own.last:
        broadcast(b, "token", range(1), token_planes(b), last, everyone)
        return
    position = b.regs(1)
    b.op(label, a=b.tensor("position"), alu=Alu.ADD, c=Imm(1), dst=position)
    index_next_token(b, position)
    b.op(label, a=position, dst=b.tensor("position"))
    broadcast(b, "token", range(1), token_planes(b), last, everyone)
    b.op(label, a=b.tensor("token"), dst=next_token(b))
    b.free(position)
