"""Pure decisions without I/O: permissions, limits, ids and names. The current time is an argument."""
