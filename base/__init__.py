"""What every other package may use: errors, output files, the cache, modules as commands."""
