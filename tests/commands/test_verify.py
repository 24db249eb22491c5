"""`verify` finds whatever is not as it was published, in each place, and writes nothing."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from batchscore.commands import verify
from batchscore.commands.verify import verify_output
from batchscore.drift.profile_file import read_record, write_table
from batchscore.drift.table import TableProfile
from batchscore.errors import InvalidError, RetryError
from batchscore.runs import layout
from batchscore.runs.ledger import decode_record, encode_record
from batchscore.runs.publication import Publication
from batchscore.runs.snapshot import snapshot
from batchscore.storage.store import Store
from tests.factory import make_rows, read_tree, run_cli, run_json, sha256, write_shard
from tests.outputs import RUN, publish_shards

HOME = "_batchscore"
RECORD = "ledger/one/*/" + "[0-9a-f]" * 16 + ".parquet"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output with two slices, of several units, partitions and rejects."""
    folder = tmp_path_factory.mktemp("verified")
    for slice_ in ("one", "two"):
        for number in range(3):
            table = make_rows(30, 100 * number)
            bad = [[i % 10 == 3 for i in range(30)]]
            write_shard(folder / f"in/{number}.parquet", table.append_column("bad", bad))
        run = f"{RUN}-{slice_}"
        publish_shards(folder, slice_, run=run, scored_by=run, partition_by=("part",))
    return folder / "out"


@pytest.fixture
def output(template: Path, tmp_path: Path) -> Path:
    """A copy of the output, to be spoiled."""
    return Path(shutil.copytree(template, tmp_path / "out"))


def manifest_of(output: Path, slice_: str = "one") -> dict[str, Any]:
    """The manifest of what is published of a slice."""
    found: dict[str, Any] = json.loads(manifest_path(output, slice_).read_text())
    return found


def manifest_path(output: Path, slice_: str = "one") -> Path:
    return output / layout.run_file(f"{RUN}-{slice_}", "manifest.json")


def first_file(output: Path) -> Path:
    """A published file of slice `one`."""
    return output / snapshot(Store(str(output)), "one")[0]


def state(output: Path, name: str) -> Path:
    """A file of slice `one`."""
    return output / layout.slice_file("one", name)


def find(output: Path, pattern: str) -> Path:
    """The first of slice `one`'s files that a pattern names."""
    return sorted((output / HOME).glob(pattern))[0]


def damage(path: Path) -> None:
    """Spoil the first page, and leave the footer as it was."""
    data = bytearray(path.read_bytes())
    data[4:60] = b"\xff" * 56
    path.write_bytes(data)


def rewrite(path: Path, change: Callable[[Any], Any]) -> None:
    """Put other rows into a Parquet file."""
    pq.write_table(change(pq.ParquetFile(path).read()), path)


