"""SRAM addresses of a model's tensors, and the order of weights in SRAM. It is the only pass that knows addresses.

A slice first holds the tensors of layers, one area for each layer, and then the global tensors. The relative addresses
of the layer loop are those of layer 0. Weights lie in the order in which an MXM consumes them, so one burst reads a
matrix.
"""

import itertools
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from arch.config import PLANES, ChipConfig
from arch.isa import Fmt, Wfmt
from arch.row import slice_depths, slices
from arch.vectors import quads_of_int32
from base.errors import TspError
from compiler.ir import As, Mem

from .hollow import is_hollow, zeros

INDEX_SEQUENCE = 7
"""The index register, in all slices, whose offset is the number of a sequence."""


@dataclass(eq=False)
class Tensor:
    """A tensor in one slice.

    quads: quads in each layer, or in all if the tensor is global; of one copy.
    copies: independent copies, one for each sequence. They are interleaved: quad q of copy s is at q * copies + s. An
    index register says which copy is meant.
    addr: first quad, once `Layout.place` has run.
    apart: whole copies follow each other in place of that: quad q of copy s is at s * quads + q. See `of`.
    """

    name: str
    slice: str
    quads: int
    per_layer: bool
    addr: int = -1
    copies: int = 1
    apart: bool = False

    @property
    def size(self) -> int:
        """Quads of all copies, in each layer or in all."""
        return self.quads * self.copies

    def of(self, sequence: int) -> "Tensor":
        """A copy of a sequence that is apart from others; the tensor itself if it has no copies."""
        if self.copies == 1:
            return self
        return replace(self, addr=self.addr + sequence * self.quads, copies=1, apart=False)

    def mem(self, start: int = 0, count: int = 0, **kwargs: Any) -> Mem:
        """`count` quads from quad `start` of the tensor on. By default, all to its end.

        Of several copies it is the present sequence's, unless another index register is named, which must hold that
        sequence's offset, too.
        """
        if self.apart:
            raise ValueError(f"{self.name}: `of` says which copy is meant")
        if self.copies > 1:
            kwargs = {"index": INDEX_SEQUENCE} | kwargs
        return Mem(self.slice, self.addr + start * self.copies, count or self.quads - start, self.copies,
                   rel=int(self.per_layer), **kwargs)


@dataclass(frozen=True)
class Weights:
    """The share of one weight group in a matrix. Its parts may lie in different slices."""

    parts: tuple[Tensor, ...]

    @property
    def slice(self) -> str:
        """The slice of a share that has a single part."""
        (part,) = self.parts
        return part.slice

    def mem(self, start: int, count: int, **kwargs: Any) -> Mem:
        """`count` quads from quad `start` on. They must lie in one part."""
        first = 0
        for part in self.parts:
            if start < first + part.quads:
                if start + count > first + part.quads:
                    raise ValueError(f"quads {start}..{start + count - 1} of {part.name} lie in two parts")
                return part.mem(start - first, count, **kwargs)
            first += part.quads
        raise ValueError(f"quad {start} is beyond {self.parts[-1].name}")


@dataclass(eq=False)
class Halves:
    """int16 vectors, two in a quad. Vector v is in quad v mod quads: in its low planes if v < quads, else its high."""

    tensor: Tensor
    vectors: int

    def __call__(self, start: int = 0, count: int = 1, constant: bool = True) -> As:
        """An operand of `count` vectors from vector `start` on. They must lie in one half."""
        half, first = divmod(start, self.tensor.quads)
        if first + count > self.tensor.quads:
            raise ValueError(f"vectors {start}..{start + count - 1} of {self.tensor.name} lie in both halves")
        cells = () if constant else None
        return As(self.tensor.mem(first, count, planes=3 << 2 * half, cells=cells), (Fmt.LO16, Fmt.HI16)[half])


