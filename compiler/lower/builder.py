"""The builder that a token's program is written with: operations in order, and the resources that they hold.

The functions of this package take a `Builder` first. They add clusters to its open block, take registers, exponents
and buffer entries from its pools, and give them back when no later operation reads them. What one function leaves to
another is passed by value: see `token`.
"""

from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from arch import tables
from arch.config import ChipConfig
from arch.isa import Alu, ErUse, Func, Op, Red
from arch.vectors import SIDES, ceil_div
from base.errors import TspError
from compiler.ir import Act, Block, Cluster, Imm, Mem, Read, Reg, Stream, Write
from compiler.place.geometry import Geometry
from compiler.place.masks import MASKED_TOGETHER, mask_quads, mask_steps
from compiler.place.placement import Placement, qkv_vectors
from program.integer import IntegerModel

if TYPE_CHECKING:
    from .exchange import Exchange

FRAC = {func: table.frac_bits for func, table in tables.TABLES.items()}
"""Fraction bits of the VXM's table functions: the post shift that leaves an integer."""


class Pool:
    """Numbered entries, the one that has been free longest first, so that reuse seldom waits."""

    def __init__(self, entries: range, what: str) -> None:
        self._free = deque(entries)
        self._size, self._what = len(entries), what

    def take(self, count: int = 1) -> int:
        """First of `count` neighbouring entries. Raises TspError if there are none."""
        free = set(self._free)
        for base in self._free:
            if all(base + i in free for i in range(count)):
                for i in range(count):
                    self._free.remove(base + i)
                return base
        raise TspError(f"{count} neighbouring {self._what} of the VXM are needed, and of its {self._size} the model's "
                       f"residual and heads leave {len(free)}: use a model with narrower or fewer heads")

    def give(self, base: int, count: int = 1) -> None:
        """Return entries."""
        self._free.extend(range(base, base + count))


class Ring:
    """Entries of a buffer, given out in turn and never returned: the scheduler waits for those still in use."""

    def __init__(self, entries: range, what: str) -> None:
        self.size, self._first, self._what, self._next = len(entries), entries.start, what, 0

    def take(self, count: int, align: int = 1) -> int:
        """First of `count` neighbouring entries, a multiple of `align`: few places make few distinct words.

        Raises TspError if the buffer is smaller than that.
        """
        self._next = ceil_div(self._next, align) * align
        if count > self.size:
            raise TspError(f"{count} {self._what} are needed at once, the chip has {self.size} for it: use a larger "
                           "config")
        if self._next + count > self.size:
            self._next = 0
        base, self._next = self._next, self._next + count
        return self._first + base

    def restart(self) -> int:
        """The first entry, which is given out next."""
        self._next = 0
        return self._first


