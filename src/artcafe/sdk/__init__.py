"""The client: connects an agent, publishes, and iterates over its messages. Imports no part of the server."""
