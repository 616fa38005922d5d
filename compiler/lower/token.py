"""From an integer model to clusters: the program of one token, in order of priority, without time.

Blocks: *begin* (position, embedding, masks), *layer* (once a layer, looped) and *finish* (final norm, classifier,
choice of the next token). Every operation is a line of `program/reference.py`; the comments there hold here.

To add an operation, write a function that takes a `Builder`, say in its docstring which tensors and registers it reads
and writes, and call it where the token needs it: the order of calls is the program's order, from which the scheduler
takes what depends on what.
"""

from compiler.ir import Block
from compiler.place.placement import Placement

from .attention import attention
from .begin import begin
from .builder import Builder
from .exchange import Exchange
from .feed_forward import feed_forward
from .feed_forward_of_all import feed_forward_of_all
from .finish import finish
from .noise import layer_noise


def lower_token(placement: Placement, chunks: int, valid: int = 0, exchange: Exchange | None = None) -> list[Block]:
    """The blocks of a token in a context bucket, see `Builder`. Raises TspError naming a resource that runs out."""
    b = Builder(placement, chunks, valid, exchange)
    b.open("begin")
    state = begin(b)
    b.open("layer", b.model.layers, placement.layout.strides)
    attention(b, state)
    (feed_forward_of_all if placement.geometry.share else feed_forward)(b, state)
    layer_noise(b)
    b.open("finish")
    finish(b, state)
    return b.blocks
