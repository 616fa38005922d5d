"""The cycle-accurate model of one chip. It does not import the RTL."""
