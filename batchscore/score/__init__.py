"""A job as a transform of other people's Beam pipelines: `bs.Score`."""
