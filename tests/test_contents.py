"""Test that nothing is published whose bytes are not those that were scored and checked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batchscore.commands.decide import release, undo
from batchscore.commands.tidy import repair
from batchscore.errors import FailedError, InvalidError
from batchscore.job import load_job
from batchscore.plan import make_plan, settle
from batchscore.runs import layout
from batchscore.runs.history import read_manifest
from batchscore.runs.manifest_model import decode_manifest
from batchscore.runs.publication import journal_path
from batchscore.runs.segments import expand
from batchscore.storage.store import Store
from tests.factory import (
    change_job,
    make_rows,
    published,
    run_cli,
    run_json,
    write_job,
    write_shard,
)
from tests.spoils import published_bytes, with_nan

pytestmark = pytest.mark.slow

SLICE = "small"


def flip(path: Path, _: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path, _: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def empty(path: Path, _: Path) -> None:
    path.write_bytes(b"")


def exchange(path: Path, other: Path) -> None:
    path.write_bytes(other.read_bytes())


Damage = Callable[[Path, Path], None]
DAMAGES: list[Damage] = [flip, cut, empty, exchange]
# Where the files of a unit that was scored and not published are; the second takes another's place.
KINDS = {
    "scored": "staging/small/*/0000.parquet",
    "rejects": "rejects/{run}/*.parquet",
    "rows": "ledger/small/*/*.rows.parquet",
    "keys": "ledger/small/*/*.keys.parquet",
    "profile": "runs/{run}/profile.parquet",
    "extra": "runs/{run}/profile.extra.parquet",
}
RECORD = {"record": "ledger/small/*/" + "[0-9a-f]" * 16 + ".parquet"}


class Output:
    """An output whose first run is published and whose second is held, kept to be copied."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        changes = {
            "rejects": {"max_ratio": 0.5},
            "checks": {"unique": ["id"], "score_range": [0, 1]},
            "output.partition_by": ["part"],
        }
        self.first = str(run_json("run", write_job(folder, changes))["run"])
        before = set((folder / "out/_batchscore").rglob("*.parquet"))
        write_shard(folder / "in/2.parquet", with_nan(3).slice(0, 100))
        write_shard(folder / "in/2.parquet", _renumbered(with_nan(3).slice(0, 100)))
        change_job(folder, {"checks.score_range": [0.9, 1]})
        self.held = str(run_json("run", folder / "job.yaml")["run"])
        change_job(folder, {"checks.score_range": [0, 1]})
        self._new = set((folder / "out/_batchscore").rglob("*.parquet")) - before

    def place(self, kind: str, output: Path) -> tuple[Path, Path]:
        """Returns the file of a kind that only the held run has, in a copy, and another file."""
        home = self.folder / "out/_batchscore"
        pattern = {**KINDS, **RECORD}[kind].format(run=self.held)
        found = next(path for path in sorted(home.glob(pattern)) if path in self._new)
        other = next(path for path in sorted(self._new) if path.stat().st_size and path != found)
        return output / found.relative_to(self.folder / "out"), other


def _renumbered(table: Any) -> Any:
    return table.set_column(0, "id", make_rows(table.num_rows, 900)["id"])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Output:
    """One output for all tests here, of which each takes a copy."""
    return Output(tmp_path_factory.mktemp("contents"))


@pytest.fixture
def output(made: Output, tmp_path: Path) -> Path:
    """A copy of the output."""
    return Path(shutil.copytree(made.folder / "out", tmp_path / "out"))


def readers_see(output: Path) -> dict[str, bytes]:
    return published_bytes(output.parent)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda each: each.__name__)
def test_a_release_publishes_no_damaged_file(
    made: Output, output: Path, kind: str, damage: Damage
) -> None:
    """It fails, names the file, and readers see what they saw."""
    path, other = made.place(kind, output)
    damage(path, other)
    before = readers_see(output)
    name = str(path.relative_to(output))
    with pytest.raises(FailedError, match=rf"{name} .*nothing was published. Run the job again"):
        release(Store(str(output)), made.held, SLICE, "why")
    assert readers_see(output) == before


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda each: each.__name__)
def test_a_publication_that_was_cut_off_publishes_no_damaged_file(
    made: Output, output: Path, kind: str, damage: Damage
) -> None:
    """Whoever rolls it forward takes it back, and nothing is left of it among the data."""
    store = Store(str(output))
    held = store.read_json(layout.run_file(made.held, "held.json"))
    journal = journal_path(SLICE, made.held)
    store.write_json(journal, held)
    path, other = made.place(kind, output)
    damage(path, other)
    before = readers_see(output)
    repair(store, SLICE, lambda: True)
    assert readers_see(output) == before
    assert not store.exists(journal)
    path.write_bytes((made.folder / "out" / path.relative_to(output)).read_bytes())
    store.write_json(journal, held)
    repair(store, SLICE, lambda: True)
    assert len(readers_see(output)) > len(before)


