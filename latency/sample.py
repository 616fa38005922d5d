"""What is measured of one streamed answer, and how it is read from the answer's chunks."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Json = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class OnChip:
    """What the server says of the chip's own time: `x_tsp`.

    measured: cycles that the chip counted, None if the device has no time. ttft: seconds of the prompt with the first
    token, None if it was not measured. gaps: seconds of each later token, from predicted cycles without measured ones.
    e2el: seconds of all of them.
    """

    device: str
    clock_mhz: float
    predicted: int
    measured: int | None
    ttft: float | None
    gaps: tuple[float, ...]
    e2el: float

    @property
    def kept(self) -> bool:
        """No measured cycle differs from its prediction."""
        return self.measured is None or self.measured == self.predicted


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One answer.

    ttft: seconds to the first token; gaps: between tokens as they arrive; e2el: to the end of the stream. cached:
    tokens of the prompt that the server had not to run again, None if it does not say.
    """

    ttft: float
    gaps: tuple[float, ...]
    e2el: float
    tokens: int
    cached: int | None
    chip: OnChip | None

    @property
    def tokens_per_second(self) -> float:
        """Tokens of the answer over the time of the whole request."""
        return self.tokens / self.e2el


@dataclass
class Reader:
    """Collects the chunks of one answer. began: when it was asked for; all times are of one clock, in seconds."""

    began: float
    arrivals: list[float] = field(default_factory=list)
    cycles: list[Json] = field(default_factory=list)
    usage: Json = field(default_factory=dict)
    x_tsp: Json | None = None

    def take(self, chunk: Json, now: float) -> None:
        """A chunk that arrived at a time."""
        self.usage = chunk.get("usage") or (chunk.get("x_groq") or {}).get("usage") or self.usage
        told = chunk.get("x_tsp")
        if told and "device" in told:
            self.x_tsp = told
        if any(_is_token(choice, told) for choice in chunk.get("choices") or ()):
            self.arrivals.append(now)
            if told and "predicted_cycles" in told:
                self.cycles.append(told)

    def sample(self, now: float) -> Sample | None:
        """The answer that ended at a time; None if it had no token."""
        if not self.arrivals:
            return None
        gaps = tuple(after - before for before, after in zip(self.arrivals, self.arrivals[1:], strict=False))
        details = self.usage.get("prompt_tokens_details") or {}
        return Sample(ttft=self.arrivals[0] - self.began, gaps=gaps, e2el=now - self.began,
                      tokens=self.usage.get("completion_tokens") or len(self.arrivals),
                      cached=details.get("cached_tokens"), chip=self._chip())

    def _chip(self) -> OnChip | None:
        told = self.x_tsp
        if not told or not told.get("clock_mhz"):
            return None
        hertz, predicted, measured = told["clock_mhz"] * 1e6, told["predicted_cycles"], told["measured_cycles"]
        later = [each["measured_cycles"] or each["predicted_cycles"] for each in self.cycles[1:]]
        return OnChip(device=told["device"], clock_mhz=told["clock_mhz"], predicted=predicted, measured=measured,
                      ttft=told.get("on_chip_prompt_time"), gaps=tuple(cycles / hertz for cycles in later),
                      e2el=(predicted if measured is None else measured) / hertz)


def _is_token(choice: Json, told: Json | None) -> bool:
    """Whether a choice of a chunk brings a token: text, or a token whose bytes wait for those of the next."""
    text = choice.get("text") or (choice.get("delta") or {}).get("content")
    return bool(text) or bool(told and "token" in told)
