"""The nats-server that `artcafe up` runs as a child process."""
