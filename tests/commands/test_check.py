"""`check` tells what a run would do, and leaves no trace of having looked."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from batchscore.runs import layout
from batchscore.runs.lease import acquire
from batchscore.storage.store import Store
from tests import factory
from tests.outputs import write_plan

pytestmark = pytest.mark.slow


@pytest.fixture
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """Units of 100 rows."""
    monkeypatch.setattr("batchscore.plan.work.UNIT_ROWS", 100)


def write_job(folder: Path) -> Path:
    """A job with functions, which are imported from its folder."""
    (folder / "steps.py").write_text("def same(batch):\n    return batch\n")
    return factory.write_job(folder, {"preprocess": {"function": "steps.py:same"}})


@pytest.mark.parametrize("published", [False, True])
@pytest.mark.parametrize("options", [(), ("--probe",), ("--json",)])
def test_check_writes_nothing(options: tuple[str, ...], published: bool, tmp_path: Path) -> None:
    """Job, input, model and output are the same after a check, with and without a probe."""
    job = write_job(tmp_path)
    if published:
        assert factory.run_cli("run", job).exit_code == 0
    before = factory.read_tree(tmp_path)
    folders = {path for path in tmp_path.rglob("*") if path.is_dir()}
    output = tmp_path / ("out" if published else "new/folder/out")
    done = factory.run_cli("check", job, *options, "--set", f"output.path={output}")
    assert done.exit_code == 0, done.output
    assert factory.read_tree(tmp_path) == before
    assert {path for path in tmp_path.rglob("*") if path.is_dir()} == folders


@pytest.mark.parametrize("options", [(), ("--probe",)])
def test_check_leaves_nothing_in_an_object_store(options: tuple[str, ...], tmp_path: Path) -> None:
    """In a store without folders, the objects and prefixes are the same after a check."""
    files = fsspec.filesystem("memory")
    before = (set(files.store), set(files.pseudo_dirs))
    output = f"memory://{tmp_path.name}/new/out"
    job = write_job(tmp_path)
    done = factory.run_cli("check", job, "--set", f"output.path={output}", *options)
    assert done.exit_code == 0, done.output
    assert (set(files.store), set(files.pseudo_dirs)) == before


def test_check_tells_what_a_run_would_do(tmp_path: Path, small_units: None) -> None:
    """The lines hold shards, rows, bytes, units, choices, a table of stages, and an estimate."""
    factory.write_job(tmp_path)
    done = factory.run_cli("check", tmp_path / "job.yaml")
    size = sum(path.stat().st_size for path in (tmp_path / "in").iterdir())
    for words in (
        "OK   small   nothing was written",
        f"input   2 shards, 500 rows, {size / 1000:.1f} kB",
        "units   2 to score, 500 rows; 0 reused, 0 rows",
        "model   small 1.0, 2 files, SHA-256 as pinned",
        f"output  {tmp_path}/out",
        "workers     1",
        "id int64, a float, b double, part string, score float, model_version string",
        "estimate: about 500 rows, about ",
        "(start-up ",
    ):
        assert words in done.stdout
    for stage in ("read", "preprocess", "infer", "postprocess", "profile", "write"):
        assert any(line.startswith(f"{stage} ") for line in done.stdout.splitlines())


def test_check_as_json(tmp_path: Path) -> None:
    """The same findings come as one JSON document."""
    found = factory.run_json("check", factory.write_job(tmp_path))
    assert (found["status"], found["exit_code"]) == ("ok", 0)
    assert (found["shards"], found["rows"], found["units"], found["unit_rows"]) == (2, 500, 1, 500)
    assert found["bytes"] == sum(path.stat().st_size for path in (tmp_path / "in").iterdir())
    assert (found["batch"]["rows"], found["batch"]["scored"]) == (500, 500)
    estimate = found["estimated_phases"]
    assert found["estimated_seconds"] == pytest.approx(sum(estimate.values()))
    assert min(estimate[phase] for phase in ("start_up", "planning", "loading", "scoring")) > 0
    assert found["published_by"] is None


def test_an_estimate_counts_what_an_earlier_run_took_in_addition(tmp_path: Path) -> None:
    """Starting workers and publishing are as long as last time, of this slice or of another."""
    job = factory.write_job(tmp_path, {"params": {"day": {"type": "date"}}})
    first, second = (("--param", f"day=2026-01-0{day}") for day in (1, 2))
    assert "publishing" not in factory.run_json("check", job, *first)["estimated_phases"]
    words = "); starting workers and publishing are not included"
    assert factory.run_cli("check", job, *first).stdout.splitlines()[-1].endswith(words)
    took = factory.run_json("run", job, *first)["phases"]
    factory.write_shard(tmp_path / "in/2.parquet", factory.make_rows(10, 500))
    for slice_ in (first, second):
        found = factory.run_json("check", job, *slice_)
        assert found["estimated_phases"]["publishing"] == took["publishing"]
        assert found["estimated_phases"]["loading"] >= took["loading"]
        assert found["estimated_seconds"] == pytest.approx(sum(found["estimated_phases"].values()))
        shown = factory.run_cli("check", job, *slice_).stdout.splitlines()[-1]
        assert shown.endswith(f"publishing {took['publishing']:.1f})")


def test_check_knows_what_is_published(tmp_path: Path) -> None:
    """After a run, a check says that another would do nothing, and names the run."""
    job = factory.write_job(tmp_path)
    run = factory.run_json("run", job)["run"]
    assert factory.run_json("check", job)["published_by"] == run
    words = f"a run would do nothing: run {run} already published the same"
    assert words in factory.run_cli("check", job).stdout


def test_check_counts_what_a_filter_skips(tmp_path: Path) -> None:
    """Row groups that the filter excludes by their statistics are reported, and never read."""
    job = factory.write_job(tmp_path, {"input.filters": [["id", ">=", 300]]})
    found = factory.run_json("check", job)
    assert (found["rows"], found["pruned_rows"], found["unit_rows"]) == (500, 300, 200)
    assert found["batch"]["rows"] == 200


def test_check_tells_of_rejects(tmp_path: Path) -> None:
    """Rows of the tried batch that would be rejected are counted with their reason."""
    job = factory.write_job(tmp_path)
    rows = factory.make_rows(10, 300).to_pydict()
    rows["a"][3] = None
    factory.write_shard(tmp_path / "in/0.parquet", pa.table(rows))
    found = factory.run_json("check", job)["batch"]
    assert found["scored"] == found["rows"] - 1
    assert list(found["reject_reasons"].values()) == [1]
    assert "rejected 1" in factory.run_cli("check", job).stdout


def test_check_names_golden_rows_that_hold_a_run(tmp_path: Path) -> None:
    """If golden rows give other scores, the verdict says so, and nothing of an empty input."""
    job = factory.write_job(tmp_path)
    rows = pa.array([[0.0, 0.0]], pa.list_(pa.float32(), 2))
    golden = pa.table({"x": rows, "logit": [99.0]})
    factory.write_model(tmp_path / "model", tables={"g.parquet": golden}, golden="g.parquet")
    done = factory.run_cli("check", job)
    assert done.exit_code == 3
    assert done.stdout.splitlines()[-1].endswith(
        "(exit 3), for the reasons under HELD: golden_rows"
    )
    assert "0 rows to score" not in done.stdout


def spoil(folder: Path, rows: int, first: int, wrong: int) -> None:
    """Write the second shard with that many rows, of which some have no value to score."""
    table = factory.make_rows(rows, first).to_pydict()
    table["a"][:wrong] = [None] * wrong
    factory.write_shard(folder / "in/1.parquet", pa.table(table))


def ends(job: Path) -> tuple[int, int]:
    """The exit codes of a check, and of the run after it."""
    return factory.run_cli("check", job).exit_code, factory.run_cli("run", job).exit_code


@pytest.mark.parametrize(
    ("rejects", "words"),
    [
        ({}, "2.0000%; rejects.max_ratio allows 0.1000%"),
        ({"max_ratio": 1, "max_rows": 9}, "2.0000%; rejects.max_ratio allows 100.0000%, "),
    ],
)
def test_check_fails_where_too_many_rows_of_the_batch_are_rejected(
    rejects: dict[str, float], words: str, tmp_path: Path
) -> None:
    """It ends with 1, as the run does, and counts the rejects of the first rows with their reason.

    Also where the rows are bad alone and the batch is halved.
    """
    job = factory.write_job(tmp_path, {"rejects": rejects})
    spoil(tmp_path, 200, 300, 10)
    found = factory.run_json("check", job)
    assert (found["status"], found["exit_code"]) == ("failed", 1)
    (failed,) = (check for check in found["checks"] if not check["passed"])
    assert failed["detail"].startswith("in the first 500 rows: 10 of 500 rows were rejected, ")
    assert words in failed["detail"]
    shown = factory.run_cli("check", job).stdout.splitlines()
    assert shown[0].startswith("FAILED   small")
    assert shown[-1] == "a run would fail (exit 1), for the reasons under FAILED: rejects"
    assert ends(job) == (1, 1)


def test_check_says_that_other_rows_may_be_better(tmp_path: Path, small_units: None) -> None:
    """Where the batch is not all of the input its share of rejects is not sure to be the run's."""
    job = factory.write_job(tmp_path, {"runtime.batch_rows": 100, "rejects.max_ratio": 0.05})
    spoil(tmp_path, 200, 300, 0)
    (tmp_path / "in/0.parquet").rename(tmp_path / "in/2.parquet")
    spoil(tmp_path, 200, 300, 10)
    done = factory.run_cli("check", job)
    assert done.exit_code == 1
    assert done.stdout.splitlines()[-1].endswith(
        "FAILED: rejects, if the rest of the 500 rows are like the first"
    )
    # It is a forecast: all rows taken together are within the bound.
    assert factory.run_cli("run", job).exit_code == 0


