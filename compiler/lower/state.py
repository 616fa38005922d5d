"""What the beginning of a token leaves to its layers and to its end."""

from dataclasses import dataclass

from compiler.ir import Act, Mem, Reg


@dataclass(frozen=True, kw_only=True)
class TokenState:
    """Values that live as long as a token.

    residual: the residual, in registers or the tensor "x".
    shift: exponent register of the shift that makes a norm's operand of the residual, if that is dynamic. The operation
    that writes the residual also writes the shift.
    bytes: exponent register with 8 times the number of a byte of an int32, lane by lane over and over, if the residual
    is divided among the chips of a rack.
    cos, sin: vectors of a head's rotation; sin is negated in odd lanes, for products that are swapped.
    head_lanes: masks of the lanes of each head of a shared vector; none if heads share no vectors.
    mask: what scores of the last `chunks - valid` vectors of positions are added to, if it is in registers; otherwise
    it is in the tensor "mask_W0", and in "mask_E0" if `Geometry.masks_on_both_sides`.
    masking: by side, the activations of products that mask others, if these are masked so, see `place.masks`.
    """

    residual: Reg | Mem
    bytes: int | None
    shift: int | None
    cos: Reg
    sin: Reg
    head_lanes: tuple[Reg, ...]
    mask: Reg | None
    masking: dict[str, Act]
