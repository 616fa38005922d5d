"""Lays out a model on a chip: the slice and address of every tensor, and the bytes of the SRAM image."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from arch.config import PLANES, ChipConfig
from arch.isa import Wfmt
from arch.vectors import SIDES, ceil_div, quads_of_int32, vectors_of
from base.errors import TspError
from compiler.ir import Act, As, Mem
from program.arithmetic import rope_parts
from program.integer import MASKED, IntegerModel
from program.program import STATE
from program.weights import base_of

from .geometry import DRAIN_BURST, Geometry, gather
from .layout import Halves, Layout, Tensor, Weights, pack_weights, quads_of_halves
from .masks import MOST_BLOCKS, WEIGHT, place_masks, products_masked
from .rounds import own_chunks
from .share import SUMS, Share
from .stage import Stage

ACROSS = {"W": "E0", "E": "W0"}
"""Slice of the operands that a VXM operation combines with the products of a side."""
MOST_STRAIGHT = 40
"""Most vectors of a side of a classifier without a loop."""
TURNS = (2, 4, 6, 8)
"""Bursts of a side in a turn of the classifier's loop: even numbers, because two accumulators take turns."""
LEAST_TURN = 512
"""Least cycles of a turn, if one of `TURNS` has so many: its other work must fit beside the matrix units'."""
LOOKED_UP = ("classifier", "embedding")
"""Matrices with both sides read at a token's offset. The shorter side is padded."""
ADDED = ("wo", "w2")
"""Matrices whose outputs are added to the residual."""
JOINED = {"qkv": {"wq", "wk", "wv"}, "w13": {"w1", "w3"}}
"""Matrices that share an activation and are streamed as one. They have four bits only if all their parts have."""
USUAL_POSITIONS = 320
"""Greatest number of positions for which the work of both sides is balanced: a long context's bucket of position 256
has so many, or somewhat fewer."""
NOISE_WASTE = 16
"""Most surplus vectors of noise when the layers make the noise."""
WEST = ("planes", "one_plane", "emb_step", "emb_vector", "bytes", "masked")
"""Constants in W0: operands of operations that take another one from E0, or whose slice E0 has many instructions."""
FIRST = " first"
"""End of the name of a matrix that has the output vectors of "w13" that are computed first."""
OF_CHOICE = ("temperature", "tokens")
"""State that a chip without the classifier has no use for, if it works on several sequences."""
LAST = " last"
"""End of the name of a matrix that has the last output vector of one whose vectors both sides share."""
COMPARED = 9
"""Most chips whose greatest scores are compared in registers."""
KEYS = "K cache"
"""Prefix of the names of keys."""
VALUES = "V cache"
"""Prefix of the names of values."""


@dataclass(eq=False)
class Matrix:
    """A weight matrix on the chip.

    vector_entries: accumulator entries of an output vector.
    acts: vectors of its input.
    vectors: by side, the output vectors that it computes.
    tensors: by side, a share for each weight group.
    scale: by side, int16 channel scales of its vectors. A looped classifier has one quad a vector, and the sides
    alternate. The scales are in the other hemisphere, because a VXM operation takes one operand from each.
    """

    name: str
    wfmt: Wfmt
    vector_entries: int
    acts: int
    vectors: dict[str, list[int]]
    tensors: dict[str, list[Weights]]
    scale: Mapping[str, Halves | Tensor]

    def inputs(self, acts: Mapping[str, Act]) -> dict[str, Act]:
        """The activation entries, among those of both sides, of the sides that compute something."""
        return {side: act for side, act in acts.items() if self.vectors[side]}

    def scales(self, side: str, start: int, count: int, rel: int = 0) -> Mem | As:
        """An operand of `count` vectors of channel scales, from vector `start` of a side on."""
        scale = self.scale[side]
        if isinstance(scale, Tensor):
            first = 2 * start + SIDES.index(side)
            return replace(scale.mem(cells=())[first : first + 2 * count - 1 : 2], rel=rel)
        return scale(start, count)


@dataclass(frozen=True)
class Vocabulary:
    """The loop over the classifier.

    body: vectors of each side in a turn.
    turns: turns of the loop; 0 if there is none.
    strides: quads that relative addresses advance in a turn, by slice.
    """

    body: int = 0
    turns: int = 0
    strides: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Origin:
    """The model's channels of a matrix: for the rows of each side, and for the columns; -1 for padding."""

    act_major: bool
    outputs: dict[str, np.ndarray]
    inputs: np.ndarray


