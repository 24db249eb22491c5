"""Tests of tables whose names and values are made to leave the output or to be lost in it."""

from __future__ import annotations

import shutil
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.plan import plan
from batchscore.plan.hive import hive_keys
from batchscore.stages.scored_files import encoded_key, split_partitions
from tests.factory import make_rows, read_tree, run_cli, write_job, write_shard

pytestmark = pytest.mark.slow

SMILE = "\N{SLIGHTLY SMILING FACE}"
NAMES = ["line\nbreak", "../up", "..", "a/b", "/abs", "%2e", "<script>", "", SMILE, "n" * 500]
VALUES = [
    *("..", "../../up", ".", "a/b", "/etc/passwd", "%2e%2e", "%2F", "", " lead", "trail ", "a=b"),
    *("<script>alert(1)</script>", "new\nline", "nul\0byte", SMILE, "\xe9"),
    *("q'\"\\", "*?[a]", "~", "#part", "x" * 250, "_hidden", ".hidden", None),
]


def hostile_job(folder: Path, by: str, values: list[str | None], names: list[str]) -> pa.Table:
    """Write a job whose only shard has a text column `by` and number columns `names`."""
    table = make_rows(3 * len(values)).drop_columns(["part"])
    table = table.append_column(by, pa.array(values * 3, pa.string()))
    for name in names:
        table = table.append_column(name, table["id"])
    write_job(folder, {"output.partition_by": [by], "input.path": "hostile"})
    write_shard(folder / "hostile/0.parquet", table)
    return table


@pytest.mark.parametrize(
    ("by", "values", "names"),
    [
        ("part", VALUES, NAMES),
        *((name, ["x", "..", None], []) for name in ("<script>", SMILE, "-", " ", "q'\"#&")),
    ],
)
def test_hostile_names_and_values_come_back_equal(
    tmp_path: Path, by: str, values: list[str | None], names: list[str]
) -> None:
    """Whatever a column or value is called, it stays in the output and pyarrow reads it back."""
    folder = tmp_path / "deep/er/job"
    folder.mkdir(parents=True)
    table = hostile_job(folder, by, values, names)
    before = set(read_tree(tmp_path))
    for command in ("check", "run", "run", "show", "runs", "files"):
        done = run_cli(command, folder / "job.yaml")
        assert done.exit_code == 0, done.output
    kind = ds.partitioning(pa.schema([(by, pa.string())]), flavor="hive")
    found = ds.dataset(folder / "out/data", partitioning=kind).to_table().sort_by("id")
    assert found.select(table.column_names).equals(table)
    new = set(read_tree(tmp_path)) - before
    assert all(path.startswith("deep/er/job/out/") for path in new)
    data = [path.parts for path in (folder / "out/data").rglob("*.parquet")]
    keys = {unquote(parts[-2].partition("=")[0]) for parts in data}
    assert (keys, {len(parts) for parts in data}) == ({by}, {len(folder.parts) + 4})


@pytest.mark.parametrize(
    "name", ["line\nbreak", "../up", "..", "a/b", "%2e", "a=b", "a:b", "a*", "_hidden", ".hidden"]
)
def test_a_column_that_readers_would_not_find_by_its_folder_is_refused(
    tmp_path: Path, name: str
) -> None:
    """Before any work, with the names that are expected; passed through it is a column like any."""
    hostile_job(tmp_path, name, ["x"], [])
    for command in ("check", "run"):
        done = run_cli(command, tmp_path / "job.yaml")
        assert done.exit_code == 2
        assert "makes folders that not every reader understands; expected a name" in done.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["my part", "a=b"])
def test_an_output_keeps_the_spelling_of_its_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """What was published under encoded names is unchanged, and is extended under the same ones."""
    hostile_job(tmp_path, name, ["x", "y"], [])
    job, data = tmp_path / "job.yaml", tmp_path / "out/data"
    with monkeypatch.context() as before:
        before.setattr(plan, "plain_keys", lambda *_: ())
        assert run_cli("run", job).exit_code == 0
    assert "UNCHANGED" in run_cli("run", job).output
    shutil.copy(tmp_path / "hostile/0.parquet", tmp_path / "hostile/1.parquet")
    assert "PUBLISHED" in run_cli("run", job).output
    assert {path.name for path in data.iterdir()} == {f"{encoded_key(name)}={v}" for v in "xy"}


def test_what_a_terminal_would_obey_is_not_printed(tmp_path: Path) -> None:
    """Names with control characters are shown without them, and a line stays a line."""
    hostile_job(tmp_path, "part", ["x"], ["\x1b[2Jred", "two\nlines"])
    for command in ("check", "run", "show"):
        printed = run_cli(command, tmp_path / "job.yaml").output
        assert "\x1b" not in printed
        assert "two\nlines" not in printed


@given(
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=9),
    st.lists(st.text(st.characters(codec="utf-8"), max_size=9) | st.none(), min_size=1),
)
def test_a_folder_holds_its_key_and_value(column: str, values: list[str | None]) -> None:
    """Any value of any column makes one visible folder that tells both, and no row is lost."""
    rows_b = pa.array(np.arange(len(values)))
    batch = pa.record_batch([pa.array(values, pa.string())], names=[column])
    found: dict[int, str | None] = {}
    for part in split_partitions(batch, rows_b, (column,)):
        folder = part.folder
        assert "/" not in folder
        assert folder[0] not in "._"
        assert len(folder.encode()) <= 255
        ((key, value),) = hive_keys(f"/data/{folder}/0.parquet")
        assert key == column
        found |= dict.fromkeys(part.rows_p.to_pylist(), value)
    assert [found[i] for i in range(len(values))] == values
