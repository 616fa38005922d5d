"""Matrix products of bytes for the integer reference, by a small C++ function that is compiled once and cached.

Without a C++ compiler, numpy computes them in float32. That is exact too, but slower.
"""

import ctypes
import functools
import platform
import shutil
import subprocess
from pathlib import Path

import numpy as np

from base import cache
from base.cxx import cxx
from base.errors import TspError

SOURCE = Path(__file__).with_suffix(".cpp")
FLAGS = ("-O3", "-fPIC", "-shared")
EXACT_COLUMNS = 1024
"""Widest int8 product that float32 sums exactly."""


def int8_sums(weights: np.ndarray, act: np.ndarray) -> np.ndarray:
    """act [rows, in] times weights [out, in], both int8. Returns exact sums [rows, out], int32 or of a float type.

    The rows of `weights` may be parts of longer rows.
    """
    function = _function()
    if function is None:
        return float_sums(weights, act)
    act = np.ascontiguousarray(act)
    sums = np.empty((len(act), len(weights)), np.int32)
    function(weights.ctypes.data, weights.strides[0], act.ctypes.data, *act.shape, sums.ctypes.data, len(weights))
    return sums


def float_sums(weights: np.ndarray, act: np.ndarray) -> np.ndarray:
    """The same sums in floating point."""
    parts = range(0, act.shape[1], EXACT_COLUMNS)
    sums = [act[:, i : i + EXACT_COLUMNS].astype(np.float32) @ weights[:, i : i + EXACT_COLUMNS].astype(np.float32).T
            for i in parts]
    return sums[0] if len(sums) == 1 else np.asarray(np.sum(sums, axis=0, dtype=np.float64))


@functools.cache
def _function():
    try:
        command, *arguments = cxx()
        found = shutil.which(command)
        if found is None:
            return None
        library = ctypes.CDLL(str(_library((found, *arguments))))
    except (OSError, TspError):
        return None
    function = library.int8_sums
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    function.restype, function.argtypes = None, (pointer, number, pointer, number, number, pointer, number)
    return function


def _library(compiler: tuple[str, ...]) -> Path:
    version = subprocess.run([*compiler, "--version"], capture_output=True, text=True, check=False).stdout

    def make(folder: Path) -> None:
        done = subprocess.run([*compiler, *FLAGS, str(SOURCE), "-o", "int8_sums.so"], cwd=folder, capture_output=True,
                              text=True, check=False)
        if done.returncode:
            raise TspError(f"{' '.join(compiler)} refuses {SOURCE.name}: {done.stderr.strip().partition(chr(10))[0]}")

    key = cache.content_key(SOURCE.read_text(), *compiler[1:], *FLAGS, version, platform.machine())
    return cache.cached("int8_sums", key, make) / "int8_sums.so"
