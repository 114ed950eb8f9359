"""`artcafe tables …`: what an operator does with the tables."""
