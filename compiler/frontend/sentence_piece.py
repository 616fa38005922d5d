"""Reads SentencePiece's tokenizer.model and makes a tokenizer.json of it."""

import base64
import json
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from sentencepiece import sentencepiece_model_pb2 as schema

from base.errors import TspError
from base.inputs import read_input, read_json
from program.tokenizer import Tokenizer, open_library

from .vocabulary import Named, with_ids
from .vocabulary_json import sentence_piece

UNIGRAM, BPE = 1, 2
KINDS = {3: "WORD", 4: "CHAR"}


def load_sentence_piece(path: Path, vocab_size: int, named: Named) -> Tokenizer:
    """A tokenizer.model, with the ids from the files around it, or else its own. Raises TspError."""
    model = getattr(schema, "ModelProto")()  # noqa: B009  made when the module is imported
    try:
        model.ParseFromString(read_input(path))
    except DecodeError as error:
        raise TspError(f"damaged SentencePiece model: {error}: download it again") from error
    trainer, normal = model.trainer_spec, model.normalizer_spec
    if trainer.model_type not in (UNIGRAM, BPE):
        kind = KINDS.get(trainer.model_type, trainer.model_type)
        raise TspError(f"unsupported: a SentencePiece model of type {kind} (only BPE and UNIGRAM)")
    if trainer.treat_whitespace_as_suffix or not normal.escape_whitespaces:
        raise TspError("unsupported: a SentencePiece model that writes spaces as a suffix or does not escape them")
    tokens, types = [piece.piece for piece in model.pieces], [piece.type for piece in model.pieces]
    payload = sentence_piece(tokens, types, [piece.score for piece in model.pieces], prefix=normal.add_dummy_prefix,
                             unigram=trainer.model_type == UNIGRAM, normalizers=_normalizers(normal))
    payload = _with_added(payload, path.parent, tokens)
    library, _ = open_library(payload, vocab_size)
    adds = True if named.adds_bos is None else named.adds_bos
    own = {name: (token,) if 0 <= token < len(tokens) else ()
           for name, token in (("bos", trainer.bos_id), ("eos", trainer.eos_id))}
    return with_ids(payload, library, vocab_size, Named(
        bos=named.bos or own["bos"], eos=named.eos or own["eos"], adds_bos=adds, chat_template=named.chat_template,
        notes=named.notes))


def _normalizers(normal: Any) -> list[dict[str, Any]]:
    """The normalizers of a text before its spaces are escaped."""
    found: list[dict[str, Any]] = []
    if normal.precompiled_charsmap:
        charsmap = base64.b64encode(normal.precompiled_charsmap).decode()
        found.append({"type": "Precompiled", "precompiled_charsmap": charsmap})
    if normal.remove_extra_whitespaces:
        found += [{"type": "Strip", "strip_left": True, "strip_right": True},
                  {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}]
    return found


def _with_added(payload: bytes, folder: Path, tokens: list[str]) -> bytes:
    """The tokenizer.json with the tokens that files beside the model add after its own."""
    config, list_ = folder / "tokenizer_config.json", folder / "added_tokens.json"
    decoder = read_json(config).get("added_tokens_decoder") if config.exists() else None
    added = decoder if isinstance(decoder, dict) else {}
    if not added and list_.exists():
        added = {str(token): {"content": text, "special": True} for text, token in read_json(list_).items()}
    spec = json.loads(payload)
    for token, entry in sorted(added.items(), key=lambda item: int(item[0])):
        if int(token) >= len(tokens):
            spec["added_tokens"].append({"id": int(token), "content": entry["content"], "single_word": False,
                                         "lstrip": bool(entry.get("lstrip")), "rstrip": bool(entry.get("rstrip")),
                                         "normalized": False, "special": bool(entry.get("special"))})
    return json.dumps(spec, ensure_ascii=False).encode()


