"""Published claims about these machines that do not add up, each with the arithmetic that shows it.

All numbers come from `machines` and `shapes`; only what is claimed is written down.
"""

from collections.abc import Iterator
from math import ceil
from typing import NamedTuple

from .machines import (
    A100,
    CARDS_A_RACK,
    CHIPS_A_CARD,
    CHIPS_A_NODE,
    CLOCK,
    GPUS,
    GROQCHIP,
    H100,
    ISCA_2022,
    NODES_A_RACK,
)
from .plan import make_plan
from .shapes import PRESETS

CHIP = 230e6
"""Bytes of a chip as the claims round them: 220 MiB are 230.7 MB."""


class Claim(NamedTuple):
    """What is said, the arithmetic, and what is so."""

    said: str
    arithmetic: str
    so: str


def claims() -> Iterator[Claim]:
    """All of them."""
    yield from _capacity()
    yield from _compute()
    yield from _bandwidth()


def _capacity() -> Iterator[Claim]:
    rack = CHIPS_A_CARD * CARDS_A_RACK
    yield Claim(f"a rack of {CARDS_A_RACK} cards, {rack} chips, holds an 8 GB model",
                f"{rack} x 230 MB = {rack * CHIP / 1e9:.2f} GB",
                f"it holds half of it; 8 GB take {ceil(8e9 / CHIP)} chips")
    chips = {name: ceil(70e9 * width / CHIP) for name, width in (("int8", 1), ("int4", 0.5), ("fp16", 2))}
    exact = make_plan("llama-3-70b", chip="groqchip", precision="int8", context=4096)
    yield Claim(f"a 70 GB model runs on {rack} chips, or on 152",
                f"70 GB / 230 MB = {70e9 / CHIP:.1f}",
                f"{chips['int8']} chips for the weights alone ({chips['fp16']} in fp16; the 152 are int4's, which "
                f"takes {chips['int4']}). Llama-3 70B by its shapes: {exact.weights_alone}, and {exact.chips} with a "
                f"cache of {exact.context:,} positions")
    mixtral = PRESETS["mixtral-8x7b"]
    yield Claim("Mixtral 8x7B has 8 x 7 = 56 B parameters, of which a token needs 7 B",
                f"the experts share attention and embedding: {mixtral.parameters / 1e9:.1f} B in all, "
                f"{mixtral.active_parameters / 1e9:.1f} B for a token",
                f"memory is needed for {mixtral.parameters / 1e9:.1f} B, bandwidth for "
                f"{mixtral.active_parameters / 1e9:.1f} B")
    built = CHIPS_A_NODE * NODES_A_RACK
    yield Claim(f"a rack is {CARDS_A_RACK} cards of {CHIPS_A_CARD} chips",
                f"{ISCA_2022}: {NODES_A_RACK} nodes of {CHIPS_A_NODE} chips = {built}",
                f"{built} chips and {built * GROQCHIP.memory.value / 1e9:.1f} GB; `tsp plan` prints both ways to count")


def _compute() -> Iterator[Claim]:
    a100, h100 = (machine.operations("fp16") / 1e12 for machine in GPUS)
    ridges = " and ".join(f"{machine.operations('fp16') / 1e12:.0f} / {machine.bandwidth.value / 1e12:.4g} = "
                          f"{machine.ridge('fp16'):.0f}" for machine in GPUS)
    yield Claim(f"an H100 has {a100:.0f} TFLOPS, and its ridge point is at 148 FLOP/byte",
                ridges, f"{a100:.0f} TFLOPS are the A100's, {h100:.0f} the H100's; the ridge points are "
                        f"{A100.ridge('fp16'):.0f} and {H100.ridge('fp16'):.0f} FLOP/byte")
    yield Claim("a token of a 7 B model takes 7 GFLOP", "7 G weights x (a multiplication and an addition)", "14 GFLOP")
    rate = 4 * 320 * 320 * 2 * CLOCK
    yield Claim("750 TOPS at 900 MHz", f"4 x 320 x 320 x 2 x 0.9 GHz = {rate / 1e12:.0f} TOPS",
                f"750 TOPS are those of {750e12 / (rate / CLOCK) / 1e6:.0f} MHz; `tsp plan` takes the published "
                "number, which bounds from above")


def _bandwidth() -> Iterator[Claim]:
    sram, streams = (GROQCHIP.paths[name].value for name in ("SRAM", "streams"))
    cycle = round(sram / CLOCK)
    yield Claim("the SRAM gives 80 TB/s",
                f"88 slices x 2 banks x 320 bytes = {cycle:,} bytes a cycle; x 0.9 GHz = {sram / 1e12:.1f} TB/s; "
                f"80 TB/s would want {80e12 / cycle / 1e9:.2f} GHz",
                f"{sram / 1e12:.1f} TB/s at 900 MHz. The paper's 55 TiB/s are {cycle // 1024} x 1,024 bytes at 1 GHz, "
                f"that is {cycle * 1e9 / 1e12:.1f} TB/s. Streams carry {streams / 1e12:.1f} TB/s of it, and weights "
                f"enter the matrix units at {GROQCHIP.bandwidth.value / 1e12:.1f} TB/s")
    speeds = {width: A100.bandwidth.value / (70e9 * width) for width in (2, 1, 0.5)}
    yield Claim("one user gets 80 tokens/s of a 70 B model from one A100",
                f"2 TB/s / 140 GB = {speeds[2]:.0f} tokens/s (and 140 GB are more than its 80); / 70 GB = "
                f"{speeds[1]:.0f}; / 35 GB = {speeds[0.5]:.0f}",
                "impossible by bandwidth at any of these precisions")
    seven = {machine.title: machine.bandwidth.value / 14e9 for machine in GPUS}
    yield Claim("a GPU's tokens/s for one user follow from its TFLOPS",
                "; ".join(f"{title}: {GPUS[n].bandwidth.value / 1e12:.4g} TB/s / 14 GB = {speed:.0f} tokens/s"
                          for n, (title, speed) in enumerate(seven.items())),
                "at batch 1 they follow from its bandwidth: the numbers are of 7 B parameters in fp16")
