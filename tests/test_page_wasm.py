"""The chip as WebAssembly, under wasmtime: the same bytes at every build, and the tokens and cycles of the promise."""

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
import wasmtime
from programs import story_program

from base import cache
