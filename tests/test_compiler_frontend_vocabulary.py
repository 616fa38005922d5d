"""compiler.frontend.vocabulary: tokenizers of every form against the libraries that made them, and what is said around
them."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import tokenizers
from checkpoints import hf_tokenizer, random_checkpoint, random_vocab, small_config, write_hf
from gguf_files import CONTROL, NORMAL, write_gguf
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from base.errors import TspError
from compiler.frontend.files import read_model, sources
from compiler.frontend.vocabulary import load_tokenizer
from program.tokenizer import Tokenizer

IDS = {"bos_token_id": 1, "eos_token_id": 2}
CORPUS = [
    "Once upon a time, there was a little cat. She didn't like 12345 dogs, or 3.14159!",
    "Der Fuchs läuft über die Brücke, während es regnet. Straße, Größe, Übung.",
    "Жил-был маленький кот. Он любил рыбу и 100 мышей.",
    "古い池や蛙飛び込む水の音。昔々あるところに。",
    "def f(x):\n    return x ** 2  # squared\n\n\tprint(f(10))\n",
    "شكرا جزيلا ٠١٢٣ يا صديقي. धन्यवाद मित्र।",
]
TEXTS = [*CORPUS, "", " ", "   leading and  inner spaces ", "\n\n\nlines\r\n", "don't DON'T we'll I'm", "a\u0301 naïve",
         "😀 flags 🇩🇪", "x1y22z333 4444 55555", "\u00a0nbsp\u3000wide", "<s>not </s>special", "Ⅷ ½ ² \u0660\u0661"]


def assert_alike(tokenizer: Tokenizer, encode: Any, texts: list[str] = TEXTS) -> None:
    """The same ids as another library's, the text back, and the same after a trip through an image."""
    image = Tokenizer.from_bytes(tokenizer.to_bytes())
    for text in texts:
        assert tokenizer.encode(text, bos=False) == encode(text) == image.encode(text, bos=False), repr(text)


# ---- byte-level vocabularies in GGUF files, by pre-tokeniser ----

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")
PLAIN = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
PRE_TOKENIZERS = {
    "gpt-2": PLAIN,
    "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), PLAIN]),
    "llama-bpe": pre_tokenizers.Sequence([pre_tokenizers.Split(tokenizers.Regex(LLAMA3), "isolated"),
                                          pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]),
}


def byte_level(split: str) -> tokenizers.Tokenizer:
    """A vocabulary of 400 tokens, trained by the library on the corpus."""
    library = tokenizers.Tokenizer(models.BPE(ignore_merges=split == "llama-bpe"))
    library.pre_tokenizer, library.decoder = PRE_TOKENIZERS[split], decoders.ByteLevel()
    library.train_from_iterator(CORPUS * 3, trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return library


def gguf_of(library: tokenizers.Tokenizer, split: str) -> dict[str, Any]:
    """The fields of a GGUF file for a byte-level vocabulary of 512, the end of which is padding."""
    vocab = library.get_vocab()
    tokens = sorted(vocab, key=vocab.__getitem__) + [f"[PAD{n}]" for n in range(len(vocab), 512)]
    merges = [" ".join(pair) for pair in json.loads(library.to_str())["model"]["merges"]]
    return {"model": "gpt2", "pre": split, "tokens": tokens, "merges": merges,
            "token_type": [CONTROL] * 3 + [NORMAL] * 509, "bos_token_id": 1, "eos_token_id": 2}


@pytest.mark.parametrize("split", PRE_TOKENIZERS)
def test_byte_level_vocabularies_of_gguf(tmp_path, split):
    library = byte_level(split)
    path = write_gguf(tmp_path / "model.gguf", random_checkpoint(), tokenizer=gguf_of(library, split))
    tokenizer = load_tokenizer(path, 512)
    assert_alike(tokenizer, lambda text: library.encode(text).ids)
    assert all(tokenizer.decode(tokenizer.encode(text)) == text for text in TEXTS)
    assert tokenizer.adds_bos == (split == "llama-bpe") and tokenizer.stops == (2, 0, 1)
    chat = tokenizer.encode("<|im_start|>user\nhi<|im_end|>", bos=False)
    assert chat[0] == 1 and chat[-1] == 2
    assert [tokenizer.token_text(token) for token in (1, 2)] == ["<|im_start|>", "<|im_end|>"]


def test_a_pre_tokenizer_that_is_not_named_is_guessed(tmp_path):
    library = byte_level("gpt-2")
    words = gguf_of(library, "default")
    tokenizer = load_tokenizer(write_gguf(tmp_path / "model.gguf", random_checkpoint(), tokenizer=words), 512)
    assert "does not name its pre-tokeniser" in tokenizer.notes[0]
    assert tokenizer.encode(TEXTS[0], bos=False) == library.encode(TEXTS[0]).ids


# ---- SentencePiece ----


def sentence_piece(path: Path, **options: Any) -> sentencepiece.SentencePieceProcessor:
    """Train a model on the corpus and write it."""
    buffer = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS * 3), model_writer=buffer, vocab_size=512, byte_fallback=True,
        character_coverage=0.98, minloglevel=3, hard_vocab_limit=False, **options)
    path.write_bytes(buffer.getvalue())
    return sentencepiece.SentencePieceProcessor(model_proto=buffer.getvalue())


