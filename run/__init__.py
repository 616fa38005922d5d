"""A program on a device: opening both, running them token by token, and what a text needs besides."""
