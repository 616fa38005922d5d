"""The serial link between two chips: code, frames, elastic buffer, training. It knows no FPGA and no instruction."""
