"""Keeps numpy's linear algebra on one thread. The matrices are small, and sums are the same on every machine."""

import os

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
