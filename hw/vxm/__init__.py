"""The vector unit. Each file holds one or two stages of its pipeline."""
