"""Tests of what whole jobs of trees have in common, whatever library trained them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests import factory
from tests.boosters import ROWS
from tests.models.backends.catboost.test_jobs import filled_job
from tests.models.backends.xgboost.test_jobs import job_of, own_scores, require_same, scores

pytestmark = pytest.mark.slow
LIBRARIES = pytest.mark.parametrize(
    ("library", "ending", "write"),
    [("xgboost", "ubj", job_of), ("lightgbm", "txt", job_of), ("catboost", "cbm", filled_job)],
    ids=["xgboost", "lightgbm", "catboost"],
)
TRAP = """
import os, sys
open(os.path.join(os.path.dirname(__file__), str(os.getpid())), "w").close()
raise ImportError("torch was imported")
"""


@pytest.mark.parametrize(
    "changes",
    [
        {"batch_rows": 7},
        {"batch_rows": 1000, "workers": 3},
        {"model_process": "on", "workers": 1},
    ],
    ids=str,
)
@LIBRARIES
def test_no_way_of_running_changes_a_bit(
    library: str,
    ending: str,
    write: Any,
    changes: dict[str, Any],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    """Small batches, several workers, shuffled rows and a process of the model's own."""
    models: Path = request.getfixturevalue(f"{library}_models")
    job = write(tmp_path, models / f"binary.{ending}", runtime=changes)
    rows = pq.read_table(tmp_path / "in/rows.parquet")
    shuffled = rows.take(pa.array(np.random.default_rng(2).permutation(ROWS)))
    pq.write_table(shuffled, tmp_path / "in/rows.parquet", row_group_size=700)
    factory.run_json("run", job)
    require_same(scores(tmp_path), own_scores(models, "binary_probability"))


@LIBRARIES
def test_no_process_of_a_job_imports_torch(
    library: str, ending: str, write: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Neither the launcher nor the model's own process tries to; whoever does leaves a file."""
    models: Path = request.getfixturevalue(f"{library}_models")
    job = write(tmp_path, models / f"binary.{ending}", runtime={"model_process": "on"})
    trap = tmp_path / "trap/torch"
    trap.mkdir(parents=True)
    (trap / "__init__.py").write_text(TRAP)
    paths = os.pathsep.join([str(trap.parent), str(Path(__file__).parents[3])])
    command = [sys.executable, "-m", "batchscore", "run", str(job)]
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in trap.iterdir()] == ["__init__.py"]
    subprocess.run([sys.executable, "-c", "import torch"], env=environment, check=False)
    assert len([*trap.iterdir()]) == 2  # so the trap works
