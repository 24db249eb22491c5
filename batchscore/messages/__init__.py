"""How messages show what comes from outside: addresses, names, values."""
