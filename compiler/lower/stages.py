"""The program of a token on a chip of a rack that computes some consecutive layers.

One sequence: all chips have the same blocks: *begin*, the layers of each chip in turn with a *hand over* between them,
and *finish*. In the layers of other chips a chip does nothing.

A sequence for each chip: each works on another one, and a token takes as many periods as there are chips. The blocks
are *begin*, with all transfers, the chip's own *layers*, and *finish*.
"""

from arch.config import PLANES
from arch.isa import Alu
from arch.rack import RackConfig
from base.errors import TspError
from compiler.ir import Block, Imm
from compiler.place.placement import Placement

from .attention import attention
from .begin import begin
from .builder import Builder
from .exchange import Exchange, gather, pass_on
from .feed_forward import feed_forward
from .finish import finish, index_next_token, keep_position, next_token
from .index import choose_sequence
from .noise import layer_noise
from .product import write_residual
from .state import TokenState


def lower_stage(placement: Placement, chunks: int, valid: int, exchange: Exchange) -> list[Block]:
    """The blocks of a token in a context bucket, see `Builder`. Raises TspError naming a resource that runs out."""
    b = Builder(placement, chunks, valid, exchange)
    stage = placement.geometry.stage
    assert stage
    b.open("begin")
    state = begin(b)
    for chip, layers in enumerate(stage.layers):
        if chip:
            b.open(f"hand over to chip {chip}")
            _hand_over(b, state, chip)
        b.open(f"layers of chip {chip}", len(layers), placement.layout.strides if chip == b.chip else {})
        if chip == b.chip:
            attention(b, state)
            feed_forward(b, state)
            layer_noise(b)
    b.open("finish")
    if stage.last:
        finish(b, state)
    _tell_token(b, len(stage.layers) - 1)
    return b.blocks


def lower_in_flight(placement: Placement, chunks: int, exchange: Exchange) -> list[Block]:
    """The blocks of a period in which each chip works on another sequence, see `Builder`. Only the first block has
    transfers. Sequences have positions of their own, so none of the `chunks` is known to be full.

    Raises TspError naming a resource that runs out, or chips that are not linked.
    """
    b = Builder(placement, chunks, 0, exchange)
    stage = placement.geometry.stage
    assert stage
    last = len(stage.layers) - 1
    b.open("begin")
    choose_sequence(b)
    pass_on(b, "token", range(1), token_planes(b), last, 0)
    for chip in range(1, last + 1):
        check_linked(exchange.rack, chip - 1, chip)
        pass_on(b, "handed", range(b.geometry.dim), PLANES, chip - 1, chip, into="arrived")
    state = begin(b)
    if not stage.first:
        write_residual(b, "hand over", [{"a": b.tensor("arrived"), "n": b.geometry.dim, "dst": state.residual}],
                       state.shift)
    if not stage.last:
        _next_position(b)
    b.open("layers", len(stage.layers[b.chip]), placement.layout.strides)
    attention(b, state)
    feed_forward(b, state)
    layer_noise(b)
    b.open("finish")
    if stage.last:
        finish(b, state)
    else:
        b.op("hand over", a=state.residual, n=b.geometry.dim, dst=b.tensor("handed"))
    return b.blocks


def _next_position(b: Builder) -> None:
    """The sequence's next period is that of its next position."""
    position = b.regs(1)
    b.op("next position", a=b.tensor("position"), alu=Alu.ADD, c=Imm(1), dst=position)
    keep_position(b, position)
    b.free(position)


def check_linked(rack: RackConfig, one: int, other: int) -> None:
    """Raises TspError unless a link connects two chips."""
    if not any(near.chip == one and far.chip == other for near, (far, _) in rack.across.items()):
        raise TspError(f"rack {rack.name}: chips {one} and {other} must be linked for sequences in flight")


def token_planes(b: Builder) -> int:
    """Byte planes of a token. It is positive: the other planes stay 0."""
    return 2 if b.geometry.tokens < 1 << 15 else 3


def _hand_over(b: Builder, state: TokenState, chip: int) -> None:
    """The residual goes from the chip before to this one."""
    label, handed, n = "hand over", b.tensor("handed"), b.geometry.dim
    if b.chip == chip - 1:
        b.op(label, a=state.residual, n=n, dst=handed)
    pass_on(b, "handed", range(n), PLANES, chip - 1, chip)
    if b.chip == chip:
        write_residual(b, label, [{"a": handed, "n": n, "dst": state.residual}], state.shift)


def _tell_token(b: Builder, last: int) -> None:
    """All chips get the next token from the last one, and go on to the next position."""
    label, planes = "tell token", token_planes(b)
    parts = [range(int(chip == last)) for chip in range(last + 1)]
    if b.chip == last:
        gather(b, "token", parts, planes)
        return
    position = b.regs(1)
    b.op(label, a=b.tensor("position"), alu=Alu.ADD, c=Imm(1), dst=position)
    index_next_token(b, position)
    b.op(label, a=position, dst=b.tensor("position"))
    gather(b, "token", parts, planes)
    b.op(label, a=b.tensor("token"), dst=next_token(b))
    b.free(position)
