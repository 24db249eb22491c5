"""`bs.Score` where workers are other processes: on Flink, and of another user."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.local_job_service import LocalJobServicer
from apache_beam.transforms.combiners import Count

import batchscore as bs
from tests import factory
from tests.engines.pools import running_pool
from tests.flinks import sharing, taking_turns
from tests.score.pipelines import Keep, kept
from tools.flink.cluster import Cluster

pytestmark = pytest.mark.slow

FUNCTION = """import pyarrow as pa

from scale import SCALE


def scaled(batch: pa.RecordBatch) -> pa.RecordBatch:
    import pyarrow.compute as pc

    return batch.set_column(1, "a", pc.multiply(batch.column("a"), SCALE))
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every user of this machine reads and writes."""
    with tempfile.TemporaryDirectory(prefix="score-", dir="/tmp") as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A job with code of two files."""
    folder = tmp_path / "job"
    folder.mkdir()
    (folder / "features.py").write_text(FUNCTION)
    (folder / "scale.py").write_text("SCALE = 2.0\n")
    return factory.write_job(folder, {"preprocess.function": "features.py:scaled"})


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster of all test processes, once one of them starts it."""
    base = tmp_path_factory.getbasetemp()
    home = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with sharing(home / "flink") as cluster:
        yield cluster


def options(job_service: str, pool: str) -> PipelineOptions:
    """Returns what a pipeline needs to run through a job server, on workers of a pool."""
    flags = ["--environment_type=EXTERNAL", f"--environment_config={pool}", "--parallelism=2"]
    return PipelineOptions([f"--job_endpoint={job_service}", *flags])


def run(job: Path, place: Path, given: PipelineOptions) -> list[dict[str, Any]]:
    """Scores rows in four batches next to other transforms; the job is gone before it starts.

    Returns:
        The rows by `part`, as counted by a step after a shuffle, and those that were rejected.
    """
    table = factory.make_rows(4_000)
    pipeline = beam.Pipeline(runner="PortableRunner", options=given)
    scored, rejected = (
        pipeline
        | beam.Create(table.to_batches(max_chunksize=1_000))
        | beam.Reshuffle()
        | bs.Score(job, ship_to=place / "shipped")
    )
    parts = scored | "Parts" >> beam.FlatMap(lambda batch: batch.column("part").to_pylist())
    counts = parts | Count.PerElement()
    counts | "Keep counts" >> Keep(place / "counts")
    scored | "Shuffled" >> beam.Reshuffle() | "Keep scored" >> Keep(place / "scored")
    rejected | "Keep rejected" >> Keep(place / "rejected")
    for folder in ("counts", "scored", "rejected"):
        (place / folder).chmod(0o777)
    shutil.rmtree(job.parent)
    pipeline.run().wait_until_finish()
    assert kept(place / "rejected") == []
    assert dict(kept(place / "counts")) == {"p0": 1_334, "p1": 1_333, "p2": 1_333}
    return [row for batch in kept(place / "scored") for row in batch.to_pylist()]


def expected(job: Path) -> list[dict[str, Any]]:
    """Returns the rows that `batchscore run` publishes."""
    factory.write_shard(job.parent / "in/0.parquet", factory.make_rows(4_000))
    (job.parent / "in/1.parquet").unlink()
    assert factory.run_json("run", job)["status"] == "published"
    return factory.published(job.parent / "out").to_pylist()


def test_on_flink_the_scores_are_those_of_a_run(job: Path, place: Path, shared: Cluster) -> None:
    """Code and model come from `ship_to`; both outputs go on to shuffles of the pipeline."""
    known = expected(job)
    with taking_turns(shared) as cluster:
        found = cluster.section()
        rows = run(job, place, options(found["job_service"], found["pool"]))
    assert sorted(rows, key=lambda row: row["id"]) == known


def test_workers_of_another_user_need_nothing_but_the_folder(job: Path, place: Path) -> None:
    """They have batchscore and Beam, and fetch code and model by content."""
    known = expected(job)
    server = LocalJobServicer(staging_dir=str(place / "staging"))
    address = f"localhost:{server.start_grpc_server()}"
    try:
        with running_pool({}) as pool:
            rows = run(job, place, options(address, pool.address))
    finally:
        server.stop()
    assert sorted(rows, key=lambda row: row["id"]) == known
