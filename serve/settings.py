"""What the operator of a server decides."""

from dataclasses import dataclass, field
from pathlib import Path

from base.errors import TspError
from base.inputs import cannot_read, read_input

LOCAL = ("127.0.0.1", "localhost", "::1")
"""Hosts to bind to that only this machine reaches."""
LEAST_KEY = 8
"""Characters of a key at least."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Of one server.

    name: of the model, as clients call it. aliases: other names that mean it; "*" is every name. devices: as of
    `--device`. keys: who may ask; none for whoever reaches the server. most: requests that may wait. seconds: that a
    request may wait, and that its answer may take. drain: seconds that answers may still take after a signal to end.
    requests, tokens: a minute for each key, and as many at once. body: bytes of a request at most.
    """

    name: str
    aliases: tuple[str, ...] = ()
    devices: tuple[str, ...] = ("reference",)
    host: str = "127.0.0.1"
    port: int = 8000
    keys: tuple[str, ...] = field(default=(), repr=False)
    most: int = 64
    seconds: float = 600.0
    drain: float = 30.0
    requests: int = 60_000
    tokens: int = 6_000_000
    body: int = 1 << 20

    def __post_init__(self) -> None:
        if not self.keys and self.host not in LOCAL:
            raise TspError(f"host must be 127.0.0.1 without keys, not {self.host}: give --api-key FILE to serve others")
        if not 0 <= self.port <= 65535:
            raise TspError(f"port must be in 0..65535, not {self.port}")
        for name, option, least in (("most", "max-queue", 0), ("seconds", "max-seconds", 1),
                                    ("drain", "drain-seconds", 0), ("requests", "requests-per-minute", 1),
                                    ("tokens", "tokens-per-minute", 1), ("body", "max-body", 1)):
            if not least <= getattr(self, name) < 1 << 40:  # not of nan either
                raise TspError(f"--{option} must be at least {least}, not {getattr(self, name)}")

    def knows(self, model: str) -> bool:
        """Whether a name means this model."""
        return model == self.name or model in self.aliases or "*" in self.aliases


def read_keys(file: Path) -> tuple[str, ...]:
    """The keys of a file, one a line; lines that begin with # are comments. Raises TspError."""
    try:
        lines = read_input(file, "the keys").decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise cannot_read(file, error, "the keys") from error
    keys = tuple(key for line in lines if (key := line.strip()) and not key.startswith("#"))
    if not keys:
        raise TspError(f"{file}: the file holds no key: write one a line")
    if short := [n for n, key in enumerate(keys, 1) if len(key) < LEAST_KEY or not key.isascii() or " " in key]:
        raise TspError(f"{file}: key {short[0]} must have at least {LEAST_KEY} ASCII characters and no space")
    return keys
