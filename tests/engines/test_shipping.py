"""Code, model and profiles travel to workers that have batchscore and nothing of the job."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from tests import factory
from tests.engines.pools import Pool, running_pool
from tests.servers import ObjectStore, running_s3

pytestmark = pytest.mark.slow

FUNCTIONS = """
import logging
from importlib.metadata import version
from pathlib import Path

import pyarrow
from helpers.scale import scaled

HERE = Path(__file__).parent
OFFSET = float((HERE / "lists/offset.txt").read_text())
assert "class Net" in (HERE / "model/net.py").read_text()


def prepare(batch):
    logging.getLogger("steps").info("s3://user:s3cret@bucket has %d rows", batch.num_rows)
    print("prepared")
    columns = [scaled(batch.column(name).to_numpy()) + OFFSET for name in ("a", "b")]
    return pyarrow.record_batch(columns, names=["a", "b"])
"""


@pytest.fixture(scope="module")
def s3() -> Iterator[ObjectStore]:
    """The store that is all that launcher and workers share."""
    with running_s3() as server, server.at():
        yield server


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder of the launcher, which other users may not enter, and a job in it."""
    home = tmp_path / "launcher"
    factory.write_job(home)
    home.chmod(0o700)
    (home / "steps.py").write_text(FUNCTIONS)
    (home / "helpers").mkdir()
    (home / "helpers/scale.py").write_text("def scaled(values_b):\n    return values_b * 0.5\n")
    (home / "lists").mkdir()
    (home / "lists/offset.txt").write_text("0.25")
    return home


@pytest.fixture
def shared(home: Path, s3: ObjectStore, tmp_path: Path) -> Path:
    """The folder of a bucket with the job's input, which launcher and workers reach as a store."""
    folder = s3.folder / tmp_path.name.replace("_", "-")[-40:].strip("-")
    shutil.copytree(home / "in", folder / "in")
    return folder


def through(home: Path, shared: Path, job_server: str, pool: Pool) -> Path:
    """Changes the job to one for a pool, with input and output in the bucket."""
    options = {
        "job_endpoint": job_server,
        "environment_type": "EXTERNAL",
        "environment_config": pool.address,
    }
    changes = {
        "runtime": {"engine": "flink", "options": options},
        "input.path": f"s3://{shared.name}/in",
        "output.path": f"s3://{shared.name}/out",
    }
    return factory.change_job(home, changes)


def test_workers_of_another_user_have_nothing_of_the_job(
    home: Path, shared: Path, job_server: str
) -> None:
    """In an empty folder they get all by content, and publish the rows of the engine `direct`.

    What the job's code logs and prints there is shown afterwards.
    """
    assert factory.run_cli("profile", home / "in", "-o", home / "ref.parquet").exit_code == 0
    changes = {
        "preprocess": {"function": "steps.py:prepare", "columns": ["a", "b"]},
        "code": ["lists"],
        "drift": {"reference": "ref.parquet"},
    }
    expected = factory.run_json("run", factory.change_job(home, changes))
    with running_pool({"FSSPEC_S3": os.environ["FSSPEC_S3"]}) as pool:
        found = factory.run_json("run", through(home, shared, job_server, pool))
    assert (found["status"], found["engine"]) == ("published", "flink")
    rows = [factory.published(place / "out") for place in (home, shared)]
    assert rows[1].equals(rows[0])
    assert found["profile_sha256"] == expected["profile_sha256"]
    assert found["drift"] == expected["drift"]
    shown = factory.run_cli("show", f"s3://{shared.name}/out", "--logs").stdout
    assert "steps: s3://***@bucket has " in shown
    assert "INFO     stdout: prepared" in shown


def test_a_pool_with_another_numpy_is_refused(home: Path, shared: Path, job_server: str) -> None:
    """The command ends with one message that names both versions, and nothing is published."""
    with tempfile.TemporaryDirectory() as packages:
        os.chmod(packages, 0o755)
        facts = Path(packages) / "numpy-1.0.dist-info"
        facts.mkdir()
        (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 1.0\n")
        with running_pool({"FSSPEC_S3": os.environ["FSSPEC_S3"]}, before=facts.parent) as pool:
            done = factory.run_cli("run", through(home, shared, job_server, pool))
    assert done.exit_code == 1
    assert f"numpy 1.0 (launcher: {version('numpy')}); nothing was published" in done.stderr
    assert not (shared / "out/data").exists()
