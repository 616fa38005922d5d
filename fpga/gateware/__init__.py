"""The logic around the chip on a board: clock, serial line, bridge."""
