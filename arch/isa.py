"""Instruction set: the only definition of every opcode, field and latency of the chip.

An instruction queue (ICU) issues its words in order. The queue *dispatches* a word in one cycle, and the next word
exactly `delay` cycles later. A dispatched word starts an *engine* of its unit. The engine executes a burst of `count`
elements by itself; the REPEAT of the original machine is part of every word. Element i executes in cycle

    e(i) = dispatch + ENGINE + i * interval

An element occupies a folded VXM (`ChipConfig.vxm_fold`) for vxm_fold cycles from e(i) on. A VXM burst of several
elements therefore has an interval of at least vxm_fold.

All latencies below are relative to e(i). *Sampling* in cycle e reads the stream register at the unit's position.
*Driving* in cycle d from position p makes the value readable at position q in cycle d + |q - p|: eastward where q > p,
westward where q < p. The value travels until it leaves the row or another unit overwrites it. Nothing waits.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from amaranth.lib import data, enum

from . import config as cfg

# --- time ----------------------------------------------------------------------------------------------------------

START = 4
"""Cycles from a token's start pulse to the first dispatch of every queue."""
ENGINE = 1
"""Cycles from dispatch to the execution of a burst's first element."""
MIN_DELAY = 1
"""Least `delay` of any instruction: a queue can issue in every cycle."""
MIN_DELAY_JUMP = 4
"""Least `delay` of END_LOOP, which redirects the fetch."""

MEM_READ = 2
"""READ: element executes -> its quad is driven."""
MEM_WRITE_TO_READ = 2
"""WRITE samples in e; a READ element of the same address sees it if it executes at e + MEM_WRITE_TO_READ or later.
Reading an address in the very cycle of its commit (e + 1) is forbidden (block RAM collision)."""
MEM_INDEX = 2
"""INDEX samples in e; an instruction whose first element executes at e + MEM_INDEX or later uses the new value."""
VXM_DRIVE = 9
"""VXM operand sampling -> result driven."""
VXM_RF = 10
"""VXM operand sampling -> result readable from the register file or the exponent file."""
VXM_REDUCE_DRIVE = 10
"""VXM sampling of a burst's last element -> burst reduction driven eastward (once)."""
SXM_DRIVE = 4
"""SXM sampling -> result driven."""
SXM_TRANSPOSE = 1
"""TRANSPOSE_IN of the last row in e -> first TRANSPOSE_OUT element may execute in e + SXM_TRANSPOSE."""
MXM_LOAD = 1
"""LOAD samples in e; a MAC element sees the entry if it executes at e + MXM_LOAD or later."""
MXM_ACC = 5
"""MAC samples weights in e; the accumulator holds the sum for a DRAIN element executing at e + MXM_ACC or later."""
MXM_DRAIN = 1
"""DRAIN element executes -> accumulator vector driven."""
MXM_MAX = 2
"""DRAIN element executes in e; one that drives the greatest values counts it if it executes at e + MXM_MAX or later."""
C2C_SEND = 0
"""SEND samples in e; the flit's slot begins in e + C2C_SEND."""
C2C_RECEIVE = 0
"""RECEIVE takes the flit that arrives in e -> driven."""
HOST_READ = 4
"""Cycles from a host read strobe to its data on the host port. The host touches MEM, ICU, START, BUCKET and MAP only
while no token runs."""


def vxm_late(config: cfg.ChipConfig) -> int:
    """Cycles that a folded VXM adds to VXM_DRIVE and VXM_REDUCE_DRIVE.

    An element's last lanes are computed vxm_fold - 1 cycles after its first lanes, and a vector is driven whole.
    Registers, exponents and reduction accumulators see no added latency: each lane is read as late as it is written.
    """
    return config.vxm_fold - 1


# --- opcodes -------------------------------------------------------------------------------------------------------


