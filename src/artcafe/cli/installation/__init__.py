"""The installation that a command works on: its settings, tables, data folder and NATS."""
