"""The engine port, its values, conditions and writes, and the code both engines share."""