@pytest.mark.parametrize(
    ("changes", "name", "words"),
    [
        ({"checks.score_range": [0.9, 1.0]}, "score_range", "allowed is 0.9 to 1"),
        ({"checks.unique": ["part"]}, "unique", "row 3 of "),
        ({"checks.accepted": {"part": ["p1", "p2"]}}, "accepted", "'p0' in row 3 of "),
    ],
)
def test_check_is_held_where_the_batch_fails_a_check(
    changes: dict[str, object], name: str, words: str, tmp_path: Path
) -> None:
    """What some rows settle for all of them ends a check with 3, as the run after it."""
    job = factory.write_job(tmp_path, {**changes, "input.filters": [["id", ">=", 3]]})
    found = factory.run_json("check", job)
    assert (found["status"], found["exit_code"]) == ("held", 3)
    (failed,) = (check for check in found["checks"] if not check["passed"])
    assert (failed["name"], failed["status"]) == (name, "held")
    assert failed["detail"].startswith("in the first 497 rows: ")
    assert words in failed["detail"]
    assert factory.run_cli("check", job).stdout.splitlines()[-1].endswith(f"HELD: {name}")
    assert ends(job) == (3, 3)


def test_check_is_held_where_the_plan_fails_a_check(tmp_path: Path) -> None:
    """Other columns than published, and too few rows, are seen before anything is scored."""
    job = factory.write_job(tmp_path, {"on_change.removed_shards": "remove"})
    assert ends(job) == (0, 0)
    factory.change_job(tmp_path, {"output.columns": ["id"]})
    assert [c["name"] for c in factory.run_json("check", job)["checks"] if not c["passed"]] == [
        "schema"
    ]
    assert ends(job) == (3, 3)
    factory.change_job(tmp_path, {"output.columns": None})
    (tmp_path / "in/0.parquet").unlink()
    assert [c["name"] for c in factory.run_json("check", job)["checks"] if not c["passed"]] == [
        "volume"
    ]
    assert ends(job) == (3, 3)


