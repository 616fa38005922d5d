"""The distance of a program's logits from the float model's, as measured at compile time."""

from dataclasses import dataclass

from .integer import SITES

LEAST_ENTROPY = 1e-3
"""Least cross-entropy, in nats a token, that KL is compared with. A model that is always certain has none."""


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Distance of an integer model from the float model on the same tokens.

    `kl`: mean KL(float || integer), nats a token.
    `cross_entropy`: mean entropy of the float model's own prediction, nats a token: its expected cross-entropy on text
    that it sampled.
    `ratio`: kl / cross_entropy, or `LEAST_ENTROPY` if that is more: the relative loss.
    `top1`: fraction of positions where both choose the same (first) best token.
    `tokens`: positions compared.
    """

    kl: float
    cross_entropy: float
    ratio: float
    top1: float
    tokens: int

    def __str__(self) -> str:
        return (
            f"KL {self.kl:.5f} nats/token = {100 * self.ratio:.2f} % of the cross-entropy {self.cross_entropy:.3f}, "
            f"top-1 agreement {100 * self.top1:.1f} % over {self.tokens} tokens"
        )


TOLERANCE = 0.0025
"""Most that a site's static scale may add to the KL, as a fraction of the float model's cross-entropy."""
TOGETHER = 0.01
"""The same for all sites together."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A comparison of scales at some sites: KL over cross-entropy with exponents, and with static scales.

    refused: the reason if the sites cannot be dynamic. Then nothing was measured, and both losses are 0.
    """

    sites: tuple[str, ...]
    dynamic: float
    static: float
    refused: str = ""

    @property
    def takes_static(self) -> bool:
        """Whether the static scales are good enough, or the only choice."""
        return bool(self.refused) or self.static - self.dynamic <= min(TOLERANCE * len(self.sites), TOGETHER)

    def __str__(self) -> str:
        name = "all" if self.sites == SITES else " ".join(self.sites)
        if self.refused:
            return f"{name} -> static, because dynamic scales are impossible ({self.refused})"
        return f"{name} {self.dynamic:.2%} / {self.static:.2%} -> {'static' if self.takes_static else 'dynamic'}"
