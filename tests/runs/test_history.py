"""Test what an output tells of its runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from batchscore.cli.render.results import history
from batchscore.errors import InvalidError, OutputError, RecordError
from batchscore.runs import layout
from batchscore.runs.history import (
    Unreadable,
    newest,
    published_files,
    published_manifest,
    read_history,
    read_manifest,
    require_output,
)
from batchscore.runs.lease import acquire
from batchscore.storage.store import Store
from tests.manifests import ROWS, make_manifest
from tests.outputs import write_plan


def add_run(store: Store, run: str, started: str, slice_: str = "job") -> None:
    manifest = make_manifest(run=run, started=started, slice=slice_)
    store.write_json(layout.run_file(run, "manifest.json"), manifest.document)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An output with three runs of two slices, and one that left no manifest."""
    store = Store(str(tmp_path))
    layout.claim_output(store)
    add_run(store, "20261120-aaaa", "2026-11-20T01:00:00+00:00")
    add_run(store, "20261119-bbbb", "2026-11-19T01:00:00+00:00")
    add_run(store, "20261121-cccc", "2026-11-21T01:00:00+00:00", "job,date=1")
    store.write_json(layout.run_file("20261121-dddd", "plan.json"), {})
    return store


def test_runs_are_reported_newest_first(store: Store) -> None:
    """All slices' runs, or one's, by their start; one without a manifest is not among them."""
    assert [each.run[-4:] for each in read_history(store)] == ["cccc", "aaaa", "bbbb"]
    assert [each.run[-4:] for each in read_history(store, "job")] == ["aaaa", "bbbb"]
    assert newest(store, "job").run == "20261120-aaaa"


def test_a_slice_without_runs_is_an_error(store: Store) -> None:
    """The slice is named, and what to do."""
    with pytest.raises(InvalidError, match=r"'job,date=2'.*has no run yet; run the job first"):
        newest(store, "job,date=2")


@pytest.mark.parametrize("run", ["20200101-0000", "../runs/20261120-aaaa", "", "a/b"])
def test_an_unknown_run_is_an_error(store: Store, run: str) -> None:
    """The error names the run and the newest ones; a path is no run."""
    with pytest.raises(InvalidError, match=r"has no such run; the newest are .*20261121-cccc"):
        read_manifest(store, run)


def test_a_run_without_a_manifest_is_an_error(store: Store) -> None:
    """A run that goes on, or was killed, is distinguished from one that never was."""
    facts = {"job": "job", "slice": "job", "started": "2026-11-21T04:00:00+00:00"}
    write_plan(store, "20261121-dddd", facts)
    with pytest.raises(InvalidError, match="20261121-dddd': left no manifest"):
        read_manifest(store, "20261121-dddd")
    (killed,) = (each for each in read_history(store) if each.status == "unfinished")
    assert isinstance(killed, Unreadable)
    assert killed.error.startswith("was killed, or lost with its machine; run the job again")
    with acquire(store, "job", "run", "20261121-dddd"):
        assert "pid" in str(read_history(store)[0].document["error"])
        with pytest.raises(InvalidError, match="dddd': left no manifest; it is under way"):
            read_manifest(store, "20261121-dddd")
    newest_run = read_history(store)[0]
    assert (newest_run.run, newest_run.status) == ("20261121-dddd", "unfinished")


def test_what_is_there_is_reported_though_no_run_has_ended(tmp_path: Path) -> None:
    """Of a slice whose only run was killed or is under way, the run and what to do are named."""
    store = Store(str(tmp_path))
    layout.claim_output(store)
    facts = {"job": "job", "slice": "job", "started": "2026-11-21T04:00:00+00:00"}
    write_plan(store, "20261121-dddd", facts)
    with pytest.raises(InvalidError, match=r"run 20261121-dddd: was killed.*run the job again"):
        newest(store, "job")
    with (
        acquire(store, "job", "run", "20261121-dddd"),
        pytest.raises(InvalidError, match=r"run 20261121-dddd: is under way .*waits for it"),
    ):
        newest(store, None)
    assert history(read_history(store), ())[-1].startswith("run 20261121-dddd: was killed")


def test_one_damaged_manifest_does_not_hide_the_others(store: Store) -> None:
    """It is listed as damaged, last, and says why."""
    store.write(layout.run_file("20261120-aaaa", "manifest.json"), b"{")
    found = read_history(store)
    assert [each.status for each in found if each.run == "20261120-aaaa"] == ["damaged"]
    assert len(found) > 1


@pytest.mark.parametrize("key", ["score", "units", "files", "shards"])
def test_a_published_manifest_without_what_is_built_upon_is_an_error(
    tmp_path: Path, key: str
) -> None:
    """A manifest that lost a part by hand is named, not worked around."""
    store = Store(str(tmp_path))
    texts = ("run", "score", "fingerprint", "job_sha256", "started")
    whole: dict[str, Any] = {
        **dict.fromkeys(texts, "x"),
        **{"run": "r", "started": "2026-11-20T01:00:00+00:00"},
        **{name: [] for name in ("files", "units", "shards", "columns")},
        **{name: {} for name in ("score_facts", "model")},
        **{"slice": "job", "status": "published", "rows": ROWS, "seconds": 1, "base": None},
    }
    store.write(layout.slice_file("job", "_SUCCESS"), b"r\n")
    store.write_json(layout.run_file("r", "manifest.json"), whole)
    assert published_manifest(store, "job") is not None
    del whole[key]
    store.write_json(layout.run_file("r", "manifest.json"), whole)
    with pytest.raises(RecordError, match=f"manifest .* of run 'r', .* damaged.*{key}"):
        published_manifest(store, "job")


def test_files_without_a_marker_are_an_error(tmp_path: Path) -> None:
    """A marker that was removed by hand does not make a slice seem unpublished."""
    store = Store(str(tmp_path))
    assert published_manifest(store, "job") is None
    store.write(layout.slice_file("job", "current.txt"), b"data/x.parquet\n")
    with pytest.raises(RecordError, match="_SUCCESS is"):
        published_manifest(store, "job")


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"run": 1}', b"\xff\xfe"])
def test_a_damaged_manifest_is_an_error(store: Store, data: bytes) -> None:
    """The file is named."""
    store.write(layout.run_file("20261120-aaaa", "manifest.json"), data)
    with pytest.raises(RecordError, match=r"20261120-aaaa/manifest\.json: damaged"):
        read_manifest(store, "20261120-aaaa")


def test_published_files_of_one_slice_or_all(store: Store) -> None:
    """The lists of all slices together, or of one alone."""
    store.write(layout.slice_file("job", "current.txt"), b"data/b\ndata/a\n")
    store.write(layout.slice_file("job,date=1", "current.txt"), b"data/c\n")
    assert published_files(store, None) == ["data/a", "data/b", "data/c"]
    assert published_files(store, "job,date=1") == ["data/c"]


def test_a_folder_that_is_no_output(tmp_path: Path) -> None:
    """A folder with other files, an empty one and a missing one are no outputs; errors say so."""
    for folder, words in (("empty", "holds no run yet"), ("none", "holds no run yet")):
        if folder == "empty":
            (tmp_path / folder).mkdir()
        with pytest.raises(OutputError, match=words):
            require_output(Store(str(tmp_path / folder)))
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file").write_text("x")
    with pytest.raises(OutputError, match="'file'"):
        require_output(Store(str(tmp_path / "other")))
