"""The engine port: six verbs, the values and conditions they take, and code that both engines share."""
