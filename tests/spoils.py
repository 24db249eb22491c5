"""Ways to make the job of `factory.write_job` wrong, as functions of its folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch

from tests.factory import (
    NET,
    change_job,
    make_rows,
    read_tree,
    sha256,
    write_model,
    write_shard,
    write_weights,
)

Spoil = Callable[[Path], "Sequence[str] | None"]
ROWS = make_rows(200, 300)
NULL = "__HIVE_DEFAULT_PARTITION__"
# What is spoiled after a first run is scored again, however little is left of it.
GO_ON = {
    "on_change": {"removed_shards": "remove", "rewritten_shards": "rescore"},
    "checks": {"rows": {"min_ratio": 0}},
}


class Case(NamedTuple):
    """One way to be wrong.

    `spoil` makes the job in a folder wrong and may return arguments for the command line; the
    message holds all `words`; `run` and `check` end with these exit codes (None: `check` takes no
    such argument), and `probe` says that only `check --probe` can see it.
    """

    name: str
    spoil: Spoil
    words: tuple[str, ...]
    run: int = 2
    check: int | None = 2
    probe: bool = False


def change(**changes: Any) -> Spoil:
    """Other values in the job file; `__` stands for the dot of a key."""

    def spoil(folder: Path) -> None:
        change_job(folder, {key.replace("__", "."): value for key, value in changes.items()})

    return spoil


def arguments(*texts: str) -> Spoil:
    return lambda _: texts


def files(*steps: Callable[[Path], Any]) -> Spoil:
    """Something done to the job's folder, whatever it returns."""

    def spoil(folder: Path) -> None:
        for step in steps:
            step(folder)

    return spoil


def after(first: Spoil, second: Spoil) -> Spoil:
    """Both, one after the other, with the second's arguments."""
    return lambda folder: (first(folder), second(folder))[1]


def shard(content: bytes | pa.Table) -> Spoil:
    """Another second shard."""

    def spoil(folder: Path) -> None:
        path = folder / "in/1.parquet"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            write_shard(path, content)

    return spoil


def device(name: str) -> Spoil:
    """Another device, and a late shard: without a row to score no device is needed."""
    late = files(lambda f: write_shard(f / "in/2.parquet", make_rows(9, 500)))
    return after(late, change(runtime__device=name))


def preprocess(code: str) -> Spoil:
    """A function before the model."""
    return files(
        lambda f: (f / "features.py").write_text(code),
        change(preprocess={"function": "features.py:encode"}),
    )


def postprocess(code: str) -> Spoil:
    """A function after the model."""
    return files(
        lambda f: (f / "post.py").write_text(code),
        change(postprocess={"function": "post.py:score"}),
    )


def network(forward: str) -> Spoil:
    """A model folder whose network returns an expression of its input x (b, 2)."""
    net = NET.replace("self.linear(x).squeeze(1)", forward)
    return files(lambda folder: write_model(folder / "model", net))


def one_file(
    spoil: Callable[[Path], Any] = lambda _: None, name: str = "w.safetensors", **model: Any
) -> Spoil:
    """One weights file in place of a model folder; spoiled first, then pinned by its SHA-256."""

    def write(folder: Path) -> None:
        write_weights(folder / name)
        spoil(folder / name)
        (folder / "net.py").write_text(NET)
        facts = {
            "path": name,
            "format": "pt" if name.endswith(".pt") else "safetensors",
            "architecture": "net.py:Net",
            "sha256": sha256(folder / name),
            "inputs": {"x": ["a", "b"]},
        }
        change_job(folder, {"model": {**facts, **model}})

    return write


class Intruder:
    """A pickle that makes the file `ran` when it is read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder / "ran"),)


def hide_code(path: Path) -> None:
    torch.save({"linear.weight": Intruder(path.parent)}, path)


def damage_page(folder: Path) -> None:
    path = folder / "in/0.parquet"
    content = bytearray(path.read_bytes())
    content[4:2000] = b"\xff" * 1996
    path.write_bytes(content)


def with_nan(rows: int) -> pa.Table:
    """The second shard's rows, NaN in the first ones' column a."""
    table = make_rows(200, 300)
    a = table["a"].to_numpy().copy()
    a[:rows] = np.nan
    return table.set_column(1, "a", pa.array(a))


def with_part(text: str) -> pa.Table:
    """The second shard's rows, with one text in column part."""
    return ROWS.set_column(3, "part", pa.array([text] * len(ROWS)))


def published_bytes(folder: Path) -> dict[str, bytes]:
    """All that readers see: data/, and the slices' snapshots and markers."""
    tree = read_tree(folder / "out")
    assert any(path.startswith("data/") for path in tree)
    names = ("current.txt", "_SUCCESS")
    return {k: v for k, v in tree.items() if k.startswith("data/") or Path(k).name in names}
