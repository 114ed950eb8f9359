"""Receiving, shared by every door: followed channels, the fan-out of live messages, and the backlog of each connection."""
