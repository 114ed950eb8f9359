"""Fan-out to many sockets, with a load generator in C: `windows`, `curve`, `stall`, `idle` and `profile`."""
