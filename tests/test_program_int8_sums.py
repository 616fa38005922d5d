"""program.int8_sums: the compiled function and numpy give the same sums."""

from pathlib import Path

import numpy as np
import pytest

from program import int8_sums as module
from program.int8_sums import EXACT_COLUMNS, float_sums, int8_sums


@pytest.mark.parametrize("rows", [1, 3, 4, 9])
@pytest.mark.parametrize("columns", [1, 64, 576, EXACT_COLUMNS + 37])
def test_sums_are_exact(rows: int, columns: int):
    rng = np.random.default_rng(columns)
    weights, act = (rng.integers(-127, 128, (n, columns), dtype=np.int8) for n in (21, rows))
    weights[0], act[0] = 127, 127
    expected = act.astype(np.int64) @ weights.astype(np.int64).T
    np.testing.assert_array_equal(int8_sums(weights, act), expected)
    np.testing.assert_array_equal(float_sums(weights, act), expected)


def test_rows_may_be_parts_of_longer_ones():
    rng = np.random.default_rng(1)
    weights, act = (rng.integers(-127, 128, (n, 200), dtype=np.int8) for n in (8, 2))
    part = slice(64, 128)
    np.testing.assert_array_equal(int8_sums(weights[:, part], act[:, part]),
                                  act[:, part].astype(int) @ weights[:, part].astype(int).T)


def test_numpy_does_without_a_compiler(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_function", lambda: None)
    test_sums_are_exact(2, 64)


@pytest.mark.parametrize(("cxx", "compiled"), [
    ("g++ -pipe", True), ('g++ "', False), ("false", False), ("no-such", False)])
def test_the_compiler_of_the_environment(cxx: str, compiled: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Its arguments are used. Without a usable compiler numpy computes the sums."""
    monkeypatch.setenv("METRONOME_CACHE", str(tmp_path))
    monkeypatch.setenv("CXX", cxx)
    assert (module._function.__wrapped__() is not None) == compiled