@pytest.mark.parametrize("kind", ["scored", "rejects", "rows", "keys", "record"])
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda each: each.__name__)
def test_a_damaged_unit_is_not_resumed(
    made: Output, output: Path, kind: str, damage: Damage
) -> None:
    """A run scores it again, and says which file was damaged."""
    sets = [f"output.path={output}"]
    plan = make_plan(load_job(str(made.folder / "job.yaml"), overrides=sets))
    assert len(settle(plan, read=True).resumed) == 1
    path, other = made.place(kind, output)
    damage(path, other)
    work = settle(plan, read=True)
    assert (work.resumed, len(work.units)) == ({}, 1)
    assert [*work.damaged] == [str(path.relative_to(output))]
    (reported,) = [check for check in work.checks if check.name == "damaged_files"]
    assert reported.passed
    assert f"{path.relative_to(output)} " in reported.detail


@pytest.mark.parametrize("kind", ["scored", "rejects", "profile", "record"])
def test_the_remedy_of_a_refused_release_works(
    made: Output, output: Path, kind: str, tmp_path: Path
) -> None:
    """The next run scores again what was damaged, says so, and publishes every row."""
    path, other = made.place(kind, output)
    if kind == "rejects":
        path.unlink()
    else:
        flip(path, other)
    if kind != "record":
        done = run_cli("release", output, made.held, "--reason", "why")
        assert (done.exit_code, done.stdout) == (1, "")
    again = run_cli("run", made.folder / "job.yaml", "--set", f"output.path={output}")
    assert again.exit_code == 0, again.output
    why = "scored again, since files are damaged: 1"
    assert (why in again.stdout.splitlines()[1]) == (kind != "profile")
    reported = f"SCORED AGAIN  {path.relative_to(output)}"
    assert run_cli("show", output).stdout.count(reported) == (kind != "profile")
    table = published(output)
    assert len(set(table["id"].to_pylist())) == len(table) == 500 + 100 - 3
    assert run_cli("verify", output).exit_code == 0


@pytest.fixture(scope="module")
def replaced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """An output whose run was replaced by another, and the later run."""
    folder = tmp_path_factory.mktemp("replaced")
    changes = {"rejects": {"max_ratio": 0.5}, "checks": {"unique": ["id"]}}
    write_job(folder, changes)
    write_shard(folder / "in/1.parquet", with_nan(2))
    run_json("run", folder / "job.yaml")
    run = str(run_json("run", folder / "job.yaml", "--rescore")["run"])
    return folder / "out", run


RETIRED: dict[str, Callable[[dict[str, Any]], str]] = {
    "scored": lambda m: layout.retired(m["run"], m["replaced"][0]),
    "rejects": lambda m: m["base_unit"]["rejects_file"],
    "rows": lambda m: m["base_unit"]["rows_file"],
    "keys": lambda m: m["base_unit"]["keys_file"],
}


@pytest.mark.parametrize("kind", RETIRED)
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda each: each.__name__)
def test_no_damaged_file_comes_back(
    replaced: tuple[Path, str], tmp_path: Path, kind: str, damage: Damage
) -> None:
    """A rollback whose files are not as they were published is refused and changes nothing."""
    output = Path(shutil.copytree(replaced[0], tmp_path / "out"))
    store, run = Store(str(output)), replaced[1]
    manifest = read_manifest(store, run)
    base = read_manifest(store, str(manifest.base))
    path = RETIRED[kind]({**manifest.document, "base_unit": base.document["units"][0]})
    damage(output / path, output / layout.run_file(run, "profile.parquet"))
    before = readers_see(output)
    with pytest.raises(InvalidError, match=rf"{path} .*would bring it back"):
        undo(store, run, SLICE, None)
    assert readers_see(output) == before


def test_records_without_digests_are_compared_with_what_is_known(
    made: Output, output: Path
) -> None:
    """Of a held run that an earlier version scored, sidecars must be there and not be empty."""
    store = Store(str(output))
    path = layout.run_file(made.held, "held.json")
    held = json.loads(store.read(path))
    whole = expand(store, decode_manifest(held["documents"][0][1], made.held))
    manifest = held["documents"][0][1] = whole.document
    for unit in manifest["units"]:
        del unit["sidecars"]
    del manifest["profile_files"]
    store.write_json(path, held)
    rows, _ = made.place("rows", output)
    kept = rows.read_bytes()
    rows.write_bytes(b"")
    with pytest.raises(FailedError, match=r"rows\.parquet is empty"):
        release(store, made.held, SLICE, "why")
    rows.write_bytes(kept)
    assert release(store, made.held, SLICE, "why").status == "published"
