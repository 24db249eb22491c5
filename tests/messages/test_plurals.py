"""Whatever there is one of, no message says that there are several."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.factory import change_job, make_rows, run_cli, write_job, write_shard

NOUNS = (
    *("row", "shard", "unit", "file", "column", "value", "byte", "problem", "test", "label"),
    *("batch", "class", "run", "slice", "step", "record", "reason", "worker", "core"),
)
PLURALS = [f"{noun}es" if noun.endswith(("s", "ch")) else f"{noun}s" for noun in NOUNS]
WRONG = re.compile(rf"(?<![\d.,:=_-])1 (?:[a-z]+ )?(?:{'|'.join(PLURALS)})\b")


def _one_row(folder: Path, value: float = 0.5) -> None:
    table = make_rows(1)
    a = pa.array(np.array([value], np.float32))
    write_shard(folder / "in/0.parquet", table.set_column(1, "a", a))


def _said(*args: object) -> str:
    done = run_cli(*args)
    text = str(done.output)
    found = WRONG.search(text)
    assert found is None, f"{' '.join(map(str, args))}: {found and found[0]!r} in\n{text}"
    return text


@pytest.mark.slow
def test_one_of_everything_is_singular(tmp_path: Path) -> None:
    """Every command says `1 row` and similar, whether it passes, is held or fails."""
    job, out = write_job(tmp_path, {"checks.unique": ["id"]}), tmp_path / "out"
    (tmp_path / "in/1.parquet").unlink()
    _one_row(tmp_path)
    assert "1 shard, 1 row" in _said("check", job)
    for command in ("run", "show", "verify"):
        _said(command, job)
    _said("trace", job, "id=7")
    _said("profile", tmp_path / "in", "-o", tmp_path / "p.parquet")
    _said("compare", tmp_path / "p.parquet", tmp_path / "in")
    _one_row(tmp_path, float("nan"))
    assert "1 of 1 row was rejected" in _said("run", job, "--rescore")
    write_shard(tmp_path / "in/0.parquet", make_rows(1))
    write_shard(tmp_path / "in/1.parquet", make_rows(1))
    reported = _said("run", job, "--rescore")
    assert "1 row has the key (id) of another row: id=0 in row 0 of" in reported
    (tmp_path / "in/1.parquet").write_bytes(b"damaged")
    quarantine = {"on_bad_shard": "quarantine", "max_bad_shards": 1}
    change_job(tmp_path, {f"input.{key}": value for key, value in quarantine.items()})
    _said("run", job, "--rescore")
    assert "1 shard was left out" in _said("show", job)
    for path in out.glob("data/**/*.parquet"):
        path.write_bytes(b"damaged")
    _said("verify", out)


def test_the_pattern_finds_what_is_wrong() -> None:
    """`1 rows` and `1 golden rows` are found, `1 row`, `21 rows` and `0.1 rows` are not."""
    assert all(map(WRONG.search, ["has 1 rows", "1 golden rows", "1 batches"]))
    assert not any(map(WRONG.search, ["1 row", "21 rows", "0.1 rows", "1,001 rows"]))


@pytest.mark.slow
def test_a_key_is_reported_as_trace_takes_it(tmp_path: Path) -> None:
    """A null of a key is `null` in the message, the form that trace takes."""
    job = write_job(tmp_path, {"checks.unique": ["part", "b"], "output.partition_by": ["part"]})
    (tmp_path / "in/1.parquet").unlink()
    keys = {"part": pa.array([None, None], pa.string()), "b": pa.array([1.5, 1.5])}
    rows = make_rows(2).drop_columns([*keys])
    for name, column in keys.items():
        rows = rows.append_column(name, column)
    write_shard(tmp_path / "in/0.parquet", rows)
    assert "another row: part=null, b=1.5 in row 0 of" in run_cli("run", job).output
