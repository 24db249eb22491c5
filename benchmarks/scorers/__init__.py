"""One module a peer, each run in an environment of its own by `benchmarks.scoring_peers`."""
