"""A campaign: many independent cases on all processors, with results that are kept.

Each result is a line of JSON in a folder, written when it is there. A campaign that was stopped goes on where it was.
Several machines share a campaign by doing a part each; what all of them have found is in the folder's files.
"""

import errno
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from joblib import Parallel, delayed

from .command import prepare
from .errors import TspError
from .files import cannot_write

Result = dict[str, Any]
"""What a case gives: plain data."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """The cases of one machine: every `count`-th of them, from number `index` on, counted from 1."""

    index: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Part":
        """The part of "2/8". Raises TspError."""
        index, slash, count = text.partition("/")
        if not (slash and index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
            raise TspError(f"part must be a number and how many there are, such as 2/8, not {text!r}")
        return cls(index=int(index), count=int(count))

    def of(self, cases: Sequence[int]) -> Sequence[int]:
        """The cases that are this part's."""
        return cases[self.index - 1 :: self.count]


@dataclass(frozen=True, kw_only=True)
class Campaign:
    """Where results are kept, and of what.

    folder: of the results. It is made if need be. key: a hash of all that results depend on besides the number of their
    case; those of another key are left alone. part: which cases are to be run here. jobs: at a time.
    """

    folder: Path
    key: str
    part: Part = Part()
    jobs: int = 1

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise TspError(f"jobs must be at least 1, not {self.jobs}")

    def results(self) -> dict[int, Result]:
        """What is known, by the number of the case: of all parts. Lines that are damaged are left alone."""
        found: dict[int, Result] = {}
        for file in sorted(self.folder.glob("*.jsonl")):
            for line in file.read_text(errors="replace").splitlines():
                try:
                    entry = json.loads(line)
                except ValueError:
                    continue  # its writer was stopped
                if isinstance(entry, dict) and entry.get("key") == self.key:
                    case, result = entry.get("case"), entry.get("result")
                    if isinstance(case, int) and isinstance(result, dict):
                        found[case] = result
        return found

    def run(self, cases: Sequence[int], work: Callable[[int], Result],
            say: Callable[[int, Result], None] = lambda case, result: None,
            keep: Callable[[Result], bool] = lambda result: True) -> dict[int, Result]:
        """Run the cases of the part that have no result yet. Returns all results of `cases` that are known then.

        work: gives the result of a case, perhaps in another process. What it raises ends the campaign; results up to
        then are kept. say: called for each result as it comes, the known ones first. keep: whether a result is; others
        are tried again the next time.

        Raises TspError if the folder cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)  # before work that could not be kept
        except OSError as error:
            raise cannot_write(self.folder, error) from error
        known = self.results()
        mine = self.part.of(cases)
        for case in mine:
            if case in known:
                say(case, known[case])
        for case, result in self._run([case for case in mine if case not in known], work):
            if keep(result):
                self._keep(case, result)
            known[case] = result
            say(case, result)
        return {case: known[case] for case in cases if case in known}

    def _run(self, cases: Sequence[int], work: Callable[[int], Result]) -> Iterator[tuple[int, Result]]:
        if min(self.jobs, len(cases)) <= 1:
            yield from ((case, work(case)) for case in cases)
            return
        pool: Any = Parallel(n_jobs=self.jobs, batch_size=1, return_as="generator_unordered")  # pyright: ignore
        yield from pool(delayed(_numbered)(work, case) for case in cases)

    def _keep(self, case: int, result: Result) -> None:
        """Add a line at once: another process may add to the same file. A line before it that is cut short is ended."""
        line = json.dumps({"key": self.key, "case": case, "result": result}) + "\n"
        path = self.folder / f"part-{self.part.index}-of-{self.part.count}.jsonl"
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            try:
                size = os.fstat(file).st_size
                whole = not size or os.pread(file, 1, size - 1) == b"\n"
                data = (line if whole else "\n" + line).encode()
                if os.write(file, data) < len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            finally:
                os.close(file)
        except OSError as error:
            raise cannot_write(path, error) from error


def _numbered(work: Callable[[int], Result], case: int) -> tuple[int, Result]:
    prepare()  # so that a SIGTERM ends what a case has started, too
    return case, work(case)


def cases_of(text: str) -> range:
    """The cases of "0:1000", the first and the one behind the last. Raises TspError."""
    first, colon, end = text.partition(":")
    if not (colon and first.isdecimal() and end.isdecimal() and int(first) < int(end)):
        raise TspError(f"cases must be the first and the one behind the last, such as 0:1000, not {text!r}")
    return range(int(first), int(end))
