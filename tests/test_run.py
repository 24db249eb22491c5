"""Whole runs: what is published is what a plain loop over the rows would have scored."""

from __future__ import annotations

import importlib.util
import json
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch

from batchscore.engines.quick_graph import quick_options
from batchscore.finish.finish import finish_run
from batchscore.runs.manifest_model import Manifest
from batchscore.stages.block import Block
from batchscore.worker.attempts import Attempts
from batchscore.worker.spec import RunSpec
from tests import factory
from tests.conftest import ROOT, Published

pytestmark = pytest.mark.slow

JOB = ROOT / "jobs/flight_delays"
SAMPLES = ROOT / "data/samples/flights"
KEY = ["year", "month", "day", "carrier", "flight", "origin"]
PASSED = ["year", "day", "carrier", "flight", "origin", "sched_dep_time"]
SIZES = {"hour": 24, "minute": 60, "weekday": 7}

# Two inputs, one of them indices; a vector, class scores, and one number a row.
WIDE_NET = """import torch
from torch import nn


class Wide(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.table = nn.Embedding(4, 3)
        self.out = nn.Linear(5, classes)

    def forward(self, numbers: torch.Tensor, kind: torch.Tensor) -> tuple[torch.Tensor, ...]:
        embedding = torch.cat([numbers, self.table(kind)], dim=1)
        return embedding, self.out(embedding), embedding.sum(dim=1)
"""
LABELS = ["red", "green", "blue"]
WIDE_INPUTS = {
    "numbers": {"columns": ["a", "b"], "type": "float32"},
    "kind": {"columns": "kind", "type": "int64"},
}
WIDE_OUTPUTS = {
    "embedding": {"type": "float32", "shape": [5]},
    "logits": {"type": "float32", "shape": [3]},
    "total": {"type": "float32"},
}
WIDE_STEPS = [
    {"threshold": {"output": "total", "at": 0.5, "name": "high"}},
    {"softmax": {"output": "logits"}},
    {"labels": {"output": "scores", "labels": LABELS, "name": "best"}},
    {"top_k": {"output": "scores", "k": 2, "labels": LABELS}},
]

FUNCTIONS = """import pandas
import pyarrow
import pyarrow.compute as pc


def halve_arrow(batch):
    return pyarrow.record_batch([pc.divide(batch["a"], 2.0), batch["b"]], names=["a", "b"])


def halve_pandas(frame: pandas.DataFrame) -> pandas.DataFrame:
    return pandas.DataFrame({"a": frame["a"] / 2, "b": frame["b"]})


def double_arrow(batch):
    return pyarrow.record_batch([pc.multiply(batch["logit"], 2.0)], names=["twice"])


def double_pandas(frame: pandas.DataFrame) -> pandas.DataFrame:
    return pandas.DataFrame({"twice": frame["logit"] * 2})
"""


def net(path: Path, name: str) -> Any:
    """Import a network's class from its file, without batchscore."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)


def encode(feature: dict[str, Any], rows: pd.DataFrame) -> list[Any]:
    """Encode one feature as its line of preprocessing.json and the model's README say."""
    column = rows[feature["column"]]
    if feature["kind"] == "numeric":
        known = column.astype("float64").fillna(feature["impute"]).clip(*feature["clip"])
        return [(known - feature["mean"]) / feature["std"]]
    if feature["kind"] == "categorical":
        index = {value: i + 2 for i, value in enumerate(feature["vocabulary"])}
        return [column.map(index).fillna(1).where(column.notna(), 0).astype("int64")]
    if feature["part"] == "weekday":
        column = column.dt.tz_convert(feature["timezone"]).dt.day_of_week
    size = SIZES[feature["part"]]
    if feature["encoding"] == "scaled":
        return [column / (size - 1)]
    return [np.sin(2 * np.pi * column / size), np.cos(2 * np.pi * column / size)]


