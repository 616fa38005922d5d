"""Tools for tests: lockstep of model and RTL, random legal programs, cocotb."""
