"""Makes outputs with the batchscore that runs it, to be kept as test data; see README.md."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.torch
import torch

from batchscore.models.features import Calendar, Categorical, Features, Numeric, dump_features
from batchscore.models.folder import write_model_folder

# A shard is known by its absolute path, so that whoever restores the outputs needs this one.
PLACE = Path("/var/tmp/batchscore-earlier")
TOUCHED = 1_764_000_000
ROWS = 40

FITTED_NET = """import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 1)
        self.kinds = nn.Embedding(4, 1)

    def forward(self, numeric, categories):
        return (self.linear(numeric) + self.kinds(categories[:, 0])).squeeze(1)
"""
FITTED_STATE = {
    "linear.weight": torch.tensor([[0.75, -0.5]]),
    "linear.bias": torch.tensor([0.125]),
    "kinds.weight": torch.tensor([[0.0], [0.25], [0.5], [-0.5]]),
}
FEATURES = Features(
    inputs={
        "numeric": (
            Numeric(column="amount", impute=10.0, mean=10.0, std=4.0),
            Calendar(column="on", part="weekday", encoding="scaled"),
        ),
        "categories": (Categorical(column="kind", vocabulary=("card", "cash")),),
    }
)
CALLED_NET = (
    FITTED_NET.replace("        self.kinds = nn.Embedding(4, 1)\n", "")
    .replace("numeric, categories", "x")
    .replace("(self.linear(numeric) + self.kinds(categories[:, 0]))", "self.linear(x)")
)
CALLED_STATE = {name: FITTED_STATE[name] for name in ("linear.weight", "linear.bias")}

FITTED_JOB = """name: fitted
input:
  path: input
  filters: [[on, ">=", 2026-01-02], [kind, "not in", [void]]]
model: fitted
postprocess: [sigmoid, {threshold: {at: 0.5}}]
output: {path: out/fitted, partition_by: [day], retention_days: 36500}
checks: {unique: [id]}
rejects: {max_ratio: 0.5}
runtime: {workers: 1}
"""
CALLED_JOB = """name: called
input: {path: input}
model: {path: called, inputs: {x: [amount, seventh]}}
preprocess: {function: "code/features.py:features", columns: [id, amount]}
postprocess: [sigmoid, {function: "code/post.py:percent"}]
output: {path: out/called, columns: [id, kind], retention_days: 36500}
rejects: {max_ratio: 0.5}
runtime: {workers: 1}
"""
CODE = {
    "features.py": """import pandas as pd


def features(rows: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"amount": rows["amount"] / 10, "seventh": rows["id"] % 7})
""",
    "post.py": """import pyarrow.compute as pc


def percent(scores):
    return scores.append_column("percent", pc.multiply(scores.column("score"), 100.0))
""",
}


def main(archive: str) -> None:
    """Makes the folder, scores in it, and packs it.

    Raises:
        FileExistsError: the folder is there.
    """
    PLACE.mkdir()
    os.chdir(PLACE)
    _write_jobs()
    for day in (1, 2, 3):
        _write_shard(day)
    Path("late").mkdir()
    _put_away(2, 3)
    _run("run", "fitted.yaml")
    _run("run", "called.yaml")
    _bring(2)
    _run("run", "fitted.yaml")
    _run("run", "called.yaml", "--set", "output.path=out/killed", expect=9, kill=True)
    _bring(3)
    _run("run", "fitted.yaml", "--set", "checks.score_range=[0.99, 1]", expect=3)
    _put_away(2, 3)
    with tarfile.open(archive, "w:xz") as tar:
        tar.add(".", filter=_anonymous)
    shutil.rmtree(PLACE)


def _write_jobs() -> None:
    inputs = {name: {"type": "float32", "shape": [2]} for name in ("numeric", "x")}
    categories = {"type": "int64", "shape": [1]}
    fitted = {"numeric": inputs["numeric"], "categories": categories}
    files = {"preprocessing.json": dump_features(FEATURES).encode()}
    _write_model("fitted", FITTED_NET, FITTED_STATE, fitted, files)
    _write_model("called", CALLED_NET, CALLED_STATE, {"x": inputs["x"]}, {})
    Path("fitted.yaml").write_text(FITTED_JOB)
    Path("called.yaml").write_text(CALLED_JOB)
    Path("code").mkdir()
    for name, text in CODE.items():
        Path("code", name).write_text(text)


def _write_model(
    name: str,
    net: str,
    state: Mapping[str, torch.Tensor],
    inputs: Mapping[str, Any],
    files: Mapping[str, bytes],
) -> None:
    card = {
        "name": name,
        "version": "1.0",
        "format": "safetensors",
        "weights": "weights.safetensors",
        "architecture": "net.py:Net",
        "inputs": inputs,
        "outputs": {"logit": {"type": "float32", "shape": []}},
        **dict.fromkeys((file.partition(".")[0] for file in files), *files),
    }
    weights = {"weights.safetensors": safetensors.torch.save(dict(state)), "net.py": net.encode()}
    write_model_folder(name, card, {**weights, **files})


def _write_shard(day: int) -> None:
    ids = np.arange(ROWS * day, ROWS * (day + 1))
    amounts = [None if i % 11 == 0 else np.inf if i % 13 == 0 else float(i % 17) for i in ids]
    kinds = [("card", "cash", "coin", "void", None)[i % 5] for i in ids]
    days = pa.array(20_454 + ids % 4, pa.int32()).cast(pa.date32())  # from 2026-01-01 on
    rows = pa.table({"id": ids, "amount": amounts, "kind": kinds, "on": days})
    path = Path(f"input/day={day}/part-0.parquet")
    path.parent.mkdir(parents=True)
    pq.write_table(rows, path)
    os.utime(path, (TOUCHED, TOUCHED))


def _put_away(*days: int) -> None:
    for day in days:
        Path(f"input/day={day}").rename(f"late/day={day}")


def _bring(day: int) -> None:
    Path(f"late/day={day}").rename(f"input/day={day}")


def _run(*args: str, expect: int = 0, kill: bool = False) -> None:
    command = [sys.executable, __file__, "kill" if kill else "run", *args]
    done = subprocess.run(command, env={**os.environ, "LOGNAME": "nightly"})
    assert done.returncode == expect, (args, done.returncode)


def _anonymous(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    return info


def _call(kill: bool, args: list[str]) -> None:
    """Runs a command under another host's name, and dies where it would publish."""
    from batchscore.cli import cli
    from batchscore.finish import finish

    platform.node = lambda: "batch-host"
    if kill:
        vars(finish)["publish"] = lambda *_: os._exit(9)
    cli(args)


if __name__ == "__main__":
    if sys.argv[1] in ("run", "kill"):
        _call(sys.argv[1] == "kill", sys.argv[2:])
    else:
        main(os.path.abspath(sys.argv[1]))
