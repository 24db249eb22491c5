"""Jobs at which runs are killed, and what readers find in an output."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import torch

from batchscore.drift.profile_file import read_record
from batchscore.runs.history import read_manifest
from batchscore.storage.store import Store
from tests import factory

SHARD_ROWS = 120
UNIT_ROWS = 2 * SHARD_ROWS
_SLOW = """import time


def rest(batch):
    time.sleep({rest_s})
    return batch
"""
_CHANGES = {
    "preprocess": {"function": "slow.py:rest"},
    "output.partition_by": ["part"],
    "on_change": {"removed_shards": "remove", "rewritten_shards": "rescore"},
    "rejects": {"max_ratio": 0.5},
    "checks": {"unique": ["id"], "rows": {"min_ratio": 0.0}},
    "runtime": {"batch_rows": SHARD_ROWS // 2, "workers": 1},
}

Rows = Counter[tuple[Any, ...]]


def write_world(folder: Path, shards: int, rest_s: float = 0.02) -> Path:
    """Writes a job of small shards, with some rows to reject, that takes a while to score.

    Args:
        folder: is made, and holds the job.
        shards: how many there are.
        rest_s: seconds that a batch takes longer, so that a kill at a moment may find it.
    """
    folder.mkdir(parents=True)
    (folder / "slow.py").write_text(_SLOW.format(rest_s=rest_s))
    job = factory.write_job(folder, _CHANGES)
    for number in range(shards):
        write_shard(folder, number)
    return job


def write_shard(folder: Path, number: int, version: int = 0) -> None:
    """Writes one shard; another version has the same ids, some fewer, and other values."""
    table = factory.make_rows(SHARD_ROWS - version % 10, number * 1_000)
    ids = table["id"].to_numpy()
    gone = pa.array(np.isin(ids % 17, (3, 5)))
    a = pc.if_else(gone, None, pc.add(table["a"], pa.scalar(version, pa.float32())))
    factory.write_shard(shard_path(folder, number), table.set_column(1, "a", a))


def shard_path(folder: Path, number: int) -> Path:
    """Returns where a shard lies."""
    return folder / f"in/{number}.parquet"


def write_version(folder: Path, version: int) -> None:
    """Writes the model with other weights and another version."""
    weights = {**factory.STATE, "linear.bias": torch.tensor([0.125 + version])}
    factory.write_model(folder / "model", state=weights, version=f"{version}.0")


@dataclass(frozen=True)
class Published:
    """What an output holds: rows and rejected rows as multisets, the profile, and the manifest."""

    rows: Rows
    rejects: Rows
    profile: bytes
    manifest: dict[str, Any]


def read_published(output: Path) -> Published:
    """Reads what is published, all of it, from the folder `data`."""
    marker = next((output / "_batchscore/slices").glob("*/_SUCCESS"))
    run = output / "_batchscore/runs" / marker.read_text().strip()
    manifest = read_manifest(Store(str(output)), run.name).document
    rejects = [output / path for path in manifest["rejects"]["files"]]
    data = sorted((output / "data").rglob("*.parquet"))
    profile = (run / "profile.parquet").read_bytes()
    return Published(read_rows(data), read_rows(rejects), profile, manifest)


def read_rows(files: list[Path]) -> Rows:
    """Returns the rows of files as a multiset, partition columns among them."""
    if not files:
        return Rows()
    table = ds.dataset([str(file) for file in files], partitioning="hive").to_table()
    columns = [_hashable(table[name]) for name in sorted(table.column_names)]
    return Rows(zip(*columns, strict=True))


def _hashable(column: pa.ChunkedArray) -> list[Any]:
    values: list[Any] = column.to_pylist()
    return [*map(str, values)] if pa.types.is_nested(column.type) else values


def snapshot(output: Path) -> list[Path]:
    """Returns the files that a reader of current.txt reads."""
    lists = (output / "_batchscore/slices").glob("*/current.txt")
    return [output / line for path in lists for line in path.read_text().splitlines()]


def read_records(output: Path) -> set[tuple[str, str]]:
    """Returns unit and attempt of every record of the ledger."""
    paths = (output / "_batchscore/ledger").glob("*/*/*.parquet")
    records = [path for path in paths if re.fullmatch(r"[0-9a-f]{16}", path.stem)]
    heads = (read_record(path.read_bytes()) for path in records)
    return {(head["unit"], head["attempt"]) for head in heads}


def leftovers(output: Path) -> list[str]:
    """Returns what no output at rest holds: what is staged, or started, or belongs to no unit."""
    home = output / "_batchscore"
    patterns = ("staging/*/*", "work/*", "slices/*/journal*.json", "**/*.tmp")
    found = {path for pattern in patterns for path in home.glob(pattern)}
    attempts = {attempt for _, attempt in read_records(output)}
    sidecars = home.glob("ledger/*/*/*.*.parquet")
    found |= {path for path in sidecars if path.name.partition(".")[0] not in attempts}
    return sorted(str(path.relative_to(output)) for path in found)