@pytest.mark.parametrize(("rows", "code"), [(2000, 0), (100, 3)])
def test_a_filter_leaves_no_more_rows_than_there_are(rows: int, code: int, tmp_path: Path) -> None:
    """With a filter too few rows are certain, too many are not."""
    bounds = {"min_ratio": 0.5, "max_ratio": 1.5}
    changes = {"checks.rows": bounds, "input.filters": [["b", "<=", 2]]}
    job = factory.write_job(tmp_path, {**changes, "on_change": {"rewritten_shards": "rescore"}})
    assert factory.run_cli("run", job).exit_code == 0
    (tmp_path / "in/1.parquet").unlink()
    factory.write_shard(tmp_path / "in/0.parquet", factory.make_rows(rows))
    factory.change_job(tmp_path, {"on_change.removed_shards": "remove"})
    assert factory.run_cli("check", job).exit_code == code


def test_check_of_a_slice_in_use_ends_as_the_run_would(tmp_path: Path) -> None:
    """Another run holds the slice: both end with 4, and the check still says what it found."""
    job, store = factory.write_job(tmp_path), Store(str(tmp_path / "out"))
    layout.claim_output(store)
    with acquire(store, "small", "run", "20261120-aaaa"):
        done = factory.run_cli("check", job)
        assert ends(job) == (4, 4)
    assert done.stdout.startswith("RETRY   small")
    assert "one batch of 500 rows: 500 scored" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("a run would end immediately (exit 4, ")
    assert ends(job) == (0, 0)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"drift.reference": {"file": "gone.parquet"}}, 2),
        ({"input.ready": "_READY"}, 4),
        ({"output.path": "model/weights.safetensors"}, 2),
        ({"input.filters": [["id", ">", 900]]}, 3),
    ],
    ids=["reference", "not ready", "a file", "no rows"],
)
def test_check_and_run_refuse_alike(changes: dict[str, object], code: int, tmp_path: Path) -> None:
    """What is wrong before any work ends both with the same code."""
    assert ends(factory.write_job(tmp_path, changes)) == (code, code)


