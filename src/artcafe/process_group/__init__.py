"""Several server processes behind the same two listeners, and the supervisor that starts, replaces and ends them."""
