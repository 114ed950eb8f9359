"""Logs, the clock and the request context of the platform."""
