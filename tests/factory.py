"""Small real jobs for tests: shards, a network with its weights, and a job file of both."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import safetensors.torch
import torch
import yaml
from click.testing import CliRunner

from batchscore.cli import cli
from batchscore.models.folder import write_model_folder
from batchscore.plan import Plan
from batchscore.plan.footers import keep_row_groups, read_footers
from batchscore.plan.listing import find_shards
from batchscore.plan.schemas import unify_schemas
from batchscore.stages.block import Block
from batchscore.storage.store import Store
from batchscore.units.unit import Piece, Shard, Unit, pack_units
from batchscore.worker.spec import RunIdentity, RunSpec

NET = """from __future__ import annotations

import torch
from torch import nn


class Net(nn.Module):
    \"\"\"One logit a row, of two numbers.\"\"\"

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logit: torch.Tensor = self.linear(x).squeeze(1)
        return logit
"""
STATE = {
    "linear.weight": torch.tensor([[0.5, -0.25]]),
    "linear.bias": torch.tensor([0.125]),
}


LAYERS = """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Linear(2, 33), nn.ReLU(), nn.Linear(33, 7), nn.Sigmoid())
        self.last = nn.Linear(7, 2)

    def forward(self, x):
        return self.last(self.first(x)).sum(dim=1)
"""


def build_net(net: str = LAYERS) -> torch.nn.Module:
    """Return the network of some code, built by torch alone with weights of its own."""
    names: dict[str, Any] = {}
    torch.manual_seed(1)
    exec(net, names)
    built: torch.nn.Module = names["Net"]().eval()
    return built


def make_rows(rows: int = 300, first: int = 0) -> pa.Table:
    """Return rows with the columns id, a and b (numbers), and part (a text, `p0` to `p2`)."""
    ids = np.arange(first, first + rows)
    return pa.table(
        {
            "id": pa.array(ids, pa.int64()),
            "a": pa.array(np.sin(ids), pa.float32()),
            "b": pa.array(np.cos(ids), pa.float64()),
            "part": [f"p{i % 3}" for i in ids],
        }
    )


def write_shard(path: Path, table: pa.Table | None = None) -> Path:
    """Write rows, by default 300 of `make_rows`, as a shard."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(make_rows() if table is None else table, path)
    return path


def write_weights(path: Path, state: Mapping[str, torch.Tensor] = STATE) -> str:
    """Write weights as the file's ending says; return their SHA-256."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".pt":
        torch.save(dict(state), path)
    else:
        safetensors.torch.save_file(dict(state), path)
    return sha256(path)


def sha256(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_model(
    folder: Path,
    net: str = NET,
    state: Mapping[str, torch.Tensor] = STATE,
    tables: Mapping[str, pa.Table] = MappingProxyType({}),
    profile: bytes | None = None,
    more: Mapping[str, bytes] = MappingProxyType({}),
    **card: Any,
) -> Path:
    """Write a model folder of the network; its input is `x`, a list, its output `logit`.

    `tables` and `more` are other files by name.
    """
    facts: dict[str, Any] = {
        "name": "small",
        "version": "1.0",
        "format": "safetensors",
        "weights": "weights.safetensors",
        "architecture": "net.py:Net",
        "inputs": {"x": {"type": "float32", "shape": [2]}},
        "outputs": {"logit": {"type": "float32", "shape": []}},
    }
    files = {"weights.safetensors": safetensors.torch.save(dict(state)), "net.py": net.encode()}
    files.update(more)
    if profile is not None:
        files["profile.parquet"] = profile
        facts["profile"] = "profile.parquet"
    for name, table in tables.items():
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
        files[name] = sink.getvalue().to_pybytes()
    write_model_folder(str(folder), {**facts, **card}, files)
    return folder


def write_job(folder: Path, changes: Mapping[str, Any] | None = None) -> Path:
    """Write job.yaml with two shards in `in`, a model in `model`, and the output `out`.

    `changes` are other values by dotted key; None takes a key out.
    """
    write_shard(folder / "in/0.parquet")
    write_shard(folder / "in/1.parquet", make_rows(200, 300))
    write_model(folder / "model")
    return change_job(folder, changes or {}, _JOB)


def change_job(
    folder: Path, changes: Mapping[str, Any], job: Mapping[str, Any] | None = None
) -> Path:
    """Write the folder's job.yaml with other values by dotted key; None takes a key out."""
    path = folder / "job.yaml"
    tree: dict[str, Any] = yaml.safe_load(yaml.safe_dump(job) if job else path.read_text())
    for key, value in changes.items():
        *outer, last = key.split(".")
        node = tree
        for part in outer:
            node = node.setdefault(part, {})
        if value is None:
            node.pop(last, None)
        else:
            node[last] = value
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    return path


