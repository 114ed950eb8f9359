"""The embedded engine: the port on one SQLite file."""
