"""Model formats: what each backend promises, and the backends that are built in."""
