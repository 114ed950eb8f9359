"""`artcafe tables …`: the operator's commands for the tables."""
