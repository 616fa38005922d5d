"""The chip in Amaranth: one unit a file, `isa.py` the only place of opcodes, fields and latencies."""
