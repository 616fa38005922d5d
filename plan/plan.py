"""A plan: what a model needs of a chip, and the bounds of its speed there and on two GPUs."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from math import ceil

from arch.rack import RackConfig
from base.errors import TspError
from compiler.rack.plan import plans

from .divided import Divided, divide
from .machines import CARDS_A_RACK, CHIPS_A_CARD, CHIPS_A_NODE, GPUS, NODES_A_RACK, Figure, Machine, chip_of
from .need import Need, check_precision, chips, need
from .roofline import MOST_BATCH, Work, compute_bound_batch, tokens_per_second
from .shapes import Shape, shape_of

DEFAULT_CHIP, DEFAULT_PRECISION = "groqchip", "int8"


@dataclass(frozen=True, kw_only=True)
class Side:
    """One kind of machine and the model on it.

    count: machines whose memory holds it. ridge: operations a byte. compute_bound_batch: see `roofline`;
    compute_bound_short: the same at a context of 1. single, batched: tokens a second at most, of one sequence and of
    the whole batch, if all machines work on each token at the same time; in_turn: of one sequence, if they work one
    after the other.
    """

    machine: Machine
    count: int
    ridge: float
    compute_bound_batch: int | None
    compute_bound_short: int | None
    single: float
    batched: float
    in_turn: float

    def as_json(self) -> dict[str, object]:
        """The figures by name."""
        return {
            "machine": self.machine.name, "count": self.count, "memory_bytes": self.machine.memory.value,
            "bytes_per_second": self.machine.bandwidth.value, "ridge_ops_per_byte": self.ridge,
            "compute_bound_batch": self.compute_bound_batch,
            "compute_bound_batch_at_context_1": self.compute_bound_short,
            "tokens_per_second_batch_1": self.single,
            "tokens_per_second_batch": self.batched, "tokens_per_second_in_turn": self.in_turn,
        }


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A model on a chip. weights_alone, chips, chips_most: chips for the matrices alone, for all but programs, and for
    as many instructions as the queues can fetch. divided: the model on groups of chips of ours, if that is asked
    for."""

    shape: Shape
    chip: Machine
    precision: str
    context: int
    batch: int
    need: Need
    work: Work
    weights_alone: int
    chips: int
    chips_most: int
    sides: tuple[Side, ...]
    divided: Divided | None = None

    @property
    def packaging(self) -> dict[str, int]:
        """Cards and racks that so many published chips fill; empty for chips of ours."""
        if self.chip.config:
            return {}
        nodes = ceil(self.chips / CHIPS_A_NODE)
        return {"cards": ceil(self.chips / CHIPS_A_CARD),
                "racks": ceil(self.chips / (CHIPS_A_CARD * CARDS_A_RACK)),
                "nodes_of_8": nodes, "racks_of_72": ceil(nodes / NODES_A_RACK)}

    def sources(self) -> Iterator[tuple[str, str, Figure]]:
        """(machine, constant, figure) of every constant that the plan rests on."""
        for side in self.sides:
            machine = side.machine
            yield machine.name, "memory", machine.memory
            yield machine.name, "bandwidth", machine.bandwidth
            yield machine.name, f"peak {self.precision}", machine.peak[self.precision]
            for name, figure in machine.paths.items():
                yield machine.name, f"bandwidth of {name}", figure
            if machine.programs:
                yield machine.name, "programs", machine.programs

    def as_json(self) -> dict[str, object]:
        """All figures, and the sources of the constants."""
        shape = {key: value for key, value in asdict(self.shape).items() if key != "source"}
        return {
            "model": {**shape, "parameters": self.shape.parameters,
                      "active_parameters": self.shape.active_parameters, "source": self.shape.source},
            "chip": self.chip.name, "precision": self.precision, "context": self.context, "batch": self.batch,
            "bytes": {**asdict(self.need), "model": self.need.model, "most": self.need.most},
            "chips": {"weights_alone": self.weights_alone, "model": self.chips, "with_most_programs": self.chips_most,
                      **self.packaging},
            "divided": self.divided and {**asdict(self.divided), "most": self.divided.most,
                                         "cycles": self.divided.cycles and self.divided.cycles.as_json()},
            "step": {"weight_bytes": self.work.weights(self.batch), "kv_bytes": self.batch * self.work.kv,
                     "operations": self.batch * self.work.operations,
                     "ops_per_byte": self.work.intensity(self.batch)},
            "roofline": [side.as_json() for side in self.sides],
            "sources": [{"machine": machine, "constant": name, **asdict(figure)}
                        for machine, name, figure in self.sources()],
        }


