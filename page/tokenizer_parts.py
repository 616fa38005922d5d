"""The parts of a tokenizer.json as steps of js/texts.js, js/bpe.js and js/wordmodels.js."""

from collections.abc import Callable, Iterator
from typing import Any

from base.errors import TspError

from . import character_sets
from .charsmap import table_of
from .patterns import SPACE, literal, to_javascript

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""The pattern of a ByteLevel pre-tokenizer, which its file does not hold."""
UNICODE_FORMS = ("NFC", "NFD", "NFKC", "NFKD")
WORDS = r"[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]+"
OTHERS = rf"[^\p{{Alphabetic}}\p{{M}}\p{{Nd}}\p{{Pc}}\p{{Join_Control}}{SPACE}]+"
"""What a Whitespace pre-tokenizer keeps: words, and what is neither word nor space."""
CHINESE = (r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u{20000}-\u{2a6df}\u{2a700}-\u{2b73f}\u{2b740}-\u{2b81f}"
           r"\u{2b920}-\u{2ceaf}\u{2f800}-\u{2fa1f}]")
"""What BERT's normalizer puts spaces around."""
REMEDY = "compile the model with a tokenizer.bin (--tokenizer)"
Step = dict[str, Any]


def refusal(what: str) -> TspError:
    """Of a part that the page cannot do as the library does."""
    return TspError(f"the page's tokenizer does not know {what}: {REMEDY}")


# --- models --------------------------------------------------------------------------------------------------------


def model_of(model: Step) -> Step:
    """The model, with its vocabulary by id. Raises TspError."""
    kind = model["type"]
    if kind == "BPE":
        return {"type": kind} | _bpe(model)
    if kind == "Unigram":
        return {"type": kind, "vocab": model["vocab"], "unk": model["unk_id"], "byte_fallback": model["byte_fallback"]}
    if kind == "WordPiece":
        return {"type": kind, "vocab": _by_id(model["vocab"]), "unk": model["unk_token"],
                "prefix": model["continuing_subword_prefix"], "most": model["max_input_chars_per_word"]}
    if kind == "WordLevel":
        return {"type": kind, "vocab": _by_id(model["vocab"]), "unk": model["unk_token"]}
    raise refusal(f"a tokenizer.json of the kind {kind}")


def _by_id(ids: dict[str, int]) -> list[str | None]:
    vocab: list[str | None] = [None] * (max(ids.values(), default=-1) + 1)
    for text, token in ids.items():
        vocab[token] = text
    return vocab


def _bpe(model: Step) -> Step:
    """Merges as (left, right, merged)."""
    if model.get("dropout"):
        raise refusal(f"a BPE tokenizer with dropout {model['dropout']!r}")
    ids: dict[str, int] = model["vocab"]
    prefix, unknown = model.get("continuing_subword_prefix") or "", model.get("unk_token")
    pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
    return {"vocab": _by_id(ids),
            "merges": [(ids[left], ids[right], ids[left + right[len(prefix) :]]) for left, right in pairs],
            "unk": None if unknown is None else ids.get(unknown), "fuse_unk": bool(model.get("fuse_unk")),
            "byte_fallback": bool(model.get("byte_fallback")), "ignore_merges": bool(model.get("ignore_merges")),
            "prefix": prefix, "suffix": model.get("end_of_word_suffix") or ""}


# --- what comes before ---------------------------------------------------------------------------------------------


def _unrolled(part: Step | None, inner: str, steps: Callable[[Step], Iterator[Step]]) -> Iterator[Step]:
    if part is None:
        return
    if part["type"] == "Sequence":
        for each in part[inner]:
            yield from _unrolled(each, inner, steps)
    else:
        yield from steps(part)


def _pattern(pattern: Step) -> str:
    return literal(pattern["String"]) if "String" in pattern else to_javascript(pattern["Regex"])


def normalizers_of(part: Step | None) -> Iterator[Step]:
    """The steps of a normalizer. Raises TspError."""
    return _unrolled(part, "normalizers", _normalizer)


def _normalizer(part: Step) -> Iterator[Step]:
    kind = part["type"]
    if kind == "Prepend":
        yield {"type": kind, "prepend": part["prepend"]}
    elif kind == "Replace":
        yield _replace(_pattern(part["pattern"]), part["content"])
    elif kind in UNICODE_FORMS:
        yield {"type": "Unicode", "form": kind}
    elif kind == "Lowercase":
        yield {"type": kind}
    elif kind == "Strip":
        yield from [_replace(f"^[{SPACE}]+")] * part["strip_left"] + [_replace(f"[{SPACE}]+$")] * part["strip_right"]
    elif kind == "StripAccents":
        yield _replace(r"\p{M}")
    elif kind == "Precompiled":
        yield {"type": kind, "table": table_of(part["precompiled_charsmap"])}
    elif kind == "BertNormalizer":
        yield from _bert(part)
    else:
        raise refusal(f"the normalizer {kind}")


def _replace(pattern: str, content: str = "") -> Step:
    return {"type": "Replace", "pattern": pattern, "content": content}


def _bert(part: Step) -> Iterator[Step]:
    if part["clean_text"]:
        yield _replace(character_sets.control())
        yield _replace(f"[{SPACE}]", " ")
    if part["handle_chinese_chars"]:
        yield {"type": "Spaced", "pattern": CHINESE}
    if part["lowercase"] if part["strip_accents"] is None else part["strip_accents"]:
        yield {"type": "Unicode", "form": "NFD"}
        yield _replace(character_sets.accents())
    if part["lowercase"]:
        yield {"type": "Lowercase"}


def pre_tokenizers_of(part: Step | None) -> Iterator[Step]:
    """The steps of a pre-tokenizer. Raises TspError."""
    return _unrolled(part, "pretokenizers", _pre_tokenizer)


def _split(pattern: str, behavior: str, invert: bool = False) -> Step:
    return {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert}


def _pre_tokenizer(part: Step) -> Iterator[Step]:
    kind = part["type"]
    if kind == "Split":
        yield _split(_pattern(part["pattern"]), part["behavior"], part["invert"])
    elif kind == "Digits":
        yield _split(r"\p{N}", "Isolated" if part["individual_digits"] else "Contiguous")
    elif kind == "Metaspace":
        yield {"type": kind, "replacement": part["replacement"], "scheme": part["prepend_scheme"],
               "split": part["split"]}
    elif kind == "ByteLevel":
        yield from _byte_level(part)
    elif kind == "BertPreTokenizer":
        yield _split(f"[{SPACE}]", "Removed")
        yield _split(character_sets.punctuation(), "Isolated")
    elif kind == "Whitespace":
        yield _split(f"{WORDS}|{OTHERS}", "Removed", invert=True)
    elif kind == "WhitespaceSplit":
        yield _split(f"[{SPACE}]", "Removed")
    elif kind == "Punctuation":
        yield _split(character_sets.punctuation(), part["behavior"])
    elif kind == "CharDelimiterSplit":
        yield _split(literal(part["delimiter"]), "Removed")
    else:
        raise refusal(f"the pre-tokenizer {kind}")


def _byte_level(part: Step) -> Iterator[Step]:
    if part["add_prefix_space"]:
        yield {"type": "Prefix"}
    if part["use_regex"]:
        yield _split(to_javascript(GPT2), "Isolated")
    yield {"type": "Bytes"}
