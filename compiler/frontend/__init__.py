"""Checkpoints and tokenizers as they come from files."""
