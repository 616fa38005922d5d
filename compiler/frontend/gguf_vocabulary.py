"""Reads the tokenizer in a GGUF file: it makes a tokenizer.json of the vocabulary, and reads ids and template."""

from pathlib import Path
from typing import Any

from base.errors import TspError
from program.tokenizer import Tokenizer, open_library

from .gguf import open_gguf
from .vocabulary import Named, with_ids
from .vocabulary_json import WHOLE_WORDS, Type, byte_level, sentence_piece


def load_gguf_tokenizer(path: Path, vocab_size: int) -> Tokenizer:
    """The tokenizer in a GGUF file, with its ids and its chat template. Raises `TspError`."""
    reader, fields = open_gguf(path)

    def take(name: str, default: Any = None) -> Any:
        field = reader.fields.get(f"tokenizer.ggml.{name}")
        if field is None and default is None:
            raise TspError(f"field tokenizer.ggml.{name} is missing: name a tokenizer with --tokenizer")
        return default if field is None else field.contents()

    kind, tokens, notes = take("model"), take("tokens"), []
    types = take("token_type", [Type.NORMAL] * len(tokens))
    split = take("pre", "")
    if kind == "gpt2":
        if split in ("", "default"):
            split = "gpt-2"
            notes.append("the file does not name its pre-tokeniser (tokenizer.ggml.pre): GPT-2's is used")
        payload = byte_level(tokens, types, take("merges"), split)
        adds = split in WHOLE_WORDS
    elif kind == "llama":
        payload = sentence_piece(tokens, types, take("scores"), prefix=take("add_space_prefix", True))
        adds = True
    else:
        raise TspError(f"unsupported: a tokenizer of kind {kind!r} (only 'gpt2', byte-level, and 'llama', "
                       "SentencePiece): name a tokenizer.json with --tokenizer")
    ids = {name: take(f"{name}_token_id", -1) for name in ("bos", "eos", "eot", "eom")}
    ends = tuple(ids[name] for name in ("eos", "eot", "eom") if 0 <= ids[name] < vocab_size)
    named = Named(bos=(ids["bos"],) if 0 <= ids["bos"] < vocab_size else (), eos=ends,
                  adds_bos=bool(take("add_bos_token", adds)), notes=tuple(notes),
                  chat_template=str(fields.get("tokenizer.chat_template", "")))
    library, _ = open_library(payload, vocab_size)
    return with_ids(payload, library, vocab_size, named)
