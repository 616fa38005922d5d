"""Boards, bitstreams and the link to a board; a board as a `Device`."""
