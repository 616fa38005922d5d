"""Vocabularies of tokenizer.json and texts in many scripts, for tests of the page's tokenizer."""

import io
import json
import random
import unicodedata
from pathlib import Path
from typing import Any

import sentencepiece
import tokenizers
from checkpoints import hf_tokenizer, random_vocab
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from compiler.frontend.vocabulary import load_tokenizer
from program.tokenizer import KIND_HF, Tokenizer

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")
CORPUS = ["Once upon a time there was a little fox, and she didn't like rain.", "We'll go; they've 1234 apples!",
          "été naïve, Füße, año", "однажды жил кот", "早上好,世界。", "नमस्ते दुनिया", "مرحبا بالعالم", "안녕하세요",
          "🙂🙃 👩‍👧"]
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
PLAIN = pre_tokenizers.ByteLevel(add_prefix_space=False)
BYTE_LEVEL = {
    "gpt-2": PLAIN,
    "prefix": pre_tokenizers.ByteLevel(add_prefix_space=True),
    "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), PLAIN]),
    "llama-3": pre_tokenizers.Sequence([pre_tokenizers.Split(tokenizers.Regex(LLAMA3), "isolated"),
                                        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]),
}


def byte_level(kind: str, size: int = 500) -> dict[str, Any]:
    """The JSON of a vocabulary that the library trains on the corpus; llama-3's and smollm's with more added tokens."""
    library = tokenizers.Tokenizer(models.BPE(ignore_merges=kind == "llama-3"))
    library.pre_tokenizer, library.decoder = BYTE_LEVEL[kind], decoders.ByteLevel()
    library.train_from_iterator(CORPUS * 3, trainers.BpeTrainer(
        vocab_size=size - 3, special_tokens=SPECIAL, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    if kind == "prefix":
        library.normalizer = normalizers.NFC()
    library.add_tokens([tokenizers.AddedToken("fox", normalized=True), tokenizers.AddedToken("<|im", lstrip=True),
                        tokenizers.AddedToken("[é]", rstrip=True, normalized=False)])
    return json.loads(library.to_str())


def sentence_piece(kind: str) -> dict[str, Any]:
    """The JSON of a vocabulary as converted from SentencePiece: by a normalizer that prepends, or by Metaspace."""
    spec = hf_tokenizer(random_vocab(512)[0])
    if kind == "prepend":
        return spec
    spec["normalizer"] = {"type": "NFKC"} if kind == "always" else None
    spec["pre_tokenizer"] = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": kind,
                             "split": kind != "first"}
    spec["decoder"] = {"type": "Sequence", "decoders": [
        {"type": "ByteFallback"}, {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": kind, "split": True},
        {"type": "Fuse"}]}
    if kind == "never":  # without byte tokens, some characters are unknown
        spec["model"]["byte_fallback"] = False
    return spec


SENTENCE_PIECE: dict[str, dict[str, Any]] = {
    "unigram": {"model_type": "unigram"},  # SentencePiece's own defaults: its NFKC, spaces trimmed
    "unigram without bytes": {"model_type": "unigram", "byte_fallback": False},
    "unigram as it is": {"model_type": "unigram", "normalization_rule_name": "identity",
                         "remove_extra_whitespaces": False},
    "case folded": {"model_type": "bpe", "normalization_rule_name": "nmt_nfkc_cf"},
}
"""Options of SentencePiece's trainer."""


def trained_sentence_piece(kind: str, folder: Path) -> Tokenizer:
    """The tokenizer of a tokenizer.model that SentencePiece trains on the corpus."""
    buffer = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(**({
        "sentence_iterator": iter(CORPUS * 3), "model_writer": buffer, "vocab_size": 512, "byte_fallback": True,
        "character_coverage": 0.98, "minloglevel": 3, "hard_vocab_limit": False} | SENTENCE_PIECE[kind]))
    (folder / "tokenizer.model").write_bytes(buffer.getvalue())
    return load_tokenizer(folder / "tokenizer.model", 520)


def _word_piece(**normalizer: Any) -> tokenizers.Tokenizer:
    library = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=12))
    library.normalizer = normalizers.BertNormalizer(**normalizer)
    library.pre_tokenizer, library.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    return library


