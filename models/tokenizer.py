"""A 512-entry BPE tokenizer in llama2.c's tokenizer.bin format, encoding as llama2.c's run.c does.

File: int32 longest entry in bytes, then for each entry float32 score, int32 length, bytes. Entries: 0 <unk>, 1 BOS,
2 EOS, 3..258 the byte tokens "<0x00>".., then pieces, the best first (score = -rank). Encoding puts a space before the
text, splits it into characters (bytes where a character has no entry), and merges the neighbours with the best score
until none merge.
"""

import re
import struct
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

BOS, EOS, BYTES = 1, 2, 3
SPECIAL = (b"<unk>", b"\n<s>\n", b"\n</s>\n")
# A word with the space before it, or a run of punctuation: no piece crosses these borders, so each chunk encodes alone.
CHUNK = re.compile(r" ?[A-Za-z]+| ?[^A-Za-z ]+| ")


class Tokenizer:
    """Pieces and scores of a tokenizer.bin; `encode` and `decode` agree with run.c."""

    def __init__(self, pieces: list[bytes], scores: list[float]) -> None:
        if len(pieces) != len(scores):
            raise ValueError(f"pieces and scores must be equally many, not {len(pieces)} and {len(scores)}")
        self.pieces, self.scores = pieces, scores
        self.ids = {piece: i for i, piece in enumerate(pieces)}
        self._chunk = lru_cache(maxsize=1 << 14)(self._merge)

    @classmethod
    def load(cls, path: Path) -> "Tokenizer":
        data, at = path.read_bytes(), 4
        pieces, scores = [], []
        while at < len(data):
            score, length = struct.unpack_from("<fi", data, at)
            pieces.append(data[at + 8 : at + 8 + length])
            scores.append(score)
            at += 8 + length
        return cls(pieces, scores)

    def save(self, path: Path) -> None:
        entries = [struct.pack("<fi", s, len(p)) + p for p, s in zip(self.pieces, self.scores, strict=True)]
        path.write_bytes(struct.pack("<i", max(map(len, self.pieces))) + b"".join(entries))

    def _merge(self, text: str) -> tuple[int, ...]:
        """Greedy merging of one string, the leftmost pair first among equal scores, as in run.c."""
        ids: list[int] = []
        for char in text:
            raw = char.encode()
            ids += [self.ids[raw]] if raw in self.ids else [byte + BYTES for byte in raw]
        while True:
            pairs = [
                (self.scores[self.ids[p]], -i)
                for i in range(len(ids) - 1)
                if (p := self.pieces[ids[i]] + self.pieces[ids[i + 1]]) in self.ids
            ]
            if not pairs:
                return tuple(ids)
            i = -max(pairs)[1]
            ids[i : i + 2] = [self.ids[self.pieces[ids[i]] + self.pieces[ids[i + 1]]]]

    def encode_slowly(self, text: str) -> list[int]:
        """run.c's own way, over the whole text at once, without BOS; `encode` is tested against it."""
        return list(self._merge(" " + text)) if text else []

    def encode(self, text: str, *, bos: bool = False) -> list[int]:
        """Token ids; empty text has none, without a dummy space (run.c)."""
        chunks = CHUNK.findall(" " + text) if text else []
        return [BOS] * bos + [i for chunk in chunks for i in self._chunk(chunk)]

    def decode(self, ids: Iterable[int]) -> str:
        """Text without special tokens and without the dummy space."""
        raw = b"".join(bytes([i - BYTES]) if i < BYTES + 256 else self.pieces[i] for i in ids if i >= BYTES)
        return raw.decode(errors="replace").removeprefix(" ")


def train(texts: Iterable[str], size: int = 512) -> Tokenizer:
    """BPE of `size` entries by the `tokenizers` library; merged pieces in order of merging, single characters last."""
    from tokenizers import Regex, models, pre_tokenizers, trainers
    from tokenizers import Tokenizer as Library

    library = Library(models.BPE())
    library.pre_tokenizer = pre_tokenizers.Split(Regex(CHUNK.pattern), "isolated")
    room = size - len(SPECIAL) - 256
    library.train_from_iterator((" " + t for t in texts), trainers.BpeTrainer(vocab_size=room, show_progress=False))
    vocab = library.get_vocab()
    ranked = sorted((p for p in vocab if len(p) > 1), key=vocab.__getitem__) + sorted(p for p in vocab if len(p) == 1)
    pieces = [*SPECIAL, *(f"<0x{b:02X}>".encode() for b in range(256)), *(p.encode() for p in ranked)]
    return Tokenizer(pieces, [0.0] * (BYTES + 256) + [-float(rank) for rank in range(len(ranked))])
