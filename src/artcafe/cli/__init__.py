"""The command line: commands for operators, for members of a tenant, and for agents."""