def _word_level() -> tokenizers.Tokenizer:
    library = tokenizers.Tokenizer(models.WordLevel(unk_token="[UNK]"))
    library.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents(), normalizers.Strip()])
    library.pre_tokenizer = pre_tokenizers.Whitespace()
    return library


def _suffixed(prefix: str | None) -> tokenizers.Tokenizer:
    marks = {"continuing_subword_prefix": prefix} if prefix else {"end_of_word_suffix": "</w>"}
    library = tokenizers.Tokenizer(models.BPE(unk_token="[UNK]", **marks))
    library.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.WhitespaceSplit(), pre_tokenizers.CharDelimiterSplit("-"),
        pre_tokenizers.Punctuation("merged_with_previous")])
    library.decoder = decoders.WordPiece(prefix=prefix) if prefix else decoders.BPEDecoder(suffix="</w>")
    return library


WORDS = {
    "bert": lambda: (_word_piece(), trainers.WordPieceTrainer),
    "bert cased": lambda: (_word_piece(lowercase=False, handle_chinese_chars=False), trainers.WordPieceTrainer),
    "words": lambda: (_word_level(), trainers.WordLevelTrainer),
    "suffix": lambda: (_suffixed(None), trainers.BpeTrainer),
    "prefix of the rest": lambda: (_suffixed("##"), trainers.BpeTrainer),
}
"""Vocabularies whose decoders put spaces between words, and what trains them."""


def of_words(kind: str) -> dict[str, Any]:
    """The JSON of a vocabulary that the library trains on the corpus."""
    library, trainer = WORDS[kind]()
    model = library.model
    options: dict[str, Any] = {"vocab_size": 500, "special_tokens": ["[UNK]", *SPECIAL], "show_progress": False}
    for name in ("continuing_subword_prefix", "end_of_word_suffix"):
        if isinstance(model, models.BPE) and getattr(model, name):
            options[name] = getattr(model, name)
    library.train_from_iterator(CORPUS * 3, trainer(**options))
    library.add_tokens([tokenizers.AddedToken("fox", normalized=True)])
    return json.loads(library.to_str())


def of_json(spec: dict[str, Any], bos: int, adds_bos: bool) -> Tokenizer:
    """The tokenizer of a tokenizer.json, for a model of 520 tokens."""
    return Tokenizer(kind=KIND_HF, payload=json.dumps(spec).encode(), bos=bos, stops=[2], vocab_size=520,
                     adds_bos=adds_bos)


BLOCKS = [(0x20, 0x7F), (0xA0, 0x250), (0x370, 0x530), (0x5D0, 0x600), (0x620, 0x780), (0x900, 0xE00), (0xE01, 0xE5C),
          (0x10A0, 0x1200), (0x1680, 0x1681), (0x2000, 0x2070), (0x2150, 0x2190), (0x3000, 0x3100), (0x4E00, 0x5000),
          (0xAC00, 0xAD00), (0xFB00, 0xFB07), (0x1D400, 0x1D450), (0x1F300, 0x1F650)]
ODD = ["<|im_start|>", "<|im_end|>", "<|im", "<s>", "</s>", "<unk>", "[é]", "fox", "\t", "\n", "\r\n", "\n\n", "  ",
       "   ", "\x85", "\ufeff", "\u200b", "\u200d", "\x00", "\x7f", "a\u0301", "e\u0301\u0323", "'s", "'S", "'\u017f",
       "'LL", "'t", "1234567", "½²Ⅷ٣", "\u2581", "<0x41>", "\ue000", "\u2028", "ﬁ", "İ", "ß"]


def thousand_texts(seed: int) -> list[str]:
    """Words of the corpus, runs of characters of many scripts, white space, added tokens, and mixes of them."""
    dice = random.Random(seed)
    words = " ".join(CORPUS).split()

    def run() -> str:
        first, last = dice.choice(BLOCKS)
        chars = (chr(dice.randrange(first, last)) for _ in range(dice.randrange(1, 8)))
        return "".join(char for char in chars if unicodedata.category(char) != "Cn")

    texts = ["", " ", "  ", "\n", *ODD, *CORPUS]
    while len(texts) < 1000:
        parts = [dice.choice((lambda: dice.choice(words), lambda: dice.choice(ODD), run))()
                 for _ in range(dice.randrange(1, 14))]
        texts.append(dice.choice([" ", "", "  "]).join(parts))
    return texts
