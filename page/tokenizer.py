"""A program's tokenizer as the page carries it: llama2.c's as it is, a tokenizer.json with BPE as prepared JSON.

js/tokenizer.js reads the one, js/bpe.js the other. Python prepares what is hard to do the same in JavaScript: patterns
are translated, merges are ids, and each token's bytes come from `program.pieces`. A part that the page cannot do as the
library does is refused.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

from base.errors import TspError
from program.pieces import PAIRWISE
from program.tokenizer import KIND_LLAMA2C, Tokenizer, open_library

from .patterns import literal, to_javascript

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""The pattern of a ByteLevel pre-tokenizer, which its file does not hold."""
UNICODE_FORMS = ("NFC", "NFD", "NFKC", "NFKD")
REMEDY = "compile the model with a tokenizer.bin (--tokenizer)"
Step = dict[str, Any]


def page_tokenizer(image: bytes) -> bytes:
    """The page's section of `Tokenizer.to_bytes`. Raises TspError that names the part that a page cannot do."""
    tokenizer = Tokenizer.from_bytes(image)
    if tokenizer.kind == KIND_LLAMA2C:
        return image
    library, _ = open_library(tokenizer.payload, tokenizer.vocab_size)
    spec = json.loads(library.to_str())
    model = _model(spec["model"])
    decoders = {part["type"] for part in _unrolled(spec["decoder"], "decoders", lambda part: iter([part]))}
    if decoders <= PAIRWISE:
        raise _refusal(f"a tokenizer.json whose decoder is {' + '.join(decoders) or 'missing'}")
    pieces, first = _pieces(tokenizer)
    added = [entry | {"text": library.normalizer.normalize_str(entry["text"])}
             if entry["normalized"] and library.normalizer else entry for entry in _added(spec["added_tokens"])]
    prepared = {
        "bos": tokenizer.bos, "stops": list(tokenizer.stops), "adds_bos": tokenizer.adds_bos,
        "added": added, "normalizers": list(_normalizers(spec["normalizer"])),
        "pre_tokenizers": list(_pre_tokenizers(spec["pre_tokenizer"])),
        "model": model, "pieces": pieces, "first": first,
    }
    return json.dumps(prepared, separators=(",", ":"), ensure_ascii=False).encode()


def _refusal(what: str) -> TspError:
    return TspError(f"the page's tokenizer does not know {what}: {REMEDY}")


def _pieces(tokenizer: Tokenizer) -> tuple[list[str], list[tuple[int, str]]]:
    """Bytes of each token as Latin-1, and of those that differ at the beginning of a text."""
    other = next(token for token in range(tokenizer.vocab_size) if token != tokenizer.bos)
    later = [tokenizer.piece(other, token).decode("latin-1") for token in range(tokenizer.vocab_size)]
    begins = [tokenizer.piece(None, token).decode("latin-1") for token in range(tokenizer.vocab_size)]
    return later, [(token, text) for token, text in enumerate(begins) if text != later[token]]


def _added(tokens: list[Step]) -> Iterator[Step]:
    for entry in tokens:
        if entry["single_word"]:
            raise _refusal(f"the added token {entry['content']!r}, which must be a separate word")
        yield {"id": entry["id"], "text": entry["content"], "normalized": entry["normalized"],
               "lstrip": entry["lstrip"], "rstrip": entry["rstrip"]}


def _model(model: Step) -> Step:
    """Vocabulary by id, merges as (left, right, merged)."""
    if model["type"] != "BPE":
        raise _refusal(f"a tokenizer.json of the kind {model['type']} (only BPE)")
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(name):
            raise _refusal(f"a BPE tokenizer with {name} {model[name]!r}")
    ids: dict[str, int] = model["vocab"]
    vocab: list[str | None] = [None] * (max(ids.values(), default=-1) + 1)
    for text, token in ids.items():
        vocab[token] = text
    pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
    unknown = model.get("unk_token")
    return {"vocab": vocab, "merges": [(ids[left], ids[right], ids[left + right]) for left, right in pairs],
            "unk": None if unknown is None else ids.get(unknown), "fuse_unk": bool(model.get("fuse_unk")),
            "byte_fallback": bool(model.get("byte_fallback")), "ignore_merges": bool(model.get("ignore_merges"))}


def _pattern(pattern: Step) -> str:
    return literal(pattern["String"]) if "String" in pattern else to_javascript(pattern["Regex"])


def _unrolled(part: Step | None, inner: str, steps: Callable[[Step], Iterator[Step]]) -> Iterator[Step]:
    if part is None:
        return
    if part["type"] == "Sequence":
        for each in part[inner]:
            yield from _unrolled(each, inner, steps)
    else:
        yield from steps(part)


def _normalizers(part: Step | None) -> Iterator[Step]:
    def steps(part: Step) -> Iterator[Step]:
        kind = part["type"]
        if kind == "Prepend":
            yield {"type": kind, "prepend": part["prepend"]}
        elif kind == "Replace":
            yield {"type": kind, "pattern": _pattern(part["pattern"]), "content": part["content"]}
        elif kind in UNICODE_FORMS:
            yield {"type": "Unicode", "form": kind}
        elif kind == "Lowercase":
            yield {"type": kind}
        else:
            raise _refusal(f"the normalizer {kind}")

    return _unrolled(part, "normalizers", steps)


def _pre_tokenizers(part: Step | None) -> Iterator[Step]:
    def split(pattern: str, behavior: str, invert: bool = False) -> Step:
        return {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert}

    def steps(part: Step) -> Iterator[Step]:
        kind = part["type"]
        if kind == "Split":
            yield split(_pattern(part["pattern"]), part["behavior"], part["invert"])
        elif kind == "Digits":
            yield split(r"\p{N}", "Isolated" if part["individual_digits"] else "Contiguous")
        elif kind == "Metaspace":
            yield {"type": kind, "replacement": part["replacement"], "scheme": part["prepend_scheme"],
                   "split": part["split"]}
        elif kind == "ByteLevel":
            if part["add_prefix_space"]:
                yield {"type": "Prefix"}
            if part["use_regex"]:
                yield split(to_javascript(GPT2), "Isolated")
            yield {"type": "Bytes"}
        else:
            raise _refusal(f"the pre-tokenizer {kind}")

    return _unrolled(part, "pretokenizers", steps)
