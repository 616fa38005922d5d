"""Passes over netlists and placements."""
