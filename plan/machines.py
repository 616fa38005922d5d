"""The machines of a plan: the published Tensor Streaming Processor, two GPUs, and the chips of this project.

Each constant of a machine that is not ours carries its source. Peak rates are dense, as the multipliers' own number
format gives them: none of them is reached.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from arch import row
from arch.config import CONFIGS, ChipConfig
from arch.queue_store import store_of
from base.errors import TspError
from program.program import DEFAULT_CLOCK_MHZ

ISCA_2020 = 'Abts et al., "Think Fast", ISCA 2020, pp. 145-158'
ISCA_2022 = ('Abts et al., "A Software-defined Tensor Streaming Multiprocessor for Large-scale Machine Learning", '
             "ISCA 2022, pp. 567-580")
A100_DATASHEET = "NVIDIA A100 80GB datasheet, https://www.nvidia.com/en-us/data-center/a100/"
H100_DATASHEET = "NVIDIA H100 SXM datasheet, https://www.nvidia.com/en-us/data-center/h100/"

CLOCK = 900e6
"""Hz of the published chip, nominal (ISCA 2020)."""
CHIPS_A_CARD, CARDS_A_RACK = 2, 9
"""As the claims that `docs/guide/planning.md` looks at count them: 18 chips a rack."""
CHIPS_A_NODE, NODES_A_RACK = 8, 9
"""As built: 72 chips a rack (`ISCA_2022`)."""


@dataclass(frozen=True)
class Figure:
    """A constant with its unit and its source."""

    value: float
    unit: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Machine:
    """One chip or GPU.

    memory: bytes of it that hold a model. bandwidth: bytes a second at which weights reach the multipliers, by the
    narrowest of the paths that all of them take. peak: operations a second (a multiplication and an addition are two)
    by precision of the weights. lanes: of a vector, to whose multiples shapes are padded. paths: other bandwidths, for
    comparison. programs: bytes of instructions a weight byte at most, if they lie in `memory`. config: a chip of ours.
    """

    name: str
    title: str
    memory: Figure
    bandwidth: Figure
    peak: Mapping[str, Figure]
    lanes: int = 1
    paths: Mapping[str, Figure] = field(default_factory=dict)
    programs: Figure | None = None
    config: ChipConfig | None = None

    def operations(self, precision: str) -> float:
        """Peak operations a second. Raises TspError if the machine does not have the precision."""
        if precision not in self.peak:
            raise TspError(f"chip {self.name} has no {precision}: use --precision {' or '.join(self.peak)}")
        return self.peak[precision].value

    def ridge(self, precision: str) -> float:
        """Operations a byte from which on the multipliers and not the memory are what limits."""
        return self.operations(precision) / self.bandwidth.value


def _bytes_a_cycle(count: int, what: str) -> Figure:
    return Figure(count * CLOCK, "byte/s", f"{count:,} bytes a cycle of 900 MHz, {what}: {ISCA_2020}")


GROQCHIP = Machine(
    name="groqchip", title="TSP (GroqChip, 14 nm)",
    memory=Figure(88 * 2.5 * 2**20, "byte", f"88 slices of 2.5 MiB: {ISCA_2020}"),
    bandwidth=_bytes_a_cycle(10240, "409,600 weights in 40 cycles into the matrix units"),
    peak={
        "fp16": Figure(188e12, "FLOP/s", f"a quarter of the int8 rate: {ISCA_2020}"),
        "int8": Figure(750e12, "OP/s", f"four planes of 320 x 320: {ISCA_2020}"),
        "int4": Figure(750e12, "OP/s", "the matrix units have no int4: unpacked to int8 on the way"),
    },
    paths={
        "SRAM": _bytes_a_cycle(56320, "88 slices, two banks of 320 bytes"),
        "streams": _bytes_a_cycle(20480, "64 streams of 320 bytes"),
    },
    programs=Figure(2304 / 10240, "byte/byte", "144 queues fetch 16 bytes each, in every cycle in which 10,240 bytes "
                                               f"of weights pass: {ISCA_2020}"),
)
A100 = Machine(
    name="a100", title="A100 80GB",
    memory=Figure(80e9, "byte", A100_DATASHEET),
    bandwidth=Figure(2.0e12, "byte/s", f"2 TB/s (1.935 as PCIe card, 2.039 as SXM module): {A100_DATASHEET}"),
    peak={
        "fp16": Figure(312e12, "FLOP/s", A100_DATASHEET),
        "int8": Figure(624e12, "OP/s", A100_DATASHEET),
        "int4": Figure(312e12, "FLOP/s", "int4 weights are widened to fp16"),
    },
)
H100 = Machine(
    name="h100", title="H100 SXM",
    memory=Figure(80e9, "byte", H100_DATASHEET),
    bandwidth=Figure(3.35e12, "byte/s", H100_DATASHEET),
    peak={
        "fp16": Figure(989e12, "FLOP/s", f"1,979 with sparsity, half of it without: {H100_DATASHEET}"),
        "int8": Figure(1979e12, "OP/s", f"3,958 with sparsity, half of it without: {H100_DATASHEET}"),
        "int4": Figure(989e12, "FLOP/s", "int4 weights are widened to fp16"),
    },
)
GPUS = (A100, H100)


def machine_of(config: ChipConfig) -> Machine:
    """A chip of this project, at the default clock."""
    hertz = DEFAULT_CLOCK_MHZ * 1e6
    said = f"config {config.name} at {DEFAULT_CLOCK_MHZ:g} MHz"
    peak = {"int8": Figure(2 * config.macs * hertz, "OP/s", f"{config.macs} multiply-accumulates a cycle: {said}")}
    if config.int4:
        peak["int4"] = Figure(4 * config.macs * hertz, "OP/s", f"twice the rows of int8: {said}")
    return Machine(
        name=config.name, title=f"{config.name} of this project",
        memory=Figure(config.sram_bytes, "byte", f"SRAM of config {config.name}"),
        bandwidth=Figure(config.macs * hertz, "byte/s", f"{config.macs} weight bytes a cycle: {said}"),
        peak=peak, lanes=config.lanes, config=config)


def chip_of(name: str) -> Machine:
    """The published chip or one of ours by name. Raises TspError naming them all."""
    if name == GROQCHIP.name:
        return GROQCHIP
    if name not in CONFIGS:
        raise TspError(f"chip must be one of {', '.join((GROQCHIP.name, *CONFIGS))}, not {name!r}")
    return machine_of(CONFIGS[name])


def program_store(config: ChipConfig) -> int:
    """Bytes of all instruction memories of a chip of ours; they are no part of its SRAM."""
    stores = [store_of(config, queue) for queue in row.queues(config)]
    bits = sum(store.depth * (store.number_bits + store.delay_bits)
               + sum(part.words * len(part.kept) for part in store.parts) for store in stores)
    return bits // 8
