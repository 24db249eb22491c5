"""The formats that are built in, in a module that imports nothing, for what runs before imports."""

from __future__ import annotations

from typing import NamedTuple


class BuiltIn(NamedTuple):
    """A backend of batchscore's own.

    Args:
        entry: Module and name, as an entry point has them.
        framework: The package that takes long to import.
    """

    entry: str
    framework: str


_TORCH = BuiltIn("batchscore.models.backends.torch.backend:BACKEND", "torch")
FORMATS = {"pt": _TORCH, "safetensors": _TORCH}
"""Backends by the format of a model."""
