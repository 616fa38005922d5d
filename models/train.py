"""Trains the shipped Llama on the story grammar and writes it in llama2.c's legacy format. Needs torch and matplotlib:
.venv/bin/pip install -c constraints.txt -e '.[train]'

OMP_NUM_THREADS=1 python -m models.train --minutes 30 --out /tmp/metronome-model
"""

import argparse
import csv
import math
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

if __name__ == "__main__" and (missing := [name for name in ("torch", "matplotlib") if find_spec(name) is None]):
    print(f"models.train: {' and '.join(missing)} must be installed: "
          ".venv/bin/pip install -c constraints.txt -e '.[train]'", file=sys.stderr)
    raise SystemExit(2)

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import tokenizer
from .corpus import echoes, stories

EVAL_SEED, TOKENIZER_SEED, TOKENIZER_STORIES = 1, 2, 20_000


@dataclass(frozen=True, kw_only=True)
class Shape:
    """llama2.c's header, in its order."""

    dim: int = 64
    hidden: int = 176
    layers: int = 5
    heads: int = 4
    kv_heads: int = 2
    vocab: int = 512
    seq_len: int = 256

    @property
    def head_size(self) -> int:
        return self.dim // self.heads


class RMSNorm(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * self.weight


def rope_tables(shape: Shape) -> tuple[Tensor, Tensor]:
    """cos and sin, (seq, head/2); pair i turns by position / 10000^(2i / head)."""
    speed = 10000.0 ** (-torch.arange(0, shape.head_size, 2) / shape.head_size)
    angle = torch.outer(torch.arange(shape.seq_len), speed)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """RoPE over interleaved pairs of (batch, heads, seq, head)."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)


class Layer(nn.Module):
    """Grouped-query attention and SwiGLU, each after a norm and added to the residual."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape, kv = shape, shape.kv_heads * shape.head_size
        self.att_norm, self.ffn_norm = RMSNorm(shape.dim), RMSNorm(shape.dim)
        self.wq, self.wo = (nn.Linear(shape.dim, shape.dim, bias=False) for _ in range(2))
        self.wk, self.wv = (nn.Linear(shape.dim, kv, bias=False) for _ in range(2))
        self.w1, self.w3 = (nn.Linear(shape.dim, shape.hidden, bias=False) for _ in range(2))
        self.w2 = nn.Linear(shape.hidden, shape.dim, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        h, (batch, seq, _) = self.att_norm(x), x.shape
        heads = (batch, seq, -1, self.shape.head_size)
        q, k, v = (w(h).view(heads).transpose(1, 2) for w in (self.wq, self.wk, self.wv))
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        att = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + self.wo(att.transpose(1, 2).reshape(batch, seq, -1))
        h = self.ffn_norm(x)
        return x + self.w2(F.silu(self.w1(h)) * self.w3(h))


class Llama(nn.Module):
    """(batch, seq) int64 tokens -> (batch, seq, vocab) logits; the embedding is the classifier as well."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocab, shape.dim)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = RMSNorm(shape.dim)
        self.cos, self.sin = rope_tables(shape)
        for name, p in self.named_parameters():
            if p.dim() == 2:
                shrink = math.sqrt(2 * shape.layers) if name.endswith(("wo.weight", "w2.weight")) else 1.0
                nn.init.normal_(p, std=(0.05 if name.startswith("embedding") else p.shape[1] ** -0.5) / shrink)

    def forward(self, tokens: Tensor) -> Tensor:
        x, seq = self.embedding(tokens), tokens.shape[1]
        for layer in self.layers:
            x = layer(x, self.cos[:seq], self.sin[:seq])
        return self.norm(x) @ self.embedding.weight.T


def export(model: Llama, path: Path) -> None:
    """llama2.c legacy format: int32 header, then float32 tensors, each kind for all layers in turn."""

    def each(name: str) -> list[Tensor]:
        return [layer.get_submodule(name).weight for layer in model.layers]

    kinds = ("att_norm", "wq", "wk", "wv", "wo", "ffn_norm", "w1", "w2", "w3")
    layers = [t for kind in kinds for t in each(kind)]
    tensors = [model.embedding.weight, *layers, model.norm.weight, model.cos, model.sin]
    body = b"".join(t.detach().numpy().astype("<f4").tobytes() for t in tensors)
    path.write_bytes(struct.pack("<7i", *astuple(model.shape)) + body)


def windows(encoded: list[np.ndarray], picked: np.ndarray, length: int) -> np.ndarray:
    """(2, picked, length) tokens, weights: each row BOS and a picked story, then BOS and the next, cut at `length`."""
    rows = np.zeros((2, len(picked), length), np.int64)
    for i, j in enumerate(picked):
        at = 0
        while at < length:
            part = encoded[j % len(encoded)][:, : length - at]
            rows[:, i, at : at + part.shape[1]] = part
            at, j = at + part.shape[1], j + 1
    return rows


def weigh(tok: tokenizer.Tokenizer, story: str, echo: int) -> np.ndarray:
    """(2, tokens): BOS and the story, and each token's weight in the loss: `echo` where the facts decide it, else 1."""
    ids = tok.encode(story, bos=True)
    heavy = np.zeros(len(story) + 1, bool)  # a character each, after the dummy space
    for start, end in echoes(story) if echo > 1 else []:
        heavy[start + 1 : end + 1] = True
    ends = np.cumsum([len(tok.pieces[i]) for i in ids[1:]])
    weights = [echo if heavy[end - 1] else 1 for end in ends]
    return np.array((ids, [1, *weights]))


def encode_all(tok: tokenizer.Tokenizer, count: int, seed: int, longest: int, echo: int = 1) -> list[np.ndarray]:
    """The weighed stories that fit, with the BOS that follows, into the context."""
    encoded = (weigh(tok, story, echo) for story in stories(count, seed))
    return [e for e in encoded if e.shape[1] < longest]


def loss_of(model: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    """Weighed mean of the cross-entropy in nats a token; rows as from `windows`."""
    tokens, weights = rows[0], rows[1, :, 1:].flatten()
    losses = F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
    return (losses * weights).sum() / weights.sum()


def evaluate(model: Llama, rows: Tensor) -> float:
    with torch.no_grad():
        return float(np.mean([loss_of(model, part).item() for part in rows.split(32, 1)]))


def optimizers_of(model: Llama, lr: float, decay: float, matrices: str) -> list[torch.optim.Optimizer]:
    """Muon (or AdamW) for the layers' matrices, AdamW for the embedding and, without decay, for the norms.

    Decay, clipped gradients and Muon's even singular values keep activations small, as int8 needs them.
    """
    hidden = [p for p in model.layers.parameters() if p.dim() == 2]
    norms = [p for p in model.parameters() if p.dim() == 1]
    adam = [{"params": [model.embedding.weight], "weight_decay": decay}, {"params": norms, "weight_decay": 0.0}]
    if matrices == "adamw":
        adam.append({"params": hidden, "weight_decay": decay})
    rest = torch.optim.AdamW(adam, lr=lr, betas=(0.9, 0.98))
    if matrices == "adamw":
        return [rest]
    return [rest, torch.optim.Muon(hidden, lr=lr, weight_decay=decay, adjust_lr_fn="match_rms_adamw")]


def plot(log: Path) -> None:
    """The CSV's curves as a PNG beside it."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = list(csv.DictReader(log.open()))
    figure, axes = pyplot.subplots(figsize=(7, 4))
    for name in ("train_loss", "eval_loss"):
        axes.plot([float(r["tokens"]) / 1e6 for r in rows], [float(r[name]) for r in rows], label=name)
    axes.set(xlabel="million tokens", ylabel="nats a token", yscale="log", title="stories263k")
    axes.grid(True, which="both", alpha=0.3)
    axes.legend()
    figure.savefig(log.with_suffix(".png"), dpi=90, bbox_inches="tight")


def train(args: argparse.Namespace) -> None:
    """Trains for a span of time: warm-up, then a cosine over time, so a slower machine still finishes the schedule."""
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)
    shape, rng = Shape(), np.random.default_rng(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    tok = tokenizer.train(stories(TOKENIZER_STORIES, TOKENIZER_SEED), shape.vocab)
    if args.resume:
        tok = tokenizer.Tokenizer.load(args.resume / "tok512.bin")
    tok.save(args.out / "tok512.bin")
    unseen = encode_all(tok, 320, EVAL_SEED, shape.seq_len)
    held_out = torch.from_numpy(windows(unseen, np.arange(len(unseen)), shape.seq_len + 1))
    data = encode_all(tok, args.stories, 10 + args.seed, shape.seq_len, args.echo)
    print(f"{len(data)} stories, {sum(e.shape[1] for e in data) / len(data):.1f} tokens each", flush=True)
    model = Llama(shape)
    if args.resume:
        model.load_state_dict(torch.load(args.resume / "model.pt"))
    compiled = torch.compile(model)  # shares the weights; 1.8 times as fast on one core
    optimizers = optimizers_of(model, args.lr, args.decay, args.matrices)
    log = csv.writer((args.out / "loss.csv").open("w", buffering=1))
    log.writerow(("step", "tokens", "seconds", "lr", "train_loss", "eval_loss"))
    start, step, tokens, recent = time.monotonic(), 0, 0, []
    while (share := (time.monotonic() - start) / (60 * args.minutes)) < 1:
        lr = args.lr * min((step + 1) / args.warmup, 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share)))
        for group in (group for o in optimizers for group in o.param_groups):
            group["lr"] = lr
        picked = rng.integers(len(data), size=args.batch)
        rows = torch.from_numpy(windows(data, picked, shape.seq_len + 1))
        loss = loss_of(compiled, rows)
        model.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        step, tokens = step + 1, tokens + rows[0, :, 1:].numel()
        recent.append(loss.item())
        if step % args.every == 0:
            seconds = time.monotonic() - start
            losses = f"{np.mean(recent):.4f}", f"{evaluate(model, held_out):.4f}"
            log.writerow((step, tokens, f"{seconds:.0f}", f"{lr:.2e}", *losses))
            export(model, args.out / "stories263k.bin")
            torch.save(model.state_dict(), args.out / "model.pt")
            recent = []
    export(model, args.out / "stories263k.bin")
    torch.save(model.state_dict(), args.out / "model.pt")
    plot(args.out / "loss.csv")
    print(f"{step} steps, {tokens} tokens, held-out loss {evaluate(model, held_out):.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--stories", type=int, default=100_000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--decay", type=float, default=0.1)
    parser.add_argument("--matrices", choices=("muon", "adamw"), default="muon")
    parser.add_argument("--warmup", type=int, default=100, help="steps")
    parser.add_argument("--every", type=int, default=200, help="steps between evaluations and between checkpoints")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", type=Path, help="--out folder of an earlier training to continue")
    parser.add_argument("--echo", type=int, default=1, help="weight in the loss of tokens that the facts decide")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
