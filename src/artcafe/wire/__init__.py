"""The protocol between client and server, as functions of bytes: no sockets, no clocks, no tables."""
