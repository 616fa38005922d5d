"""Sampling noise: a random state a token, and the Gumbel noise made of it.

Where the vocabulary divides well, each layer makes its share while it waits; otherwise the end of the token makes all.
"""

from dataclasses import replace

from arch.isa import Alu, Func
from compiler.ir import Imm, Mem
from program.sampler import GUMBEL_ONE

from .builder import FRAC, Builder


def layer_noise(b: Builder) -> None:
    """A layer's share of the noise, if layers make it."""
    if made_by_layers(b):
        noise(b, 0, b.placement.tensors["noise"].quads, rel=1)


def made_by_layers(b: Builder) -> bool:
    """Whether the noise is made in the layers."""
    return b.geometry.classifies and b.placement.tensors["noise"].per_layer


def noise(b: Builder, first: int, count: int, *, rel: int) -> None:
    """The next random states of `count` vectors of tokens, by xorshift32, and -log2 of exponential variates of them in
    "gumbel". rel: loop level whose offset the addresses get."""
    _noise(b, *(replace(b.tensor(name, first, count), rel=rel) for name in ("noise", "gumbel")))


def rest_of_noise(b: Builder) -> None:
    """The noise that the layers leave to the end of a token, if they do."""
    if made_by_layers(b) and "noise_rest" in b.placement.tensors:
        _noise(b, b.tensor("noise_rest"), b.tensor("gumbel_rest"))


def _noise(b: Builder, state: Mem, work: Mem) -> None:
    label, n = "noise", state.count
    b.op(label, a=state, pre=-13, alu=Alu.XOR, c=state, n=n, dst=state)
    b.op(label, a=state, pre=17, logical=1, alu=Alu.XOR, c=state, n=n, dst=state)
    b.op(label, a=state, pre=-5, alu=Alu.XOR, c=state, n=n, dst=state)
    log2 = {"func": Func.LOG2, "post": FRAC[Func.LOG2], "alu": Alu.ADD, "n": n}
    b.op(label, a=state, pre=8, logical=1, **log2, dst=work)
    b.op(label, a=Imm(GUMBEL_ONE >> 15), pre=-15, alu=Alu.SUB, c=work, n=n, dst=work)
    b.op(label, a=work, **log2, dst=work)


def gumbel(b: Builder, first: int, count: int, *, rel: int) -> Mem:
    """Noise of the vectors first, first + 2, .. (`count` of them); a burst's lies in the block of one layer."""
    tensor = b.placement.tensors["gumbel"]
    if not tensor.per_layer:
        return every_other(b, "gumbel", first, count, rel=rel)
    if first >= 2 * made_for(b):
        return every_other(b, "gumbel_rest", first - 2 * made_for(b), count, rel=rel)
    layer, within = divmod(first, tensor.quads)
    own = tensor.mem(within, 2 * count - 1)[::2]
    return replace(own, addr=own.addr + layer * b.placement.layout.strides[tensor.slice], rel=0)


def made_for(b: Builder) -> int:
    """Vectors of a side's tokens, from the first on, whose noise the layers make."""
    return b.placement.tensors["noise"].quads // 2 * b.model.layers if made_by_layers(b) else 0


def every_other(b: Builder, name: str, first: int, count: int, *, rel: int) -> Mem:
    """`count` vectors of a tensor over the vocabulary, every other one from `first` on: one side's share."""
    return replace(b.tensor(name)[first : first + 2 * count - 1 : 2], rel=rel)
