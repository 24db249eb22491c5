"""Test what `status` finds in an output, in a folder of outputs, and where there is none."""

from __future__ import annotations

import errno
import json
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

import fsspec
import pytest

from batchscore.commands.overview import find_outputs, look_at
from batchscore.errors import OutputError
from batchscore.runs import layout
from batchscore.storage.store import Store
from tests.factory import change_job, run_cli, write_job
from tests.nights import add_night


@pytest.fixture(params=["disk", "remote"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a folder, on a disk or a remote store."""
    return str(tmp_path) if request.param == "disk" else f"memory://{uuid.uuid4().hex}"


def test_a_folder_of_outputs_has_all_jobs_those_that_need_somebody_first(folder: str) -> None:
    """Held ones, then failed ones, then all others by name; other folders are left out."""
    runs = [
        add_night(Store(f"{folder}/{name}"), "2026-11-30", 2, status, job=name)
        for name, status in (("a", "published"), ("b", "failed"), ("c", "held"), ("d", "empty"))
    ]
    Store(f"{folder}/other").write("x/part.parquet", b"")
    found = look_at(find_outputs(folder))
    assert [job.job for job in found.jobs] == ["c", "b", "a", "d"]
    assert [each.rpartition("/")[2] for each in found.outputs] == ["a", "b", "c", "d"]
    assert {each.run for _, each in found.undecided} == {runs[1], runs[2]}


def test_one_output_has_its_address_in_the_document(tmp_path: Path) -> None:
    """As before there were several; those of a folder name the output of each."""
    store = Store(str(tmp_path / "a"))
    add_night(store, "2026-11-30", 2, "held")
    one = json.loads(run_cli("status", tmp_path / "a", "--json").stdout)
    assert (one["output"], one["under_way"], one["exit_code"]) == (store.address, [], 0)
    assert "output" not in one["undecided"][0]
    all_ = json.loads(run_cli("status", tmp_path, "--json").stdout)
    assert all_["undecided"][0]["output"] == store.address
    assert "   in " in run_cli("status", tmp_path).stdout.splitlines()[-1]


def test_a_folder_without_an_output_is_refused(folder: str) -> None:
    """Whether it is empty or holds something else."""
    with pytest.raises(OutputError, match="holds no run yet; check the address"):
        find_outputs(folder)
    Store(folder).write("x/part.parquet", b"")
    with pytest.raises(OutputError, match="holds 'x' and is no output, nor is any folder"):
        find_outputs(folder)


def test_a_damaged_manifest_is_named(tmp_path: Path) -> None:
    """It may be that of the night that is looked for."""
    store = Store(str(tmp_path))
    run = add_night(store, "2026-11-30", 2)
    store.write(layout.run_file(run, "manifest.json"), b"{")
    found = run_cli("status", tmp_path)
    assert f"DAMAGED  manifest {tmp_path}/_batchscore/runs/{run}" in found.stdout


@pytest.mark.parametrize("lost", ["manifests", "runs"])
def test_an_output_that_hides_its_jobs_is_late(tmp_path: Path, lost: str) -> None:
    """Whether no manifest can be read or all are gone: a watch must not be content. So the page."""
    add_night(Store(str(tmp_path / "good")), "2026-11-30", 2)
    store = Store(str(tmp_path / "spoilt"))
    run = add_night(store, "2026-11-30", 2)
    store.write(layout.run_file(run, "manifest.json"), b"{")
    if lost == "runs":
        shutil.rmtree(tmp_path / f"spoilt/{layout.HOME}/runs")
    page = tmp_path / "page.html"
    found = run_cli("status", tmp_path, "--max-age", "26h", "--html", page)
    assert found.exit_code == 3
    assert found.stdout.startswith(f"LATE  every job in {store.address}: nothing tells which jobs")
    assert "nothing tells which jobs it has" in page.read_text()
    assert run_cli("status", tmp_path).exit_code == 0


def test_an_output_that_cannot_be_read_hides_no_other(tmp_path: Path) -> None:
    """It is named with why, counts as late, and the list of jobs does not look complete."""
    add_night(Store(str(tmp_path / "good")), "2026-11-30", 2)
    newer = Store(str(tmp_path / "newer"))
    add_night(newer, "2026-11-30", 2)
    newer.write_json(layout.FORMAT, {"batchscore_output": 99})
    (tmp_path / "spoilt").mkdir()
    (tmp_path / "spoilt" / layout.HOME).touch()
    page = tmp_path / "page.html"
    found = run_cli("status", tmp_path, "--html", page)
    assert found.exit_code == 1
    first, second = found.stdout.splitlines()[:2]
    assert first.startswith(f"UNREADABLE  {newer.address}: ")
    assert "format 99" in first
    assert second.startswith(f"UNREADABLE  {tmp_path}/spoilt: cannot be read (Not a directory); ")
    assert "flights" in found.stdout
    assert "cannot be read (Not a directory)" in page.read_text()
    found = run_cli("status", tmp_path, "--max-age", "26h", "--json")
    document = json.loads(found.stdout)
    assert (found.exit_code, document["exit_code"], len(document["late"])) == (3, 3, 2)
    assert [each["output"] for each in document["unreadable"]] == [
        newer.address,
        f"{tmp_path}/spoilt",
    ]


def test_a_folder_that_is_closed_may_be_an_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it is named, unless its name is that of a file system's own."""
    add_night(Store(str(tmp_path / "good")), "2026-11-30", 2)
    closed = [str(tmp_path / name / layout.HOME) for name in ("closed", "lost+found")]
    for path in closed:
        Path(path).parent.mkdir()
    stat = os.stat

    def refusing(path: Any, **options: Any) -> os.stat_result:
        if str(path) in closed:
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return stat(path, **options)

    monkeypatch.setattr("batchscore.commands.overview.os.stat", refusing)
    (found,) = find_outputs(str(tmp_path)).closed
    assert found[0] == f"{tmp_path}/closed"
    assert found[1].startswith("cannot be read (Permission denied); grant the permission")


def test_many_slices_that_wait_are_listed_in_part(tmp_path: Path) -> None:
    """Ten of each status, held ones first; a document has all."""
    store = Store(str(tmp_path))
    for day in range(12):
        add_night(store, f"2026-11-{day + 10}", 48 - day, "failed")
        run = add_night(store, f"2026-10-{day + 10}", 72 - day)
        store.write(layout.run_file(run, "manifest.json"), b"{")
    add_night(store, "2026-11-30", 2, "held")
    lines = run_cli("status", tmp_path).stdout.splitlines()
    words = [line.split()[0] for line in lines[4:]]
    assert words == ["HELD", *["FAILED"] * 11, *["DAMAGED"] * 11]
    assert lines[-1] == "DAMAGED  2 more; --json lists all"
    assert len(json.loads(run_cli("status", tmp_path, "--json").stdout)["undecided"]) == 25


def test_a_job_that_never_ran_is_late(tmp_path: Path) -> None:
    """Where its output does not exist, too; without an age that is asked for, it is an error."""
    write_job(tmp_path)
    job = change_job(tmp_path, {"output": {"path": "nowhere"}})
    found = run_cli("status", job, "--max-age", "26h")
    assert found.exit_code == 3
    assert found.stdout.startswith("LATE  small: nothing is published; no run is known\n")
    assert run_cli("status", job).exit_code == 2
    shutil.rmtree(tmp_path / "nowhere", ignore_errors=True)


def test_credentials_in_an_address_are_refused() -> None:
    """As for all commands."""
    found = run_cli("status", "s3://key:secret@bucket/out")
    assert found.exit_code == 2
    assert "secret@" not in found.output


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    """The file that dates a disk is removed."""
    add_night(Store(str(tmp_path)), "2026-11-30", 2)
    before = sorted(fsspec.filesystem("file").find(str(tmp_path)))
    run_cli("status", tmp_path, "--max-age", "26h")
    assert sorted(fsspec.filesystem("file").find(str(tmp_path))) == before
