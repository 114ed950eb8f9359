"""The HTTP API: one file a resource, each route a call of one service."""
