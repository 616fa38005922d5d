"""Samples stories from a checkpoint in float numpy, many at a time, and measures the share that the checker accepts.

python -m models.evaluate --count 300
"""

import argparse
import struct
from collections import Counter
from pathlib import Path

import numpy as np

from .corpus import check, information, stories
from .tokenizer import BOS, Tokenizer

EVAL_SEED = 4
HERE = Path(__file__).parent
Array = np.ndarray


class Checkpoint:
    """A llama2.c legacy checkpoint with a shared classifier; matrices are (layer, out, in)."""

    def __init__(self, path: Path) -> None:
        data = path.read_bytes()
        header = struct.unpack_from("<7i", data)
        self.dim, self.hidden, self.layers, self.heads, self.kv_heads, self.vocab, self.seq_len = header
        self.head = self.dim // self.heads
        floats, at = np.frombuffer(data, "<f4", offset=28), 0

        def take(*shape: int) -> Array:
            nonlocal at
            at += int(np.prod(shape))
            return floats[at - int(np.prod(shape)) : at].reshape(shape)

        layers, dim, hidden, kv = self.layers, self.dim, self.hidden, self.kv_heads * self.head
        self.embedding, self.att_norm = take(self.vocab, dim), take(layers, dim)
        self.wq, self.wk = take(layers, dim, dim), take(layers, kv, dim)
        self.wv, self.wo = take(layers, kv, dim), take(layers, dim, dim)
        self.ffn_norm = take(layers, dim)
        self.w1, self.w2, self.w3 = take(layers, hidden, dim), take(layers, dim, hidden), take(layers, hidden, dim)
        self.norm = take(dim)
        self.cos, self.sin = take(self.seq_len, self.head // 2), take(self.seq_len, self.head // 2)
        if at != floats.size:
            raise ValueError(f"checkpoint must hold {at} floats, not {floats.size}")


def rmsnorm(x: Array, weight: Array) -> Array:
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * weight


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


class Decoder:
    """Decodes `batch` sequences in step; `peaks` keeps the largest |value| seen in each kind of activation."""

    def __init__(self, model: Checkpoint, batch: int) -> None:
        self.m, self.pos = model, 0
        cache = (2, model.layers, batch, model.kv_heads, model.seq_len, model.head)
        self.keys, self.values = np.zeros(cache, np.float32)
        self.peaks: dict[str, float] = {}

    def _see(self, kind: str, x: Array) -> Array:
        self.peaks[kind] = max(self.peaks.get(kind, 0.0), float(np.abs(x).max()))
        return x

    def _rotate(self, x: Array) -> Array:
        cos, sin = self.m.cos[self.pos], self.m.sin[self.pos]
        even, odd = x[..., 0::2], x[..., 1::2]
        return np.stack((even * cos - odd * sin, even * sin + odd * cos), -1).reshape(x.shape)

    def _attention(self, layer: int, x: Array) -> Array:
        m, here, batch = self.m, self.pos, len(x)
        h = self._see("norm output", rmsnorm(x, m.att_norm[layer]))
        q = self._rotate((h @ m.wq[layer].T).reshape(batch, m.kv_heads, -1, m.head))
        k = self._rotate((h @ m.wk[layer].T).reshape(batch, m.kv_heads, m.head))
        self.keys[layer, :, :, here] = self._see("K", k)
        self.values[layer, :, :, here] = self._see("V", (h @ m.wv[layer].T).reshape(batch, m.kv_heads, m.head))
        scores = q @ self.keys[layer, :, :, : here + 1].swapaxes(-1, -2) / np.sqrt(m.head)
        return (softmax(scores) @ self.values[layer, :, :, : here + 1]).reshape(batch, -1) @ m.wo[layer].T

    def _feed_forward(self, layer: int, x: Array) -> Array:
        m = self.m
        h = self._see("norm output", rmsnorm(x, m.ffn_norm[layer]))
        gate = h @ m.w1[layer].T
        return self._see("W2 input", gate / (1 + np.exp(-gate)) * (h @ m.w3[layer].T)) @ m.w2[layer].T

    def step(self, tokens: Array) -> Array:
        """(batch,) tokens at the current position -> (batch, vocab) logits."""
        x = self.m.embedding[tokens]
        for layer in range(self.m.layers):
            x = x + self._attention(layer, x)
            x = self._see("residual", x + self._feed_forward(layer, x))
        self.pos += 1
        return rmsnorm(x, self.m.norm) @ self.m.embedding.T


def pick(logits: Array, temperature: float, rng: np.random.Generator) -> Array:
    """(batch,) next tokens: the likeliest at temperature 0, else a sample."""
    if temperature == 0:
        return logits.argmax(-1)
    return (logits / temperature + rng.gumbel(size=logits.shape)).argmax(-1)


Told = tuple[list[list[int]], Decoder]


def sample(model: Checkpoint, prompts: list[list[int]], temperature: float, seed: int = 0) -> Told:
    """Each prompt (BOS first) and its continuation up to BOS or the end of the context; without the BOS at the ends."""
    decoder, rng = Decoder(model, len(prompts)), np.random.default_rng(seed)
    out = np.full((len(prompts), model.seq_len), BOS)
    done, current = np.zeros(len(prompts), bool), np.array([p[0] for p in prompts])
    for pos in range(1, model.seq_len):
        free = pick(decoder.step(current), temperature, rng)
        current = np.array([p[pos] if pos < len(p) else t for p, t in zip(prompts, free, strict=True)])
        out[:, pos] = np.where(done, BOS, current)
        done |= current == BOS
        if done.all():
            break
    return [list(row[1:][: np.argmax(row[1:] == BOS) if BOS in row[1:] else None]) for row in out], decoder


def openings(count: int, seed: int = 3, sentences: int = 2) -> list[str]:
    """Beginnings of distinct stories that the training did not draw."""
    found = dict.fromkeys(" ".join(s.replace(". ", ".|").split("|")[:sentences]) for s in stories(8 * count, seed))
    return list(found)[:count]


def loss(model: Checkpoint, tok: Tokenizer, told: list[str]) -> tuple[float, float]:
    """Cross-entropy of whole stories (BOS to BOS) and the grammar's own, in nats a token; without too long stories."""
    kept = [(story, [*tok.encode(story, bos=True), BOS]) for story in told]
    kept = [(story, ids) for story, ids in kept if len(ids) <= model.seq_len]
    rows = np.full((len(kept), model.seq_len), BOS)
    for row, (_, ids) in zip(rows, kept, strict=True):
        row[: len(ids)] = ids
    lengths, nats = np.array([len(ids) - 1 for _, ids in kept]), 0.0
    decoder = Decoder(model, len(kept))
    for pos in range(lengths.max()):
        chances = softmax(decoder.step(rows[:, pos]).astype(np.float64))[np.arange(len(rows)), rows[:, pos + 1]]
        nats -= np.log(chances[pos < lengths]).sum()
    return nats / lengths.sum(), sum(information(story) for story, _ in kept) / lengths.sum()


def measure(
    model: Checkpoint, tok: Tokenizer, prompts: list[str], temperature: float
) -> tuple[list[str], list[list[str]]]:
    """The stories told from `prompts`, and each story's violations."""
    told = [tok.decode(ids) for ids in sample(model, [tok.encode(p, bos=True) for p in prompts], temperature)[0]]
    return told, [check(story) for story in told]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=HERE)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--show", type=int, default=3, help="stories and faults to print")
    args = parser.parse_args()
    model, tok = Checkpoint(args.folder / "stories263k.bin"), Tokenizer.load(args.folder / "tok512.bin")
    settings = [
        ("greedy, two-sentence openings", openings(args.count), 0.0),
        *((f"temperature {t}, from BOS alone", [""] * args.count, t) for t in (0.5, 0.8, 1.0)),
    ]
    for name, prompts, temperature in settings:
        told, faults = measure(model, tok, prompts, temperature)
        good = sum(not f for f in faults)
        print(
            f"{name}: {good} of {len(told)} accepted ({good / len(told):.1%}), {len(set(told))} distinct,"
            f" mean {np.mean([len(s.split()) for s in told]):.0f} words"
        )
        for fault, times in Counter(f[0].split(":")[0] for f in faults if f).most_common(args.show):
            print(f"    {times:3} x {fault}")
        for story, fault in list(zip(told, faults, strict=True))[: args.show]:
            print(f"    {fault or 'accepted'}\n        {story}")
    ours, floor = loss(model, tok, list(stories(500, EVAL_SEED)))
    print(f"loss {ours:.4f} nats a token on 500 stories drawn afresh; the grammar's own entropy is {floor:.4f}")
    peaks = sample(model, [[BOS]] * 100, 1.0)[1].peaks
    print("largest activations:", ", ".join(f"{kind} {peak:.1f}" for kind, peak in peaks.items()))


if __name__ == "__main__":
    main()
