"""A testbench without tests, for test_sim_cocotb_runner.py."""
