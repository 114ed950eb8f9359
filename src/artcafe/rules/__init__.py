"""Pure decisions: who may do what, how much, under which name; time is an argument."""