@pytest.mark.parametrize("options", [
    {"model_type": "bpe", "normalization_rule_name": "identity", "remove_extra_whitespaces": False},  # Llama's
    {"model_type": "bpe", "normalization_rule_name": "identity", "remove_extra_whitespaces": False,
     "add_dummy_prefix": False},
    {"model_type": "bpe"},  # SentencePiece's own defaults: NFKC, spaces trimmed
    {"model_type": "unigram", "normalization_rule_name": "identity", "remove_extra_whitespaces": False},
    {"model_type": "unigram"},
], ids=str)
def test_sentence_piece_models(tmp_path, options):
    library = sentence_piece(tmp_path / "tokenizer.model", **options)
    tokenizer = load_tokenizer(tmp_path / "tokenizer.model", 512)
    texts = [text for text in TEXTS if "<s>" not in text]  # control symbols in a text are text to SentencePiece
    assert_alike(tokenizer, library.encode, texts)
    assert (tokenizer.bos, tokenizer.stops, tokenizer.adds_bos) == (1, (2, 1), True)
    for text in texts:
        assert tokenizer.decode(tokenizer.encode(text)) == library.decode(library.encode(text)), repr(text)


def test_a_template_beside_a_checkpoint_goes_into_its_program(tmp_path):
    path = write_gguf(tmp_path / "model.gguf", random_checkpoint(), template="{{ own }}")
    assert read_model(path)[1].chat_template == "{{ own }}"
    path.with_suffix(".jinja").write_text("{{ beside }}")
    assert read_model(path)[1].chat_template == "{{ beside }}" and path.with_suffix(".jinja") in sources(path)


def test_a_folder_with_a_sentence_piece_model(tmp_path):
    """Tokens that files beside it add, and the ids that they name."""
    folder = write_hf(tmp_path / "hf", random_checkpoint(small_config(vocab_size=600)))
    (folder / "tokenizer.json").unlink()
    library = sentence_piece(folder / "tokenizer.model", model_type="bpe", normalization_rule_name="identity")
    size = library.get_piece_size()
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "add_bos_token": False, "eos_token": "<|im_end|>", "chat_template": "{{ x }}",
        "added_tokens_decoder": {"1": {"content": "<s>", "special": True},
                                 str(size): {"content": "<|im_end|>", "special": True}}}))
    _, tokenizer = read_model(folder)
    assert tokenizer.stops == (2, size, 1) and not tokenizer.adds_bos and tokenizer.chat_template == "{{ x }}"
    assert tokenizer.encode("cat<|im_end|>")[-1] == size


@pytest.mark.parametrize(("options", "expected"), [
    ({"model_type": "char"}, "a SentencePiece model of type CHAR (only BPE and UNIGRAM)"),
    ({"model_type": "bpe", "treat_whitespace_as_suffix": True}, "writes spaces as a suffix"),
])
def test_unsupported_sentence_piece_models(tmp_path, options, expected):
    sentence_piece(tmp_path / "tokenizer.model", **options)
    assert expected in refusal(tmp_path / "tokenizer.model")


def test_a_damaged_sentence_piece_model(tmp_path):
    sentence_piece(tmp_path / "tokenizer.model", model_type="bpe")
    path = tmp_path / "tokenizer.model"
    path.write_bytes(path.read_bytes()[:300] + b"\xff" * 20)
    assert "damaged SentencePiece model" in refusal(path)