def plain_scores(rows: pd.DataFrame) -> Any:
    """Score flights with a loop over torch batches and nothing of batchscore."""
    text = (JOB / "model/preprocessing.json").read_text()
    columns = {
        name: np.stack([value for each in features for value in encode(each, rows)], axis=1)
        for name, features in json.loads(text)["inputs"].items()
    }
    numeric = torch.tensor(columns["numeric"], dtype=torch.float32)
    categories = torch.tensor(columns["categories"], dtype=torch.int64)
    network = net(JOB / "net.py", "Net")(9, [17, 5, 83], [4, 2, 8], [64, 32])
    network.load_state_dict(safetensors.torch.load_file(JOB / "model/weights.safetensors"))
    with torch.inference_mode():
        parts = zip(numeric.split(10_000), categories.split(10_000), strict=True)
        return torch.cat([torch.sigmoid(network(*part)) for part in parts]).numpy()


def raw_flights() -> pd.DataFrame:
    """All flights of the year as pandas reads them, months as integers."""
    rows = pd.read_parquet(SAMPLES)
    return rows.assign(month=rows["month"].astype("int64"))


def read_files(files: list[Path]) -> pd.DataFrame:
    """Read published files; what the path says of a file becomes columns of integers."""
    frames = []
    for file in files:
        keys = [part.split("=") for part in file.parts if "=" in part]
        rows = pq.read_table(file, partitioning=None).to_pandas()
        frames.append(rows.assign(**{name: int(value) for name, value in keys}))
    return pd.concat(frames, ignore_index=True)


def score_bytes(output: Path) -> bytes:
    """The scores' bits in the order of the rows' ids."""
    scores = factory.published(output)["score"].to_numpy()
    return bytes(scores.tobytes())


def profile_of(folder: Path, manifest: dict[str, Any]) -> bytes:
    """The bytes of a run's profile."""
    path: Path = folder / "_batchscore/runs" / manifest["run"] / "profile.parquet"
    return path.read_bytes()


def run_again(job: Path, output: str, *args: str) -> tuple[Path, dict[str, Any]]:
    """Run a job into another folder next to the job file; it must be published."""
    folder = job.parent / output
    manifest = factory.run_json("run", job, "--set", f"output.path={folder}", *args)
    assert manifest["status"] == "published", manifest
    return folder, manifest


def assert_same(first: tuple[Path, dict[str, Any]], second: tuple[Path, dict[str, Any]]) -> None:
    """Two outputs hold the same rows, bit for bit, and bitwise equal profiles."""
    assert factory.published(first[0]).equals(factory.published(second[0]))
    assert score_bytes(first[0]) == score_bytes(second[0])
    assert profile_of(*first) == profile_of(*second)


@pytest.fixture
def many_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A job over 6,000 rows in 5 shards of 400-row groups, cut into units of 1,000 rows."""
    job = factory.write_job(tmp_path, {"input.path": "shards"})
    for index, size in enumerate((2_500, 1_000, 1_700, 300, 500)):
        first = sum((2_500, 1_000, 1_700, 300, 500)[:index])
        path = factory.write_shard(tmp_path / f"shards/{index}.parquet")
        pq.write_table(factory.make_rows(size, first), path, row_group_size=400)
    monkeypatch.setattr("batchscore.plan.work.UNIT_ROWS", 1_000)
    return job


def test_every_flight_is_scored_as_a_plain_loop_does(flights: Published) -> None:
    """Each published row has its flight's columns untouched and the score of a plain loop."""
    rows = raw_flights().query("month >= 2").reset_index(drop=True)
    rows["expected"] = plain_scores(rows)
    both = read_files(flights.current).merge(
        rows[[*KEY, "sched_dep_time", "expected"]], on=KEY, how="outer", suffixes=("", "_raw")
    )
    assert len(both) == len(rows) == 309_772
    assert both["score"].notna().all()
    assert (both["score"] - both["expected"]).abs().max() < 1e-6
    assert (both["sched_dep_time"] == both["sched_dep_time_raw"]).all()
    assert both["score"].nunique() > 10_000


