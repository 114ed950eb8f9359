"""Receiving, shared by every transport: followed channels, the fan-out of live messages, and the backlog of each connection."""
