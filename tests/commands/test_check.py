"""`check` tells what a run would do, and leaves no trace of having looked."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pyarrow as pa
import pytest

from tests import factory


@pytest.fixture
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """Units of 100 rows."""
    monkeypatch.setattr("batchscore.plan.work.UNIT_ROWS", 100)


def write_job(folder: Path) -> Path:
    """A job with functions, which are imported from beside it."""
    (folder / "steps.py").write_text("def same(batch):\n    return batch\n")
    return factory.write_job(folder, {"preprocess": {"function": "steps.py:same"}})


@pytest.mark.parametrize("published", [False, True])
@pytest.mark.parametrize("options", [(), ("--probe",), ("--json",)])
def test_check_writes_nothing(options: tuple[str, ...], published: bool, tmp_path: Path) -> None:
    """Job, input, model and output are the same after a check, with and without a probe."""
    job = write_job(tmp_path)
    if published:
        assert factory.run_cli("run", job).exit_code == 0
    before = factory.read_tree(tmp_path)
    folders = {path for path in tmp_path.rglob("*") if path.is_dir()}
    output = tmp_path / ("out" if published else "new/folder/out")
    done = factory.run_cli("check", job, *options, "--set", f"output.path={output}")
    assert done.exit_code == 0, done.output
    assert factory.read_tree(tmp_path) == before
    assert {path for path in tmp_path.rglob("*") if path.is_dir()} == folders


@pytest.mark.parametrize("options", [(), ("--probe",)])
def test_check_leaves_nothing_in_an_object_store(options: tuple[str, ...], tmp_path: Path) -> None:
    """In a store without folders, the objects and prefixes are the same after a check."""
    files = fsspec.filesystem("memory")
    before = (set(files.store), set(files.pseudo_dirs))
    output = f"memory://{tmp_path.name}/new/out"
    job = write_job(tmp_path)
    done = factory.run_cli("check", job, "--set", f"output.path={output}", *options)
    assert done.exit_code == 0, done.output
    assert (set(files.store), set(files.pseudo_dirs)) == before


def test_check_tells_what_a_run_would_do(tmp_path: Path, small_units: None) -> None:
    """The lines hold shards, rows, bytes, units, choices, a table of stages, and an estimate."""
    factory.write_job(tmp_path)
    done = factory.run_cli("check", tmp_path / "job.yaml")
    size = sum(path.stat().st_size for path in (tmp_path / "in").iterdir())
    for words in (
        "OK   small   nothing was written",
        f"input   2 shards, 500 rows, {size / 1000:.1f} kB",
        "units   2 to score, 500 rows; 0 reused, 0 rows",
        "model   small 1.0, 2 files, SHA-256 as pinned",
        f"output  {tmp_path}/out",
        "workers     1",
        "id int64, a float, b double, part string, score float, model_version string",
        "a run would score about 500 rows in 0.0 s",
    ):
        assert words in done.stdout
    for stage in ("read", "preprocess", "infer", "postprocess", "profile", "write"):
        assert any(line.startswith(f"{stage} ") for line in done.stdout.splitlines())


def test_check_as_json(tmp_path: Path) -> None:
    """The same findings come as one JSON document."""
    found = factory.run_json("check", factory.write_job(tmp_path))
    assert (found["status"], found["exit_code"]) == ("ok", 0)
    assert (found["shards"], found["rows"], found["units"], found["unit_rows"]) == (2, 500, 1, 500)
    assert found["bytes"] == sum(path.stat().st_size for path in (tmp_path / "in").iterdir())
    assert (found["batch"]["rows"], found["batch"]["scored"]) == (500, 500)
    assert found["estimated_seconds"] > 0
    assert found["published_by"] is None


def test_check_knows_what_is_published(tmp_path: Path) -> None:
    """After a run, a check says that another would do nothing, and names the run."""
    job = factory.write_job(tmp_path)
    run = factory.run_json("run", job)["run"]
    assert factory.run_json("check", job)["published_by"] == run
    words = f"a run would do nothing: run {run} published the same already"
    assert words in factory.run_cli("check", job).stdout


def test_check_counts_what_a_filter_skips(tmp_path: Path) -> None:
    """Row groups that the filter excludes by their statistics are told, and never read."""
    job = factory.write_job(tmp_path, {"input.filters": [["id", ">=", 300]]})
    found = factory.run_json("check", job)
    assert (found["rows"], found["pruned_rows"], found["unit_rows"]) == (500, 300, 200)
    assert found["batch"]["rows"] == 200


def test_check_tells_of_rejects(tmp_path: Path) -> None:
    """Rows of the tried batch that would be rejected are counted with their reason."""
    job = factory.write_job(tmp_path)
    rows = factory.make_rows(10, 300).to_pydict()
    rows["a"][3] = None
    factory.write_shard(tmp_path / "in/0.parquet", pa.table(rows))
    found = factory.run_json("check", job)["batch"]
    assert found["scored"] == found["rows"] - 1
    assert list(found["reject_reasons"].values()) == [1]
    assert "rejected 1" in factory.run_cli("check", job).stdout


def test_check_names_golden_rows_that_hold_a_run(tmp_path: Path) -> None:
    """Where golden rows come out otherwise, the verdict says so, and nothing of an empty input."""
    job = factory.write_job(tmp_path)
    rows = pa.array([[0.0, 0.0]], pa.list_(pa.float32(), 2))
    golden = pa.table({"x": rows, "logit": [99.0]})
    factory.write_model(tmp_path / "model", tables={"g.parquet": golden}, golden="g.parquet")
    done = factory.run_cli("check", job)
    assert done.exit_code == 3
    assert done.stdout.splitlines()[-1].endswith(
        "(exit 3), for what stands under HELD: golden_rows"
    )
    assert "0 rows to score" not in done.stdout