def refusal(path: Path, vocab_size: int = 512) -> str:
    with pytest.raises(TspError) as error:
        load_tokenizer(path, vocab_size)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)
    return str(error.value)


# ---- decoders of tokenizer.json ----


def library_of(**parts: Any) -> tokenizers.Tokenizer:
    """A vocabulary of words, in which "##s" and "un</w>" mean something to some decoders."""
    words = ["[UNK]", "[BOS]", "[EOS]", "the", "cat", "##s", "cats", "un", "un</w>", "do</w>", "\u2581the", "\u2581",
             ",", "<0xE4>", "<0xB8>", "<0x96>", "a"]
    library = tokenizers.Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="[UNK]"))
    library.pre_tokenizer = pre_tokenizers.Whitespace()
    library.add_special_tokens(["[UNK]", "[BOS]", "[EOS]"])
    for name, part in parts.items():
        setattr(library, name, part)
    return library


def write_tokenizer(folder: Path, library: tokenizers.Tokenizer | dict[str, Any], **files: dict[str, Any]) -> Path:
    """A tokenizer.json and files beside it, by their names without .json."""
    folder.mkdir(exist_ok=True)
    text = json.dumps(library) if isinstance(library, dict) else library.to_str()
    (folder / "tokenizer.json").write_text(text)
    for name, fields in files.items():
        (folder / f"{name}.json").write_text(json.dumps(fields))
    return folder


@pytest.mark.parametrize("decoder", [
    decoders.WordPiece(), decoders.WordPiece(cleanup=False), decoders.BPEDecoder(), None, decoders.Metaspace(),
    decoders.Metaspace(prepend_scheme="never"),
    decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]),
    decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(),
                       decoders.Strip(" ", 1, 0)]),
], ids=str)
def test_pieces_add_up_to_what_the_library_decodes(tmp_path, decoder):
    library = library_of(**({} if decoder is None else {"decoder": decoder}))
    tokenizer = load_tokenizer(write_tokenizer(tmp_path / "t", library, config=IDS), 20)
    for ids in ([3, 4, 5], [10, 11, 3], [11, 11, 10], [7, 8, 9], [6, 12, 3], [10, 13, 14, 15], [5, 4], [16, 3]):
        assert tokenizer.decode(ids) == library.decode(ids) == tokenizer.decode([1, *ids]), ids
        text, prev = b"", None
        for token in ids:
            text += tokenizer.piece(prev, token)
            prev = token
        assert text.decode() == library.decode(ids)


def test_words_with_suffixes_print_spaced(tmp_path):
    tokenizer = load_tokenizer(write_tokenizer(tmp_path / "t", library_of(decoder=decoders.WordPiece()),
                                               config=IDS), 20)
    assert tokenizer.decode(tokenizer.encode("the cat , the cats")) == "the cat, the cats"


@pytest.mark.parametrize("decoder", [
    decoders.CTC(), decoders.Sequence([decoders.ByteLevel(), decoders.Strip("a", 1, 0)]),
    decoders.Sequence([decoders.Strip(" ", 1, 0), decoders.Fuse()]),
    decoders.Sequence([decoders.Replace(tokenizers.Regex("a+"), "b"), decoders.Fuse()]),
], ids=str)
def test_other_decoders_are_refused_by_name(tmp_path, decoder):
    folder = write_tokenizer(tmp_path / "t", library_of(decoder=decoder), config=IDS)
    text = refusal_of_folder(folder, 20)
    names = [part["type"] for part in json.loads(decoder.__getstate__()).get("decoders", [])] or ["CTC"]
    assert f"a tokenizer whose decoder is {' + '.join(names)} is not supported" in text


def refusal_of_folder(folder: Path, vocab_size: int) -> str:
    with pytest.raises(TspError) as error:
        load_tokenizer(folder, vocab_size)
    return str(error.value)


def test_a_leading_space_of_the_text_is_kept(tmp_path):
    """Metaspace that prepends nothing, and a decoder that strips nothing."""
    spec = hf_tokenizer(random_vocab()[0])
    spec["normalizer"], spec["decoder"]["decoders"] = None, spec["decoder"]["decoders"][:3]
    spec["pre_tokenizer"] = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "never", "split": False}
    tokenizer = load_tokenizer(write_tokenizer(tmp_path / "t", spec), 512)
    assert tokenizer.decode(tokenizer.encode("  two")) == "  two" and tokenizer.decode(tokenizer.encode("two")) == "two"


