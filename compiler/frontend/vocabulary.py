"""Opens a model's tokenizer: the vocabulary from its file, and ids and chat template from the files around it.

Ids are in several files, and model and tokenizer may have separate folders. config.json and generation_config.json
belong to the model, tokenizer_config.json and chat_template.jinja to the tokenizer.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers

from base.errors import TspError
from base.inputs import check_content, is_folder, is_sentence_piece, read_head, read_input, read_json
from program.tokenizer import KIND_HF, KIND_LLAMA2C, Tokenizer, open_library

MODEL_FILES = ("config.json", "generation_config.json")
TOKENIZER_FILES = ("tokenizer_config.json", "special_tokens_map.json")
TEMPLATE_FILE = "chat_template.jinja"
HF_CONFIGS = (*MODEL_FILES, *TOKENIZER_FILES, TEMPLATE_FILE)

LLAMA2C_BOS, LLAMA2C_EOS = 1, 2
USUAL_BOS = ("<s>", "<|begin_of_text|>", "<|startoftext|>", "<bos>", "[BOS]", "<|im_start|>")
USUAL_ENDS = ("</s>", "<|end_of_text|>", "<|endoftext|>", "<eos>", "[EOS]", "<|im_end|>", "<|eot_id|>")
ENDS_OF_TURNS = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<end_of_turn>", "<|endoftext|>",
                 "<|end_of_text|>")
"""Special tokens that always end an answer, whatever the files say. Chat models are trained to write them."""


def load_tokenizer(path: str | Path, vocab_size: int, checkpoint: str | Path | None = None) -> Tokenizer:
    """Load a tokenizer.bin, tokenizer.json, tokenizer.model, GGUF file or Hugging Face folder for a model.

    checkpoint: the model's file or folder. By default, the tokenizer's own folder.

    Raises TspError.
    """
    path = Path(path)
    file = path / find_vocabulary(path) if is_folder(path, "the tokenizer") else path
    model = file.parent if checkpoint is None else Path(checkpoint)
    try:
        head = read_head(file, "the tokenizer")
        if head.startswith(b"GGUF"):
            from .gguf_vocabulary import load_gguf_tokenizer  # a library that takes a while to import

            return load_gguf_tokenizer(file, vocab_size)
        if is_sentence_piece(head):
            from .sentence_piece import load_sentence_piece

            return load_sentence_piece(file, vocab_size, Named.read(model, file.parent))
        if file.suffix != ".json":
            check_content(file, head, wanted="a tokenizer")
            return Tokenizer(kind=KIND_LLAMA2C, payload=read_input(file, "the tokenizer"), bos=LLAMA2C_BOS,
                             stops=[LLAMA2C_EOS], vocab_size=vocab_size)
        check_content(file, head, wanted="a tokenizer.json", allowed="a JSON file")
        return _from_json(read_input(file, "the tokenizer"), vocab_size, Named.read(model, file.parent))
    except TspError as error:
        text = str(error)
        raise TspError(text if text.startswith(str(file)) else f"{file}: {text}") from error.__cause__


def find_vocabulary(folder: Path) -> str:
    """The vocabulary's file in a Hugging Face folder. If there is none, raises TspError that names what is there."""
    for name in ("tokenizer.json", "tokenizer.model"):
        if (folder / name).exists():
            return name
    raise TspError(f"{folder}: this folder has neither tokenizer.json nor tokenizer.model; name a tokenizer with "
                   "--tokenizer")


# ---- ids and templates ----


@dataclass(frozen=True, kw_only=True)
class Named:
    """The fields of the files around a vocabulary. Ids are as in the files; texts are looked up in the vocabulary."""

    bos: tuple[int | str, ...] = ()
    eos: tuple[int | str, ...] = ()
    adds_bos: bool | None = None
    tokenizer_class: str = ""
    chat_template: str = ""
    notes: tuple[str, ...] = ()

    @staticmethod
    def read(model: Path, tokenizer: Path) -> "Named":
        """Read the files of a model and of a tokenizer's folder. Raises TspError if one is damaged."""
        homes = {name: (model if model.is_dir() else model.parent, tokenizer) for name in MODEL_FILES}
        homes |= {name: (tokenizer, model if model.is_dir() else model.parent) for name in TOKENIZER_FILES}
        found = {name: next((read_json(home / name) for home in folders if (home / name).exists()), {})
                 for name, folders in homes.items()}
        model_json, generation, tokenizer_json, special = (found[name] for name in (*MODEL_FILES, *TOKENIZER_FILES))
        template, notes = _template(tokenizer, tokenizer_json)
        adds = tokenizer_json.get("add_bos_token")
        return Named(
            bos=tuple(_ids("bos", model_json, generation) + _texts("bos", tokenizer_json, special)),
            eos=tuple(_ids("eos", model_json, generation) + _texts("eos", tokenizer_json, special)),
            adds_bos=adds if isinstance(adds, bool) else None,
            tokenizer_class=str(tokenizer_json.get("tokenizer_class") or ""), chat_template=template, notes=notes,
        )


