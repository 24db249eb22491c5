"""Tables, models and jobs that benchmarks run batchscore on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FEATURES = tuple(f"f{index:02d}" for index in range(32))
PART_ROWS = 1_000_000


def make_table(rows: int, first: int = 0) -> pa.Table:
    """Returns rows of an id from `first` on, a text of seven values, and 32 normal floats."""
    chance = np.random.default_rng(first)
    floats = {name: chance.standard_normal(rows, np.float32) for name in FEATURES}
    ids = np.arange(first, first + rows)
    return pa.table({"id": ids, "part": pa.array((ids % 7).astype(str)), **floats})


def write_shards(folder: Path, rows: int, shard_rows: int, group_rows: int) -> None:
    """Writes shards with distinct ids; their other columns repeat after a million rows.

    Floats are stored without dictionaries, all else as pyarrow does by default.
    """
    folder.mkdir(parents=True)
    part = make_table(min(rows, PART_ROWS))
    for first in range(0, rows, shard_rows):
        path, stop = folder / f"{first:010d}.parquet", min(first + shard_rows, rows)
        with pq.ParquetWriter(path, part.schema, use_dictionary=["part"]) as writer:
            for start in range(first, stop, group_rows):
                group = _repeated(part, start, min(start + group_rows, stop))
                writer.write_table(group, row_group_size=group_rows)


def _repeated(part: pa.Table, start: int, stop: int) -> pa.Table:
    """Returns rows with the ids from start to stop, made of slices of one table."""
    sizes = [min(len(part), stop - first) for first in range(start, stop, len(part))]
    table = pa.concat_tables([part[:size] for size in sizes])
    return table.set_column(0, "id", pa.array(np.arange(start, stop)))


def write_model(
    folder: Path, network: str = "Mlp", width: int = len(FEATURES), **arguments: Any
) -> None:
    """Writes the model folder of a network of `benchmarks.networks`, with random weights."""
    import torch
    from safetensors.torch import save

    from batchscore.models.folder import write_model_folder
    from benchmarks import networks

    torch.manual_seed(0)
    card = {
        "name": "bench",
        "version": "1",
        "format": "safetensors",
        "weights": "weights.safetensors",
        "architecture": f"networks.py:{network}",
        "architecture_args": {"width": width, **arguments},
        "inputs": {"x": {"type": "float32", "shape": [width]}},
        "outputs": {"logit": {"type": "float32", "shape": []}},
    }
    weights = save(getattr(networks, network)(width, **arguments).state_dict())
    code = Path(networks.__file__).read_bytes()
    write_model_folder(str(folder), card, {"weights.safetensors": weights, "networks.py": code})


def write_job(
    folder: Path, sections: Mapping[str, Any], features: Sequence[str] = FEATURES
) -> Path:
    """Writes a job over `in`, by `model`, to `out`, all in a folder, with more sections."""
    job = {
        "batchscore": 1,
        "name": "bench",
        "input": {"path": "in"},
        "model": {"path": "model", "inputs": {"x": list(features)}},
        "postprocess": "sigmoid",
        "output": {"path": "out"},
        **sections,
    }
    path = folder / "job.json"
    path.write_text(json.dumps(job))
    return path