class Op(enum.Enum, shape=4):
    """Opcodes. 0..3 belong to the ICU and mean the same in every queue; the rest belong to the queue's unit."""

    NOP = 0  #: waits for `delay` cycles
    LOOP = 1  #: issues the words up to the matching END_LOOP `count` times; two levels nest
    END_LOOP = 2
    SYNC = 3  #: parks the queue until the next token's start pulse (Notify)
    # MEM
    READ = 4
    WRITE = 5
    INDEX = 6
    # MXM
    LOAD = 7
    MAC = 8
    DRAIN = 9
    # VXM
    ALU = 10
    # SXM
    PERMUTE = 11
    SHIFT = 12
    REDUCE = 13
    TRANSPOSE_IN = 14
    TRANSPOSE_OUT = 15


class LinkOp(enum.Enum, shape=4):
    """Opcodes of C2C queues besides the ICU's. A queue's unit counts its own opcodes: those of all other units are in
    `Op`, which has no room left."""

    SEND = 4
    RECEIVE = 5


AnyOp = Op | LinkOp


class Dir(enum.Enum, shape=1):
    """Direction of a stream."""

    E = 0
    W = 1


class Func(enum.Enum, shape=4):
    """First half of a VXM operation: p, from the pre-shifted operand a' (see `arch.numerics.vxm`)."""

    PASS = 0  #: p = a'
    MUL = 1  #: p = sat18(a') * low18(b)
    SQUARE = 2  #: p = sat18(a')**2
    BITLEN = 3  #: p = bit length of a' (of ~a' if negative)
    EXP2 = 4  #: x = min(a' - c, 0) with 6 fraction bits; p = EX[x & 63]; adds -(x >> 6) to the post shift; use alu = Q
    RECIP = 5  #: p = slope * frac, c = base: 2**15 / mantissa
    RSQRT = 6  #: p = slope * frac, c = base: 2**15 / sqrt(mantissa), or / sqrt(2 mantissa) for an odd exponent
    SIGMOID = 7  #: p = slope * frac, c = base: 2**15 * sigmoid(a' / 4096)
    LOG2 = 8  #: p = slope * frac, c = base + (exponent << 15): 2**15 * log2(a')


class Alu(enum.Enum, shape=4):
    """Second half of a VXM operation: y from the post-shifted q and the operand c."""

    Q = 0
    ADD = 1
    SUB = 2  #: q - c
    RSUB = 3  #: c - q
    MIN = 4
    MAX = 5
    AND = 6
    ANDN = 7  #: q & ~c
    OR = 8
    XOR = 9
    LT = 10  #: -1 where q < c, else 0
    GT = 11
    EQ = 12
    INDEX = 13  #: b where q >= c, else 2**31 - 1; b must be IOTA; with red = MIN this is an argmax


class Sat(enum.Enum, shape=3):
    """Final saturation, to +-(2**(b-1) - 1); S32 clamps the 33-bit sum to the two's complement range."""

    S32 = 0
    S8 = 1
    S16 = 2
    S18 = 3
    S24 = 4


class Red(enum.Enum, shape=3):
    """Reduction over the elements of a VXM burst (lane by lane), or over the lanes of a vector in the SXM."""

    NONE = 0
    SUM = 1
    MAX = 2
    MIN = 3
    MAXABS = 4  #: greatest magnitude; in the VXM only


class Src(enum.Enum, shape=3):
    """Where a VXM operand comes from."""

    IMM = 0  #: the sign-extended immediate in every lane
    RF = 1  #: register `rf`, plus the element index if `inc` is set
    IOTA = 2  #: lane + lanes * element index
    E = 4  #: the eastward vector stream
    W = 5  #: the westward vector stream

    @staticmethod
    def stream(direction: Dir) -> "Src":
        return Src.E if direction is Dir.E else Src.W


class Fmt(enum.Enum, shape=3):
    """Which bytes of an int32 lane a VXM operand takes; all are sign-extended."""

    I32 = 0
    LO16 = 1
    HI16 = 2
    B0 = 4
    B1 = 5
    B2 = 6
    B3 = 7


FMT_PLANES: Mapping[Fmt, int] = MappingProxyType({
    Fmt.I32: 0b1111, Fmt.LO16: 0b0011, Fmt.HI16: 0b1100,
    Fmt.B0: 0b0001, Fmt.B1: 0b0010, Fmt.B2: 0b0100, Fmt.B3: 0b1000})