@dataclass(eq=False)
class Placement:
    """The places of a model's tensors on a chip.

    masks: by side and weight group, weights that mask products of query and key, see `masks`; none if the VXM does.
    sequence: of several in one program, the one whose copies the tensors are, see `of`.
    """

    geometry: Geometry
    layout: Layout
    matrices: dict[str, Matrix] = field(default_factory=dict)
    origins: dict[str, Origin] = field(default_factory=dict)
    halves: dict[str, Halves] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    k: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    v: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    masks: dict[tuple[str, int], Tensor] = field(default_factory=dict)
    vocabulary: Vocabulary = Vocabulary()
    sequence: int = 0

    def of(self, sequence: int) -> "Placement":
        """The places that one of several sequences in one program has: its own copies, and what all of them share."""
        def own(tensors: Mapping[Any, Tensor]) -> dict[Any, Tensor]:
            return {name: tensor.of(sequence) for name, tensor in tensors.items()}

        return replace(self, sequence=sequence, tensors=own(self.tensors), k=own(self.k), v=own(self.v))


def place(config: ChipConfig, model: IntegerModel, rope_rate: np.ndarray, share: Share | None = None,
          stage: Stage | None = None, together: int = 1, halve: bool = False) -> Placement:
    """Allocate all tensors.

    share, stage: what the chips of a rack hold; `model` is then what this chip holds. together: sequences in one
    program. halve: see `Geometry`.

    Raises TspError that names what does not fit.
    """
    geometry = Geometry(config, model, share, stage, together, halve)
    placement = Placement(geometry, Layout(config, model.layers, apart=together > 1))
    if ceil_div(geometry.tokens, geometry.lanes) * geometry.lanes > 1 << 16:
        raise TspError(f"the vocabulary must have at most 65536 tokens, not {geometry.tokens}")
    _Placer(placement, rope_rate).run()
    return placement


