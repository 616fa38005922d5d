"""From an integer model to clusters: the program of one token, in order of priority, without time.

Segments: *begin* (position, embedding, masks), *layer* (once a layer, looped) and *finish* (final norm, classifier,
choice of the next token). Every operation is a line of `integer.py`; the comments there hold here.
"""

from compiler.schedule.scheduler import Segment

from .lower_attention import Attention
from .lower_base import permutations
from .lower_begin import Begin
from .lower_feed_forward import FeedForward
from .lower_finish import Finish

__all__ = ["Lower", "permutations"]


class Lower(Begin, Attention, FeedForward, Finish):
    """Builds the segments of one token for `chunks` vectors of positions (a context bucket)."""

    def run(self) -> list[Segment]:
        """The token's segments."""
        self._open("begin")
        self._begin()
        self._open("layer", self.m.layers, self.p.layout.strides)
        self._attention()
        self._feed_forward()
        self._layer_noise()
        self._open("finish")
        self._finish()
        return self.segments