def pin(output: Path, path: Path) -> None:
    """Make the manifest tell a file's size and hash as they are."""
    manifest, data = manifest_of(output), path.read_bytes()
    for file in manifest["files"]:
        if output / file["path"] == path:
            file.update(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    manifest_path(output).write_text(json.dumps(manifest))


def edit(output: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the manifest of slice `one`."""
    manifest = manifest_of(output)
    change(manifest)
    manifest_path(output).write_text(json.dumps(manifest))


def with_file(spoil: Callable[[Path], Any], pinned: bool = False) -> Callable[[Path], Any]:
    """Spoil a published file; pinned, the manifest tells its bytes as they come to be."""

    def spoiled(output: Path) -> None:
        spoil(first_file(output))
        if pinned:
            pin(output, first_file(output))

    return spoiled


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-6] ^= 1  # of the length of the footer
    path.write_bytes(data)


def begin_journal(output: Path) -> None:
    """A publication of the same files that ended before its marker was written."""
    files = tuple(snapshot(Store(str(output)), "one"))
    document = (layout.run_file(f"{RUN}-one", "manifest.json"), manifest_of(output))
    made = Publication(f"{RUN}-one", None, (), files, (), (), (document,))
    state(output, "journal.json").write_text(json.dumps(made.to_json()))
    state(output, "_SUCCESS").unlink()


def change_record(output: Path) -> None:
    path = find(output, RECORD)
    record, profile = decode_record(path.read_bytes())
    path.write_bytes(encode_record(replace(record, attempt="another"), profile))


def change_profile(output: Path) -> None:
    """Change a record's profile, as a flipped bit might that leaves it readable."""
    path = find(output, RECORD)
    _, profile = decode_record(path.read_bytes())
    other = write_table(TableProfile.empty(), read_record(path.read_bytes()))
    assert profile.columns
    path.write_bytes(other)


def damage_extra(output: Path) -> None:
    """Damage the file of the profile's large parts, whose hash the manifest has."""
    path = output / layout.run_file(f"{RUN}-one", "profile.extra.parquet")
    digest = {"bytes": path.stat().st_size, "sha256": sha256(path)}
    edit(output, lambda m: m.update(profile_files={path.name: digest}))
    damage(path)


def write_again(path: Path) -> None:
    """Write other bytes of the same rows into a Parquet file."""
    rewrite(path, lambda table: table)


def shorten_rows_file(output: Path) -> None:
    rewrite(find(output, "ledger/one/*/*.rows.parquet"), lambda table: table[1:])


CASES: dict[str, tuple[Callable[[Path], Any], set[str], str]] = {
    "a file is gone": (with_file(Path.unlink), {"missing"}, "rows were published in it"),
    "a file is longer": (
        with_file(lambda p: p.write_bytes(b"PAR1" + p.read_bytes())),
        {"size", "damaged"},
        "were published",
    ),
    "a bit is flipped": (with_file(flip), {"sha256", "damaged"}, "was published"),
    "a page is damaged": (with_file(damage, pinned=True), {"damaged"}, "damaged ("),
    "a row is gone": (
        with_file(lambda p: rewrite(p, lambda table: table[1:]), pinned=True),
        {"rows"},
        "and 9 were written",
    ),
    "a snapshot lists less": (
        lambda o: state(o, "current.txt").write_text(
            "".join(state(o, "current.txt").read_text().splitlines(True)[1:])
        ),
        {"snapshot", "stranger"},
        "0 times",
    ),
    "a snapshot lists a file twice": (
        lambda o: state(o, "current.txt").write_text(
            state(o, "current.txt").read_text()
            + state(o, "current.txt").read_text().splitlines(True)[0]
        ),
        {"snapshot"},
        "2 times",
    ),
    "a snapshot is not a text": (
        lambda o: state(o, "current.txt").write_bytes(b"\xff\xfe"),
        {"snapshot", "stranger"},
        "0 times",
    ),
    "the marker is gone": (
        lambda o: state(o, "_SUCCESS").unlink(),
        {"manifest"},
        "_SUCCESS is gone",
    ),
    "the marker names another slice's run": (
        lambda o: state(o, "_SUCCESS").write_text(f"{RUN}-two\n"),
        {"manifest"},
        "it is of another slice",
    ),
    "a publish was interrupted": (
        begin_journal,
        {"journal"},
        f"a publication of run {RUN}-one was interrupted; the next run finishes it",
    ),
    "a journal is damaged": (
        lambda o: state(o, "journal.json").write_text("{"),
        {"manifest"},
        "journal",
    ),
    "a manifest is damaged": (
        lambda o: manifest_path(o).write_text("{"),
        {"manifest"},
        "damaged",
    ),
    "a manifest is gone": (lambda o: manifest_path(o).unlink(), {"manifest"}, "no such file"),
    "a manifest lacks a count": (
        lambda o: edit(o, lambda m: m["rows"].pop("filtered")),
        {"manifest"},
        "filtered",
    ),
    "a manifest is of another shape": (
        lambda o: edit(o, lambda m: m["files"][0].update(rows="9")),
        {"manifest"},
        "damaged",
    ),
    "a manifest's path leaves the output": (
        lambda o: edit(o, lambda m: m["files"][0].update(path="../x")),
        {"manifest"},
        "leaves the output",
    ),
    "a total is wrong": (
        lambda o: edit(o, lambda m: m["rows"].update(scored=1)),
        {"sum"},
        "the manifest counts 1",
    ),
    "a unit's count is wrong": (
        lambda o: edit(o, lambda m: m["units"][0].update(scored=1)),
        {"sum", "record"},
        "the rows of the files of unit",
    ),
    "a file is of no unit": (
        lambda o: edit(o, lambda m: m["files"][0].update(unit="x")),
        {"sum", "lineage"},
        "the files of all units",
    ),
    "a stranger": (
        lambda o: (o / "data/part=p0/x.parquet").write_bytes(b""),
        {"stranger"},
        "no slice published it",
    ),
    "a hidden stranger": (
        lambda o: (o / "data/.x.tmp").write_bytes(b""),
        {"stranger"},
        "no slice published it",
    ),
    "a file that is still being written": (
        lambda o: (o / "data/x.parquet.12-0123abcd.tmp").write_bytes(b""),
        {"stranger"},
        "no slice published it",
    ),
    "a record is gone": (lambda o: find(o, RECORD).unlink(), {"record"}, "no such file"),
    "a record is damaged": (
        lambda o: find(o, RECORD).write_bytes(b"PAR1"),
        {"record"},
        "damaged",
    ),
    "a record is of another attempt": (change_record, {"record"}, "its attempt is 'another'"),
    "a rows file is gone": (
        lambda o: find(o, "ledger/one/*/*.rows.parquet").unlink(),
        {"lineage"},
        "no such file",
    ),
    "a rows file is damaged": (
        lambda o: damage(find(o, "ledger/one/*/*.rows.parquet")),
        {"lineage"},
        "damaged",
    ),
    "a rows file is short": (shorten_rows_file, {"lineage"}, "were published"),
    "keys are gone": (
        lambda o: find(o, "ledger/one/*/*.keys.parquet").unlink(),
        {"keys"},
        "no such file",
    ),
    "rejects are gone": (
        lambda o: find(o, f"rejects/{RUN}-one/*").unlink(),
        {"rejects"},
        "no such file",
    ),
    "a reject is gone": (
        lambda o: rewrite(find(o, f"rejects/{RUN}-one/*"), lambda table: table[1:]),
        {"rejects"},
        "and 3 were written",
    ),
    "rejects have other bytes": (
        lambda o: write_again(find(o, f"rejects/{RUN}-one/*")),
        {"rejects"},
        "were written",
    ),
    "a rows file has other bytes": (
        lambda o: write_again(find(o, "ledger/one/*/*.rows.parquet")),
        {"lineage"},
        "were written",
    ),
    "keys have other bytes": (
        lambda o: write_again(find(o, "ledger/one/*/*.keys.parquet")),
        {"keys"},
        "were written",
    ),
    "a record's profile has another count": (
        change_profile,
        {"record"},
        "its SHA-256 is not that of its bytes",
    ),
    "the profile's large parts are damaged": (
        damage_extra,
        {"profile"},
        "has other bytes than were written",
    ),
    "a profile is gone": (
        lambda o: (o / layout.run_file(f"{RUN}-one", "profile.parquet")).unlink(),
        {"profile"},
        "no such file",
    ),
}


@pytest.mark.slow
def test_a_published_output_is_in_order(output: Path) -> None:
    """Each slice ends in a line with its files, rows, bytes and run; nothing is written."""
    before = read_tree(output)
    done = run_cli("verify", output)
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    for line, slice_ in zip(lines, ("one", "two"), strict=True):
        assert line.startswith("OK  9 files, 81 rows, ")
        assert f" as published by run {RUN}-{slice_} at 2026-11-20T" in line
    found = run_json("verify", output)
    assert (found["status"], found["exit_code"], found["problems"]) == ("ok", 0, [])
    total = sum(file["bytes"] for file in manifest_of(output)["files"])
    assert found["slices"][0] == {
        "slice": "one",
        "run": f"{RUN}-one",
        "finished": "2026-11-20T01:02:00+00:00",
        "published_at": "2026-11-20T01:02:00+00:00",
        "released_by": None,
        "files": 9,
        "rows": 81,
        "bytes": total,
        "status": "ok",
    }
    assert read_tree(output) == before


@pytest.mark.slow
@pytest.mark.parametrize(("spoil", "kinds", "words"), CASES.values(), ids=CASES.keys())
def test_what_is_wrong_is_reported(
    output: Path, spoil: Callable[[Path], Any], kinds: set[str], words: str
) -> None:
    """Each problem is reported by its kind, and the other slice is verified all the same."""
    spoil(output)
    before = read_tree(output)
    found = verify_output(Store(str(output)), None)
    assert {problem.kind for problem in found.problems} == kinds
    assert any(words in problem.detail for problem in found.problems), found.problems
    assert found.exit_code == 1
    two = next(each for each in found.slices if each.slice == "two")
    assert (two.status, two.rows) == ("ok", 81)
    assert read_tree(output) == before


def test_a_file_of_two_slices_is_reported(output: Path) -> None:
    """A file of two snapshots is reported, and so is that its manifest does not have it."""
    current = output / layout.slice_file("two", "current.txt")
    path = snapshot(Store(str(output)), "one")[0]
    current.write_text(current.read_text() + f"{path}\n")
    found = verify_output(Store(str(output)), None)
    assert [(p.kind, p.path) for p in found.shared] == [("shared", path)]
    assert "slices one, two" in found.shared[0].detail
    assert [each.status for each in found.slices] == ["ok", "failed"]


def test_an_interrupted_publish_makes_no_strangers(output: Path) -> None:
    """What a journal moves to data/, or will take from it, is awaited there."""
    target = "data/part=p0/new.parquet"
    files = tuple(snapshot(Store(str(output)), "one"))
    made = Publication("new", f"{RUN}-one", files, (target,), (("staged", target),), files, ())
    state(output, "journal.json").write_text(json.dumps(made.to_json()))
    shutil.copy(first_file(output), output / target)
    found = verify_output(Store(str(output)), None)
    assert [problem.kind for problem in found.problems] == ["journal"]


def test_one_slice_is_verified_alone(output: Path) -> None:
    """Of the others only what they own is looked at, and their problems are not reported."""
    first_file(output).unlink()
    store = Store(str(output))
    assert verify_output(store, "two").problems == []
    assert [each.slice for each in verify_output(store, "one").slices] == ["one"]
    assert verify_output(store, "one").exit_code == 1


def test_problems_are_printed(output: Path) -> None:
    """A line a problem with kind and path, a closing line a slice, exit 1; JSON has the same."""
    path = first_file(output)
    path.unlink()
    name = str(path.relative_to(output))
    done = run_cli("verify", output)
    lines = done.stdout.splitlines()
    assert done.exit_code == 1
    assert lines[0].split()[:2] == ["missing", name]
    assert lines[1].startswith("FAILED  9 files")
    assert ", 1 problem   one" in lines[1]
    assert lines[2].startswith("OK  ")
    found = run_json("verify", output)
    assert (found["status"], found["exit_code"]) == ("failed", 1)
    (problem,) = found["problems"]
    assert (set(problem), problem["kind"]) == ({"kind", "path", "detail"}, "missing")
    assert [each["status"] for each in found["slices"]] == ["failed", "ok"]


def test_nothing_published_is_reported(tmp_path: Path) -> None:
    """An output without a publication is an error with exit 2."""
    layout.claim_output(Store(str(tmp_path)))
    with pytest.raises(InvalidError, match="nothing is published yet"):
        verify_output(Store(str(tmp_path)), None)
    assert run_cli("verify", tmp_path).exit_code == 2


def test_an_empty_publication_is_in_order(tmp_path: Path) -> None:
    """A run that published no row leaves a slice that is in order."""
    table = make_rows(5).append_column("bad", [[False] * 5])
    write_shard(tmp_path / "in/0.parquet", table)
    publish_shards(tmp_path, filters=[[("id", "<=", 4), ("id", ">", 3), ("a", ">", 2.0)]])
    found = verify_output(Store(str(tmp_path / "out")), None)
    assert [(each.rows, each.status) for each in found.slices] == [(0, "ok")]


def test_a_publish_meanwhile_is_no_problem(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What changes under the eyes of `verify` is not called damaged: it is asked to look again."""

    def list_late(store: Store) -> set[str]:
        state(output, "_SUCCESS").write_text(f"{RUN}-two\n")
        return listed(store)

    listed = verify._list_data
    monkeypatch.setattr(verify, "_list_data", list_late)
    with pytest.raises(RetryError, match="verify again"):
        verify_output(Store(str(output)), None)
