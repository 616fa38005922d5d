"""What surrounds the chip on a board: clock, serial line, bridge."""
