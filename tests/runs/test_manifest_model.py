"""Test that a manifest is read as one typed document, of each version, or refused by name."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.errors import RecordError, VersionError
from batchscore.runs.history import read_history, read_manifest
from batchscore.runs.manifest_model import build_manifest, decode_manifest, manifest_schema
from batchscore.runs.manifest_units import published_records
from batchscore.storage.store import Store, encode_json
from docs import make_manifest_reference
from tests.factory import run_json
from tests.manifests import ROWS

ARCHIVES = sorted((Path(__file__).parents[1] / "earlier").glob("*.tar.xz"))
HEAD: dict[str, Any] = {
    **{"run": "r", "status": "published", "started": "2026-11-20T01:00:00+00:00"},
    "rows": ROWS,
}


@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda path: path.name[:7])
def test_manifests_of_each_version_that_ever_was_are_read(archive: Path, tmp_path: Path) -> None:
    """Manifests of an earlier commit are typed documents; no key of them is unknown or lost."""
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path, filter="data")
    paths = sorted(tmp_path.glob("out/*/_batchscore/runs/*/manifest.json"))
    assert len(paths) >= 3
    known = manifest_schema()["properties"]
    for path in paths:
        raw = json.loads(path.read_text(encoding="utf-8"))
        store, run = Store(str(path.parents[3])), path.parent.name
        found = read_manifest(store, run)
        assert not raw.keys() - known.keys()
        assert found.rows.input == raw["rows"]["input"] > 0
        assert found.model.version == raw["model"]["version"]
        assert len(published_records(found)) == len(found.read_units()) > 0


def test_the_schema_is_printed() -> None:
    """`schema --manifest` prints the manifest's JSON Schema, whose every key is described."""
    schema = run_json("schema", "--manifest")
    assert schema == manifest_schema()
    assert schema["required"] == ["run", "status", "started", "rows"]
    for body in (schema, *schema["$defs"].values()):
        assert all(key["description"] for key in body["properties"].values())


def test_the_reference_page_is_up_to_date() -> None:
    """docs/manifest.md is what docs/make_manifest_reference.py makes of the model."""
    page = make_manifest_reference.PAGE.read_text(encoding="utf-8")
    assert page == make_manifest_reference.render()


def test_keys_of_a_later_release_stay() -> None:
    """A key that this version does not know is kept as it was written, and breaks nothing."""
    written = {**HEAD, "invented": [1], "rows": {**ROWS, "odd": "x"}}
    assert decode_manifest(written, "r").document == written
    later = decode_manifest(written, "r").updated(status="revoked")
    assert later.document == {**written, "status": "revoked"}


DECISION = {"at": "2026-11-20T02:00:00+00:00", "by": "me@here", "reason": "a quiet night"}
CHECK = {"name": "rows", "passed": False, "detail": "1 of 2", "status": "held", "odd": 1}
# Their absence tells the states of a run apart.
DISTINGUISHING: dict[str, Any] = {
    **{"units": [], "checks": [CHECK], "error": "", "reused_units": 0, "rescored": []},
    "rejects": {"reasons": {}, "files": []},
    **dict.fromkeys(("released", "discarded", "revoked", "restored", "rollback"), DECISION),
}
FACTS = {**DISTINGUISHING, "base": None, "drift": None, "files": [], "invented": {"a": [None]}}


@given(st.lists(st.sampled_from([*FACTS]), unique=True), st.sampled_from([*FACTS]))
def test_what_is_absent_stays_absent(keys: list[str], key: str) -> None:
    """Whichever keys a manifest has, in any order: it is written again with the same bytes.

    Keys that tell states apart are None where they are absent, and only there.
    """
    written = {**{name: FACTS[name] for name in keys}, **HEAD}
    found = decode_manifest(json.loads(encode_json(written)), "r")
    assert encode_json(found.document) == encode_json(written)
    for name in DISTINGUISHING:
        assert (getattr(found, name) is None) == (name not in keys)
    changed = found.updated(**{key: FACTS[key]})
    assert encode_json(changed.document) == encode_json({**written, key: FACTS[key]})
    assert encode_json(changed.without(key).document) == encode_json(
        {name: value for name, value in written.items() if name != key}
    )


