"""Commands of the operator: run servers, back up, suspend tenants, read the platform's audit."""
