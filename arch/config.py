"""The one configuration object of a chip, and the named configurations.

A chip is a row of functional slices at seven positions, mirrored about the VXM::

    position     0      1      2       3     4       5      6
               MXM_W  SXM_W  MEM_W..  VXM  MEM_E..  SXM_E  MXM_E
               C2C_W                                       C2C_E

Streams are carried in groups of four byte planes, so that one group is one int32 vector, one MEM quad, or four
rows of int8 weights. Group 0, the vector group, runs through the whole row in both directions. Groups
1..weight_groups, the weight groups, run outward only, from the MEM slices to the MXM of their hemisphere.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from types import MappingProxyType

from base.errors import TspError

MAX_LANES = 16
"""Lanes of the widest chip: the limit of instruction and host words."""
PLANES = 4
"""Byte planes of a stream group, and of a MEM quad (PLANES bytes a lane)."""
ADDED = ("vxm_fold", "ports", "slot", "registers", "drain_max", "int4_steps")
"""Fields that were added after some chips were built. A digest includes them only where they differ from their default,
so the older chips keep their identity."""
MAX_PORTS = 4
"""Links at one end of the row: the limit of instruction words."""
REGISTERS: Mapping[str, str] = MappingProxyType({
    "fetch": "queues: between an entry and the word that it names",
    "control": "queues, engines, sequencer: what a cycle needs is decoded in the cycle before",
    "accumulate": "MXM: before the sums of low and high halves are joined",
    "multiply": "VXM: behind the product, before its post shift",
    "reduce": "VXM: before a result is added to a reduction",
})
"""The optional pipeline registers, and where they are. `arch.latencies` says what each costs."""
INDEX_BITS = 16
"""Least bits of an offset in an index register; see `ChipConfig.index_bits`."""
POSITIONS = 7
MXM_W, SXM_W, MEM_W, VXM, MEM_E, SXM_E, MXM_E = range(POSITIONS)
"""Positions of the units in the row; a stream moves one position a cycle."""


@dataclass(frozen=True, kw_only=True)
class ChipConfig:
    """Everything that distinguishes one chip from another. Encodings are the same on all chips.

    lanes: lanes of a vector, bytes of a plane, and columns of a matrix unit.
    weight_groups: stream groups that feed each MXM. An MXM has 4 * weight_groups int8 rows.
    mem_depths: quads (4 bytes a lane) in each MEM slice of a hemisphere, slice 0 first. Both hemispheres are alike.
    act_depth: entries (a byte a lane) of an MXM's activation buffer.
    acc_depth: int32 vectors of an MXM's accumulator file.
    rf_depth, er_depth: vectors in the VXM's register file, and in its file of shift amounts (exponents).
    vxm_fold: cycles that the VXM takes for a vector. It computes lanes / vxm_fold lanes at a time.
    index_regs: index registers of a MEM slice. Register 0 reads as "no index".
    icu_depth: instructions that a queue holds.
    vxm_icu_depth: the same for the VXM's queue.
    icu_words: distinct words that the queues of VXM, SXM, MXM and each MEM slice hold, in this order. Two numbers are
    the distinct lower and upper halves of MXM or MEM words (see `arch.queue_store`). Empty: as many as instructions.
    icu_entry_bits: bits of an instruction's number and delay together.
    sxm_west: whether the western SXM exists. The compiler needs only the eastern one.
    sxm_transpose: whether the SXMs transpose. If not, TRANSPOSE_IN and TRANSPOSE_OUT are illegal. The compiler never
    uses them.
    buckets: entries of the static table of context buckets.
    ports: links to other chips at the western and at the eastern end. An end without links has no C2C.
    slot: cycles that a flit takes on a link. All links of a chip begin their slots in the same cycles.
    registers: optional pipeline registers, names of `REGISTERS`. Each costs cycles and shortens the longest paths.
    drain_max: whether the MXMs find the greatest value of each lane among the vectors that they drain.
    int4_steps: whether the MXMs have INT4 steps, where a vector holds their rows. Without them a product is 8 x 8 bits.
    debug: carry a driven bit with each stream slot, and trap illegal programs. Bitstreams never have it.
    """

    name: str
    lanes: int = MAX_LANES
    weight_groups: int = 1
    mem_depths: tuple[int, ...]
    act_depth: int = 64
    acc_depth: int = 16
    rf_depth: int = 32
    er_depth: int = 16
    vxm_fold: int = 1
    index_regs: int = 8
    sxm_maps: int = 16
    icu_depth: int = 1024
    vxm_icu_depth: int = 1024
    icu_words: tuple[tuple[int, ...], ...] = ()
    icu_entry_bits: int = 18
    sxm_west: bool = False
    sxm_transpose: bool = True
    buckets: int = 8
    ports: tuple[int, int] = (0, 0)
    slot: int = 4
    registers: tuple[str, ...] = ()
    drain_max: bool = False
    int4_steps: bool = True
    debug: bool = False

    def __post_init__(self) -> None:
        limits = {
            "lanes": (4, MAX_LANES),
            "weight_groups": (1, 2), "act_depth": (4, 256), "acc_depth": (2, 64), "rf_depth": (4, 32),
            "er_depth": (2, 16), "vxm_fold": (1, self.lanes), "index_regs": (2, 8), "sxm_maps": (1, 32),
            "icu_depth": (16, 4096), "vxm_icu_depth": (16, 4096), "buckets": (1, 16),
        }
        for field, (low, high) in limits.items():
            value = getattr(self, field)
            if not low <= value <= high:
                raise ValueError(f"{field} must be in {low}..{high}, not {value!r}")
        for field in ("lanes", "act_depth", "acc_depth", "rf_depth", "er_depth", "vxm_fold"):
            if getattr(self, field) & (getattr(self, field) - 1):
                raise ValueError(f"{field} must be a power of two, not {getattr(self, field)!r}")
        if self.rows > self.lanes:
            raise ValueError(f"weight_groups must be at most {self.lanes // PLANES} with {self.lanes} lanes, "
                             f"not {self.weight_groups!r}")
        if len(self.mem_depths) < 1 + self.weight_groups:
            raise ValueError(f"mem_depths must name at least {1 + self.weight_groups} slices, not {self.mem_depths!r}")
        if self.icu_words and len(self.icu_words) != 3 + len(self.mem_depths):
            raise ValueError(f"icu_words must name {3 + len(self.mem_depths)} sizes or none, not {self.icu_words!r}")
        if not all(8 <= words <= 512 for sizes in self.icu_words for words in sizes):
            raise ValueError(f"icu_words must be in 8..512, not {self.icu_words!r}")
        if any(sum((words - 1).bit_length() for words in sizes) > 12 for sizes in self.icu_words):
            raise ValueError(f"icu_words must have numbers of 12 bits at most (see `host_map.FIELDS`), "
                             f"not {self.icu_words!r}")
        if not 16 <= self.icu_entry_bits <= 36:
            raise ValueError(f"icu_entry_bits must be in 16..36, not {self.icu_entry_bits!r}")
        if len(self.ports) != 2 or not all(0 <= count <= MAX_PORTS for count in self.ports):
            raise ValueError(f"ports must be two numbers in 0..{MAX_PORTS}, not {self.ports!r}")
        if self.slot not in (2, 4, 8):
            raise ValueError(f"slot must be 2, 4 or 8, not {self.slot!r}")
        if unknown := [name for name in self.registers if name not in REGISTERS]:
            raise ValueError(f"registers must be among {', '.join(REGISTERS)}, not {unknown[0]!r}")
        if len(set(self.registers)) < len(self.registers):
            raise ValueError(f"registers must name each register once, not {self.registers!r}")
        if not all(16 <= depth <= 1 << 20 for depth in self.mem_depths):
            raise ValueError(f"mem_depths must be in 16..1048576, not {self.mem_depths!r}")

    @property
    def lane_bits(self) -> int:
        """Bits of a lane's number."""
        return self.lanes.bit_length() - 1

    @property
    def vxm_lanes(self) -> int:
        """Lanes that the VXM computes in parallel."""
        return self.lanes // self.vxm_fold

    @property
    def quiet_slots(self) -> int:
        """Slots at a token's beginning in which no flit is sent.

        With the last slot of the token before, they are the control frames that show its CRC.
        """
        return -(-32 // (8 * self.lanes - 24)) + 1

    def ports_of(self, side: str) -> int:
        """Links at the end "W" or "E"."""
        return self.ports["WE".index(side)]

    @property
    def plane_bits(self) -> int:
        """Bits of a byte plane: the width of a stream, and of one host write to a MEM slice."""
        return 8 * self.lanes

    @property
    def group_bits(self) -> int:
        """Bits of a stream group, and of a quad."""
        return PLANES * self.plane_bits

    @property
    def quad_bytes(self) -> int:
        """Bytes of a quad."""
        return PLANES * self.lanes

    @property
    def index_bits(self) -> int:
        """Bits of the offset in an index register: INDEX_BITS, or more if a slice needs longer addresses."""
        return max(INDEX_BITS, (max(self.mem_depths) - 1).bit_length())

    @property
    def groups(self) -> int:
        """Stream groups in each direction."""
        return 1 + self.weight_groups

    @property
    def streams(self) -> int:
        """Byte streams in each direction (S), at the positions of the MXMs and the outer SXMs."""
        return self.groups * PLANES

    def weight_groups_of(self, slice_: int) -> tuple[int, ...]:
        """The weight groups that a MEM slice can drive: slice 0 drives any of them, each other slice only one."""
        return (min(slice_, self.weight_groups),) if slice_ else tuple(range(1, self.groups))

    @property
    def rows(self) -> int:
        """int8 weight rows of one MXM (R). With int4 weights it has twice as many."""
        return self.weight_groups * PLANES

    @property
    def int4(self) -> bool:
        """Whether the matrix units have the format INT4: the rows of an INT4 step must fit a vector."""
        return self.int4_steps and 2 * self.rows <= self.lanes

    @property
    def macs(self) -> int:
        """int8 multiply-accumulates a cycle on the whole chip; also the weight bytes a cycle of the roofline."""
        return 2 * self.rows * self.lanes

    @property
    def sram_bytes(self) -> int:
        """Bytes in all MEM slices."""
        return 2 * sum(self.mem_depths) * self.quad_bytes

    def digest(self) -> str:
        """Hex digest of the fields.

        It leaves out `debug`, which changes no cycle and no bit, and fields of `ADDED` that have their default.
        """
        defaults = {field.name: field.default for field in fields(self) if field.name in ADDED}
        values = {name: value for name, value in asdict(self).items()
                  if name != "debug" and (name not in defaults or value != defaults[name])}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


CONFIGS = {
    config.name: config
    for config in (
        ChipConfig(name="tiny", mem_depths=(256, 256), act_depth=16, acc_depth=4, icu_depth=512, vxm_icu_depth=512,
                   buckets=4),
        ChipConfig(name="micro", lanes=4, vxm_fold=4, mem_depths=(512, 1024), act_depth=32, sxm_transpose=False,
                   icu_words=((512,), (32,), (512, 8), (256,), (256,))),
        ChipConfig(name="small", lanes=4, mem_depths=(512, 1536), act_depth=32, vxm_icu_depth=2048, sxm_transpose=False,
                   icu_words=((512,), (32,), (512, 8), (256,), (256,))),
        ChipConfig(name="ulx3s", lanes=8, weight_groups=2, mem_depths=(1024, 2560, 2560), acc_depth=32,
                   vxm_icu_depth=2048, drain_max=True, sxm_transpose=False,
                   icu_words=((512,), (32,), (248, 8), (224,), (32, 64), (32, 64))),
        ChipConfig(name="wide", mem_depths=(512, 2560), act_depth=32, vxm_icu_depth=2048, sxm_transpose=False,
                   drain_max=True, icu_words=((512,), (256,), (512, 8), (64, 64), (32, 48))),
        ChipConfig(name="mega", weight_groups=2, mem_depths=(512, 1536, 1536), act_depth=32, acc_depth=32,
                   vxm_icu_depth=2048, drain_max=True, int4_steps=False, sxm_transpose=False,
                   registers=("fetch", "control"),
                   icu_words=((512,), (32,), (512, 8), (256,), (32, 64), (32, 64))),
        ChipConfig(name="large", weight_groups=2, mem_depths=(16384, 65536, 65536), act_depth=256, acc_depth=32,
                   icu_depth=2048, vxm_icu_depth=4096, sxm_west=True, buckets=16),
        ChipConfig(name="sram28", weight_groups=2, mem_depths=(10240, 109568, 109568), act_depth=256, acc_depth=64,
                   icu_depth=4096, vxm_icu_depth=4096, sxm_transpose=False, buckets=16),
        ChipConfig(name="sram220", weight_groups=2, mem_depths=(98304, 851968, 851968), act_depth=256, acc_depth=64,
                   icu_depth=4096, vxm_icu_depth=4096, sxm_transpose=False, buckets=16),
    )
}
"""The named configurations, all built and tested in CI."""


DEFAULT_CONFIG = "ulx3s"


def config_of(name: str) -> ChipConfig:
    """The config of this name. Raises TspError if there is none."""
    if name not in CONFIGS:
        raise TspError(f"config must be one of {', '.join(CONFIGS)}, not {name!r}")
    return CONFIGS[name]