"""Mask of the planes that an operand format takes."""
HALVES = (Fmt.I32, Fmt.LO16, Fmt.HI16)
"""Formats of VXM operands b and c."""


class Rep(enum.Enum, shape=2):
    """How a VXM result is laid on the four byte planes."""

    I32 = 0
    REP16 = 1  #: the low half on both halves
    REP8 = 2  #: the low byte on all four planes


class ErUse(enum.Enum, shape=2):
    """Which shift of a VXM operation the exponent-file entry is added to (or subtracted from: `er_neg`)."""

    NONE = 0
    PRE = 1
    POST = 2


class Order(enum.Enum, shape=1):
    """Inner loop of a MAC burst."""

    ROW = 0  #: inner: activation entries (one accumulator entry is finished before the next begins)
    TILE = 1  #: inner: accumulator entries (one activation entry meets all rows before the next begins)


class Wfmt(enum.Enum, shape=1):
    """Weight format of a MAC burst."""

    INT8 = 0
    INT4 = 1  #: a byte holds two weights of neighbouring rows, low nibble first


class DrainMax(enum.Enum, shape=2):
    """What a DRAIN does with the greatest value of each lane, on a chip with `ChipConfig.drain_max`."""

    NONE = 0  #: leaves the greatest values as they are
    FIRST = 1  #: the greatest values become those of the burst
    MORE = 2  #: the greatest values become those of the burst and of what was before
    DRIVE = 3  #: drives the greatest values in place of accumulators, and leaves them as they are


# --- fields --------------------------------------------------------------------------------------------------------

DELAY_BITS = 12
COUNT_BITS = 12
ADDR_BITS = 20
LOOP_LEVELS = 2
PC_BITS = 12


@dataclass(frozen=True)
class Field:
    """One field of an instruction: `bits` wide, two's complement if `signed`, or an enumeration.

    needs: name of the `ChipConfig` flag of chips that have the field; on all other chips it is 0.
    """

    bits: int
    signed: bool = False
    kind: type | None = None
    low: int | None = None
    doc: str = ""
    needs: str = ""

    @functools.cached_property
    def range(self) -> tuple[int, int]:
        """Least and greatest value."""
        if self.signed:
            return -(1 << self.bits - 1), (1 << self.bits - 1) - 1
        return self.low or 0, (1 << self.bits) - 1

    @functools.cached_property
    def members(self) -> frozenset[int]:
        """Values of the enumeration, if it is one."""
        return frozenset(member.value for member in self.kind or ())

    @property
    def default(self) -> int:
        """Value of a field that is not named."""
        return 0 if self.signed else self.range[0]

    def shape(self) -> Any:
        """Amaranth shape of the field."""
        from amaranth.hdl import Shape

        return self.kind or Shape(self.bits, self.signed)


def _enum(kind: type, doc: str = "", needs: str = "") -> Field:
    from amaranth.hdl import Shape

    return Field(Shape.cast(kind).width, kind=kind, doc=doc, needs=needs)


COUNT = Field(COUNT_BITS, low=1, doc="elements of the burst")
INTERVAL = Field(8, low=1, doc="cycles between elements")
_DIR = {"dir": _enum(Dir, "direction of the stream")}
_BURST = {"count": COUNT, "interval": INTERVAL}

_MEM = {
    **_BURST,
    "addr": Field(ADDR_BITS, doc="quad address of the first element"),
    "stride": Field(10, signed=True, doc="quads between elements"),
    "rel": Field(LOOP_LEVELS, doc="bit k: add the offset of loop level k (its finished iterations x its stride)"),
    "index": Field(3, doc="index register (0: none); adds its offset to the address and applies its masks"),
    **_DIR,
    "planes": Field(cfg.PLANES, doc="planes driven (READ) or written (WRITE)"),
}


