"""Fan-out to many sockets, by a load in C: `windows` in closed loops, `curve` at rates, `stall`, `idle` and `profile`."""
