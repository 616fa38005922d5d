"""What tests use: lockstep of model and RTL, random legal programs, cocotb."""
