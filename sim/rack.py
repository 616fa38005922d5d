"""A rack of cycle models: chips that exchange flits in the cycles of their schedules."""

from collections.abc import Sequence

from arch.host_map import Control, Space
from arch.rack import RackConfig
from program.image import Image
from sim.device.rack import Changes, HostedRack, Ran

from .cycle.chip import ModelChip
from .cycle.links import Wire


class RackModel:
    """The chips of a rack, in step. strict: as of `ModelChip`; a flit that is not taken raises, too."""

    def __init__(self, rack: RackConfig, *, strict: bool = True):
        self.rack = rack
        self.chips = [ModelChip(config, strict=strict) for config in rack.chips]
        self.wires = {near: Wire(latency) for near, (_, latency) in rack.across.items()}
        for near, (far, _) in rack.across.items():
            self.chips[near.chip].connect(near.side, near.number, self.wires[near], self.wires[far])

    def load(self, images: Sequence[Image]) -> None:
        """An image a chip."""
        for chip, image in zip(self.chips, images, strict=True):
            chip.load(image)

    def start(self, tokens: int) -> None:
        """Let all chips start tokens in the present cycle."""
        for chip in self.chips:
            chip.host_write(Space.CONTROL, Control.RUN.value, tokens)

    @property
    def running(self) -> bool:
        """A token runs on some chip."""
        return any(chip.running for chip in self.chips)

    def step(self) -> None:
        """Pass one cycle on all chips."""
        for chip in self.chips:
            chip.step()

    def run(self, tokens: int) -> list[list[int]]:
        """Run tokens; cycles of each, by chip."""
        self.start(tokens)
        cycles: list[list[int]] = [[] for _ in self.chips]
        began = [-1] * len(self.chips)
        while self.running:
            self.step()
            for n, chip in enumerate(self.chips):
                if chip.sequencer.began != began[n] and began[n] >= 0:
                    cycles[n].append(chip.sequencer.token_cycles)
                began[n] = chip.sequencer.began
        while not all(chip.time.idle for chip in self.chips):
            self.step()
        return cycles


class ModelRack(HostedRack):
    """The cycle models of a rack's chips, for their host."""

    def __init__(self, rack: RackConfig) -> None:
        self.rack, self._model = rack, RackModel(rack)
        self.chips = self._model.chips

    def run(self, n_tokens: int, changes: Changes | None = None) -> Ran:
        """Run tokens. Raises ProgramError where a flit is not taken, or one is taken that has not come."""
        for near, wire in self._model.wires.items():
            wire.sent, wire.changes = 0, (changes or {}).get(near, {})
        cycles = self._model.run(n_tokens)
        return Ran(cycles=cycles, sent={near: wire.sent for near, wire in self._model.wires.items()})

    @property
    def now(self) -> int:
        return self._model.chips[0].now

    def close(self) -> None:
        """Nothing to free."""
