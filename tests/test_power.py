"""Test that a power cut at any moment of a run leaves what was published, or what is to be."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from batchscore.commands.tidy import repair
from batchscore.commands.verify import verify_output
from batchscore.storage.store import Store
from tests.factory import read_tree, run_cli, write_job
from tests.power import Cut, Moment, Recorder, lay_out

pytestmark = pytest.mark.slow

SLICE = "small"
CURRENT = f"_batchscore/slices/{SLICE}/current.txt"
Files = dict[str, bytes]


@dataclass
class Trace:
    """Commands that were recorded one after another, and what each of them published."""

    root: int
    job: Path
    phases: list[tuple[list[Moment], Files, Files]] = field(default_factory=list)


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    """A first publication, one that replaces and adds files, and its rollback."""
    folder = tmp_path_factory.mktemp("power")
    (folder / "disk").mkdir()
    changes = {
        "output.path": "disk/out",
        "output.partition_by": ["part"],
        "rejects": {"max_ratio": 0.5},
        "checks": {"unique": ["id"]},
        "on_change": {"rewritten_shards": "rescore"},
    }
    job = write_job(folder, changes)
    _write_shard(folder, 300)
    trace = Trace((folder / "disk").stat().st_ino, job)
    _record(trace, folder, "run", job)
    _write_shard(folder, 301)
    second = _record(trace, folder, "run", job)
    _record(trace, folder, "rollback", folder / "disk/out", "--undo", second)
    return trace


def _write_shard(folder: Path, rows: int) -> None:
    """Writes the second shard, with two rows to reject."""
    from tests.factory import write_shard
    from tests.spoils import with_nan

    write_shard(folder / "in/1.parquet", with_nan(2).slice(0, rows - 120))


def _record(trace: Trace, folder: Path, *words: object) -> str:
    output = folder / "disk/out"
    before = visible(output)
    recorder = Recorder(folder / "disk")
    with recorder.recording():
        done = run_cli(*words)
    assert done.exit_code == 0, done.output
    trace.phases.append((recorder.moments, before, visible(output)))
    return (output / f"_batchscore/slices/{SLICE}/_SUCCESS").read_text().strip()


def visible(output: Path) -> Files:
    """The files that current.txt lists, with their bytes."""
    path = output / CURRENT
    listed = path.read_text().splitlines() if path.exists() else []
    return {file: (output / file).read_bytes() for file in listed}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one, since hundreds of trees are laid out."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as folder:
        yield Path(folder) / "disk"


def cuts(trace: Trace, phase: int) -> Iterator[tuple[str, Cut]]:
    """All that may be there after a power cut in a phase, each once."""
    seen = set()
    for moment in trace.phases[phase][0]:
        for cut in moment.cuts(trace.root):
            key = hash(tuple(sorted(cut.items())))
            if key not in seen:
                seen.add(key)
                yield moment.step, cut


@pytest.mark.parametrize("phase", range(3), ids=["first", "second", "rollback"])
def test_a_power_cut_leaves_the_old_snapshot_or_the_new(
    trace: Trace, phase: int, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each moment readers see all of one of them, and once put in order it verifies."""
    # What is put in order here is not cut off again.
    monkeypatch.setattr(os, "fsync", lambda _: None)
    _, old, new = trace.phases[phase]
    good = set[int]()
    for step, cut in cuts(trace, phase):
        output = lay_out(cut, disk) / "out"
        assert visible(output) in (old, new), step
        store = Store(str(output))
        repair(store, SLICE, lambda: True)
        tree = read_tree(output)
        if (state := hash(tuple(tree.items()))) not in good:
            _check(store, output, (old, new), step)
            good.add(state)
        shutil.rmtree(disk)


def _check(store: Store, output: Path, expected: tuple[Files, ...], step: str) -> None:
    found = visible(output)
    assert found in expected, step
    data = {str(path.relative_to(output)) for path in output.glob("data/**/*.parquet")}
    assert data == set(found), step
    assert not found or [*verify_output(store, None).problems] == [], step


def test_what_was_published_is_on_disk(trace: Trace) -> None:
    """Once a command has ended, nothing but what it published can be there after a power cut."""
    for moments, _, new in trace.phases:
        for cut in moments[-1].cuts(trace.root):
            listed = cut[f"out/{CURRENT}"].decode().splitlines()
            assert {file: cut[f"out/{file}"] for file in listed} == new


def test_a_run_after_a_power_cut_publishes(trace: Trace, disk: Path) -> None:
    """Whatever was lost is scored again, and what was not is kept."""
    moments, _, new = trace.phases[1]
    renames = [moment for moment in moments if "os.rename" in moment.step]
    for moment in (renames[len(renames) // 3], renames[-3]):
        output = lay_out([*moment.cuts(trace.root)][3], disk) / "out"
        # Its holder is this process, which outlived the power cut.
        shutil.rmtree(output / f"_batchscore/slices/{SLICE}/lease")
        done = run_cli("run", trace.job, "--set", f"output.path={output}")
        assert done.exit_code == 0, done.output
        assert _rows(output) == sum(
            pq.read_metadata(pa.BufferReader(d)).num_rows for d in new.values()
        )
        assert [*verify_output(Store(str(output)), None).problems] == []
        shutil.rmtree(disk)


def _rows(output: Path) -> int:
    return int(ds.dataset(output / "data", partitioning="hive").count_rows())
