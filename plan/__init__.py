"""What a model needs of a machine, from shapes and published figures alone: bytes, chips and bounds of speed."""