def _operand(name: str) -> dict[str, Field]:
    return {
        f"{name}_src": _enum(Src, f"operand {name}: source"),
        f"{name}_rf": Field(5, doc=f"operand {name}: register"),
        f"{name}_inc": Field(1, doc=f"operand {name}: register advances with each element"),
        f"{name}_fmt": _enum(Fmt, f"operand {name}: bytes taken" + ("" if name == "a" else " (no single byte)")),
    }


FIELDS: Mapping[AnyOp, Mapping[str, Field]] = MappingProxyType({
    Op.NOP: {},
    Op.LOOP: {"count": COUNT, "stride": Field(ADDR_BITS, doc="quads added to relative addresses in each iteration")},
    Op.END_LOOP: {},
    Op.SYNC: {},
    Op.READ: {**_MEM, "weights": Field(2, doc="weight group of the slice to drive outward; "
                                              "0: drive the vector group in direction `dir`")},
    Op.WRITE: _MEM,
    Op.INDEX: {"index": Field(3, low=1, doc="register loaded: lane 0 = offset (16 bits, or the address width of "
                                            "the chip's deepest slice if that is greater), lane 1 = lane mask, "
                                            "lane 2 = plane mask (4 bits)"), **_DIR},
    Op.LOAD: {**_BURST, "act": Field(8, doc="first activation entry"),
              "plane": Field(2, doc="plane that holds the int8 vector")},
    Op.MAC: {"act": Field(8, doc="first activation entry"),
             "acc": Field(8, doc="first accumulator entry; an entry is a step of rows, a vector takes lanes / rows"),
             "acts": Field(COUNT_BITS, low=1, doc="activation entries"),
             "accs": Field(COUNT_BITS, low=1, doc="accumulator entries"),
             "order": _enum(Order), "wfmt": _enum(Wfmt),
             "clear": Field(1, doc="the first activation entry overwrites the accumulator instead of adding")},
    Op.DRAIN: {**_BURST, "acc": Field(6, doc="first accumulator vector"),
               "max": _enum(DrainMax, "what becomes of the greatest values", needs="drain_max")},
    Op.ALU: {
        **_BURST, **_operand("a"), **_operand("b"), **_operand("c"),
        "imm": Field(18, signed=True, doc="immediate of operands with source IMM"),
        "func": _enum(Func), "pre": Field(6, signed=True, doc="pre shift of a, right if positive"),
        "er_use": _enum(ErUse), "er": Field(4, doc="exponent-file entry"),
        "er_neg": Field(1, doc="subtract the exponent instead of adding it"),
        "post": Field(6, doc="post shift, right"), "round": Field(1, doc="both right shifts round half up"),
        "logical": Field(1, doc="the pre shift is logical"),
        "alu": _enum(Alu), "sat": _enum(Sat), "rep": _enum(Rep),
        "dst_e": Field(1, doc="drive the result eastward"), "dst_w": Field(1, doc="drive the result westward"),
        "rf_we": Field(1, doc="write the result to register rf"), "rf": Field(5, doc="destination register"),
        "rf_inc": Field(1, doc="destination register advances with each element"),
        "er_we": Field(1, doc="write exponent er_dst: the result's low byte; for RECIP the exponent k of a' instead, "
                              "for RSQRT k >> 1 (k = bit length - 1)"), "er_dst": Field(4),
        "red": _enum(Red, "reduction over the burst, of the result y"),
        "red_slot": Field(2, doc="reduction accumulator used"),
        "red_keep": Field(1, doc="continue from the accumulator's value instead of starting over"),
        "red_e": Field(1, doc="drive the reduction eastward"),
    },
    Op.PERMUTE: {**_BURST, "map": Field(5, doc="permutation map: output lane l takes input lane map[l]; see "
                                               "`routable`")},
    Op.SHIFT: {**_BURST, "lane": Field(4, doc="ROTATE: output lane l takes lane (l + lane) mod lanes; DISTRIBUTE: "
                                            "every output lane takes `lane` mod lanes"),
               "lane_inc": Field(4, doc="added to `lane` after each element"),
               "distribute": Field(1, doc="0: rotate, 1: distribute")},
    Op.REDUCE: {**_BURST, "red": _enum(Red), "segment": Field(3, doc="log2 of the lanes reduced together; the result "
                                                                     "is broadcast within the segment")},
    Op.TRANSPOSE_IN: {**_BURST, "plane": Field(2, doc="byte plane taken; element i becomes row i")},
    Op.TRANSPOSE_OUT: _BURST,  # element i: column i, on all planes
    LinkOp.SEND: {**_BURST, "plane": Field(2, doc="byte plane of the outward stream to send as the flit"),
                  "ports": Field(4, low=1, doc="ports that send it, one bit each")},
    LinkOp.RECEIVE: {**_BURST, "port": Field(2, doc="port whose flit is received"),
                     "planes": Field(cfg.PLANES, low=1, doc="planes to drive the flit on, inward")},
})
"""Fields of every operation, after the common header (op, delay)."""

