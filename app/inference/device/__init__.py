"""One process that runs the graphs, for several that serve: shared memory, records, both ends."""
