"""Test commands on a slice whose manifests refer to segments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from batchscore.storage.store import Store
from tests.factory import change_job, make_rows, published, run_json, write_shard

pytestmark = pytest.mark.slow


@pytest.fixture
def nights(scored_job: Path) -> tuple[Path, list[dict[str, Any]]]:
    """A job's folder after two more nights, and what its runs printed."""
    made = [run_json("show", scored_job / "out")]
    for night in (2, 3):
        write_shard(scored_job / f"in/{night}.parquet", make_rows(100, 300 + 100 * night))
        made.append(run_json("run", scored_job / "job.yaml"))
        assert made[-1]["status"] == "published", made[-1]
    return scored_job, made


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("out/_batchscore/slices/*/segments/*.json"))


def raw(folder: Path, run: str) -> dict[str, Any]:
    found: dict[str, Any] = Store(str(folder / "out")).read_json(
        f"_batchscore/runs/{run}/manifest.json"
    )
    return found


def test_every_command_sees_whole_lists(nights: tuple[Path, list[dict[str, Any]]]) -> None:
    """A manifest on disk lists its own unit; run, show, runs, verify and trace know of all."""
    folder, made = nights
    last, out = made[-1], folder / "out"
    assert len(raw(folder, last["run"])["own"]["units"]) == 1
    assert len(segments(folder)) == 2
    shown = run_json("show", out)
    assert [len(shown[key]) for key in ("inputs", "shards")] == [4, 4]
    assert {key: last[key] for key in ("units", "files", "inputs", "rejects")} == {
        key: shown[key] for key in ("units", "files", "inputs", "rejects")
    }
    history: Any = run_json("runs", out)
    assert [each["units"] for each in history] == [m["units"] for m in made[::-1]]
    assert run_json("verify", out)["problems"] == []
    assert run_json("run", folder / "job.yaml")["status"] == "unchanged"
    for row, by in ((0, made[0]), (550, made[1]), (650, made[2])):
        (found,) = run_json("trace", out, f"id={row}")["matches"]
        assert found["scored_by"] == by["run"]


def test_runs_are_taken_back_across_segments(nights: tuple[Path, list[dict[str, Any]]]) -> None:
    """A night in the middle goes, and comes back; its own manifest keeps its form."""
    folder, made = nights
    out, run = folder / "out", made[1]["run"]
    undone = run_json("rollback", out, "--undo", run)
    assert sorted(published(out).column("id").to_pylist()) == [*range(500), *range(600, 700)]
    assert "own" in raw(folder, run)
    assert run_json("show", out, run)["units"] == made[1]["units"]
    assert run_json("show", out)["units"] == undone["units"]
    run_json("rollback", out, "--undo", undone["run"])
    assert sorted(published(out).column("id").to_pylist()) == [*range(700)]
    assert run_json("show", out)["units"] == made[2]["units"]
    assert run_json("verify", out)["problems"] == []


def test_a_held_night_is_released(scored_job: Path) -> None:
    """What a held run keeps of its base lies in segments too, before and after its release."""
    change_job(scored_job, {"checks.score_range": [0.9, 1]})
    write_shard(scored_job / "in/2.parquet", make_rows(100, 500))
    held = run_json("run", scored_job / "job.yaml")
    assert (held["status"], held["files"], len(held["inputs"])) == ("held", [], 3)
    assert len(raw(scored_job, held["run"])["own"]["inputs"]) == 0
    shown = run_json("show", scored_job / "out", held["run"])
    assert (shown["units"], shown["files"]) == (held["units"], [])
    done = run_json("release", scored_job / "out", held["run"], "--reason", "fine")
    assert (done["units"], len(done["files"])) == (held["units"], len(segments(scored_job)) + 1)
    assert run_json("verify", scored_job / "out")["problems"] == []


def test_a_damaged_segment_is_named_and_replaced(
    nights: tuple[Path, list[dict[str, Any]]],
) -> None:
    """The error of a run says which segment is damaged, and that `--rescore` helps, as it does."""
    folder, _ = nights
    broken = segments(folder)[0]
    broken.write_bytes(b"{}")
    for args in (("run", folder / "job.yaml"), ("show", folder / "out", nights[1][-1]["run"])):
        found = run_json(*args)
        assert (found["exit_code"], "--rescore" in found["error"]) == (1, True)
        assert str(broken) in found["error"]
    assert run_json("run", folder / "job.yaml", "--rescore")["status"] == "published"
    assert run_json("verify", folder / "out")["problems"] == []