def run_spec(plan: Plan, run: str = "20260101-0000", lease: int = 1) -> RunSpec:
    """Returns the spec that workers of a run of a plan get."""
    spec, identity = plan.spec, RunIdentity(run, lease, plan.score)
    return RunSpec(spec.job, spec.slice, spec.output, spec.scoring, spec.execution, identity)


def run_cli(*args: object) -> Any:
    """Run a command of batchscore in this process; its exit code, stdout and stderr."""
    return CliRunner().invoke(cli, [str(arg) for arg in args])


def run_json(*args: object) -> dict[str, Any]:
    """Run a command with --json (before any `--`) and return the document that it prints."""
    done = run_cli(args[0], "--json", *args[1:])
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def published(output: Path, by: str = "id") -> pa.Table:
    """Return the published rows of an output, hive partitions read back, sorted by a column."""
    return ds.dataset(output / "data", partitioning="hive").to_table().sort_by(by)


def read_tree(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder with its bytes; a folder that holds nothing with none."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in sorted(folder.rglob("*"))
        if path.is_file() or not any(path.iterdir())
    }


_JOB: dict[str, Any] = {
    "name": "small",
    "input": {"path": "in"},
    "model": {"path": "model", "inputs": {"x": ["a", "b"]}},
    "postprocess": "sigmoid",
    "output": {"path": "out"},
}


def plan_units(
    addresses: Sequence[object], unit_rows: int = 1_000_000, filters: Any = None
) -> tuple[list[Unit], pa.Schema]:
    """Return the units that shards are cut into, and the schema that they are read with."""
    found = find_shards([str(address) for address in addresses])
    footers = read_footers(found, filters=filters).good
    schema = unify_schemas(footers, None)
    return pack_units(keep_row_groups(footers), unit_rows), schema


def make_unit(rows: int, path: str = "x.parquet") -> Unit:
    """Return a unit of one shard with one row group, which need not exist."""
    return Unit(f"unit{rows}", (Piece(Shard(path, 1, "m", rows), (0,), (0,), (rows,)),))


def make_block(batch: pa.RecordBatch, **facts: Any) -> Block:
    """Return a block of all rows of a unit of its own, or with other facts."""
    rows = batch.num_rows
    numbers = pa.array(np.arange(rows), pa.int64())
    given = {"unit": make_unit(rows), "sequence": 0, "rows_b": numbers, **facts}
    return Block(batch=batch, **given)


def make_batch(**columns: Any) -> pa.RecordBatch:
    """Return columns, as lists or arrays, as a record batch."""
    return pa.RecordBatch.from_pydict(columns)


class Killed(BaseException):
    """What ends a process in the middle: nothing catches it."""


class FaultyStore(Store):
    """A store whose `at`-th change ends in Killed, before it was done or right after.

    `look` is called before every change, as somebody else's eye.
    """

    def __init__(self, address: str, at: int | None = None, done: bool = False, look: Any = None):
        super().__init__(address)
        self.__dict__.update(at=at, done=done, look=look, changes=0)

    def _change(self, name: str, *args: Any, **options: Any) -> Any:
        state = self.__dict__
        number = state["changes"]
        state["changes"] += 1
        if state["look"] is not None:
            state["look"]()
        if number == state["at"] and not state["done"]:
            raise Killed(name)
        made = getattr(Store, name)(self, *args, **options)
        if number == state["at"]:
            raise Killed(name)
        return made

    def create_new(self, *args: Any, **options: Any) -> bool:
        """Put a new file, or be killed."""
        return bool(self._change("create_new", *args, **options))

    def exchange(self, *args: Any, **options: Any) -> bool:
        """Replace a file that is as expected, or be killed."""
        return bool(self._change("exchange", *args, **options))

    def _put(self, *args: Any) -> list[str]:
        """Write a file, or be killed."""
        return list(self._change("_put", *args))

    def _move(self, *args: Any) -> list[str]:
        """Move a file, or be killed."""
        return list(self._change("_move", *args))

    def remove(self, *args: Any, **options: Any) -> None:
        """Remove a file, or be killed."""
        self._change("remove", *args, **options)

    def prune_empty(self, *args: Any) -> None:
        """Remove empty folders, or be killed."""
        self._change("prune_empty", *args)
