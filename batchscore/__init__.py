"""Scores Parquet tables with a torch model; every row is accounted for before it is published."""

__version__ = "0.1.0"
