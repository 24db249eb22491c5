"""Test which files decide a job's scores: those that its code imports, and those it declares."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from batchscore.errors import FunctionError, JobFileError
from batchscore.job import load_job
from batchscore.plan import make_plan
from batchscore.plan.code_files import code_files
from tests import factory

FUNCTION: Mapping[str, Any] = {"preprocess": {"function": "f.py:f"}}
FILES = {
    "f.py": "import g\n\ndef f(batch):\n    from lib import late\n    return batch\n",
    "g.py": "",
    "lib/__init__.py": "",
    "lib/late.py": "from . import deep",
    "lib/deep/__init__.py": "",
    "lib/unused.py": "",
    "other.py": "",
    "net.py": factory.NET,
    "report.html": "",
    "vocab.json": "[]",
    "lists/a.txt": "",
    "lists/more/b.txt": "",
    "lists/.hidden": "",
    "lists/__pycache__/c.pyc": "",
}
IMPORTED = ["f.py", "g.py", "lib/__init__.py", "lib/deep/__init__.py", "lib/late.py"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A job's folder with code, and with files that are none of it."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    factory.write_job(tmp_path, FUNCTION)
    return tmp_path


def counted(folder: Path, changes: Mapping[str, Any]) -> list[str]:
    factory.change_job(folder, changes)
    return [*code_files(load_job(str(folder / "job.yaml")))]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ([], []),
        (["vocab.json"], ["vocab.json"]),
        (["lists"], ["lists/a.txt", "lists/more/b.txt"]),
        (["./lists/more/", "g.py"], ["lists/more/b.txt"]),
        (["lib/unused.py", "lists/.hidden"], ["lib/unused.py", "lists/.hidden"]),
    ],
)
def test_imported_and_declared_files_count(
    folder: Path, code: list[str], expected: list[str]
) -> None:
    """A file or all visible files of a folder; nothing else next to the job."""
    assert counted(folder, {"code": code}) == sorted([*IMPORTED, *expected])


def test_each_function_and_the_architecture_count(folder: Path) -> None:
    """A job without functions has no code; that of an architecture is the job's own."""
    model = {"format": "safetensors", "architecture": "net.py:Net", "inputs": {"x": ["a", "b"]}}
    model |= {"path": "w.safetensors", "sha256": factory.write_weights(folder / "w.safetensors")}
    step = {"function": {"function": "other.py:f"}}
    assert counted(folder, {"preprocess": None}) == []
    assert counted(folder, {"postprocess": step}) == ["other.py"]
    assert counted(folder, {"model": model}) == ["net.py", "other.py"]


@pytest.mark.parametrize("name", FILES)
def test_a_change_of_a_file_is_a_change_of_the_job_only_where_it_counts(
    folder: Path, name: str
) -> None:
    """A report that is saved next to the job scores nothing again."""
    factory.change_job(folder, {"code": ["vocab.json", "lists"]})
    before = make_plan(load_job(str(folder / "job.yaml"))).score_facts
    (folder / name).write_text("# changed\n" if name.endswith(".py") else "changed")
    after = make_plan(load_job(str(folder / "job.yaml"))).score_facts
    counts = [*IMPORTED, "vocab.json", "lists/a.txt", "lists/more/b.txt"]
    changed = {key for key in {*before, *after} if before.get(key) != after.get(key)}
    if name in ("f.py", "lib/late.py"):  # which now imports nothing
        assert f"code {name}" in changed
    else:
        assert changed == ({f"code {name}"} if name in counts else set())


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (["nosuch.json"], "code: no such file or folder: 'nosuch.json'"),
        (["lists", "lists/none.txt"], "'lists/none.txt'"),
        (["pipe"], "no such file or folder: 'pipe'"),
    ],
)
def test_what_is_declared_must_be_there(folder: Path, code: list[str], says: str) -> None:
    """A name that nothing bears is an error before any work."""
    os.mkfifo(folder / "pipe")
    with pytest.raises(FunctionError, match=says):
        counted(folder, {"code": code})


@pytest.mark.parametrize("name", ["/etc/hosts", "../x", "a/../../x", ".", "~/x", "s3://b/x", ""])
def test_only_what_is_below_the_jobs_folder_is_declared(folder: Path, name: str) -> None:
    """The job file says which key is wrong, and where the file has to be."""
    with pytest.raises(JobFileError, match=r"code\.0: expected"):
        counted(folder, {"code": [name]})


def test_a_folder_with_the_output_is_not_code(folder: Path) -> None:
    """Each run would change it, and score everything again."""
    with pytest.raises(FunctionError, match="'data' holds the output"):
        (folder / "data").mkdir()
        counted(folder, {"code": ["data"], "output.path": "data/out"})


def test_a_folder_of_very_many_files_is_not_code(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest names each, so there is a limit, which the message names."""
    monkeypatch.setattr("batchscore.plan.code_files._MOST_FILES", 1)
    with pytest.raises(FunctionError, match="over 1 files"):
        counted(folder, {"code": ["lists"]})


def test_a_declared_link_counts_by_what_it_leads_to(folder: Path, tmp_path: Path) -> None:
    """The bytes of a file elsewhere, that a link of the job's folder leads to, are hashed."""
    other = tmp_path.parent / "shared.json"
    other.write_text("1")
    (folder / "linked.json").symlink_to(other)
    counted(folder, {"code": ["linked.json"]})
    before = code_files(load_job(str(folder / "job.yaml")))["linked.json"]
    other.write_text("2")
    assert code_files(load_job(str(folder / "job.yaml")))["linked.json"] != before
