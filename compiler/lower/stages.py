"""The program of a token on a chip of a rack that computes some consecutive layers.

All chips have the same blocks: *begin*, the layers of each chip in turn with a *hand over* between them, and *finish*.
In the layers of other chips a chip does nothing.
"""

from arch.config import PLANES
from arch.isa import Alu
from compiler.ir import Block, Imm
from compiler.place.placement import Placement

from .attention import attention
from .begin import begin
from .builder import Builder
from .exchange import Exchange, gather, pass_on
from .feed_forward import feed_forward
from .finish import finish, index_next_token, next_token
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
    label, planes = "tell token", 2 if b.geometry.tokens < 1 << 15 else 3  # it is positive: the other planes stay 0
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
