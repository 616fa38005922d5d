"""Sets of characters as the tokenizers library has them, as classes of a JavaScript pattern.

The library's tables are of another version of Unicode than the browser's. So it is asked about every character.
"""

from collections.abc import Iterable, Iterator
from functools import cache

from tokenizers import normalizers, pre_tokenizers

MARK = "\u2603"
"""Stands around each character in question; no other one is made of it."""


@cache
def control() -> str:
    """What BERT's normalizer drops when it cleans a text."""
    return _class(_dropped(normalizers.BertNormalizer(clean_text=True, handle_chinese_chars=False, strip_accents=False,
                                                      lowercase=False)))


@cache
def accents() -> str:
    """What it strips from a decomposed text."""
    return _class(_dropped(normalizers.BertNormalizer(clean_text=False, handle_chinese_chars=False, strip_accents=True,
                                                      lowercase=False)))


@cache
def punctuation() -> str:
    """What BERT's pre-tokenizer makes a word of its own."""
    words = pre_tokenizers.BertPreTokenizer().pre_tokenize_str(MARK + MARK.join(_everything()) + MARK)
    return _class(ord(word) for word, _ in words if len(word) == 1 and word != MARK)


def _everything() -> Iterator[str]:
    return (chr(code) for code in range(0x110000) if chr(code) != MARK and not 0xD800 <= code < 0xE000)


def _dropped(normalizer: normalizers.Normalizer) -> Iterator[int]:
    left = normalizer.normalize_str(MARK + MARK.join(_everything()) + MARK).split(MARK)
    return (ord(char) for char, rest in zip(_everything(), left[1:-1], strict=True) if not rest)


def _class(codes: Iterable[int]) -> str:
    ranges: list[list[int]] = []
    for code in sorted(codes):
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return "[" + "".join(f"\\u{{{first:x}}}-\\u{{{last:x}}}" for first, last in ranges) + "]"