# ---- what a tokenizer.json should not decide ----


def test_truncation_and_padding_of_the_file_are_ignored(tmp_path):
    spec = hf_tokenizer(random_vocab()[0])
    plain = load_tokenizer(write_tokenizer(tmp_path / "plain", spec), 512)
    library = tokenizers.Tokenizer.from_str(json.dumps(spec))
    library.enable_truncation(4)
    library.enable_padding(length=9, pad_id=2)
    cut = load_tokenizer(write_tokenizer(tmp_path / "cut", library), 512)
    for text in ("ab cd ef gh ij kl", "a"):
        assert cut.encode(text) == plain.encode(text)


def test_added_tokens_beyond_the_vocabulary_are_dropped_with_a_note(tmp_path):
    library = tokenizers.Tokenizer.from_str(json.dumps(hf_tokenizer(random_vocab()[0])))
    library.add_special_tokens(["<pad>"])
    library.add_tokens(["<extra>"])
    tokenizer = load_tokenizer(write_tokenizer(tmp_path / "t", library), 512)
    assert [note for note in tokenizer.notes if "dropped" in note] == [
        f"added token {text!r} has id {token}, the model's vocabulary ends at 511: it is dropped"
        for text, token in (("<pad>", 512), ("<extra>", 513))]
    assert max(tokenizer.encode("a<pad>b<extra>")) < 512
    assert tokenizer.decode(tokenizer.encode("a<pad>b<extra>")) == "a<pad>b<extra>"


# ---- ids and templates ----


@pytest.mark.parametrize(("files", "expected"), [
    ({"config": IDS}, (1, (2, 1))),
    ({"config": {"bos_token_id": 1, "eos_token_id": [2, 300]}}, (1, (2, 300, 1))),
    ({"config": IDS, "generation_config": {"eos_token_id": [2, 301]}}, (1, (2, 301, 1))),
    ({"config": {"bos_token_id": 1}, "generation_config": {"eos_token_id": 301}}, (1, (301, 1))),
    ({"tokenizer_config": {"bos_token": {"content": "<s>"}, "eos_token": "</s>"}}, (1, (2, 1))),
    ({"special_tokens_map": {"bos_token": "<s>", "eos_token": {"content": "</s>"}}}, (1, (2, 1))),
    ({"config": {"eos_token_id": 2}, "tokenizer_config": {"bos_token": None, "eos_token": "</s>"}}, (1, (2, 1))),
])
def test_all_files_name_ids(tmp_path, files, expected):
    tokenizer = load_tokenizer(write_tokenizer(tmp_path / "t", hf_tokenizer(random_vocab()[0]), **files), 512)
    assert (tokenizer.bos, tokenizer.stops) == expected and tokenizer.eos == expected[1][0]


def test_ids_of_another_kind_are_refused(tmp_path):
    folder = write_tokenizer(tmp_path / "t", hf_tokenizer(random_vocab()[0]), config={"eos_token_id": "two"})
    assert "eos_token_id must be a number or a list of numbers, not 'two'" in refusal_of_folder(folder, 512)
    (folder / "config.json").write_text('{"bos_token_id": 1, "eos_token_id": 600}')
    assert "eos token must be 0..511, not 600" in refusal_of_folder(folder, 512)


def test_the_model_s_folder_names_ids_where_the_tokenizer_s_does_not(tmp_path):
    model = write_hf(tmp_path / "hf", random_checkpoint())
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"eos_token_id": 77}))
    other = write_tokenizer(tmp_path / "other", hf_tokenizer(random_vocab()[0]))
    _, tokenizer = read_model(model, other / "tokenizer.json")
    assert tokenizer.eos == 77


def put_before(token: str, number: int) -> Any:
    return processors.TemplateProcessing(f"{token} $A", special_tokens=[(token, number)])


