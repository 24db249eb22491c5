"""Tests of texts that are not valid UTF-8: passed through unchanged, or rejected with a reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchscore.columnar.arrays import python_rows, undecodable
from tests import factory

pytestmark = pytest.mark.slow

TEXTS = [b"p0", b"\xff\xfe", b"p1", None, b"a\xe9", b"p0", b"", b"\xed\xa0\x80"]
BAD = [1, 4, 7]
STEPS = """import pyarrow as pa
def numbers(batch):
    return batch.select(["a", "b"])
def texts(batch):
    batch.column("part").to_pylist()
    return batch.select(["a", "b"])
def surrogates(batch):
    if 1 in batch.column("id").to_pylist():
        raise ValueError("part " + b"\\xff".decode(errors="surrogateescape"))
    return batch.select(["a", "b"])
"""


def as_texts(values: list[bytes | None], kind: pa.DataType | None = None) -> pa.Array:
    """Return bytes as a column of texts, whether or not they are UTF-8."""
    kind = kind or pa.string()
    stored = pa.array(values, pa.large_binary() if kind == pa.large_string() else pa.binary())
    return pa.Array.from_buffers(kind, len(stored), stored.buffers(), stored.null_count)


def undecodable_job(folder: Path, **changes: Any) -> Path:
    """Write a job over eight rows of which three have texts that are not UTF-8."""
    table = factory.make_rows(8).set_column(3, "part", as_texts(TEXTS))
    factory.write_shard(folder / "bad/0.parquet", table)
    (folder / "steps.py").write_text(STEPS)
    dotted = {key.replace("__", "."): value for key, value in changes.items()}
    return factory.write_job(folder, {"input.path": "bad", "rejects.max_ratio": 0.9, **dotted})


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"checks__unique": ["id", "part"], "input__filters": [["part", "!=", "zz"]]},
        {"preprocess": {"function": "steps.py:numbers"}},
    ],
    ids=["passed", "filter-and-key", "function"],
)
def test_where_nothing_decodes_it_a_text_passes_unchanged(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    """Published bytes are those of the input, and trace, show and verify do not fail."""
    job = undecodable_job(tmp_path, **changes)
    assert factory.run_cli("check", job).exit_code == 0
    kept = 7 if "input__filters" in changes else 8  # a null is not unequal to a text
    assert factory.run_json("run", job)["rows"]["scored"] == kept
    (path,) = (tmp_path / "out/data").rglob("*.parquet")
    found = pq.read_table(path).column("part").cast(pa.binary()).to_pylist()
    assert found == [text for text in TEXTS if kept == 8 or text is not None]
    for command in (["show", job], ["verify", tmp_path / "out"], ["trace", job, "id=2"]):
        assert factory.run_cli(*command).exit_code == 0
    assert factory.run_json("trace", job, "id=1")["matches"][0]["values"]["part"] == r"\xff\xfe"


def test_rows_without_a_partition_name_are_rejected(tmp_path: Path) -> None:
    """A text that is not UTF-8 names no folder: its row is rejected, all others are published."""
    job = undecodable_job(tmp_path, output__partition_by=["part"])
    assert factory.run_cli("check", job).exit_code == 0
    done = factory.run_json("run", job)
    reason = "write: InvalidText: column 'part' of output.partition_by is not valid UTF-8"
    assert (done["rows"]["scored"], done["rows"]["rejected"]) == (5, 3)
    assert reason in factory.run_cli("show", job).output
    rejects = pq.read_table(next((tmp_path / "out/_batchscore/rejects").rglob("*.parquet")))
    assert rejects["_row"].to_pylist() == BAD
    folders = {path.parent.name for path in (tmp_path / "out/data").rglob("*.parquet")}
    assert folders == {"part=p0", "part=p1", "part=", "part=__HIVE_DEFAULT_PARTITION__"}
    found = factory.run_json("trace", job, "id=4")["matches"][0]
    assert (found["status"], found["values"]["part"]) == ("rejected", r"a\xe9")


@pytest.mark.parametrize(("function", "rejected"), [("texts", 3), ("surrogates", 1)])
def test_rows_that_a_function_cannot_decode_are_rejected(
    tmp_path: Path, function: str, rejected: int
) -> None:
    """They are rejected with the function's own reason, whatever characters it has."""
    job = undecodable_job(tmp_path, preprocess={"function": f"steps.py:{function}"})
    assert factory.run_json("run", job)["rows"]["rejected"] == rejected
    done = factory.run_cli("trace", job, "id=1")
    assert (done.exit_code, "rejected" in done.output.lower()) == (0, True)


def test_profiles_compare_texts_by_their_bytes(tmp_path: Path) -> None:
    """Profile and compare read such columns, in lists as well."""
    lists = pa.ListArray.from_arrays(pa.array(range(9), pa.int32()), as_texts(TEXTS))
    table = pa.table({"text": as_texts(TEXTS), "list": lists})
    path = factory.write_shard(tmp_path / "bad.parquet", table)
    assert factory.run_cli("profile", path).exit_code == 0
    assert factory.run_json("compare", path, path)["exit_code"] == 0


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()], ids=str)
def test_texts_that_are_not_utf8_are_found(kind: pa.DataType) -> None:
    """Slices and nulls do not shift the places, and shown values escape what is no character."""
    column = as_texts(TEXTS, kind)
    assert undecodable(column).nonzero()[0].tolist() == BAD
    assert undecodable(column[3:6]).tolist() == [False, True, False]
    assert not undecodable(pa.array([b"\xff"])).any()
    nested = pa.StructArray.from_arrays([column, pa.array(range(8))], names=["s", "n"])
    lists = pa.ListArray.from_arrays(pa.array([0, 2, 4, 8], pa.int32()), nested)
    (row, _, _) = python_rows(pa.table({"l": lists, "k": [1, 2, 3]}))
    assert row == {"l": [{"s": "p0", "n": 0}, {"s": r"\xff\xfe", "n": 1}], "k": 1}
    assert python_rows(pa.table({"l": lists}).select([])) == [{}, {}, {}]
