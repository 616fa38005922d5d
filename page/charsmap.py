"""SentencePiece's precompiled_charsmap as a table: what it replaces a text that begins so with.

The map is the length of a trie in bytes, the trie, and the replacements, each ended by a zero byte. The trie is a
double array (darts-clone) of UTF-8 keys. A leaf holds the place of its replacement.
"""

import base64
import struct
from collections.abc import Iterator

from base.errors import TspError

SIZE = 4
"""Bytes of a unit of the trie, and of its length."""
LEAF = 1 << 31


def table_of(charsmap: str) -> dict[str, str]:
    """Replacements by key, of the base64 of a precompiled_charsmap. Raises TspError if it is damaged."""
    data = base64.b64decode(charsmap)
    try:
        (size,) = struct.unpack_from("<I", data)
        units = struct.unpack_from(f"<{size // SIZE}I", data, SIZE)
        texts = data[SIZE + size :]
        return {key.decode(): texts[at : texts.index(0, at)].decode() for key, at in _leaves(units)}
    except (struct.error, IndexError, ValueError) as error:
        raise TspError(f"damaged tokenizer: its precompiled_charsmap is not a trie ({error})") from None


def _leaves(units: tuple[int, ...]) -> Iterator[tuple[bytes, int]]:
    """Every key of a trie with its value."""
    labels: dict[int, list[int]] = {}  # of a node's children, by where they lie
    for at, unit in enumerate(units):
        if not unit & LEAF:
            labels.setdefault(at ^ unit & 0xFF, []).append(unit & 0xFF)
    waiting = [(0, b"")] if units else []
    while waiting:
        node, key = waiting.pop()
        below = node ^ _offset(units[node])
        if units[node] >> 8 & 1:
            yield key, units[below] & (LEAF - 1)
        waiting += [(below ^ byte, key + bytes([byte])) for byte in labels.get(below, ()) if byte]


def _offset(unit: int) -> int:
    return unit >> 10 << ((unit & 1 << 9) >> 6)
