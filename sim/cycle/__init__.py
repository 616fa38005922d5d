"""The cycle-accurate model of one chip. It never imports RTL."""
