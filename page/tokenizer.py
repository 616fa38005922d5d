"""A program's tokenizer as the page carries it: llama2.c's as it is, a tokenizer.json as prepared JSON.

js/tokenizer.js reads the one, js/hf.js the other. Python prepares what is hard to do the same in JavaScript: patterns
are translated, merges are ids, and each token's bytes come from `program.pieces`. A part that the page cannot do as the
library does is refused.
"""

import json
from collections.abc import Iterator
from typing import Any

from program.tokenizer import KIND_LLAMA2C, Tokenizer, open_library

from .tokenizer_parts import Step, model_of, normalizers_of, pre_tokenizers_of, refusal

Pieces = tuple[list[str], list[tuple[int, str]], list[int]]
"""Bytes of each token as Latin-1; of those that differ at the beginning of a text; tokens after which a text begins
anew."""


def page_tokenizer(image: bytes) -> bytes:
    """The page's section of `Tokenizer.to_bytes`. Raises TspError that names the part that a page cannot do."""
    tokenizer = Tokenizer.from_bytes(image)
    if tokenizer.kind == KIND_LLAMA2C:
        return image
    library, _ = open_library(tokenizer.payload, tokenizer.vocab_size)
    spec = json.loads(library.to_str())
    model = model_of(spec["model"])
    pieces, first, restarts = _pieces(tokenizer)
    added = [entry | {"text": library.normalizer.normalize_str(entry["text"])}
             if entry["normalized"] and library.normalizer else entry for entry in _added(spec["added_tokens"])]
    prepared = {
        "bos": tokenizer.bos, "stops": list(tokenizer.stops), "adds_bos": tokenizer.adds_bos,
        "added": added, "normalizers": list(normalizers_of(spec["normalizer"])),
        "pre_tokenizers": list(pre_tokenizers_of(spec["pre_tokenizer"])),
        "model": model, "pieces": pieces, "first": first, "restarts": restarts,
    }
    return json.dumps(prepared, separators=(",", ":"), ensure_ascii=False).encode()


def _pieces(tokenizer: Tokenizer) -> Pieces:
    """With most decoders a token restarts nothing. With those that join words, special ones do."""
    everyone = range(tokenizer.vocab_size)
    begins = _after(tokenizer, None)
    found = _joining(tokenizer, begins)
    if found is None:
        return begins, [], []
    before, probe = found
    later = _after(tokenizer, before)
    shown = [tokenizer.piece(other, probe).decode("latin-1") for other in everyone]
    if not set(shown) <= {begins[probe], later[probe]}:
        raise refusal("a decoder that looks at more than whether a text begins")
    return (later, [(token, text) for token, text in enumerate(begins) if text != later[token]],
            [token for token in everyone if shown[token] == begins[probe] and token != tokenizer.bos])


def _after(tokenizer: Tokenizer, before: int | None) -> list[str]:
    """What each token adds after another one."""
    return [tokenizer.piece(before, token).decode("latin-1") for token in range(tokenizer.vocab_size)]


def _joining(tokenizer: Tokenizer, begins: list[str]) -> tuple[int, int] | None:
    """A token after which another one, the second, is not as at the beginning of a text; None if there are none."""
    visible = [token for token, text in enumerate(begins) if text]
    for probe in visible[:PROBES]:
        for before in visible:
            if tokenizer.piece(before, probe).decode("latin-1") != begins[probe]:
                return before, probe
    for before in visible[:PROBES]:
        for probe in range(tokenizer.vocab_size):
            if tokenizer.piece(before, probe).decode("latin-1") != begins[probe]:
                return before, probe
    return None


PROBES = 4
"""Tokens that are tried against all others."""


def _added(tokens: list[Step]) -> Iterator[dict[str, Any]]:
    for entry in tokens:
        if entry["single_word"]:
            raise refusal(f"the added token {entry['content']!r}, which must be a separate word")
        yield {"id": entry["id"], "text": entry["content"], "normalized": entry["normalized"],
               "lstrip": entry["lstrip"], "rstrip": entry["rstrip"]}
