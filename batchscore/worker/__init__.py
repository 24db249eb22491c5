"""What a worker is given and does: the spec, the stages, attempts at units, golden rows."""
