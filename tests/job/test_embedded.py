"""Jobs that score another pipeline's rows."""

from __future__ import annotations

from datetime import date
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from batchscore.errors import JobFileError
from batchscore.job import load_embedded, load_job
from tests import factory


def test_a_model_is_all_that_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths of a dict start from the current directory."""
    monkeypatch.chdir(tmp_path)
    loaded = load_embedded({"model": PurePosixPath("models/m")})
    assert loaded.job.model.path == str(tmp_path / "models/m")
    assert (loaded.base, loaded.job.input.path, loaded.job.output.path) == (str(tmp_path), (), "")


def test_what_only_a_run_does_is_left_out(tmp_path: Path) -> None:
    """Filters, passed columns and checks of rows stay; so one file serves both."""
    changes = {
        "input.filters": [["id", ">", 3]],
        "output.columns": ["id"],
        "output.partition_by": ["part"],
        "checks": {"unique": ["id"], "fresh": {"day": "1h"}, "not_null": ["a"]},
        "drift.reference": "gone.parquet",
        "rejects.max_rows": 3,
        "runtime": {"kernels": "fastest", "batch_rows": 7, "options": {"token": "hunter2"}},
        "notify": {"command": ["curl", "https://hooks/hunter2"]},
    }
    job = load_embedded(str(factory.write_job(tmp_path, changes))).job
    assert [list(group) for group in job.input.filters] == [[("id", ">", 3)]]
    assert (job.output.columns, job.output.partition_by) == (("id",), ("part",))
    assert (job.checks.unique, job.checks.fresh, job.checks.not_null) == ((), {}, ("a",))
    assert (job.runtime.kernels, job.runtime.batch_rows) == ("default", 7)
    assert "hunter2" not in str(job)  # it is pickled into the pipeline
    assert (job.drift.reference, job.input.path, job.output.path) == ("model", (), "")


def test_parameters_and_overrides_are_those_of_a_run(tmp_path: Path) -> None:
    """Placeholders in filters get their values."""
    changes = {"params": {"day": {"type": "date"}}, "input.filters": [["day", "==", "${day}"]]}
    path = str(factory.write_job(tmp_path, changes))
    loaded = load_embedded(path, ["day=2026-02-03"], ["runtime.batch_rows=7"])
    assert loaded.params == {"day": date(2026, 2, 3)}
    assert loaded.job.runtime.batch_rows == 7
    with pytest.raises(JobFileError, match="day: missing"):
        load_embedded(path)


@pytest.mark.parametrize(
    ("job", "message"),
    [
        ({}, "the job: model: missing; a job needs it"),
        ({"model": "m", "inputs": {}}, "the job: inputs: unknown key; nearest: 'input'"),
        ({"model": "m", "input": {"filter": []}}, "the job: input.filter: unknown key"),
        ({"model": "m", "input": 3}, "the job: input: expected a mapping"),
        ({"model": {1, 2}}, "the job: found a set; give texts, numbers, lists or dicts"),
    ],
)
def test_a_wrong_job_is_refused_in_the_words_of_a_job_file(
    job: dict[str, Any], message: str
) -> None:
    """Unknown keys too, also where the section may be left out."""
    with pytest.raises(JobFileError, match=message):
        load_embedded(job)


def test_a_dict_of_endless_depth_is_refused() -> None:
    """With a message of batchscore, and not Python's."""
    job: dict[str, Any] = {"path": "m"}
    for _ in range(3_000):
        job = {"model": job}
    with pytest.raises(JobFileError, match="the job: is nested too deeply"):
        load_embedded(job)


def test_a_run_needs_its_paths_as_before(tmp_path: Path) -> None:
    """A job file for `bs.Score` alone is refused by `run`, key by key."""
    (tmp_path / "job.yaml").write_text("model: m\n")
    with pytest.raises(JobFileError) as caught:
        load_job(str(tmp_path / "job.yaml"))
    lines = str(caught.value).splitlines()
    assert [line.rpartition("job.yaml: ")[2].partition(":")[0] for line in lines] == [
        "name",
        "input",
        "output",
    ]