def test_a_change_of_another_type_is_refused() -> None:
    """A manifest cannot be changed into one that would be damaged."""
    with pytest.raises(ValueError, match="its workers is not valid"):
        decode_manifest(HEAD, "r").updated(workers="1")
    with pytest.raises(ValueError, match="its rows is missing"):
        decode_manifest(HEAD, "r").without("rows")


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ([], "it is not valid: expected a mapping"),
        ({"run": "r"}, "its status is missing"),
        ({**HEAD, "run": "other"}, "its run is not valid"),
        ({**HEAD, "started": "2026-11-20T01:00:00"}, "its started .* time with a zone"),
        ({**HEAD, "started": "soon"}, "its started .* time with a zone"),
        ({**HEAD, "rows": {**ROWS, "scored": -1}}, "its rows.scored .* count"),
        ({**HEAD, "rows": {**ROWS, "scored": True}}, "its rows.scored .* whole number"),
        ({**HEAD, "workers": 2**63}, "its workers .* whole number"),
        ({**HEAD, "seconds": float("nan")}, "its seconds .* number"),
        ({**HEAD, "model": {"version": 1}}, "its model.version .* text"),
        ({**HEAD, "checks": [{"name": "rows"}]}, r"its checks\[0\].passed is missing"),
        ({**HEAD, "files": {}}, "its files .* list"),
        ({**HEAD, "base": 1}, "its base .* text"),
        ({**HEAD, "rows": {"scored": 1}}, "its rows.input is missing"),
        ({**HEAD, "units": None}, "its units .* list"),
        ({**HEAD, "error": None}, "its error .* text"),
        ({**HEAD, "released": {"by": "me", "at": 1}}, "its released.at .* text"),
        ({**HEAD, "released": {"by": "me"}}, "its released.at is missing"),
        ({**HEAD, "phases": {"x" * 999: "1"}}, "its phases.x{1,80} is not valid"),
        ({**HEAD, "batchscore_manifest": 0}, "its batchscore_manifest .* version"),
        ({**HEAD, "batchscore_manifest": "1"}, "its batchscore_manifest .* version"),
    ],
)
def test_a_manifest_of_other_types_is_refused(facts: Any, words: str) -> None:
    """A key that is missing or has the wrong type is named in one short message."""
    with pytest.raises(ValueError, match=words) as caught:
        decode_manifest(facts, "r")
    assert len(str(caught.value)) < 200


def test_a_manifest_of_a_newer_version_is_refused_by_name(tmp_path: Path) -> None:
    """A manifest of version 3 names its run and the remedy; `runs` lists the others."""
    store = Store(str(tmp_path))
    for run, version in (("r", 3), ("s", 1)):
        facts = {**HEAD, "run": run, "batchscore_manifest": version}
        store.write_json(f"_batchscore/runs/{run}/manifest.json", facts)
    with pytest.raises(VersionError, match=r"manifest of run 'r': is of form 3.* install a newer"):
        read_manifest(store, "r")
    assert {each.run: each.status for each in read_history(store)} == {
        "r": "damaged",
        "s": "published",
    }
    assert issubclass(VersionError, RecordError)


def test_only_declared_keys_are_written() -> None:
    """A manifest is built of keys and types that its schema has."""
    made = build_manifest(**HEAD, files=[])
    assert list(made.document) == ["batchscore_manifest", *HEAD, "files"]
    with pytest.raises(ValueError, match="'invented' is not a key of a manifest"):
        build_manifest(**HEAD, invented=1)
    with pytest.raises(ValueError, match="its workers is not valid"):
        build_manifest(**HEAD, workers="1")
