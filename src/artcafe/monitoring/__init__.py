"""Metrics for operators: the sampling of gauges, and the listener that Prometheus reads."""
