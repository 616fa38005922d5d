"""The chip in Amaranth: one unit a file. What it promises stands in `arch`."""
