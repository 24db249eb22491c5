"""The model folder: its card, its fitted preprocessing, loading and calling the network."""
