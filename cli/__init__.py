"""The `tsp` command: arguments and output, no logic."""
