"""This machine and this process: resources, processes, allocators, streams, imports."""
