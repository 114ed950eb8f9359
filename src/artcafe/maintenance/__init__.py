"""Maintenance of stored data, for operator commands only: integrity checks, repairs and tenant copies."""
