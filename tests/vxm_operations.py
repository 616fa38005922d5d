"""Single operations of the VXM, as instructions say them: what arithmetic in Python is compared with."""

from typing import Any

import numpy as np

from arch import numerics, tables
from arch.isa import Alu, Instr, Op, encode


def alu(a, b: Any = 0, c: Any = 0, er: Any = 0, **fields):
    """One VXM operation, rounding, in every lane; the word must be encodable. Returns (result, exponent)."""
    op = Instr(Op.ALU, fields={"round": 1, **fields})
    encode(op)
    a, b, c, er = np.broadcast_arrays(*(np.asarray(x, dtype=np.int64) for x in (a, b, c, er)))
    y = numerics.vxm(op, a, b, c, er)
    return y, numerics.exponent(op, a, y, er)


def table(func, a, **fields):
    return alu(a, **fields, func=func, post=tables.TABLES[func].frac_bits, alu=Alu.ADD)
