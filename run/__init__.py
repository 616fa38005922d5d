"""Running programs: devices opened by name, programs from the cache, stories, the benchmark."""