def write_step(folder: Path, body: str) -> None:
    """Write the function of a job that `write_job` wrote."""
    (folder / "steps.py").write_text(f"def same(batch):\n    {body}\n")


@pytest.mark.parametrize("what", ["function", "rows", "shard"])
def test_a_batch_that_fails_as_a_whole_fails_both(what: str, tmp_path: Path) -> None:
    """A broken function, a batch without one good row and a damaged shard end both with 1."""
    job = write_job(tmp_path)
    if what == "function":
        write_step(tmp_path, "raise ValueError('no')")
    elif what == "rows":
        spoil(tmp_path, 200, 300, 200)
        (tmp_path / "in/0.parquet").unlink()
    else:
        damaged = bytearray((tmp_path / "in/0.parquet").read_bytes())
        damaged[40:200] = b"\xff" * 160
        (tmp_path / "in/0.parquet").write_bytes(damaged)
    assert ends(job) == (1, 1)
    assert factory.run_json("check", job)["status"] == "failed"


@pytest.mark.parametrize("body", ["raise ValueError('no')", "return batch.column('gone')", "("])
def test_a_held_change_holds_a_check_whose_function_is_broken(body: str, tmp_path: Path) -> None:
    """A held run does not call the function: both end with 3, and the check says what is broken."""
    job = write_job(tmp_path)
    assert ends(job) == (0, 0)
    factory.change_job(tmp_path, {"on_change": {"model": "hold"}})
    write_step(tmp_path, body)
    assert ends(job) == (3, 3)
    shown, found = factory.run_cli("check", job).stdout, factory.run_json("check", job)
    assert f"later       {found['later']}" in shown
    code = factory.run_cli("run", job, "--set", "on_change.model=rescore").exit_code
    assert found["later"].startswith(f"a run that scores would end with exit code {code}: function")


def test_what_only_a_run_that_scores_needs_fails_no_other_check(tmp_path: Path) -> None:
    """A GPU that is not there fails neither a run with nothing to do nor one that has to wait."""
    job, store = factory.write_job(tmp_path), Store(str(tmp_path / "out"))
    assert ends(job) == (0, 0)
    factory.change_job(tmp_path, {"runtime": {"device": "cuda:7"}})
    assert ends(job) == (0, 0)
    assert "later       a run that scores would end with exit code 2: runtime.device" in (
        factory.run_cli("check", job).stdout
    )
    factory.write_shard(tmp_path / "in/2.parquet", factory.make_rows(10, 500))
    with acquire(store, "small", "run", "20261120-aaaa"):
        assert ends(job) == (4, 4)
    assert ends(job) == (2, 2)