def test_every_flight_is_accounted_for(flights: Published) -> None:
    """The manifest says where each row of the input went."""
    rows = {"input": 336_776, "filtered": 27_004, "scored": 309_772, "rejected": 0}
    assert flights.manifest["status"] == "published"
    assert flights.manifest["rows"] == {**rows, "quarantined": 0, "reused": 0}
    assert sum(file["rows"] for file in flights.manifest["files"]) == 309_772


def test_partition_columns_live_in_the_path_alone(flights: Published) -> None:
    """A file has the columns that the job names, the score and the model's version, no month."""
    names = [*PASSED, "score", "model_version"]
    assert all(pq.read_schema(file).names == names for file in flights.current)
    assert {file.parent.name for file in flights.current} == {f"month={m}" for m in range(2, 13)}


def test_a_parameter_chooses_the_day(tmp_path: Path) -> None:
    """The job for one day publishes exactly that day's flights, with a plain loop's scores."""
    args = ("--param", "date=2013-09-20", "--set", f"output.path={tmp_path}/out")
    manifest = factory.run_json("run", JOB / "job_day.yaml", *args)
    rows = raw_flights().query("month == 9 and day == 20").reset_index(drop=True)
    rows["expected"] = plain_scores(rows)
    found = read_files([tmp_path / "out" / file["path"] for file in manifest["files"]])
    both = found.merge(rows[[*KEY, "expected"]], on=KEY, how="outer")
    assert len(both) == len(rows) == len(found) == manifest["rows"]["scored"]
    assert (both["score"] - both["expected"]).abs().max() < 1e-6


def test_any_number_of_workers_publishes_the_same(many_units: Path) -> None:
    """One process, two, and more than there are units publish the same bits and profile."""
    alone = run_again(many_units, "alone")
    assert len(alone[1]["units"]) == 7
    for workers in (2, 3, 9):
        several = run_again(many_units, f"by{workers}", "--set", f"runtime.workers={workers}")
        assert several[1]["workers"] == workers
        assert_same(alone, several)