HEADER = MappingProxyType({
    "op": _enum(Op), "delay": Field(DELAY_BITS, low=MIN_DELAY, doc="cycles to the next dispatch")})

UNIT_OPS: Mapping[str, tuple[AnyOp, ...]] = MappingProxyType({
    "MEM": (Op.READ, Op.WRITE, Op.INDEX),
    "MXM": (Op.LOAD, Op.MAC, Op.DRAIN),
    "VXM": (Op.ALU,),
    "SXM": (Op.PERMUTE, Op.SHIFT, Op.REDUCE, Op.TRANSPOSE_IN, Op.TRANSPOSE_OUT),
    "C2C": (LinkOp.SEND, LinkOp.RECEIVE),
})
"""Operations of each kind of unit, without NOP, LOOP, END_LOOP and SYNC, which belong to the ICU."""
ENGINES: Mapping[AnyOp, str] = MappingProxyType({
    Op.READ: "read", Op.WRITE: "write", Op.INDEX: "index", Op.LOAD: "load", Op.MAC: "mac", Op.DRAIN: "drain",
    Op.ALU: "alu", Op.PERMUTE: "lanes", Op.SHIFT: "lanes", Op.REDUCE: "lanes", Op.TRANSPOSE_IN: "in",
    Op.TRANSPOSE_OUT: "out", LinkOp.SEND: "send", LinkOp.RECEIVE: "receive"})
"""The engine that executes an operation. An engine executes one burst at a time."""
ICU_OPS = (Op.NOP, Op.LOOP, Op.END_LOOP, Op.SYNC)


def routable(lanes: Sequence[int]) -> bool:
    """Whether the SXM's crossbar can route a permutation map. It has one stage of exchanges for each bit of a lane.

    Bit k of a source lane must be a function of bits 0..k of its destination lane. Rotations, broadcasts (also within
    segments), exchanges of neighbours or halves, reversals, and compositions of these are routable.

    lanes: source lane of each of the chip's lanes.
    """
    return all((lanes[lane] ^ lanes[lane & (2 << k) - 1]) >> k & 1 == 0
               for k in range((len(lanes) - 1).bit_length()) for lane in range(len(lanes)))


def layout(op: AnyOp, config: cfg.ChipConfig | None = None) -> data.StructLayout:
    """Struct of a whole instruction word of `op`: the header, followed by the operation's fields.

    config: of a chip that may have fields which not all chips have; they are the last ones.
    """
    own = {name: item for name, item in FIELDS[op].items() if not item.needs or getattr(config, item.needs, False)}
    fields = {**HEADER, "op": _enum(type(op)), **own}
    return data.StructLayout({name: item.shape() for name, item in fields.items()})


def width(unit: str) -> int:
    """Bits of an instruction word in the queues of `unit` ("MEM", "MXM", "VXM", "SXM" or "C2C")."""
    return max(layout(op).size for op in (*ICU_OPS, *UNIT_OPS[unit]))


# --- instructions --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Instr:
    """An instruction as a Python object. Fields that are not given have their `Field.default`."""

    op: AnyOp
    delay: int = MIN_DELAY
    fields: Mapping[str, Any] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        spec = FIELDS[self.op].get(name)
        if spec is None:
            raise AttributeError(f"{self.op.name} has no field {name!r}")
        value = self.fields.get(name, spec.default)
        return value if spec.kind is None or isinstance(value, spec.kind) else spec.kind(value)


