"""The static proof that a program is legal."""