def test_several_units_publish_what_one_does(
    many_units: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Merging the profiles of seven units gives the bits of one unit's profile."""
    several = run_again(many_units, "several")
    monkeypatch.setattr("batchscore.plan.work.UNIT_ROWS", 1_000_000)
    one = run_again(many_units, "one")
    assert (len(several[1]["units"]), len(one[1]["units"])) == (7, 1)
    assert_same(several, one)


def test_batches_of_any_size_publish_the_same(many_units: Path) -> None:
    """The rows of a batch, fewer or more than a tile, change no bit of a score or a profile."""
    whole = run_again(many_units, "whole")
    for rows in (7, 1_000, 1_025):
        assert_same(
            whole, run_again(many_units, f"by{rows}", "--set", f"runtime.batch_rows={rows}")
        )


def test_batches_of_one_row(tmp_path: Path) -> None:
    """Batches of one row publish the bits of one large batch."""
    job = factory.write_job(tmp_path)
    large = run_again(job, "large")
    single = run_again(job, "single", "--set", "runtime.batch_rows=1")
    assert_same(large, single)


def test_a_bundle_done_twice_publishes_each_row_once(many_units: Path) -> None:
    """An engine that does every step twice, the last one too, publishes each row once."""
    once = run_again(many_units, "once")
    twice = run_again(many_units, "twice", "--", "--direct_runner_bundle_repeat=1")
    assert_same(once, twice)
    assert not (twice[0] / "_batchscore/staging").exists()
    files = {str(path.relative_to(twice[0])) for path in (twice[0] / "data").rglob("*.parquet")}
    assert files == {file["path"] for file in twice[1]["files"]}


def test_bundles_of_one_element_publish_the_same(
    many_units: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that makes a bundle of each unit publishes the same."""
    ended: list[list[str]] = []
    complete = Attempts.complete

    def cut(flags: Sequence[str]) -> Any:
        return quick_options([*flags, "--direct_num_workers=7"])

    def note(attempts: Attempts) -> list[str]:
        ended.append(complete(attempts))
        return ended[-1]

    whole = run_again(many_units, "whole")
    monkeypatch.setattr("batchscore.engines.local.quick_options", cut)
    monkeypatch.setattr(Attempts, "complete", note)
    single = run_again(many_units, "single")
    assert [len(addresses) for addresses in ended] == [1] * 7
    assert_same(whole, single)


def test_records_that_come_late_are_published(
    many_units: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine may end its one bundle long after the units: all records come at its end."""
    whole, take = run_again(many_units, "whole"), Attempts.take

    def keep(attempts: Attempts, block: Block) -> list[str]:
        attempts._ended[:0] = take(attempts, block)
        return []

    monkeypatch.setattr(Attempts, "take", keep)
    assert_same(whole, run_again(many_units, "late"))


def test_the_last_step_done_at_the_same_time(
    many_units: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that does the last step three times at once publishes each row once."""

    def together(spec: RunSpec, addresses: list[str], doomed: None) -> Manifest:
        begin = threading.Barrier(3)

        def finish(_: int) -> Manifest:
            begin.wait()
            return finish_run(spec, addresses)

        with ThreadPoolExecutor(3) as pool:
            return next(iter(pool.map(finish, range(3))))

    once = run_again(many_units, "once")
    monkeypatch.setattr("batchscore.transforms.finish_run", together)
    for _ in range(6):
        assert_same(once, run_again(many_units, "together", "--rescore"))


def wide_rows() -> pa.Table:
    """300 rows with a column `kind` of four categories."""
    rows = factory.make_rows()
    return rows.append_column("kind", pa.array(np.arange(300) % 4, pa.int32()))


def wide_state() -> dict[str, torch.Tensor]:
    """Weights of the network with several inputs and outputs."""
    generator = torch.Generator().manual_seed(7)
    shapes = {"table.weight": (4, 3), "out.weight": (3, 5), "out.bias": (3,)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def wide_changes(form: str, folder: Path) -> dict[str, Any]:
    """Put the weights into a model folder or one file; return the job's other values."""
    args = {"classes": 3}
    if form == "folder":
        inputs = {"numbers": {"type": "float32", "shape": [2]}, "kind": {"type": "int64"}}
        factory.write_model(
            folder / "wide",
            WIDE_NET,
            wide_state(),
            architecture="net.py:Wide",
            architecture_args=args,
            inputs=inputs,
            outputs=WIDE_OUTPUTS,
        )
        columns = {"numbers": ["a", "b"], "kind": "kind"}
        return {"model": {"path": "wide", "inputs": columns}}
    (folder / "wide.py").write_text(WIDE_NET)
    digest = factory.write_weights(folder / f"wide.{form}", wide_state())
    model = {"path": f"wide.{form}", "format": form, "architecture": "wide.py:Wide"}
    described = {"architecture_args": args, "sha256": digest}
    return {"model": {**model, **described, "inputs": WIDE_INPUTS, "outputs": WIDE_OUTPUTS}}


@pytest.mark.parametrize("form", ["folder", "safetensors", "pt"])
def test_several_inputs_and_outputs(form: str, tmp_path: Path) -> None:
    """Two inputs and three outputs go by name, and steps make scores of them."""
    factory.write_job(tmp_path)
    factory.write_shard(tmp_path / "wide/in.parquet", wide_rows())
    changes = {**wide_changes(form, tmp_path), "postprocess": WIDE_STEPS}
    job = factory.change_job(tmp_path, {**changes, "input.path": "wide/in.parquet"})
    manifest = factory.run_json("run", job)
    assert manifest["status"] == "published", manifest
    rows = factory.published(tmp_path / "out")
    found = {name: rows[name].to_pylist() for name in rows.column_names}
    (tmp_path / "plain.py").write_text(WIDE_NET)
    network = net(tmp_path / "plain.py", "Wide")(classes=3)
    network.load_state_dict(wide_state())
    numbers = torch.tensor([found["a"], found["b"]], dtype=torch.float32).T
    with torch.inference_mode():
        embedding, logits, total = network(numbers, torch.tensor(found["kind"]))
    scores, classes = torch.softmax(logits, dim=1).topk(2)
    np.testing.assert_allclose(found["embedding"], embedding, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found["total"], total, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found["top_scores"], scores, rtol=0, atol=1e-6)
    assert found["top_labels"] == [[LABELS[i] for i in row] for row in classes.tolist()]
    assert found["best"] == [row[0] for row in found["top_labels"]]
    assert found["high"] == [value >= 0.5 for value in found["total"]]
    assert set(found["high"]) == {True, False}


@pytest.mark.parametrize("kind", ["arrow", "pandas"])
def test_functions_of_the_user(kind: str, tmp_path: Path) -> None:
    """Functions before and after the model see Arrow or pandas batches, and their result counts."""
    (tmp_path / "steps.py").write_text(FUNCTIONS)
    changes = {
        "preprocess": {"function": f"steps.py:halve_{kind}", "columns": ["a", "b"]},
        "postprocess": {"function": f"steps.py:double_{kind}"},
    }
    manifest = factory.run_json("run", factory.write_job(tmp_path, changes))
    assert manifest["status"] == "published", manifest
    rows = factory.published(tmp_path / "out").to_pandas()
    expected = 2 * (0.5 * rows["a"] / 2 - 0.25 * rows["b"] + 0.125)
    assert len(rows) == 500
    np.testing.assert_allclose(rows["twice"], expected, rtol=0, atol=1e-6)
    assert "score" not in rows


@pytest.mark.parametrize(
    ("path", "rows"),
    [
        ("in/0.parquet", 300),
        ("in/*.parquet", 500),
        ("in", 500),
        ("hive", 500),
        (["in/1.parquet", "in/0.parquet", "in"], 500),
    ],
)
def test_forms_of_input(path: str | list[str], rows: int, tmp_path: Path) -> None:
    """A file, a glob, a folder, a hive folder and a list name the same rows, each once."""
    job = factory.write_job(tmp_path, {"input.path": path})
    factory.write_shard(tmp_path / "hive/day=1/x.parquet", factory.make_rows(300))
    factory.write_shard(tmp_path / "hive/day=2/x.parquet", factory.make_rows(200, 300))
    assert factory.run_json("run", job)["rows"]["scored"] == rows
    assert factory.published(tmp_path / "out")["id"].to_pylist() == list(range(rows))


def test_input_and_output_in_memory(tmp_path: Path) -> None:
    """Any fsspec address serves as input and output; the rows are those of the local disk."""
    job = factory.write_job(tmp_path)
    files, place = fsspec.filesystem("memory"), f"memory://{tmp_path.name}"
    for name in ("0.parquet", "1.parquet"):
        files.pipe_file(f"{place}/in/{name}", (tmp_path / "in" / name).read_bytes())
    sets = (f"input.path={place}/in", f"output.path={place}/out")
    found = factory.run_json("run", job, *(arg for each in sets for arg in ("--set", each)))
    data = [files.cat_file(f"{place}/out/{file['path']}") for file in found["files"]]
    rows = pa.concat_tables(pq.read_table(pa.BufferReader(each)) for each in data).sort_by("id")
    run_again(job, "out")
    assert rows.equals(factory.published(tmp_path / "out"))
    files.rm(place, recursive=True)


def test_shards_of_different_make_publish_the_same(tmp_path: Path) -> None:
    """Column order, dictionary strings and narrow integers of a shard change nothing published."""
    job = factory.write_job(tmp_path)
    expected = factory.published(run_again(job, "expected")[0])
    rows = factory.make_rows(200, 300).select(["part", "b", "id", "a"])
    rows = rows.set_column(0, "part", rows["part"].dictionary_encode())
    rows = rows.set_column(2, "id", rows["id"].cast(pa.int32()))
    factory.write_shard(tmp_path / "in/1.parquet", rows)
    assert factory.published(run_again(job, "mixed")[0]).equals(expected)