def _ids(name: str, *files: dict[str, Any]) -> list[int | str]:
    """Values of bos_token_id or eos_token_id: numbers or lists. Raises TspError if one is something else."""
    found = []
    for fields in files:
        value = fields.get(f"{name}_token_id")
        for token in value if isinstance(value, list) else [] if value is None else [value]:
            if not isinstance(token, int) or isinstance(token, bool):
                raise TspError(f"{name}_token_id must be a number or a list of numbers, not {value!r}")
            found.append(token)
    return found


def _texts(name: str, *files: dict[str, Any]) -> list[int | str]:
    values = [fields.get(f"{name}_token") for fields in files]
    texts = [value.get("content") if isinstance(value, dict) else value for value in values]
    return [text for text in texts if isinstance(text, str)]


def _template(folder: Path, fields: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
    """The chat template, and a note if one of several was chosen. Raises TspError."""
    if (folder / TEMPLATE_FILE).exists():
        try:
            return read_input(folder / TEMPLATE_FILE).decode("utf-8"), ()
        except UnicodeDecodeError:
            raise TspError(f"{folder / TEMPLATE_FILE}: the chat template must be UTF-8: convert it") from None
    value = fields.get("chat_template")
    if isinstance(value, list):  # several, by name
        named = {str(entry.get("name")): entry.get("template") for entry in value if isinstance(entry, dict)}
        chosen = "default" if "default" in named else next(iter(named), "")
        others = ", ".join(sorted(set(named) - {chosen}))
        notes = (f"of several chat templates {chosen!r} is used, not {others}",) if others else ()
        return str(named.get(chosen) or ""), notes
    return value if isinstance(value, str) else "", ()


# ---- a vocabulary with its ids ----


def _from_json(payload: bytes, vocab_size: int, named: Named) -> Tokenizer:
    library, _ = open_library(payload, vocab_size)
    return with_ids(payload, library, vocab_size, named)


def with_ids(payload: bytes, library: tokenizers.Tokenizer, vocab_size: int, named: Named) -> Tokenizer:
    """A tokenizer from a tokenizer.json, opened as `library`, and from the files around it. Raises TspError."""
    notes = list(named.notes)
    stops = _resolved(library, named.eos)
    if not stops and (usual := _resolved(library, USUAL_ENDS)[:1]):
        stops = usual
        notes.append(f"no file names an EOS token: {library.id_to_token(usual[0])!r} is used as EOS")
    stops += [token for token in _resolved(library, ENDS_OF_TURNS) if _is_special(library, token)]
    put = _put_before(library)
    bos = [put] if put is not None else _resolved(library, named.bos)
    if not bos and (usual := _resolved(library, USUAL_BOS)[:1] or stops[:1]):
        bos = usual
        notes.append(f"no file names a BOS token: {library.id_to_token(usual[0])!r} begins an empty text")
    for name, found in (("bos", bos), ("eos", stops)):
        if not found:
            raise TspError(f"no {name} token: give {name}_token_id in config.json or {name}_token in "
                           "tokenizer_config.json")
    return Tokenizer(kind=KIND_HF, payload=payload, bos=bos[0], stops=stops, vocab_size=vocab_size,
                     adds_bos=_adds_bos(library, named, put), chat_template=named.chat_template, notes=notes)


def _resolved(library: tokenizers.Tokenizer, tokens: Iterable[int | str]) -> list[int]:
    """Ids of tokens. Texts are looked up, and tokens that are not in the vocabulary are left out."""
    ids = [library.token_to_id(token) if isinstance(token, str) else token for token in tokens]
    return list(dict.fromkeys(token for token in ids if token is not None))


def _is_special(library: tokenizers.Tokenizer, token: int) -> bool:
    added = library.get_added_tokens_decoder().get(token)
    return added is not None and added.special


def _put_before(library: tokenizers.Tokenizer) -> int | None:
    """The special token that the library itself puts before a text, if any."""
    ids = library.encode("a", add_special_tokens=True).ids
    plain = library.encode("a", add_special_tokens=False).ids
    return ids[0] if len(ids) > len(plain) and ids[1 : 1 + len(plain)] == plain else None


def _adds_bos(library: tokenizers.Tokenizer, named: Named, put: int | None) -> bool:
    """Whether BOS goes before a text.

    tokenizer_config.json decides if it has the field. Otherwise the tokenizer's post-processor decides. Without either,
    the classes of Llama's SentencePiece vocabularies add BOS.
    """
    if named.adds_bos is not None:
        return named.adds_bos
    if library.post_processor is not None:
        return put is not None
    return _is_sentence_piece(library) and named.tokenizer_class in ("", "LlamaTokenizer", "LlamaTokenizerFast")


def _is_sentence_piece(library: tokenizers.Tokenizer) -> bool:
    return bool(getattr(library.model, "byte_fallback", False))