class _Placer:
    def __init__(self, placement: Placement, rope_rate: np.ndarray) -> None:
        self.p, self.g, self.layout = placement, placement.geometry, placement.layout
        self.m, self.config = self.g.model, self.g.config
        self.rate = rope_rate
        self._fills: list[tuple[Tensor, np.ndarray]] = []

    def run(self) -> None:
        self._classifier()
        self._cache()
        self._layer_matrices()
        self._norms()
        self._rope()
        self._work()
        self._relieve()
        self.p.masks = place_masks(self.g, self.layout)
        self.layout.place()
        for tensor, data in self._fills:
            self.layout.fill(tensor, data)

    def _add(self, name: str, slices: str | tuple[str, ...], quads: int, per_layer: bool = False,
             copies: int = 1) -> Tensor:
        return self.layout.add(name, slices, quads, per_layer=per_layer, copies=copies)

    def _relieve(self) -> None:
        """Move tensors that the slices of the weight groups have no room for to slice 0, which drives any group.

        Some tensors must not meet there: those that are read together, and the keys of two groups, which are written
        with different index registers. A looped classifier advances the addresses of its slices, so then none moves.
        """
        for side in SIDES:
            moved = set[str]()
            for group in range(1, self.config.groups):
                movable = {tensor.name for tensor in self.layout.tensors} - moved
                if self.p.vocabulary.turns:
                    movable.clear()
                else:
                    movable = {name for name in movable if not name.startswith(self._fixed)}
                moved |= {tensor.name for tensor in self.layout.relieve(f"{side}{group}", f"{side}0", movable)}

    @property
    def _fixed(self) -> tuple[str, ...]:
        """How names begin of what never goes to slice 0, for lack of index registers there. Of several sequences, nor
        does Wo: a read for each head takes many instructions."""
        if self.g.together > 1:
            return (KEYS, "weights wo") if self.g.static_keys else (KEYS, VALUES, "weights wo")
        return (KEYS,) if self.config.weight_groups > 1 else ()

    def _cache(self) -> None:
        g = self.g
        for head_set in range(g.caches):
            side = SIDES[head_set % 2]
            for group in range(1, self.config.weight_groups + 1):
                self.p.k[head_set, group] = self.layout.claim(  # program files call a head set a unit
                    f"{KEYS} of unit {head_set}", f"{side}{group}", g.cached_chunks * g.vector_entries * g.head_vectors,
                    per_layer=True, copies=g.sequences)
                for member in range(g.heads_per_vector):
                    kv = head_set * g.heads_per_vector + member
                    self.p.v[kv, group] = self.layout.claim(
                        f"{VALUES} of head {kv}", f"{side}{group}", g.cached_chunks * g.head_entries, per_layer=True,
                        copies=g.sequences)
        if g.static_keys:
            self._key_offsets()
        for side in SIDES if not g.static_keys else ():
            pairs = max(1, ceil_div(len(g.kv_heads(side)), 2))
            self.p.tensors[f"kscale_{side}"] = self._add("K scales", ACROSS[side], pairs * g.cached_chunks, True,
                                                         g.sequences)
        if self.m.first >= 0:
            self._first_token()

    def _key_offsets(self) -> None:
        """What is subtracted from the keys that this chip computes, vector by vector."""
        g, offsets = self.g, self.m.key_offset.astype(np.int64)
        if not (g.share and g.share.dealt):
            vectors = [g.channels(head_set, 0, v, 1) for head_set in range(g.head_sets) for v in range(g.head_vectors)]
            offsets = gather(offsets, 1, np.concatenate([np.empty(0, np.int64), *vectors]))
        if offsets.size:
            quads = quads_of_int32(vectors_of(offsets, g.lanes))
            tensor = self.p.tensors["key_offset"] = self._add("key offsets", "E0", quads.shape[1], True)
            self._fills.append((tensor, quads))

    def _first_token(self) -> None:
        """The constant keys, their scales and values of position 0."""
        g, m, rows = self.g, self.m, self.config.rows
        assert m.first_k is not None and m.first_v is not None and m.first_m is not None
        for head_set in range(g.head_sets):
            kvs = [head_set * g.heads_per_vector + member for member in range(g.heads_per_vector)]
            keys = np.zeros((m.layers, g.head_vectors * g.lanes), np.int8)
            for member, kv in enumerate(kv for kv in kvs if kv < m.kv_heads):
                keys[:, member * m.head_size : (member + 1) * m.head_size] = m.first_k[:, kv]
            data = np.zeros((m.layers, g.head_vectors, PLANES, g.lanes), np.uint8)
            data[:, :, 0] = keys.view(np.uint8).reshape(m.layers, g.head_vectors, g.lanes)
            self._fills.append((self.p.k[head_set, 1], data))
        values = m.first_v.view(np.uint8).reshape(m.layers, m.kv_heads, g.head_entries, rows // PLANES, PLANES)
        for kv in range(m.kv_heads):
            for group in range(1, self.config.weight_groups + 1):
                data = np.zeros((m.layers, g.head_entries, PLANES, g.lanes), np.uint8)
                data[..., 0] = values[:, kv, :, group - 1]
                self._fills.append((self.p.v[kv, group], data))
        for side in SIDES:
            tensor = self.p.tensors[f"kscale_{side}"]
            data = np.zeros((m.layers, tensor.quads, PLANES, g.lanes), np.uint8)
            for number, kv in enumerate(kv for kv in g.kv_heads(side) if kv < m.kv_heads):
                pair, half = divmod(number, 2)
                scale = np.ascontiguousarray(m.first_m[:, kv, None]).view(np.uint8)
                data[:, pair * g.cached_chunks, 2 * half : 2 * half + 2, 0] = scale
            self._fills.append((tensor, data))

    def _matrix(self, name: str, rows: dict[str, np.ndarray], scales: dict[str, np.ndarray],
                vectors: dict[str, list[int]], *, per_layer: bool, act_major: bool = False) -> None:
        """rows[side]: int8 [(layers,) vectors * lanes, acts * lanes]; scales[side]: int16 [(layers,) outputs]."""
        base = base_of(name)
        wfmt = Wfmt.INT4 if self.m.four_bit.issuperset(JOINED.get(base, {base})) else Wfmt.INT8
        tensors: dict[str, list[Weights]] = {}
        longest = 0
        entries = self.g.lanes // (self.config.rows * (2 if wfmt is Wfmt.INT4 else 1))
        acts = rows["W"].shape[-1] // self.g.lanes
        first = 0 if act_major or name in LOOKED_UP else DRAIN_BURST * entries * acts
        for side in SIDES:
            packed = pack_weights(rows[side], self.config, wfmt, act_major=act_major)
            tensors[side] = []
            for group in range(1, self.config.weight_groups + 1):
                data = packed[..., group - 1, :, :, :]
                longest = max(longest, data.shape[-3])
                quads = longest if name in LOOKED_UP else data.shape[-3]
                tensors[side].append(self._weights(name, f"{side}{group}", quads, data, per_layer, first))
        if self._summed(name):
            scale = {}
        elif name == "classifier" and self.p.vocabulary.turns:
            scale: dict[str, Halves | Tensor] = self._quad_scales(scales)
        else:
            scale = {side: self._scales(name, scales[side], per_layer, ACROSS[side]) for side in SIDES}
        self.p.matrices[name] = Matrix(name, wfmt, entries, acts, vectors, tensors, scale)

    def _weights(self, name: str, home: str, quads: int, data: np.ndarray, per_layer: bool, first: int) -> Weights:
        """A group's quads. The `first` ones are a separate part if there are more."""
        names = (f"weights {name}, first", f"weights {name}") if 0 < first < quads else (f"weights {name}",)
        parts, at = [], 0
        for part, size in zip(names, (first, quads - first) if len(names) > 1 else (quads,), strict=True):
            parts.append(tensor := self.layout.claim(part, home, size, per_layer=per_layer))
            self._fills.append((tensor, data[..., at : at + size, :, :]))
            at += size
        return Weights(tuple(parts))

    def _quad_scales(self, scales: dict[str, np.ndarray]) -> dict[str, Halves | Tensor]:
        """A looped classifier's scales. The sides alternate, so the scales advance with the logits."""
        vectors = np.zeros((self.g.vocab, self.g.lanes), np.int64)
        for i, side in enumerate(SIDES):
            vectors[i::2] = vectors_of(scales[side], self.g.lanes)
        tensors: dict[str, Halves | Tensor] = {}
        for side in SIDES:
            tensors[side] = tensor = self._add("scales of classifier", ACROSS[side], self.g.vocab)
            self._fills.append((tensor, quads_of_int32(vectors)))
        return tensors

    def _scales(self, name: str, values: np.ndarray, per_layer: bool, home: str) -> Halves:
        """Channel scales. A burst that uses them must lie in one half, so a half has a whole number of bursts."""
        vectors = vectors_of(values, self.g.lanes)
        count = vectors.shape[-2]
        most = self.g.logit_burst if name in LOOKED_UP else DRAIN_BURST
        quads = min(count, ceil_div(ceil_div(count, 2), most) * most)
        if name in ADDED and not self.g.residual_in_registers:
            quads = count  # one burst uses all of them
        return self._halves(f"scales of {name}", vectors[..., :quads, :], vectors[..., quads:, :], per_layer, home)

    def _halves(self, name: str, low: np.ndarray, high: np.ndarray, per_layer: bool, home: str) -> Halves:
        """int16 vectors, two in a quad."""
        quads = max(1, low.shape[-2], high.shape[-2])
        tensor = self._add(name, home, quads, per_layer)
        both = np.zeros((*low.shape[:-2], 2 * quads, self.g.lanes), np.int64)
        both[..., : low.shape[-2], :] = low
        both[..., quads : quads + high.shape[-2], :] = high
        self._fills.append((tensor, quads_of_halves(both, quads)))
        return Halves(tensor, 2 * quads)

    def _by_channels(self, name: str, weights: np.ndarray, scales: np.ndarray, out: dict[str, list[np.ndarray]],
                     inputs: np.ndarray, **kwargs: bool) -> None:
        """Place a matrix.

        out: the output vectors that each side computes, with a channel for each lane.
        inputs: channels of its input.
        """
        rows, scale, vectors, outputs = {}, {}, {}, {}
        at = 0
        for side in SIDES:
            channels = np.concatenate([np.empty(0, np.int64), *out[side]]).astype(np.int64)
            rows[side] = gather(gather(weights, weights.ndim - 2, channels), weights.ndim - 1, inputs)
            scale[side] = gather(scales, scales.ndim - 1, channels)
            vectors[side] = list(range(at, at + len(out[side])))
            at += len(out[side])
            outputs[side] = _within(channels, weights.shape[-2])
        self.p.origins[name] = Origin(kwargs.get("act_major", False), outputs, _within(inputs, weights.shape[-1]))
        self._matrix(name, rows, scale, vectors, **kwargs)

    def _layer_matrices(self) -> None:
        g, m = self.g, self.m
        dim, hidden = (np.arange(vectors * g.lanes) for vectors in (g.dim, g.hidden))
        inner = np.arange(g.down.start * g.lanes, g.down.stop * g.lanes)
        added = {name: np.arange(g.added(name) * g.lanes).reshape(-1, g.lanes) for name in ADDED}
        qkv = np.concatenate([m.wq, m.wk, m.wv], axis=1)
        scales = np.concatenate([m.mq, m.mk, m.mv], axis=1)
        out: dict[str, list[np.ndarray]] = {"W": [], "E": []}
        for side, (kind, head_set, query, vector) in qkv_vectors(g):
            if kind != "q" and g.share and g.share.dealt:
                channels = head_set * m.head_size + vector * g.lanes + np.arange(g.lanes)
            else:
                channels = g.channels(head_set, query, vector, g.queries_per_kv if kind == "q" else 1)
            base = {"q": 0, "k": m.wq.shape[1], "v": m.wq.shape[1] + m.wk.shape[1]}[kind]
            out[side].append(np.where(channels >= 0, channels + base, -1))
        scattered = bool(g.share and g.share.scattered)
        self._by_channels("qkv", qkv, scales, out, dim, per_layer=True, act_major=scattered)
        attention = np.concatenate(g.attention_vectors())
        if scattered:
            added = {name: self._last(name, vectors, {"w2": inner, "wo": attention}[name])
                     for name, vectors in added.items()}
        halves = _halved(added["w2"])
        if g.share and g.share.summed:
            self._sum_scales(g.share.residual[g.share.chip])
        shares = _halved(added["wo"], self._less_work("W") - self._less_work("E"))
        ffn = {side: [c for c in hidden.reshape(-1, g.lanes)] for side in SIDES}
        if scattered and len(early := own_chunks(g)) > 1:
            first = g.share.hidden[g.share.chip].start if g.share else 0
            begin, stop = early[0].start - first, early[0].stop - first
            self._pair(f"w13{FIRST}", (m.w1, m.w3), (m.m1, m.m3), {side: c[begin:stop] for side, c in ffn.items()}, dim,
                       act_major=True)
            ffn = {side: c[:begin] + c[stop:] for side, c in ffn.items()}
        self._pair("w13", (m.w1, m.w3), (m.m1, m.m3), ffn, dim)
        self._by_channels("w2", m.w2, m.m2, halves, inner, per_layer=True, act_major=True)
        self._by_channels("wo", m.wo, m.mo, shares, attention, per_layer=True, act_major=True)

    def _last(self, name: str, vectors: np.ndarray, inputs: np.ndarray) -> np.ndarray:
        """The last of an odd number of a matrix's output vectors goes to both sides, as a matrix of its own: each of
        them multiplies some of its inputs. Returns the other vectors."""
        if len(vectors) % 2 == 0 or len(vectors) < 3 or self._summed(name):
            return vectors
        self._by_channels(f"{name}{LAST}", getattr(self.m, name), getattr(self.m, f"m{name[1]}"),
                          {side: [vectors[-1]] for side in SIDES}, inputs, per_layer=True, act_major=True)
        return vectors[:-1]

    def _summed(self, name: str) -> bool:
        """Whether the chips add up their sums of a matrix."""
        return bool(self.g.share and self.g.share.summed and name == "w2")

    def _sum_scales(self, own: range) -> None:
        """W2's channel scales of the sums that this chip completes."""
        scales = vectors_of(self.m.m2, self.g.lanes)[..., own.start : own.stop, :]
        self.p.halves[SUMS] = self._halves("scales of w2", scales, scales[..., :0, :], True, "W0")

    def _less_work(self, side: str) -> int:
        """Output vectors of Wo that a side can compute while the other side has more attention heads to compute.

        Head sets alternate, so one side may have one set more. The balance is for the middle of the context,
        or for USUAL_POSITIONS if that is earlier.
        """
        g = self.g
        other = SIDES[1 - SIDES.index(side)]
        fewer = max(0, len(g.heads(other)) - len(g.heads(side)))
        if g.head_sets < 3:
            return 0
        chunks = ceil_div(min(self.m.context // 2, USUAL_POSITIONS), g.lanes)
        return fewer * 2 * chunks * g.head_entries // (g.vector_entries * len(g.attention_vectors()))

    def _pair(self, name: str, weights: tuple, scales: tuple, out: dict, inputs: np.ndarray, act_major: bool = False,
              ) -> None:
        """W1 on the west side and W3 on the east side, so that gate and up arrive together."""
        rows = {side: gather(gather(w, 1, np.concatenate(out[side])), 2, inputs)
                for side, w in zip(SIDES, weights, strict=True)}
        scale = {side: gather(s, 1, np.concatenate(out[side])) for side, s in zip(SIDES, scales, strict=True)}
        vectors = {side: list(range(len(out[side]))) for side in SIDES}
        joined = zip(SIDES, weights, strict=True)
        channels = {side: _within(np.concatenate(out[side]), w.shape[1]) for side, w in joined}
        channels["E"] = np.where(channels["E"] >= 0, channels["E"] + weights[0].shape[1], -1)
        self.p.origins[name] = Origin(act_major, channels, _within(inputs, weights[0].shape[2]))
        self._matrix(name, rows, scale, vectors, per_layer=True, act_major=act_major)

    def _classifier(self) -> None:
        g, m = self.g, self.m
        dim = np.arange(g.dim * g.lanes)
        tokens = np.arange(g.vocab * g.lanes).reshape(-1, g.lanes)
        out = {side: list(tokens[i::2]) for i, side in enumerate(SIDES)}
        if g.classifies:
            least = min(map(len, g.share.vocab)) // 2 if g.share else len(out["E"])
            self.p.vocabulary = self._vocabulary(least)
            self._by_channels("classifier", m.classifier, m.mc, out, dim, per_layer=False)
        if not g.embeds:
            return
        if g.share or m.embedding is not m.classifier or not g.classifies:
            every = np.arange(ceil_div(g.tokens, g.lanes) * g.lanes).reshape(-1, g.lanes)
            table = {side: list(every[i::2]) for i, side in enumerate(SIDES)}
            columns = dim[g.embedded.start * g.lanes : g.embedded.stop * g.lanes]
            self._by_channels("embedding", m.embedding, m.emb_scale, table, columns, per_layer=False)
        else:
            self.p.matrices["embedding"] = self.p.matrices["classifier"]
        scale = vectors_of(m.emb_scale, g.lanes)
        tensor = self._add("embedding scales", "E0", len(scale))
        self._fills.append((tensor, quads_of_int32(scale)))
        self.p.tensors["emb_scale"] = tensor

    def _vocabulary(self, vectors: int) -> Vocabulary:
        """The loop over a side's `vectors`, if there are many. The loop advances nothing else in its slices. On a rack
        `vectors` are those of the chip with the fewest, for the chips take turns together.

        At least one burst comes after the loop, because the last turn multiplies it. Of the possible lengths of a turn,
        the one that leaves the fewest vectors is taken.
        """
        looped, burst, cycles = vectors - self.g.burst, self.g.burst, self.g.vector_entries * self.g.dim
        bodies = [count * burst for count in TURNS if count * burst <= looped]
        bodies = [body for body in bodies if body * cycles >= LEAST_TURN] or bodies[-1:]
        if vectors <= MOST_STRAIGHT or not bodies:
            return Vocabulary()
        body = min(bodies, key=lambda body: looped % body)
        quads = cycles * body
        strides = {f"{side}{group}": quads for side in SIDES for group in range(1, self.config.weight_groups + 1)}
        strides |= {"W0": 2 * body, "E0": 2 * body}
        return Vocabulary(body, looped // body, strides)

    def _norms(self) -> None:
        m = self.m
        att, ffn, final = (vectors_of(gain, self.g.lanes) for gain in (m.g_att, m.g_ffn, m.g_final))
        self.p.halves["g_layer"] = self._halves("gains of norms", att, ffn, True, "E0")
        self.p.halves["g_final"] = self._halves("gain of final norm", final, final[:0], False, "E0")

    def _rope(self) -> None:
        g = self.g
        low, high = rope_parts(self.m.context, self.rate)
        for name, (cos, sin), home in (("rope_low", low, "W0"), ("rope_high", high, "E0")):
            lanes = np.repeat(np.stack([cos, sin]), 2, axis=2)
            if self.m.head_size < g.lanes:
                lanes = np.tile(lanes, (1, 1, g.heads_per_vector))
            lanes = lanes.reshape(2, -1, g.lanes)
            tensor = self._add(name, home, lanes.shape[1])
            self._fills.append((tensor, quads_of_halves(lanes.reshape(-1, g.lanes), lanes.shape[1])))
            self.p.tensors[name] = tensor

    def _work(self) -> None:
        """State, tables written by the host, and temporaries."""
        g, t = self.g, self.p.tensors
        for name, home, quads in (
            ("position", "E0", 1), ("token", "E0", 1), ("temperature", "E0", 1),
            ("tokens", "W0", g.chunks + 1), ("logits", "W0", g.vocab), ("z", "E0", g.vocab),
            ("xg", "W0", len(g.resident)), ("f", "W0", g.hidden), ("h16", "E0", len(g.resident)),
            ("vtemp", "E0", g.head_sets * g.head_vectors), ("mtemp", "E0", 0 if g.static_keys else 2),
        ):
            if quads and (g.classifies or g.sequences == 1 or name not in OF_CHOICE):
                t[name] = self._own(name, home, quads)
        block = self._noise_block()
        for name, home in (("noise", "E0"), ("gumbel", "W0")) if g.classifies else ():
            t[name] = self._own(name, home, block or g.vocab, per_layer=block > 0)
            if g.together > 1 and block:
                t[f"{name}_rest"] = self._own(f"{name} of the end", home, g.vocab - block * self.m.layers)
        if g.stage:
            t["handed"] = self._add("handed over", "E0", g.dim)
        if g.stage and g.sequences > 1:
            t["arrived"] = self._add("arrived residual", "W0", g.dim)
            self._sequences()
        if not g.queries_in_registers:
            t["q"] = self._own("queries", "W0", len(g.query_vectors()))
        if g.by_sides:
            t["k16"] = self._own("keys", "W0", g.head_sets)
        if not g.residual_in_registers:
            t["x"] = self._own("x", "W0", len(g.resident))
            t["x_part"] = self._own("addends of x", "E0", len(g.resident))
        self._constants()
        if products_masked(g):
            t["mask_words"] = self._own("mask", "W0", MOST_BLOCKS)
        if g.share:
            self._arrivals(g.share)
        if g.masks_on_both_sides:
            t["mask_E0"] = self._own("mask", "E0", g.chunks)
        for name, homes in (("t_W0", ("W0", "E0")), ("t_W1", ("W0", "E0")), ("t_E0", ("E0", "W0"))):
            t[name] = self._own("scores", homes, g.chunks)
        t["mask_W0"] = self._until_finish("mask", "logits", "W0", g.chunks)
        t["t_E1"] = self._until_finish("scores", "z", "E0", g.chunks)
        if g.together > 1:
            t |= {name: self._until_finish(f"inner layer, {name}", later, home, g.hidden)
                  for name, later, home in (("gate", "logits", "W0"), ("up", "z", "E0"), ("sigmoid", "z", "E0"))}
        if g.heads_per_vector > 1:
            t |= {f"part_{side}": self._own("attention output", ACROSS[side], 1) for side in SIDES}

    def _own(self, name: str, homes: str | tuple[str, ...], quads: int, *, per_layer: bool = False) -> Tensor:
        """A tensor that is written: of each sequence, if it belongs to the state, or if they work at the same time."""
        return self._add(name, homes, quads, per_layer, self.g.sequences if name in STATE else self.g.together)

    def _sequences(self) -> None:
        """The present sequence, and tables of what is constant for each.

        current: an index vector with the number of the sequence, all lanes and planes. next: that of the sequence which
        follows, by sequence. own_planes, own_lanes: offset and full mask, as the constants "planes" and "lanes".
        """
        stage, count, lanes = self.g.stage, self.g.sequences, np.arange(self.g.lanes)
        assert stage

        def vectors(numbers: np.ndarray, *, lane_mask: int = 0, planes: int = 0) -> np.ndarray:
            masks = np.where(lanes == 1, lane_mask, np.where(lanes == 2, planes, 0))
            return quads_of_int32(np.where(lanes == 0, numbers[:, None], masks))

        every = np.arange(count)
        for name, home, data in (
            ("current", "E0", vectors(every[-stage.number % count][None], lane_mask=0xFFFF, planes=15)),
            ("next", "E0", vectors((every + 1) % count, lane_mask=0xFFFF, planes=15)),
            ("own_lanes", "E0", vectors(every, lane_mask=0xFFFF)),
            ("own_planes", "W0", vectors(every, planes=15)),
        ):
            self.p.tensors[name] = tensor = self._add(f"sequences, {name}", home, len(data))
            self._fills.append((tensor, data))

    def _arrivals(self, share: Share) -> None:
        """What the chips of a rack send each other, in the places of all chips.

        outputs: attention's output. gates: the inner layer, if W2 has the columns of all chips. addends: what is added
        to the residual, or normed: the normed residual, and squares: of each chip the sum of squares of its vectors.
        best: of each chip the greatest score, then of each the token that has it. lost: of two chips, whether the other
        has the greatest score. exponents: of each chip that of its channels of a group, or of its
        residual.
        """
        g, t, chips = self.g, self.p.tensors, len(share.heads)
        loaded = {"outputs": len(g.attention_vectors())}
        if share.summed:
            self._sums(chips)
        else:
            loaded["gates"] = g.inner
        loaded |= {"normed": g.dim} if share.scattered else {}
        for name, quads in loaded.items():
            t[f"{name} E"] = t[f"{name} W"] = self._add(f"{name} of all chips", "E0", quads)
            if share.meshed:  # a chip passes nothing on
                t[f"{name} W"] = self._add(f"{name} of all chips", "W0", quads)
            t[name] = t[f"{name} E"]
        residual = {"squares": chips} if share.scattered else {"addends": g.dim}
        for name, quads in {**residual, "exponents": chips}.items():
            t[name] = self._add(f"{name} of all chips", "E0", quads)
        # Two chips exchange scores while they search E0 for the greatest.
        t["best"] = self._add("best of all chips", "W0" if chips == 2 else "E0", 2 * chips)
        if chips > COMPARED:
            t["less"] = self._add("chips with less than the greatest score", "W0", chips)
        elif chips == 2:
            for side in SIDES:
                t[f"lost {side}0"] = self._add(f"whether the other chip's score is the greatest, {side}", f"{side}0", 1)
        if share.dealt and (values := share.heads[share.chip].values):
            t["vsent"] = self._add("values for chips", "E0", len(values) * g.head_vectors)
        if "silu" in self.m.dynamic and not share.scattered:
            t["part"] = self._add("addends of a group", "E0", g.added("w2"))
            t["part_sums"] = self._add("sums of addends", "W0", g.added("w2"))

    def _sums(self, chips: int) -> None:
        """What the chips add up of W2. parts: this chip's sums, for all outputs. sums: those that come in at each end,
        chip by chip. total: what these add up to. complete: with this chip's."""
        g, t = self.g, self.p.tensors
        t["parts"] = self._add("sums of this chip", "W0", g.dim)
        for side in SIDES:
            if most := min(self.config.ports_of(side), chips - 1):
                t[f"sums {side}"] = self._add(f"sums of chips, {side}", f"{side}0", most * len(g.resident))
        for name in ("total", "complete"):
            t[name] = self._add(f"sums of all chips, {name}", "E0", len(g.resident))

    def _until_finish(self, name: str, later: str, home: str, quads: int) -> Tensor:
        """A tensor that is no longer needed when `later` gets its values. It shares the place of `later` if it fits."""
        other = self.p.tensors.get(later)
        return (other and self.layout.share(name, other, quads)) or self._own(name, home, quads)

    def _noise_block(self) -> int:
        """Vectors of noise that each layer makes in idle cycles; 0 if the layers make none.

        A looped classifier makes its own noise. Many layers would make too much surplus noise for a small vocabulary.
        """
        if self.g.together > 1:
            return 0 if self.p.vocabulary.turns else 2 * self.g.noise_of_layers()
        both = 2 * self.g.logit_burst
        block = both * ceil_div(ceil_div(self.g.vocab, both), self.m.layers)
        wasted = block * self.m.layers - self.g.vocab
        return 0 if self.p.vocabulary.turns or wasted > NOISE_WASTE else block

    def _constants(self) -> None:
        t, config, g = self.p.tensors, self.config, self.g
        lanes = np.arange(g.lanes)
        single = {
            "lanes": (1, 0xFFFF), "planes": (2, 15), "one": (0, 1), "one_lane": (1, 1), "one_plane": (2, 1),
            "words": (0, g.head_vectors), "steps": (0, g.head_entries),
        }
        if g.in_flight:
            steps = {"words": g.head_vectors, "steps": g.head_entries, "one": 1}
            single |= {f"own_{name}": (0, step * g.sequences) for name, step in steps.items()}
        if self.p.vocabulary.turns:
            single["turn"] = 0, 2 * self.p.vocabulary.body
        if table := self.p.matrices.get("embedding"):
            single |= {"emb_step": (0, table.acts), "emb_vector": (0, table.acts * table.vector_entries)}
            if g.lanes // table.vector_entries != config.rows:
                raise TspError("an int4 classifier or embedding is not supported: keep it at 8 bits")
        vectors = {name: np.where(lanes == lane, value, 0) for name, (lane, value) in single.items()}
        vectors["sign"] = np.where(lanes % 2, -1, 1)
        if products_masked(g):
            vectors["masked"] = np.full(g.lanes, int.from_bytes(bytes(PLANES * [WEIGHT % 256]), signed=True))
        if g.share and g.share.scattered:
            vectors["bytes"] = np.array([255, 255 << 8, 255 << 16, -(1 << 24)])[lanes % PLANES]
        if g.classifies:
            valid = np.arange(g.vocab * g.lanes)[-g.lanes :] < self.m.vocab
            vectors["padding"] = np.where(valid, 0, MASKED // 2)
        for name, vector in vectors.items():
            t[f"c_{name}"] = self._add("constants", "W0" if name in WEST else "E0", 1)
            self._fills.append((t[f"c_{name}"], quads_of_int32(vector[None])))


def _within(channels: np.ndarray, count: int) -> np.ndarray:
    """The channels, with -1 for those beyond the last."""
    return np.where(channels < count, channels, -1).astype("<i4")


def _halved(vectors: np.ndarray, more: int = 0) -> dict[str, list[np.ndarray]]:
    """The vectors of both sides. The west has about `more` more than the east."""
    middle = min(max(ceil_div(len(vectors) + more, 2), 1), len(vectors) - 1)
    return {"W": list(vectors[:middle]), "E": list(vectors[middle:])}


def qkv_vectors(g: Geometry) -> list[tuple[str, tuple[str, int, int, int]]]:
    """(side, (kind, head set, query, vector of the head)) of the QKV projection's output vectors, in each side's order
    of computation. Keys and values that are dealt have their number among the chip's in place of a head set."""
    if g.share and g.share.dealt:
        own, vectors = g.share.heads[g.share.chip], range(g.head_vectors)
        outputs = [*(("k", n, 0, v) for n in range(len(own.keys)) for v in vectors),
                   *(("q", *place) for place in g.query_vectors()),
                   *(("v", n, 0, v) for n in range(len(own.values)) for v in vectors)]
        return [(SIDES[n % 2], output) for n, output in enumerate(outputs)]
    if g.halved:  # neither side has more of the attention
        outputs = [(kind, *place) for kind in "kqv" for place in g.query_vectors() if kind == "q" or place[1] == 0]
        return [(SIDES[n % 2], output) for n, output in enumerate(outputs)]
    kv = [(SIDES[s % 2], s, v) for s in range(g.head_sets) for v in range(g.head_vectors)]
    found = [(side, ("k", s, 0, v)) for side, s, v in kv]
    load = {side: sum(1 for other, *_ in kv if other == side) * min(2, g.head_sets) for side in SIDES}
    for s, q, v in g.query_vectors():
        side = min(SIDES, key=lambda each: load[each]) if g.head_sets % 2 else SIDES[s % 2]
        load[side] += 1
        found.append((side, ("q", s, q, v)))
    if g.by_sides:  # the queries of a side are together in a half of the scales
        found = found[len(kv) :] + found[: len(kv)]
    return found + [(side, ("v", s, 0, v)) for side, s, v in kv]
