"""An output with all that may be damaged in one, ways to damage it, and what readers find in it."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from tests.factory import change_job, make_rows, run_cli, run_json, write_model, write_shard

Damage = Callable[[Path], Any]
SLICE, OTHER = "small,date=2026-01-01", "small,date=2026-01-02"
DEEP = 100_000
# More rows than the checks allow hold a run after it scored.
HOLD = ("--set", "checks.rows.min_ratio=0.9", "--set", "checks.rows.max_ratio=1.01")
SPOILS: dict[str, Damage] = {
    "gone": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "no text": lambda path: path.write_bytes(bytes(range(256))),
    "null": lambda path: path.write_bytes(b"null"),
    "list": lambda path: path.write_bytes(b"[1]"),
    "mapping": lambda path: path.write_bytes(b"{}"),
    "deep": lambda path: path.write_bytes(b"[" * DEEP + b"]" * DEEP),
    "digits": lambda path: path.write_bytes(b"1" * 5000),
    "half a character": lambda path: path.write_bytes(b'{"run": "\\ud800"}'),
    "a folder": lambda path: _become_folder(path),
}


def _become_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@dataclass(frozen=True)
class World:
    """A job of two slices: one published twice, of the other a further run is held.

    Args:
        folder: of the job and its input.
        output: that was published to; not to be written to, but copied.
        runs: what ran, by `first`, `second`, `other` and `held`, as their manifests.
    """

    folder: Path
    output: Path
    runs: Mapping[str, Mapping[str, Any]]

    def commands(self, output: Path) -> dict[str, tuple[object, ...]]:
        """Returns the commands, each as its words, on a copy of the output."""
        run, held = self.runs["second"]["run"], self.runs["held"]["run"]
        job = (self.folder / "job.yaml", "--set", f"output.path={output}")
        mine = (*job, "--param", "date=2026-01-01")
        return {
            "files": ("files", output),
            "runs": ("runs", output),
            "show": ("show", output, run),
            "verify": ("verify", output),
            "trace": ("trace", output, "id=5"),
            "report": ("report", output, run, "-o", output.parent / "report.html"),
            "check": ("check", *mine),
            "run": ("run", *mine),
            "rescore": ("run", *mine, "--rescore"),
            "next": ("run", *job, "--param", "date=2026-01-02"),
            "release": ("release", output, held, "--reason", "looked at"),
            "discard": ("discard", output, held),
            "rollback": ("rollback", output, "--undo", run),
        }

    def home(self, run: str, name: str) -> str:
        """Returns the path of a file of a run, which is named as in `runs`."""
        return f"_batchscore/runs/{self.runs[run]['run']}/{name}"

    def unit(self, run: str) -> Mapping[str, Any]:
        """Returns the unit that a run scored, as its manifest has it."""
        found: Mapping[str, Any] = next(
            unit for unit in self.runs[run]["units"] if unit["run"] == self.runs[run]["run"]
        )
        return found

    def record(self, run: str) -> str:
        """Returns the path of the record of the unit that a run scored."""
        facts = self.runs[run]
        folder = f"_batchscore/ledger/{facts['slice']}/{facts['score'][:16]}"
        return f"{folder}/{self.unit(run)['unit']}.parquet"


def build_world(folder: Path) -> World:
    """Make the job, and run it four times."""
    write_model(folder / "model")
    facts: dict[str, Any] = {
        "name": "small",
        "params": {"date": {"type": "date"}},
        "input": {"path": str(folder / "in/${date}")},
        "model": {"path": str(folder / "model"), "inputs": {"x": ["a", "b"]}},
        "output": {"path": str(folder / "out")},
        "rejects": {"max_ratio": 0.5},
        "checks": {"unique": ["id"]},
        "on_change": {"rewritten_shards": "rescore"},
    }
    change_job(folder, {}, facts)
    for date, first in (("2026-01-01", 0), ("2026-01-02", 1000)):
        write_shard(folder / f"in/{date}/0.parquet", _rows(40, first))
        write_shard(folder / f"in/{date}/1.parquet", _rows(20, first + 500))
    runs = {"first": _run(folder, "2026-01-01")}
    write_shard(folder / "in/2026-01-01/1.parquet", _rows(21, 500))
    runs["second"] = _run(folder, "2026-01-01")
    runs["other"] = _run(folder, "2026-01-02")
    write_shard(folder / "in/2026-01-02/9.parquet", _rows(30, 9000))
    runs["held"] = _run(folder, "2026-01-02", *HOLD)
    assert [run["status"] for run in runs.values()] == ["published"] * 3 + ["held"]
    return World(folder, folder / "out", runs)


def _rows(rows: int, first: int) -> pa.Table:
    """Rows of which the first is rejected, since it is NaN."""
    table = make_rows(rows, first)
    a = table["a"].to_numpy().copy()
    a[0] = np.nan
    return table.set_column(1, "a", pa.array(a))


def _run(folder: Path, date: str, *words: str) -> dict[str, Any]:
    return run_json("run", folder / "job.yaml", "--param", f"date={date}", *words)


def copy(world: World, folder: Path) -> Path:
    """Copy the world's output into a folder."""
    return Path(shutil.copytree(world.output, folder / "out"))


def ids(output: Path) -> Counter[int]:
    """Count each id that a reader of `data/` finds."""
    table = ds.dataset(output / "data", format="parquet").to_table(columns=["id"])
    return Counter(table["id"].to_pylist())


def reported(words: tuple[object, ...]) -> tuple[int, str]:
    """Run a command; its exit code, and all that it printed, which is no defect's message."""
    done = run_cli(*words)
    text = (done.stdout + done.stderr)[:2_000]
    assert isinstance(done.exception, SystemExit | None), repr(done.exception)
    assert not {"unexpected", "Traceback", "defect"} & set(text.replace(".", " ").split()), text
    assert len(done.stderr) < 2_000, text
    return done.exit_code, text


def change(path: Path, **facts: Any) -> None:
    """Put other values into a JSON document, by key."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **facts}))