class EncodingError(ValueError):
    """A field does not fit its width, the operation has no such field, or its fields are illegal together."""


def fault(instr: Instr) -> str:
    """Why a combination of legal fields is illegal; "" if it is legal.

    Operands b and c of the VXM take no single bytes. They share a read port of the register file, so they cannot be
    two different registers. INDEX takes its b from IOTA, as I32.
    """
    if instr.op is Op.ALU and not (instr.b_fmt in HALVES and instr.c_fmt in HALVES):
        return "operands b and c must not be single bytes"
    if instr.op is Op.ALU and instr.b_src is Src.RF and instr.c_src is Src.RF and (
            (instr.b_rf, instr.b_inc) != (instr.c_rf, instr.c_inc)):
        return "operands b and c must not be two registers"
    if instr.op is Op.ALU and instr.alu is Alu.INDEX and (instr.b_src, instr.b_fmt) != (Src.IOTA, Fmt.I32):
        return "operand b of INDEX must be IOTA as I32"
    return ""


def _check(instr: Instr) -> None:
    if what := fault(instr):
        raise EncodingError(f"{instr.op.name}: {what}")


def _bits(op: AnyOp, name: str, spec: Field, value: Any) -> int:
    number = value.value if spec.kind and not isinstance(value, int) else int(value)
    low, high = spec.range
    if not low <= number <= high:
        raise EncodingError(f"{op.name}.{name} must be in {low}..{high}, not {number}")
    if spec.kind and number not in spec.members:
        raise EncodingError(f"{op.name}.{name} must be a {spec.kind.__name__}, not {number}")
    return number & ((1 << spec.bits) - 1)


def encode(instr: Instr) -> int:
    """The instruction word. Raises EncodingError that names instruction, field, value and range, or the `fault`."""
    specs = FIELDS[instr.op]
    for name in instr.fields:
        if name not in specs:
            raise EncodingError(f"{instr.op.name} has no field {name!r}")
    word = instr.op.value
    offset = HEADER["op"].bits
    word |= _bits(instr.op, "delay", HEADER["delay"], instr.delay) << offset
    offset += DELAY_BITS
    for name, spec in specs.items():
        word |= _bits(instr.op, name, spec, instr.fields.get(name, spec.default)) << offset
        offset += spec.bits
    _check(instr)
    return word


def _opcode(number: int, unit: str) -> AnyOp:
    if unit == "C2C" and number >= len(ICU_OPS):
        return LinkOp(number)
    return Op(number)


def decode(word: int, unit: str = "") -> Instr:
    """The instruction of a word. Raises EncodingError if a field holds an illegal value, or for a `fault`.

    unit: unit of the word's queue. It matters only if it is "C2C".
    """
    op = _opcode(word & 15, unit)
    offset = HEADER["op"].bits
    delay = word >> offset & ((1 << DELAY_BITS) - 1)
    offset += DELAY_BITS
    fields: dict[str, Any] = {}
    for name, spec in FIELDS[op].items():
        value = word >> offset & ((1 << spec.bits) - 1)
        offset += spec.bits
        if spec.signed and value >> spec.bits - 1:
            value -= 1 << spec.bits
        try:
            fields[name] = spec.kind(value) if spec.kind else value
        except ValueError:
            raise EncodingError(f"{op.name}.{name} must be a {spec.kind.__name__}, not {value}") from None
    if word >> offset:
        raise EncodingError(f"{op.name} has stray bits above bit {offset - 1}: {word:#x}")
    instr = Instr(op, delay, fields)
    _check(instr)
    return instr


# --- tokens --------------------------------------------------------------------------------------------------------


def least_period(config: cfg.ChipConfig) -> int:
    """Least cycles of a token. During a token the sequencer looks up the next token's bucket, two cycles an entry."""
    return 3 + 2 * config.buckets
