"""When everything happens, and the instruction words that make it so."""
