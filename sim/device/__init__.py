"""One protocol for everything that runs a program."""
