"""Test that plans, journals, leases and records of each version are read, or refused by name."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batchscore.cli.render.results import history
from batchscore.commands.tidy import close_killed
from batchscore.drift.profile_file import write_table
from batchscore.drift.table import TableProfile
from batchscore.errors import RecordError, VersionError
from batchscore.runs import layout
from batchscore.runs.history import Unreadable, read_history
from batchscore.runs.holder import last_holder
from batchscore.runs.lease import acquire
from batchscore.runs.ledger import read_head, read_heads
from batchscore.runs.publication import Publication, journal_path, read_journals
from batchscore.runs.run_plan import read_plan
from batchscore.storage.store import Store
from batchscore.units.record import UnitRecord
from tests.outputs import write_plan

EARLIER = sorted((Path(__file__).parents[1] / "earlier").glob("*.tar.xz"))
RUN, SLICE, UNIT = "20261120-aaaa", "job", "0" * 16
RECORD = layout.record(SLICE, "score", UNIT)
FACTS = {"job": "job", "slice": SLICE, "started": "2026-11-20T01:00:00+00:00"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An output with one document of each kind."""
    store = Store(str(tmp_path))
    layout.claim_output(store)
    write_plan(store, RUN, FACTS)
    publication = Publication(RUN, None, (), (), (), (), ())
    store.write_json(journal_path(SLICE, RUN), publication.to_json())
    acquire(store, SLICE, "run", RUN).release()
    return store


@pytest.mark.parametrize("archive", EARLIER, ids=lambda path: path.name[:7])
def test_documents_of_each_version_that_ever_was_are_read(archive: Path, tmp_path: Path) -> None:
    """A killed run's plan, leases, held publications and records of an earlier commit are read."""
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path, filter="data")
    (path,) = tmp_path.glob("out/killed/_batchscore/work/*/plan.json")
    plan = read_plan(Store(str(tmp_path / "out/killed")), path.parent.name)
    assert sum(plan.units.values()) == plan.shard_rows > 0
    (held,) = tmp_path.glob("out/*/_batchscore/runs/*/held.json")
    assert Publication.from_json(json.loads(held.read_text(encoding="utf-8"))).moves
    for slice_ in tmp_path.glob("out/*/_batchscore/slices/*"):
        assert last_holder(Store(str(slice_.parents[2])), slice_.name)
    ledgers = sorted(tmp_path.glob("out/*/_batchscore/ledger/*/*/" + "[0-9a-f]" * 16 + ".parquet"))
    assert len(ledgers) >= 4
    for path in ledgers:
        store = Store(str(path.parents[4]))
        assert read_head(store, str(path.relative_to(store.address))).unit == path.stem


READERS: dict[str, tuple[str, Callable[[Store], Any]]] = {
    "plan": (layout.plan_file(RUN), lambda store: read_plan(store, RUN)),
    "journal": (journal_path(SLICE, RUN), lambda store: read_journals(store, SLICE)),
    "lease": (
        layout.slice_file(SLICE, "lease/00000001.json"),
        lambda store: last_holder(store, SLICE),
    ),
}


@pytest.mark.parametrize("kind", READERS)
def test_a_newer_document_is_refused_by_name(store: Store, kind: str) -> None:
    """A later version's plan, journal or lease names itself, its version and the remedy."""
    path, read = READERS[kind]
    as_written = read(store)
    facts = store.read_json(path)
    store.write_json(path, {**facts, "invented": 1, f"batchscore_{kind}": 1})
    assert read(store) == as_written
    newer = 3 if kind == "lease" else 2
    store.write_json(path, {**facts, f"batchscore_{kind}": newer})
    expected = rf"{kind} .*is of form {newer}, .*install a newer batchscore"
    with pytest.raises(VersionError, match=expected):
        read(store)
    damaged: tuple[Any, ...] = ({**facts, f"batchscore_{kind}": True}, [], {}, 1, None)
    for wrong in damaged:
        store.write_json(path, wrong)
        with pytest.raises(RecordError, match=rf"^{kind} /\S+: damaged \(.{{1,200}}\); ") as caught:
            read(store)
        assert not isinstance(caught.value, VersionError)


def test_a_run_with_a_newer_plan_is_listed_and_stays(store: Store) -> None:
    """`runs` says which version is needed; a run of the same slice does not close it."""
    path = layout.plan_file(RUN)
    store.write_json(path, {**store.read_json(path), "batchscore_plan": 2})
    (found,) = read_history(store)
    assert (found.run, found.status) == (RUN, "unfinished")
    assert isinstance(found, Unreadable)
    assert found.error.endswith("knows forms up to 1; install a newer batchscore")
    assert history([found], ())[-1].startswith(f"run {RUN}: plan ")
    close_killed(store, SLICE, RUN)
    assert store.exists(path)


def test_a_newer_record_is_refused_and_stays(store: Store) -> None:
    """Its unit is not scored again in its place; keys that are not known are left out."""
    record = UnitRecord(UNIT, f"{UNIT}-a", RUN, (), 0, 0, 0, 0, {}, None, (), (), {})
    assert UnitRecord.from_json({**record.to_json(), "invented": 1}) == record
    _write_record(store, {**record.to_json(), "batchscore_record": 2})
    with pytest.raises(VersionError, match=r"ledger .*record: is of form 2, .*newer batchscore$"):
        read_heads(store, SLICE, "score", [UNIT])
    _write_record(store, {**record.to_json(), "batchscore_record": "2"})
    assert read_heads(store, SLICE, "score", [UNIT]) == {}


def _write_record(store: Store, facts: dict[str, Any]) -> None:
    store.write(RECORD, write_table(TableProfile.empty(), facts))
