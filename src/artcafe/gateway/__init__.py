"""The WebSocket listener, its connections, and the hub that fans messages out."""
