"""The chip as a web page: its RTL as WebAssembly, a compiled program, and the sources of the page."""
