"""The contract between compiler, simulators and RTL: config, instruction set, latencies, host map, arithmetic."""
