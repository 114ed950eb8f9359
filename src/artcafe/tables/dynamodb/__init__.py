"""The engine for a fleet: the port on Amazon DynamoDB."""
