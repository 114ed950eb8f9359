"""Connections to NATS: the client, JetStream, and the configuration of NATS servers."""
