"""A unit of work: the shards that it reads, and the record of what became of its rows."""
