"""A testbench without tests, for test_sim_check_cocotb_runner.py."""
