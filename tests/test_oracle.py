"""Frontends and float model against `transformers`, which reads the same files with code of its own: token ids of a
thousand texts in many scripts, and float logits."""

# pyright: reportMissingImports=false
# The extra `oracle` is installed by `make nightly` only.

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import random_checkpoint, small_config, write_hf
from gguf_files import BLOCKS, write_gguf
from tokenizers import pre_tokenizers

from compiler.frontend.files import read_model
from compiler.frontend.vocabulary import load_tokenizer
from compiler.quantize.float_model import FloatModel
from run.models import get_model

pytestmark = pytest.mark.nightly

TEXTS = 1000
SCRIPTS = [(0x20, 0x7E), (0xA1, 0x24F), (0x370, 0x3FF), (0x400, 0x4FF), (0x5D0, 0x5EA), (0x600, 0x6FF), (0x900, 0x97F),
           (0xE01, 0xE5B), (0x1100, 0x11FF), (0x3041, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0x1F300, 0x1F64F),
           (0x2010, 0x2027), (0x2150, 0x218B)]
"""Ranges of code points."""


def texts(seed: int = 0) -> list[str]:
    """Words of random characters of random scripts, with every kind of space between."""
    rng = random.Random(seed)

    def word() -> str:
        first, last = rng.choice(SCRIPTS)
        return "".join(chr(rng.randint(first, last)) for _ in range(rng.randint(1, 8)))

    spaces = [" ", "  ", "\n", "\t", "", "\n\n", " 12 "]
    return ["".join(word() + rng.choice(spaces) for _ in range(rng.randint(1, 12))) for _ in range(TEXTS)]


@pytest.fixture(scope="module")
def transformers() -> Any:
    """The library; its warnings are ignored."""
    import transformers

    transformers.logging.set_verbosity_error()
    return transformers


def hugging_face_logits(model: Any, tokens: list[int]) -> np.ndarray:
    import torch

    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0].double().numpy()


@pytest.fixture(scope="module")
def smollm2() -> Path:
    """The real file, fetched if need be."""
    return get_model("smollm2")


@pytest.mark.filterwarnings("ignore")
def test_logits_and_tokens_of_smollm2(smollm2, transformers):
    """135 million weights of Q4_1 and Q8_0: float logits equal to 1e-3, of a chat as its template makes it."""
    import torch

    checkpoint, tokenizer = read_model(smollm2)
    where: dict[str, Any] = {"pretrained_model_name_or_path": smollm2.parent, "gguf_file": smollm2.name}
    theirs = transformers.AutoTokenizer.from_pretrained(**where)
    # It ignores the file's tokenizer.ggml.pre. SmolLM's tokenizer.json splits off each digit, then goes on as GPT-2.
    theirs.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    for text in texts():
        assert tokenizer.encode(text, bos=False) == theirs.encode(text, add_special_tokens=False), repr(text)
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.chat_template == theirs.chat_template
    assert (tokenizer.bos, tokenizer.eos) == (theirs.bos_token_id, theirs.eos_token_id)
    chat = theirs.apply_chat_template([{"role": "user", "content": "What is the capital of France?"}], tokenize=False,
                                      add_generation_prompt=True)
    tokens = tokenizer.encode(chat, bos=False)
    assert tokens[0] == tokenizer.bos
    model = transformers.AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    wanted = hugging_face_logits(model, tokens)
    found = FloatModel(checkpoint, np.float32).sequence_logits(tokens)
    assert np.abs(found - wanted).max() < 1e-3
    assert tokenizer.token_text(int(found[-1].argmax())) == "The"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["F32", "F16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
def test_logits_of_small_gguf_files(tmp_path, transformers, kind):
    import torch

    path = write_gguf(tmp_path / "model.gguf", random_checkpoint(BLOCKS), kind=kind)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=path.name, dtype=torch.float32)
    tokens = [1, 17, 300, 5, 5, 511, 0, 42, 99, 7]
    checkpoint, tokenizer = read_model(path)
    assert tokenizer.vocab_size == 512
    found = FloatModel(checkpoint).sequence_logits(tokens)
    np.testing.assert_allclose(found, hugging_face_logits(model, tokens), atol=1e-3)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("changes", [{}, {"shared_classifier": False, "rope_theta": 1e5}, {"head_dim": 6}])
def test_logits_and_tokens_of_a_folder(tmp_path, transformers, changes):
    folder = write_hf(tmp_path / "hf", random_checkpoint(small_config(**changes)), "BF16")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).float()
    tokens = [1, 17, 300, 5, 5, 511, 0, 42, 99, 7]
    checkpoint, _ = read_model(folder)
    found = FloatModel(checkpoint).sequence_logits(tokens)
    np.testing.assert_allclose(found, hugging_face_logits(model, tokens), atol=1e-3)
    ours, theirs = load_tokenizer(folder, 512), transformers.AutoTokenizer.from_pretrained(folder)
    for text in texts(1):
        assert ours.encode(text, bos=False) == theirs.encode(text, add_special_tokens=False), repr(text)
