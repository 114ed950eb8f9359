"""The WebSocket gateway: the listener, connections, and the sessions of agents and people."""
