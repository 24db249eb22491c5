"""A model in a process of its own: arrays through shared memory, messages through sockets."""
