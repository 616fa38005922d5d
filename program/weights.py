"""The places of the weights in the SRAM image. A program file holds the weights only there.

The compiler lays out a matrix in the order in which the matrix units consume it (`compiler.place.layout.pack_weights`)
and records its place here. The reference device unpacks it again.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from arch.config import PLANES, ChipConfig
from arch.vectors import SIDES
from base.errors import TspError

from .integer import array_shapes

SOURCES = {"qkv": ("wq", "wk", "wv"), "w13": ("w1", "w3"), "wo": ("wo",), "w2": ("w2",),
           "classifier": ("classifier",), "embedding": ("embedding",)}
"""For each stored matrix, the matrices of the integer model that it joins, one after the other."""


def base_of(name: str) -> str:
    """The key of `SOURCES` whose rows a stored matrix has. A chip may store some rows of "w2" as "w2 last"."""
    return name.partition(" ")[0]


@dataclass(frozen=True)
class Part:
    """Consecutive quads of a slice ("E1"). The same part of the next layer is `stride` quads later."""

    slice: str
    addr: int
    quads: int
    stride: int


@dataclass(frozen=True)
class Stored:
    """A matrix in the image. `Program.channels` has the output channel of each row of a side, and the input of each
    column; -1 for none.

    name: a key of `SOURCES`, or that of some of its rows (`base_of`).
    layers: copies of it, one for each layer.
    four_bit: a byte holds two rows.
    act_major: the rows of a column are together, rather than the columns of a row.
    groups: by side, for each weight group, the parts that hold it.
    """

    name: str
    layers: int
    four_bit: bool
    act_major: bool
    groups: dict[str, list[list[Part]]]


def rows_of(stored: Stored, side: str, image: Mapping[str, np.ndarray], config: ChipConfig, rows: int,
            columns: int) -> np.ndarray:
    """The rows of a side in order, int8 [layers, rows, columns], with padding."""
    per_step = config.rows * (2 if stored.four_bit else 1)
    steps, acts = rows // per_step, columns // config.lanes
    groups = [np.concatenate([_quads(part, image, stored.layers) for part in parts], axis=1)[:, : steps * acts]
              for parts in stored.groups[side]]
    data = np.stack(groups, axis=1).view(np.int8)  # [layers, groups, quads, planes, lanes]
    shape = (acts, steps) if stored.act_major else (steps, acts)
    data = data.reshape(stored.layers, len(groups), *shape, PLANES, config.lanes)
    step, act = (3, 2) if stored.act_major else (2, 3)
    data = data.transpose(0, step, 1, 4, act, 5).reshape(stored.layers, steps, config.rows, columns)
    if stored.four_bit:
        data = np.stack([(data << 4) >> 4, data >> 4], axis=3)
    return data.reshape(stored.layers, rows, columns)


def _quads(part: Part, image: Mapping[str, np.ndarray], layers: int) -> np.ndarray:
    starts = part.addr + part.stride * np.arange(layers)
    data = image[part.slice]
    if layers == 1:
        return data[None, part.addr : part.addr + part.quads]
    return np.stack([data[start : start + part.quads] for start in starts])


def unpack(stored: Stored, image: Mapping[str, np.ndarray], channels: Mapping[str, np.ndarray], config: ChipConfig,
           rows: int, columns: int) -> np.ndarray:
    """A stored matrix with `rows` channels and `columns` inputs, int8 [layers, rows, columns]."""
    inputs = channels[f"{stored.name}/inputs"]
    known = inputs >= 0
    found = np.zeros((stored.layers, rows, columns), np.int8)
    for side in SIDES:
        outputs = channels[f"{stored.name}/{side}"]
        if not len(outputs):
            continue
        data = rows_of(stored, side, image, config, len(outputs), len(inputs))
        if not np.array_equal(inputs, np.arange(columns)):
            sorted_columns = np.zeros((*data.shape[:2], columns), np.int8)
            sorted_columns[..., inputs[known]] = data[..., known]
            data = sorted_columns
        mine = outputs >= 0
        found[:, outputs[mine]] = data[:, mine] if not mine.all() else data
    return found


@dataclass(frozen=True, kw_only=True)
class Share:
    """The part of a matrix that one chip of a rack holds.

    name: a key of `SOURCES`.
    layers, rows, columns: the numbers that it holds, as the whole matrix counts them.
    data: int8 [layers, rows of the whole matrix, columns of the whole matrix]; 0 where the chip holds nothing.
    """

    name: str
    layers: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    data: np.ndarray


def shares(stored: Mapping[str, Stored], image: Mapping[str, np.ndarray], channels: Mapping[str, np.ndarray],
           config: ChipConfig, sizes: Mapping[str, int]) -> Iterator[Share]:
    """What a chip holds of each matrix. `channels["layers"]` has the numbers of its layers if it has not all."""
    for name, matrix in stored.items():
        base = base_of(name)
        layers, rows, columns = whole_shape(base, sizes)
        layered = len(array_shapes(sizes)[SOURCES[base][0]]) == 3
        outputs = np.concatenate([channels[f"{name}/{side}"] for side in SIDES])
        inputs = channels[f"{name}/inputs"]
        yield Share(name=base, layers=channels.get("layers", np.arange(layers)) if layered else np.arange(1),
                    rows=np.unique(outputs[outputs >= 0]), columns=np.unique(inputs[inputs >= 0]),
                    data=unpack(matrix, image, channels, config, rows, columns))


def whole_shape(name: str, sizes: Mapping[str, int]) -> tuple[int, int, int]:
    """(layers, rows, columns) of a key of `SOURCES` in a model of these sizes."""
    found = [array_shapes(sizes)[source] for source in SOURCES[name]]
    layers = found[0][0] if len(found[0]) == 3 else 1
    return layers, sum(shape[-2] for shape in found), found[0][-1]


def join(parts: Iterable[Share], sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
    """All matrices of an integer model of these sizes from the shares of all chips, for `integer.from_arrays`.

    Raises TspError if no chip holds some row or column of a matrix.
    """
    whole: dict[str, np.ndarray] = {}
    held: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for part in parts:
        shape = whole_shape(part.name, sizes)
        data = whole.setdefault(part.name, np.zeros(shape, np.int8))
        rows, columns = held.setdefault(part.name, (np.zeros(shape[:2], bool), np.zeros(shape[2], bool)))
        rows[np.ix_(part.layers, part.rows)] = columns[part.columns] = True
        data[np.ix_(part.layers, part.rows, part.columns)] = part.data[:, part.rows[:, None], part.columns]
    for name in SOURCES:
        if (name in held or name != "embedding") and not all(each.all() for each in held.get(name, (np.zeros(1),))):
            raise TspError(f"the program is damaged: a part of matrix {name} is on no chip: compile it again")
    return cut(whole, sizes)


def unpack_all(stored: Mapping[str, Stored], image: Mapping[str, np.ndarray], channels: Mapping[str, np.ndarray],
               config: ChipConfig, sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
    """All matrices of an integer model of these sizes, by name, for `integer.from_arrays`."""
    return cut({name: unpack(matrix, image, channels, config, *whole_shape(name, sizes)[1:])
                for name, matrix in stored.items()}, sizes)


def cut(joined: Mapping[str, np.ndarray], sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
    """The matrices of an integer model, each by its own name, from those that `SOURCES` joins."""
    shapes, found = array_shapes(sizes), dict[str, np.ndarray]()
    for name, whole in joined.items():
        ends = np.cumsum([shapes[source][-2] for source in SOURCES[name]])
        for source, end in zip(SOURCES[name], ends, strict=True):
            part = whole[:, end - shapes[source][-2] : end]
            found[source] = part if len(shapes[source]) == 3 else part[0]
    return found
