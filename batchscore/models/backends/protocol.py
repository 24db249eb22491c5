"""What the rest of the package knows of a model's backend; no framework is imported here."""

from __future__ import annotations

# Rows of a call where nothing else is said.
TILE_ROWS = 1024
# The name of a single output that nobody named.
DEFAULT_OUTPUT = "score"