class Builder:
    """Writes the program of one token, for positions of one context bucket.

    placement: where the model lies; `geometry`, `model`, `config` and `shifts` are its parts.
    chunks: vectors of positions that the bucket attends to.
    valid: how many of them, from the first on, hold real positions at every token of the bucket, so that they need no
    mask.
    masked: blocks of MASKED_TOGETHER vectors, the last of the bucket, whose products are masked in the matrix units; 0
    if the VXM masks those behind `valid`. masking: the activation entries of these products.
    exchange: what the chip sends to others, if it is one of a rack.

    blocks: what is written so far; the last one is open.
    registers, exponents: pools of the VXM.
    accumulators, activations: rings of the MXM of each side. Where heads share vectors, the last accumulators of a side
    are not in its ring: see `head_accumulator`. Nor are the last activation entries, which hold attention's output, and
    its queries if they are computed by sides.

    Of several sequences in one program, each has a builder of its own, and its part of all registers and buffers.
    """

    def __init__(self, placement: Placement, chunks: int, valid: int = 0, exchange: "Exchange | None" = None) -> None:
        self.placement, self.chunks, self.exchange = placement, chunks, exchange
        self.geometry: Geometry = placement.geometry
        self.valid = self.geometry.known(valid)
        self.model: IntegerModel = self.geometry.model
        self.config: ChipConfig = self.geometry.config
        self.shifts = self.model.shifts
        self.blocks: list[Block] = []
        self.registers = Pool(self._part(self.config.rf_depth), "registers")
        self.exponents = Pool(self._part(self.config.er_depth), "exponents")
        accs, acts = self._part(self.config.acc_depth), self._part(self.config.act_depth)
        self._shared = accs[len(accs) - self.geometry.shared_accumulators :]
        self.outputs = acts[len(acts) - len(self.geometry.attention_vectors()) :]
        fixed = max(sum(output[0] == "q" for other, output in qkv_vectors(self.geometry) if other == side)
                    for side in SIDES) if self.geometry.by_sides else 0
        self.masked = self._masked_blocks(self.outputs.start - acts.start - fixed)
        masks = mask_steps(self.model) if self.masked else 0
        self.masking = range(self.outputs.start - masks, self.outputs.start)
        self.queries = range(self.masking.start - fixed, self.masking.start)
        self.accumulators = {side: Ring(range(accs.start, self._shared.start), f"accumulators of MXM_{side}")
                             for side in SIDES}
        self.activations = {side: Ring(range(acts.start, self.queries.start), f"activation entries of MXM_{side}")
                            for side in SIDES}

    def _masked_blocks(self, free: int) -> int:
        """Blocks of vectors, the last ones of the bucket, whose products are masked in the matrix unit; 0 if the VXM
        masks them.

        free: activation entries for these products, and for the values of all positions or the channels of a token.
        """
        blocks = ceil_div(self.chunks - self.valid, MASKED_TOGETHER)
        weights = self.placement.masks.values()
        fits = (weights and all(tensor.quads >= blocks * mask_quads(self.geometry) for tensor in weights)
                and mask_steps(self.model) + max(self.chunks, self.geometry.dim) <= free)
        return blocks if fits and blocks * MASKED_TOGETHER <= self.chunks else 0

    def _part(self, entries: int) -> range:
        """This sequence's entries of a file or buffer."""
        count = entries // self.geometry.together
        return range(self.placement.sequence * count, (self.placement.sequence + 1) * count)

    @property
    def chip(self) -> int:
        """Number of the chip in its rack, or in its group of the rack's chips."""
        return self.exchange.chip if self.exchange else 0

    # -- blocks and clusters --

    def open(self, name: str, turns: int = 1, strides: Mapping[str, int] | None = None) -> None:
        """Begin a block; `strides` are the quads that relative addresses advance with each turn, by slice."""
        self.blocks.append(Block(name, turns, strides or {}))

    def cluster(self, label: str) -> Cluster:
        """A new cluster of the open block."""
        cluster = Cluster(label, self.config)
        self.blocks[-1].clusters.append(cluster)
        return cluster

    def in_order(self, first: int, *, chain: bool) -> None:
        """Products that do not depend on each other: those from cluster `first` of the open block on start behind those
        of a side that an earlier call has chained. chain: they also start one behind the other, and later ones behind
        them. Without it a scheduler may begin with one that is less urgent."""
        for cluster in self.blocks[-1].clusters[first:]:
            for burst in (burst for burst in cluster.bursts if burst.op is Op.MAC):
                cell = ("order", burst.queue.name)
                cluster.reads.append(Read(cell, burst.at, burst.at))
                if chain:
                    cluster.writes.append(Write(cell, burst.at, burst.at))

    # -- operations of the VXM --

    def op(self, label: str, **fields: Any) -> Stream:
        """A cluster of one VXM operation, see `alu`: its results."""
        return self.alu(self.cluster(label), **fields)[0]

    @staticmethod
    def alu(cluster: Cluster, *, dst: Reg | Mem | None = None, **fields: Any) -> tuple[Stream, Stream]:
        """`Cluster.alu`, whose results may also go to SRAM: (results, reduction)."""
        result, reduced = cluster.alu(**fields, dst=dst if isinstance(dst, Reg) else None)
        if isinstance(dst, Mem):
            cluster.write(result, dst)
        return result, reduced

    def across_lanes(self, cluster: Cluster, stream: Stream, red: Red, segment_bits: int | None = None) -> Stream:
        """Reduction over all lanes, in every lane; or over those of each 2**segment_bits neighbours."""
        bits = self.config.lane_bits if segment_bits is None else segment_bits
        return cluster.sxm(stream, Op.REDUCE, red=red, segment=bits)

    def exponent(self, cluster: Cluster, largest: Stream, er: int, bits: int = 7) -> None:
        """Exponent register `er` = the shift that leaves so many bits of the largest lane."""
        self.alu(cluster, a=self.across_lanes(cluster, largest, Red.MAX), func=Func.BITLEN, alu=Alu.ADD, c=Imm(-bits),
                 er_dst=er)

    # -- places --

    def regs(self, count: int) -> Reg:
        """Neighbouring registers, to be returned by `free`."""
        return Reg(self.registers.take(count), count)

    def free(self, *places: Reg | Mem | None) -> None:
        """Return those that are registers."""
        for place in places:
            if isinstance(place, Reg):
                self.registers.give(place.base, place.count)

    def free_exponent(self, er: int | None) -> None:
        """Return an exponent register, if there is one."""
        if er is not None:
            self.exponents.give(er)

    def tensor(self, name: str, start: int = 0, count: int = 0) -> Mem:
        """`count` quads of a tensor (default: to its end) from `start` on."""
        return self.placement.tensors[name].mem(start, count)

    def constants(self, name: str, start: int, count: int) -> Mem:
        """`count` quads, from `start` on, of a tensor that no program writes."""
        return self.placement.tensors[name].mem(start, count, cells=())

    def constant(self, name: str) -> Mem:
        """A vector that no program writes."""
        return self.placement.tensors[f"c_{name}"].mem(cells=())

    def head_accumulator(self, side: str, member: int) -> int:
        """The accumulator of the heads with this number in their head set; it holds 0 in the lanes of the others."""
        return self._shared[member]

    # -- activation buffers --

    def acts(self, count: int, align: int = 1) -> dict[str, Act]:
        """Entries of the activation buffers of both sides, for the same values, from a multiple of `align` on."""
        return {side: Act(side, self.activations[side].take(count, align), count) for side in SIDES}

    def most_acts(self) -> int:
        """Most entries that `all_acts` gives."""
        spare = len(self.queries) + len(self.outputs) if self.geometry.together > 1 else 0
        return min(ring.size for ring in self.activations.values()) + spare

    def all_acts(self, count: int) -> dict[str, Act]:
        """`acts` for values that are needed when attention's queries and output no longer are: of several sequences,
        each then has those entries, too."""
        if self.geometry.together == 1:
            return self.acts(count)
        return {side: Act(side, ring.restart(), count) for side, ring in self.activations.items()}

    @staticmethod
    def load(cluster: Cluster, stream: Stream, acts: Mapping[str, Act]) -> None:
        """Load a stream into entries of each side."""
        for act in acts.values():
            cluster.load(stream, act)

    def load_both(self, cluster: Cluster, stream: Stream) -> dict[str, Act]:
        """Load a stream into entries of both sides."""
        acts = self.acts(stream.count)
        self.load(cluster, stream, acts)
        return acts


def less(exponent: int | None) -> dict[str, Any]:
    """Fields of an operation whose post shift is less the exponent of its operand, if that has one."""
    return {} if exponent is None else {"er_use": ErUse.POST, "er": exponent, "er_neg": 1}