@dataclass(eq=False)
class Layout:
    """Allocates slices of a chip and fills their image. apart: of every tensor with copies, see `Tensor`."""

    config: ChipConfig
    layers: int
    tensors: list[Tensor] = field(default_factory=list)
    strides: dict[str, int] = field(default_factory=dict)
    contents: list[tuple[Tensor, np.ndarray]] = field(default_factory=list)
    shared: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    apart: bool = False

    def depth(self, name: str) -> int:
        """Quads of a slice."""
        return slice_depths(self.config)[name]

    def cost(self, tensor: Tensor) -> int:
        """Quads that a tensor takes in all."""
        return tensor.size * (self.layers if tensor.per_layer else 1)

    def _cost(self, name: str) -> int:
        return sum(self.cost(tensor) for tensor in self.tensors if tensor.slice == name)

    def free(self, name: str) -> int:
        """Quads of a slice that are not allocated yet."""
        return self.depth(name) - self._cost(name)

    def add(self, name: str, slices: str | tuple[str, ...], quads: int, *, per_layer: bool = False,
            copies: int = 1) -> Tensor:
        """Reserve quads in the first of `slices` that has room. Raises TspError if none has."""
        options = (slices,) if isinstance(slices, str) else slices
        tensor = Tensor(name, options[0], quads, per_layer, copies=copies, apart=self.apart and copies > 1)
        fitting = [option for option in options if self.free(option) >= self.cost(tensor)]
        if not fitting:
            raise self._full(tensor, self.free(options[0]))
        tensor.slice = fitting[0]
        self.tensors.append(tensor)
        return tensor

    def claim(self, name: str, slice_: str, quads: int, *, per_layer: bool = False, copies: int = 1) -> Tensor:
        """Reserve quads in a slice, even if it has no room for them: see `relieve`."""
        self.tensors.append(tensor := Tensor(name, slice_, quads, per_layer, copies=copies,
                                             apart=self.apart and copies > 1))
        return tensor

    def relieve(self, name: str, other: str, movable: Collection[str]) -> list[Tensor]:
        """Move tensors to another slice until slice `name` has room for the rest.

        Each step moves the smallest tensor that frees enough quads, of several the one claimed last. If none is large
        enough, it moves the largest.

        name: the slice to relieve.
        other: the slice that takes the tensors.
        movable: names of the tensors that may move.

        Returns the moved tensors. Raises TspError if no movable tensor fits the other slice.
        """
        moved: list[Tensor] = []
        while (lack := -self.free(name)) > 0:
            options = [tensor for tensor in reversed(self.tensors) if tensor.slice == name and tensor.name in movable
                       and self.cost(tensor) <= self.free(other)]
            if not options:
                mine = [tensor for tensor in self.tensors if tensor.slice == name]
                used = list(itertools.accumulate(map(self.cost, mine)))
                first = next(n for n, end in enumerate(used) if end > self.depth(name))
                raise self._full(mine[first], self.depth(name) - used[first] + self.cost(mine[first]))
            enough = [tensor for tensor in options if self.cost(tensor) >= lack]
            tensor = min(enough, key=self.cost) if enough else max(options, key=self.cost)
            tensor.slice = other
            moved.append(tensor)
        return moved

    def _full(self, tensor: Tensor, left: int) -> TspError:
        return TspError(
            f"{tensor.name} needs {self.cost(tensor)} quads of {self.config.quad_bytes} bytes, but slice "
            f"{tensor.slice} of config {self.config.name} has {left} of {self.depth(tensor.slice)} left: "
            "use a larger config")

    def share(self, name: str, other: Tensor, quads: int) -> Tensor | None:
        """A tensor in the first quads of a global tensor that no earlier one shares; None if it has too few. Either
        these or the global tensor may hold data at a time."""
        first = sum(tensor.quads for tensor, shared in self.shared if shared is other)
        if other.per_layer or first + quads > other.quads:
            return None
        tensor = Tensor(name, other.slice, quads, False, copies=other.copies, apart=other.apart)
        self.shared.append((tensor, other))
        return tensor

    def place(self) -> None:
        """Give every tensor its address."""
        for name in slices(self.config):
            at = 0
            for tensor in self.tensors:
                if tensor.slice == name and tensor.per_layer:
                    tensor.addr, at = at, at + tensor.size
            self.strides[name] = at
            at *= self.layers
            for tensor in self.tensors:
                if tensor.slice == name and not tensor.per_layer:
                    tensor.addr, at = at, at + tensor.size
        shared = dict[int, int]()
        for tensor, other in self.shared:
            tensor.addr = shared.get(id(other), other.addr)
            shared[id(other)] = tensor.addr + tensor.size

    def fill(self, tensor: Tensor, data: np.ndarray) -> None:
        """Set the initial bytes [layers if per_layer, quads, planes, lanes] of a tensor, of all its copies. They may
        have fewer quads."""
        self.contents.append((tensor, data if tensor.per_layer else data[None]))

    def image(self) -> dict[str, np.ndarray]:
        """Bytes of every slice, uint8 [quads used, planes, lanes]."""
        used = {name: self._cost(name) for name in self.strides}
        image = {name: np.zeros((quads, PLANES, self.config.lanes), np.uint8) for name, quads in used.items()}
        for tensor, data in self.contents:
            for layer, block in enumerate(data):
                start = tensor.addr + layer * self.strides[tensor.slice]
                step, next_copy = (1, tensor.quads) if tensor.apart else (tensor.copies, 1)
                for first in range(start, start + tensor.copies * next_copy, next_copy):
                    image[tensor.slice][first : first + len(block) * step : step] = block
        return image


# --- byte layouts --------------------------------------------------------------------------------------------------


def quads_of_halves(vectors: np.ndarray, quads: int) -> np.ndarray:
    """int16 vectors [.., n, lanes] -> bytes [.., quads, planes, lanes] as `Halves` reads them."""
    low, high = vectors[..., :quads, :].astype(np.int64), vectors[..., quads:, :].astype(np.int64)
    packed = low & 0xFFFF
    packed[..., : high.shape[-2], :] |= (high & 0xFFFF) << 16
    return quads_of_int32(((packed + (1 << 31)) & 0xFFFFFFFF) - (1 << 31))


def pack_weights(w: np.ndarray, config: ChipConfig, wfmt: Wfmt, *, act_major: bool = False) -> np.ndarray:
    """Weights of one side in streaming order.

    w: int8 [.., vectors * lanes, acts * lanes].
    act_major: order of the quads is [act, vector, entry] in place of [vector, entry, act].

    Returns bytes [.., weight groups, quads, planes, lanes].
    """
    lead, rows, lanes = w.shape[:-2], config.rows, config.lanes
    per_entry = rows * (2 if wfmt is Wfmt.INT4 else 1)
    entries, acts = w.shape[-2] // per_entry, w.shape[-1] // lanes
    if is_hollow(w):
        return zeros((*lead, rows // PLANES, entries * acts, PLANES, lanes), np.uint8)
    w = w.reshape(*lead, entries, per_entry, acts, lanes)
    if wfmt is Wfmt.INT4:
        w = (w[..., 0::2, :, :] & 15) | (w[..., 1::2, :, :] << 4)
    w = w.astype(np.int8).view(np.uint8).reshape(*lead, entries, rows // PLANES, PLANES, acts, lanes)
    e, g, p, k, lane = (len(lead) + i for i in range(5))
    outer = (k, e) if act_major else (e, k)
    w = w.transpose(*range(len(lead)), g, *outer, p, lane)
    return np.ascontiguousarray(w).reshape(*lead, rows // PLANES, entries * acts, PLANES, lanes)
