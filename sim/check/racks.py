"""Random legal programs for the chips of a rack, and model and RTL of a rack side by side."""

from collections.abc import Mapping
from random import Random

from arch.host_map import Control, Space
from arch.isa import Instr, Op, encode
from arch.queue_store import store_of
from arch.rack import RackConfig
from arch.row import C2C, queues
from program.image import Image
from sim.rack import RackModel
from sim.rtl.rack import RackSimulator

from .lockstep import SETTLE, WAKE, Lockstep, Mismatch
from .random_instructions import Builder
from .random_placement import Program, Stock
from .random_programs import MARGIN, memories, random_map


def random_images(rack: RackConfig, seed: int, attempts: int = 300) -> tuple[list[Image], int]:
    """An image for each chip, and the number of tokens that uses every bucket. The same seed gives the same images."""
    rng = Random(seed)
    chips = [_Chip(rack, n, rng) for n in range(len(rack.chips))]
    position = 0
    for _ in range(rng.randint(1, min(3, *(config.buckets for config in rack.chips)))):
        builders = [chip.builder() for chip in chips]
        for n, builder in enumerate(builders):
            builder.across = {(near.side, near.number): (builders[far.chip], C2C[far.side], far.number, latency)
                              for near, (far, latency) in rack.across.items() if near.chip == n}
        programs = [builder.lay_out() for builder in builders]
        if not all(programs):
            break
        for _ in range(attempts * len(builders)):
            rng.choice(builders).add_one()
        period = max(program.end for program in programs if program) + MARGIN
        period += rng.randrange(30)
        period += -period % rack.chips[0].slot
        position += rng.randint(1, 2)
        for chip, program in zip(chips, programs, strict=True):
            chip.keep(program, period, position)
    return [chip.image() for chip in chips], position


class _Chip:
    """The image of one chip, which grows bucket by bucket."""

    def __init__(self, rack: RackConfig, number: int, rng: Random):
        self.config, self.rng = rack.chips[number], rng
        self.stores = {queue.name: store_of(self.config, queue) for queue in queues(self.config)}
        self.stocks = {name: Stock(store) for name, store in self.stores.items()}
        self.words: dict[str, list[int]] = {name: [] for name in self.stores}
        self.starts: dict[str, list[int]] = {name: [] for name in self.stores}
        self.buckets: list[tuple[int, int]] = []

    def builder(self) -> Builder:
        return Builder(self.config, self.rng, self.stocks)

    def keep(self, program: Program | None, period: int, limit: int) -> None:
        assert program
        for name, nodes in program.layout.items():
            self.starts[name].append(len(self.words[name]))
            self.words[name] += [encode(instr) for node in nodes for instr in node.emit(self.stores[name].max_delay)]
            self.words[name].append(encode(Instr(Op.SYNC)))
        self.buckets.append((period, limit))

    def image(self) -> Image:
        maps = [random_map(self.rng, self.config.lanes) for _ in range(self.config.sxm_maps)]
        return Image(config=self.config, queues=self.words, starts=self.starts, buckets=self.buckets,
                     maps=dict(enumerate(maps)), mems=memories(self.config, self.rng))


def bucket_words(image: Image, bucket: int) -> Mapping[str, list[int]]:
    """The words of a bucket of an image, from its start PC to SYNC, as the verifier takes them."""
    found = {}
    for name, words in image.queues.items():
        begin = image.starts[name][bucket]
        end = next(n for n in range(begin, len(words)) if words[n] & 15 == Op.SYNC.value)
        found[name] = list(words[begin : end + 1])
    return found


def lockstep_of_rack(rack: RackConfig, images: list[Image], tokens: int, rtl: RackSimulator) -> RackModel:
    """Run programs on the models and the RTL of all chips, and compare every cycle as `sim.check.lockstep` does."""
    model = RackModel(rack)
    model.load(images)
    views = [_View(rtl, n) for n in range(len(rack.chips))]
    for view, image in zip(rtl.chips, images, strict=True):
        view.load(image)
    pairs = [Lockstep(chip, view) for chip, view in zip(model.chips, views, strict=True)]
    model.start(tokens)
    for chip in rtl.chips:
        chip.host_write(Space.CONTROL, Control.RUN.value, tokens)
    for _ in range(WAKE):
        if not any(view.probe("parked") for view in views):
            break
        rtl.step()
    else:
        raise Mismatch(0, "the RTL did not start", 0, [view.probe("parked") for view in views])
    model.step()
    left = SETTLE
    while left:
        left -= not model.running
        for pair in pairs:
            pair.cycle()
        rtl.step()
    for pair in pairs:
        pair.compare_memories()
    return model


class _View:
    """One chip of the RTL. It is stepped together with the others, after all of them were compared."""

    def __init__(self, rtl: RackSimulator, number: int):
        chip = rtl.chips[number]
        self.probe, self.writes, self.streams, self.driven = chip.probe, chip.writes, chip.streams, chip.driven
        self.load, self.host_write = chip.load, chip.host_write

    def step(self, cycles: int = 1) -> None:
        """Do nothing: `lockstep_of_rack` steps all chips at once."""
