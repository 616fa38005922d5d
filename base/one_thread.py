"""Keeps numpy's linear algebra to one thread: matrices here are small, and sums come out the same on every machine."""

import os

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
