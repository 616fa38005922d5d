"""The vector unit, a file a stage or two."""
