"""The RTL in Verilator: Verilog, build, and the chip that Python drives."""
