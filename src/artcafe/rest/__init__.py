"""The HTTP API: one module per resource, whose routes each call one service."""
