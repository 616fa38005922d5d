"""Names and colours in all pictures, for a reader who does not know the chip."""

from dataclasses import dataclass

UNITS = {"MXM": "matrix unit", "SXM": "lane switch", "MEM": "memory", "VXM": "vector unit", "C2C": "link"}
ENGINES = {"read": "read", "write": "write", "index": "index", "alu": "compute", "sxm": "switch", "lanes": "switch",
           "in": "transpose in", "out": "transpose out", "load": "load", "mac": "multiply", "drain": "drain",
           "send": "send", "receive": "receive"}


@dataclass(frozen=True, kw_only=True)
class Family:
    """A family of operations of the model, and its colour.

    The colours are those of Okabe and Ito. People with any common colour blindness can tell them apart.
    """

    name: str
    colour: str
    labels: tuple[str, ...]


FAMILIES = (
    Family(name="position and embedding", colour="#0072b2",
           labels=("token", "position", "index vectors", "rotation", "mask", "embedding", "next position")),
    Family(name="norms", colour="#cc79a7", labels=(
        "attention norm", "ffn norm", "final norm", "squares", "sum of squares", "exponent", "ffn exponent")),
    Family(name="queries, keys, values", colour="#e69f00",
           labels=("qkv product", "q rotate", "k rotate", "query", "key", "value")),
    Family(name="attention", colour="#56b4e9", labels=("score", "softmax", "value product", "attention output")),
    Family(name="output projection", colour="#009e73", labels=("wo product", "wo residual")),
    Family(name="feed-forward", colour="#d55e00",
           labels=("w13 first product", "w13 product", "gate", "w2 product", "w2 residual")),
    Family(name="classifier", colour="#f0e442", labels=("classifier product", "logits")),
    Family(name="choice of the token", colour="#8c96a3", labels=("noise", "choose", "sample")),
)
EXCHANGE = Family(name="exchange between chips", colour="#1c2430", labels=(
    "outputs", "addends", "gates", "normed", "best", "exponents", "handed", "hand over", "tell token"))
"""The family of what only a rack does."""
OTHER = Family(name="other", colour="#b9a37e", labels=())
"""The family of all other operations."""


def family(label: str) -> Family:
    """The family of an operation."""
    label = label.removesuffix(" send").removesuffix(" receive").removesuffix(" load")
    return next((each for each in (*FAMILIES, EXCHANGE) if label in each.labels), OTHER)


def unit_name(queue: str) -> str:
    """A queue's unit: "memory W1", "matrix unit east", "vector unit"."""
    kind, _, rest = queue.partition("_")
    where = {"E": " east", "W": " west"}.get(rest, f" {rest}" if rest else "")
    return UNITS.get(kind, kind) + where


def row_name(queue: str, engine: str) -> str:
    """An engine of a unit, as a row of a picture: "memory W1: read"."""
    return unit_name(queue) if engine == "alu" else f"{unit_name(queue)}: {ENGINES.get(engine, engine)}"
