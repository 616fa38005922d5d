"""The cycle of every burst, and the instruction words that issue it."""