def test_a_killed_run_that_left_nothing_to_score_changes_no_ending(tmp_path: Path) -> None:
    """The next run closes it without a model, a device or functions that it has no use for."""
    job, store = factory.write_job(tmp_path), Store(str(tmp_path / "out"))
    assert ends(job) == (0, 0)
    factory.change_job(tmp_path, {"runtime": {"device": "cuda:7"}})
    slice_ = factory.run_json("show", job)["slice"]
    facts = {"job": "small", "slice": slice_, "score": "", "started": "2026-11-20T01:00:00+00:00"}
    write_plan(store, "20261120-aaaa", facts)
    with acquire(store, slice_, "run", "20261120-aaaa"):
        path = max((tmp_path / "out/_batchscore/slices" / slice_ / "lease").iterdir())
        killed = path.read_bytes()
    path.write_bytes(killed.replace(b'"pid": ', b'"pid": 1'))
    assert ends(job) == (0, 0)
    assert not store.exists(layout.plan_file("20261120-aaaa"))


@pytest.mark.parametrize(("wrong", "code"), [(3, 0), (8, 1), (10, 1)])
def test_a_check_judges_late_rows_together_with_those_scored_before(
    wrong: int, code: int, tmp_path: Path
) -> None:
    """The batch is of the rows to score; of all 510 rows at most 1% may be rejected."""
    job = factory.write_job(tmp_path, {"rejects.max_ratio": 0.01})
    assert ends(job) == (0, 0)
    late = factory.make_rows(10, 500).to_pydict()
    late["a"][:wrong] = [None] * wrong
    factory.write_shard(tmp_path / "in/2.parquet", pa.table(late, factory.make_rows(1).schema))
    assert factory.run_json("check", job)["batch"]["scored"] == 10 - wrong
    assert ends(job) == (code, code)


def test_late_rows_that_the_filter_leaves_out_hold_nothing(tmp_path: Path) -> None:
    """Where no row to score is left, check and run go by the rows that were scored before."""
    filters = [[["id", "<", 500]], [["id", "==", 505]]]
    job = factory.write_job(tmp_path, {"input.filters": filters})
    assert ends(job) == (0, 0)
    late = factory.make_rows(10, 500)
    # The statistics of the shard allow for an id of 505, which no row has.
    factory.write_shard(tmp_path / "in/2.parquet", late.filter(pc.not_equal(late["id"], 505)))
    assert factory.run_json("check", job)["unit_rows"] == 9
    assert ends(job) == (0, 0)


def test_no_row_at_all_is_judged_as_the_run_judges_it(tmp_path: Path) -> None:
    """An empty result that the job allows is too few rows where 500 are published."""
    job = factory.write_job(tmp_path)
    assert ends(job) == (0, 0)
    factory.change_job(tmp_path, {"input.filters": [["id", ">", 900]], "input.allow_empty": True})
    assert ends(job) == (3, 3)
    shown = factory.run_cli("check", job).stdout.splitlines()
    assert shown[-1].endswith("reasons under HELD: volume")
    factory.change_job(tmp_path, {"checks.rows": {"min_ratio": 0}})
    assert ends(job) == (0, 0)


def test_a_network_of_the_job_that_reads_an_unlisted_file_is_refused(tmp_path: Path) -> None:
    """Its forward is code of the job, also where it would do without the file."""
    job, weights = factory.write_job(tmp_path), tmp_path / "w.safetensors"
    read = "try: open(__file__[:-6] + 'it').close()\n        except Exception: pass\n        logit"
    (tmp_path / "net.py").write_text(factory.NET.replace("logit:", f"{read}:"))
    (tmp_path / "it").write_text("")
    model = {"format": "safetensors", "architecture": "net.py:Net", "inputs": {"x": ["a", "b"]}}
    model |= {"path": "w.safetensors", "sha256": factory.write_weights(weights)}
    factory.change_job(tmp_path, {"model": model})
    assert ends(job) == (2, 2)
    assert "net.py, line 15, reads it" in factory.run_cli("check", job).output
    factory.change_job(tmp_path, {"code": ["it"]})
    assert ends(job) == (0, 0)
