"""The command line: one file for the operator's commands, one for an agent's."""
