"""A rack over two ranks of MPI: equal to one process bit for bit, one line where something is wrong, never a hang."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from small_racks import PAIR, in_line, shared

from arch.rack import RACKS
from base.errors import TspError
from program.file import save
from sim.rtl import ranks
from sim.rtl.exchange import chips_of, owner
from sim.rtl.spread import check_machines

ROOT = Path(__file__).parent.parent
MPIRUN = Path(sys.executable).with_name("mpirun")
TSP = "-m", "cli.main"


def mpirun(*command: str, count: int = 2) -> subprocess.CompletedProcess:
    """Run Python in ranks. A hang is a failure."""
    return subprocess.run([MPIRUN, "-n", str(count), sys.executable, *command], cwd=ROOT, capture_output=True,
                          text=True, timeout=300, check=False)


def alone(*command: str) -> str:
    return subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def ours(found: subprocess.CompletedProcess) -> Sequence[str]:
    """The lines that are ours among what is on stderr."""
    return [line for line in found.stderr.splitlines() if line.startswith(("tsp", "Traceback"))]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spread")
    save(shared(), folder / "shared.tsp")
    save(in_line(), folder / "line.tsp")
    return folder


@pytest.mark.parametrize(("program", "options"), [
    ("shared.tsp", ("--temperature", "0.8", "--seed", "3")),
    ("line.tsp", ("--link-faults", "errors=1e-3,seed=5")),
])
def test_two_ranks_are_equal_to_one_process(programs: Path, program: str, options: Sequence[str]):
    """Tokens, cycles and the hash of all logits; nothing is printed twice."""
    command = (*TSP, "run", str(programs / program), "--tokens", "6", "--json", *options)
    found = mpirun(*command)
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout) == json.loads(alone(*command))


def test_random_schedules_are_equal_to_one_process():
    found = mpirun("tests/spread.py", "schedules", "0", "2")
    assert found.returncode == 0, found.stderr
    flits, changed = map(int, found.stdout.split())
    assert flits > 10 and changed > 3


@pytest.mark.nightly
def test_many_random_schedules_are_equal_to_one_process():
    found = mpirun("tests/spread.py", "schedules", "3", "40")
    assert found.returncode == 0, found.stderr


def test_flits_that_do_not_match_the_schedule_are_an_error():
    found = mpirun("tests/spread.py", "faults")
    lines = found.stdout.splitlines()
    assert len(lines) == 5 and lines[4] == "[[128, 128], [128, 128]]", found.stderr
    for line, words in zip(lines, ("6 flits that arrived at port 1.E0 were not taken", "was not taken at port 1.E0 in",
                                   "no flit arrives at port 1.E0 in", "no flit arrives at port 0.E0 in"), strict=False):
        assert words in line and " and " not in line


@pytest.mark.parametrize(("what", "line"), [
    ("raises", ["tsp: rank 1: ZeroDivisionError: a bug of ours"]),
    ("killed", []),  # what mpirun says of it is not ours
])
def test_a_rank_that_fails_ends_all(what: str, line: Sequence[str]):
    found = mpirun("tests/spread.py", what)
    assert found.returncode and ours(found) == line


def test_what_is_refused_is_one_line_of_rank_0(programs: Path):
    found = mpirun(*TSP, "run", str(programs / "shared.tsp"), count=3)
    assert found.returncode == 2 and ours(found) == [
        "tsp: rack twins has 2 chips, so mpirun may start at most as many ranks, not 3"]


def test_a_server_is_not_divided(programs: Path):
    found = mpirun(*TSP, "serve", str(programs / "line.tsp"))
    assert found.returncode == 2 and "processes of their own, which are not divided" in ours(found)[0]


def test_ranks_without_work_are_told(programs: Path):
    found = mpirun(*TSP, "run", str(programs / "line.tsp"), "--device", "reference", "--tokens", "1")
    assert found.returncode == 0 and ours(found)[-1].startswith("tsp: the other 1 ranks of mpirun had nothing to do")


def test_without_mpi_a_line_says_what_is_missing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PMI_SIZE", "2")
    monkeypatch.setenv("PMI_RANK", "0")
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(TspError, match=r"mpi4py cannot be used .* pip install 'metronome-tsp"):
        ranks.in_ranks(lambda: 0, lambda comm: None)
    monkeypatch.setenv("PMI_RANK", "1")
    assert ranks.in_ranks(lambda: 0, lambda comm: None) == 2


def test_slurm_alone_is_no_mpi(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SLURM_NTASKS", "8")
    assert not ranks.started_by_mpi()
    monkeypatch.setenv("PMIX_RANK", "1")
    assert ranks.started_by_mpi() and ranks.rank_of_environment() == 1


def test_every_rank_has_adjacent_chips():
    for count in range(1, 9):
        found = [chips_of(RACKS["node"], count, rank) for rank in range(count)]
        assert [chip for chips in found for chip in chips] == list(range(8)) and all(found)
        assert all(owner(RACKS["node"], count, chip) == rank for rank, chips in enumerate(found) for chip in chips)
        assert max(map(len, found)) - min(map(len, found)) <= 1


def test_memory_is_counted_by_machine():
    node, gigabyte = RACKS["node"], 1 << 30
    check_machines(node, [("a", gigabyte), ("b", gigabyte)])
    with pytest.raises(TspError, match=r"the 8 chips of rack node on a take about 0\.9 GiB of memory, and"):
        check_machines(node, [("a", 800 << 20), ("a", 900 << 20)])
    with pytest.raises(TspError, match="the 4 chips of rack node on b take"):
        check_machines(node, [("a", gigabyte), ("b", 100 << 20)])
    check_machines(PAIR, [("a", None), ("b", None)])