def make_plan(model: str, *, chip: str = DEFAULT_CHIP, precision: str = DEFAULT_PRECISION, context: int | None = None,
              batch: int = 1, rack: RackConfig | None = None, tensor: int | None = None, pipeline: int | None = None,
              cycles: bool = False, scales: str | None = None, sequences: int | None = None) -> Plan:
    """Plan a preset or a checkpoint.

    context: by default the model's. rack: whose chips these are. tensor, pipeline: sizes of `divided`; by default all
    chips of the rack by rows, and without a rack 1. cycles, scales, sequences: of `divided`, too; scales are static by
    default, and there is one sequence.

    Raises TspError on what is unknown, out of range or beyond the chip.
    """
    check_precision(precision)
    machine, shape = chip_of(chip), shape_of(model)
    positions = shape.context if context is None else context
    if not 1 <= positions <= shape.context:
        raise TspError(f"context must be in 1..{shape.context} (the model's context), not {positions}")
    if not 1 <= batch <= MOST_BATCH:
        raise TspError(f"batch must be in 1..{MOST_BATCH}, not {batch}")
    needed = need(shape, machine, precision=precision, context=positions, batch=batch)
    work = Work(shape=shape, precision=precision, context=positions)
    divided = None
    if rack or cycles or tensor is not None or pipeline is not None:
        if not machine.config:
            raise TspError("--cycles, --tensor and --pipeline are for chips of this project: give --chip or --rack")
        if rack:
            if len({each.name for each in rack.chips}) > 1:
                raise TspError(f"rack {rack.name} must have chips of one kind to be planned for: use `tsp fit`")
            several = tensor or pipeline or sequences not in (None, 1)
            sizes = plans(rack, tensor, pipeline, 1 if sequences is None else sequences)[-1 if several else 0]
            tensor, pipeline = sizes.tensor, sizes.pipeline
        divided = divide(shape, machine.config, precision=precision, context=positions, rack=rack,
                         tensor=1 if tensor is None else tensor, pipeline=1 if pipeline is None else pipeline,
                         cycles=cycles, scales="static" if scales is None else scales,
                         sequences=1 if sequences is None else sequences)
    elif scales is not None or sequences is not None:
        raise TspError("--scales and --sequences are for a model that is laid out: give --cycles, --rack, --tensor or "
                       "--pipeline")
    return Plan(
        shape=shape, chip=machine, precision=precision, context=positions, batch=batch, need=needed, work=work,
        weights_alone=chips(needed.weights, machine), chips=chips(needed.model, machine),
        chips_most=chips(needed.most, machine), divided=divided,
        sides=tuple(_side(work, each, batch) for each in (*GPUS, machine)))


def _side(work: Work, machine: Machine, batch: int) -> Side:
    held = need(work.shape, machine, precision=work.precision, context=work.context, batch=batch)
    count = chips(held.model, machine)
    return Side(machine=machine, count=count, ridge=machine.ridge(work.precision),
                compute_bound_batch=compute_bound_batch(work, machine),
                compute_bound_short=compute_bound_batch(replace(work, context=1), machine),
                single=tokens_per_second(work, machine, 1, count),
                batched=tokens_per_second(work, machine, batch, count),
                in_turn=tokens_per_second(work, machine, 1))
