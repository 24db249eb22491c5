"""Test that retention removes nothing where it does not know what is needed."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from batchscore.errors import RecordError
from batchscore.runs import layout
from batchscore.runs.retention import purge, sweep_probes
from batchscore.storage.store import Store
from tests.factory import read_tree
from tests.manifests import make_manifest

SLICE = "job"
LISTS: dict[str, Any] = {"files": [], "shards": [], "columns": [], "inputs": []}
UNITS = {run: [{"unit": run, "attempt": f"{run}-1"}] for run in ("r1", "r2", "r3")}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An output whose runs r2 and r3 each retired what the run before published."""
    store = Store(str(tmp_path))
    for run, base in (("r1", None), ("r2", "r1"), ("r3", "r2")):
        write(store, run, base=base, units=UNITS[run])
        store.write(layout.record(SLICE, "s", run), b"a record")
        if base:
            store.write(layout.retired(run, f"data/{base}.parquet"), b"old rows")
    store.write(layout.slice_file(SLICE, "_SUCCESS"), b"r3\n")
    return store


def write(store: Store, run: str, **facts: Any) -> None:
    """Write a run's manifest."""
    head = {"run": run, "slice": SLICE, "score": "s", "fingerprint": "", "job_sha256": ""}
    more = {"score_facts": {}, "model": {}, "seconds": 1.0, "finished": "2026-11-20T02:00:00+00:00"}
    manifest = make_manifest(**{**head, **more, **LISTS, **facts})
    store.write_json(layout.run_file(run, "manifest.json"), manifest.document)


def test_what_is_past_its_days_goes(store: Store) -> None:
    """Retired files go, and so do the records of units that nothing publishes any more."""
    purge(store, SLICE, days=1)
    assert store.names(layout.RETIRED) == []
    assert store.names(layout.ledger(SLICE, "s")) == ["r3.parquet"]


@pytest.mark.parametrize(
    ("run", "spoil", "days"),
    [
        ("r2", "torn", 1),
        ("r2", "torn", 36_500),
        ("r2", "newer", 1),
        ("r2", "newer", 36_500),
        ("r1", "without units", 36_500),
    ],
)
def test_a_manifest_that_cannot_be_read_stops_retention(
    store: Store, tmp_path: Path, run: str, spoil: str, days: int
) -> None:
    """Whether or not the days of its files are past: nothing is removed."""
    path = layout.run_file(run, "manifest.json")
    written = store.read_json(path)
    spoiled = {
        "torn": [],
        "newer": {**written, "batchscore_manifest": 3},
        "without units": {key: value for key, value in written.items() if key != "units"},
    }
    store.write_json(path, spoiled[spoil])
    before = read_tree(tmp_path)
    with pytest.raises(RecordError, match=run):
        purge(store, SLICE, days)
    assert read_tree(tmp_path) == before


def test_what_no_run_ships_any_more_goes(store: Store) -> None:
    """Code and models in the output go with their days, too, if nothing names them."""
    path = f"{layout.CODE}/{'0' * 64}"
    store.write(path, b"code")
    purge(store, SLICE, days=1)
    assert store.exists(path)
    purge(store, SLICE, days=-1)
    assert not store.exists(path)


def test_what_a_killed_check_left_is_removed_after_a_day(store: Store, tmp_path: Path) -> None:
    """One that may be under way is left alone, and so is all else."""
    for name in ("probe-old", "probe-new", "other"):
        store.write(f"{layout.HOME}/{name}/_batchscore/models/x", b"weights")
    two_days_ago = time.time() - 48 * 3600
    for name in ("probe-old", "other"):
        path = tmp_path / f"{layout.HOME}/{name}/_batchscore/models/x"
        os.utime(path, (two_days_ago, two_days_ago))
    sweep_probes(store, [f"{layout.HOME}/{name}" for name in store.names(layout.HOME)])
    assert {"probe-new", "other"} <= {*store.names(layout.HOME)}
    assert "probe-old" not in store.names(layout.HOME)
