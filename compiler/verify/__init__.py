"""The static proof that a program runs without collision."""