@pytest.mark.parametrize(("processor", "fields", "adds"), [
    (None, {}, True),  # as Llama's own class does
    (None, {"tokenizer_class": "LlamaTokenizer"}, True),
    (None, {"tokenizer_class": "PreTrainedTokenizerFast"}, False),
    (None, {"add_bos_token": False}, False),
    (put_before("<s>", 1), {"tokenizer_class": "PreTrainedTokenizerFast"}, True),
    (put_before("<s>", 1), {"add_bos_token": False}, False),
    (processors.TemplateProcessing("$A", special_tokens=[]), {}, False),
    (processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 2)]), {}, False),
])
def test_bos_goes_before_a_text_where_the_tokenizer_puts_it(tmp_path, processor, fields, adds):
    library = tokenizers.Tokenizer.from_str(json.dumps(hf_tokenizer(random_vocab()[0])))
    if processor is not None:
        library.post_processor = processor
    folder = write_tokenizer(tmp_path / "t", library, config=IDS,
                             tokenizer_config=fields)
    tokenizer = load_tokenizer(folder, 512)
    assert tokenizer.adds_bos == adds and (tokenizer.encode("ab")[0] == 1) == adds
    assert tokenizer.encode("ab", bos=True)[0] == 1 != tokenizer.encode("ab", bos=False)[0]
    assert tokenizer.prompt("") == [1] and tokenizer.prompt("ab") == tokenizer.encode("ab")
    image = Tokenizer.from_bytes(tokenizer.to_bytes())
    assert (image.adds_bos, image.stops, image.bos) == (adds, tokenizer.stops, 1)


def test_a_byte_level_vocabulary_gets_no_bos(tmp_path):
    folder = write_tokenizer(tmp_path / "t", byte_level("smollm"),
                             tokenizer_config={"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"})
    tokenizer = load_tokenizer(folder, 400)
    assert not tokenizer.adds_bos and tokenizer.encode("<|im_start|>user")[:2] != [1, 1]
    assert tokenizer.stops == (2, 0, 1)  # <|endoftext|> ends an answer, too


def test_a_model_that_names_nothing_begins_with_its_end(tmp_path):
    library = library_of(decoder=decoders.WordPiece(), normalizer=normalizers.Lowercase())
    spec = json.loads(library.to_str().replace("[BOS]", "[one]"))
    tokenizer = load_tokenizer(write_tokenizer(tmp_path / "t", spec), 20)
    assert (tokenizer.bos, tokenizer.stops) == (2, (2,))
    assert tokenizer.notes[:2] == ("no file names an EOS token: '[EOS]' is used as EOS",
                                   "no file names a BOS token: '[EOS]' begins an empty text")


@pytest.mark.parametrize(("template", "expected"), [
    ("{{ one }}", "{{ one }}"),
    ([{"name": "tool_use", "template": "{{ two }}"}, {"name": "default", "template": "{{ one }}"}], "{{ one }}"),
    ([{"name": "rag", "template": "{{ two }}"}], "{{ two }}"),
    (None, ""),
])
def test_chat_templates(tmp_path, template, expected):
    folder = write_tokenizer(tmp_path / "t", hf_tokenizer(random_vocab()[0]),
                             tokenizer_config={"chat_template": template})
    tokenizer = load_tokenizer(folder, 512)
    assert tokenizer.chat_template == expected == Tokenizer.from_bytes(tokenizer.to_bytes()).chat_template
    assert any("'default' is used, not tool_use" in note for note in tokenizer.notes) == (
        isinstance(template, list) and len(template) > 1)
    (folder / "chat_template.jinja").write_text("{{ file }}")
    assert load_tokenizer(folder, 512).chat_template == "{{ file }}"
    (folder / "chat_template.jinja").write_bytes(b"\xff")
    assert "chat_template.jinja: the chat template must be UTF-8" in refusal_of_folder(folder, 512)


@pytest.mark.parametrize(("name", "content", "expected"), [
    ("tokenizer.bin", b"version https://git-lfs.github.com/spec/v1\noid x", "this is a Git LFS pointer in place of"),
    ("tokenizer.json", b"<!DOCTYPE html><html>", "a tokenizer.json is needed, and this is an HTML page"),
    ("tokenizer.bin", b"PK\x03\x04 and so on", "a tokenizer is needed, and this is a PyTorch or zip file"),
    ("tokenizer.json", b"GGUF\x03\x00\x00\x00", "damaged GGUF file"),
])
def test_a_file_that_is_no_tokenizer(tmp_path, name, content, expected):
    (tmp_path / name).write_bytes(content)
    assert expected in refusal(tmp_path / name)


def test_a_folder_without_a_tokenizer(tmp_path):
    assert "this folder has neither tokenizer.json nor tokenizer.model" in refusal(tmp_path)
