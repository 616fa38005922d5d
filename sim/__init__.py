"""One chip run in several ways behind one protocol: reference model, Verilated RTL, testbenches of units."""
