"""What both ends of the wire agree on, as functions of bytes: no sockets, no clocks, no tables."""
