"""Installs the linear backend as a package would: by metadata with an entry point."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from batchscore.columnar.arrays import Array
from batchscore.models.folder import write_model_folder


def install(folder: Path, **formats: str) -> Path:
    """Writes the metadata of a package that has backends; the folder then belongs on sys.path.

    Args:
        formats: Entry points by format; by default `npz`, the linear backend.
    """
    metadata = folder / "linear_models-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: linear-models\nVersion: 1.0\n")
    points = formats or {"npz": "tests.backends.linear:BACKEND"}
    lines = ["[batchscore.models]", *(f"{name} = {value}" for name, value in points.items())]
    (metadata / "entry_points.txt").write_text("\n".join(lines))
    return folder


def write_linear_model(
    folder: Path,
    weights_f: Array,
    bias: float,
    card: Mapping[str, Any] = MappingProxyType({}),
    files: Mapping[str, bytes] = MappingProxyType({}),
) -> Path:
    """Writes a model folder of a linear model: input `x`, output `score`.

    Args:
        card: Further keys of its card.
        files: Further files.
    """
    file = io.BytesIO()
    np.savez(file, weights=weights_f, bias=np.float32(bias))
    facts = {
        "name": "line",
        "version": "1.0",
        "format": "npz",
        "weights": "line.npz",
        "inputs": {"x": {"type": "float32", "shape": [len(weights_f)]}},
        "outputs": {"score": {"type": "float32", "shape": []}},
    }
    write_model_folder(str(folder), {**facts, **card}, {"line.npz": file.getvalue(), **files})
    return folder
