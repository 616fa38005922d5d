"""The chip as WebAssembly, under wasmtime: the same bytes at every build, and the tokens and cycles of the promise."""



