"""Tests of whole jobs whose model is in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests import factory
from tests.backends.faulty import EXIT, SEGFAULT
from tests.backends.installed import install, write_linear_model

pytestmark = pytest.mark.slow

ON = ("--set", "runtime.model_process=on")


@pytest.fixture
def formats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Installs the linear and the faulty backend; returns the folder of their package."""
    points = {"npz": "tests.backends.linear:BACKEND", "faulty": "tests.backends.faulty:BACKEND"}
    site = install(tmp_path / "site", **points)
    monkeypatch.syspath_prepend(str(site))
    return site


def faulty_job(folder: Path, acts: dict[int, float], **changes: Any) -> Path:
    """Writes a job of eight rows, whose score is a + b unless the row says what is to happen."""
    folder.mkdir()
    factory.write_job(folder, {"model.inputs": {"x": ["a", "b"]}, "postprocess": []})
    card = {"format": "faulty", "weights": "line.npz"}
    write_linear_model(folder / "line", np.ones(2, np.float32), 0.0, card)
    for shard in (folder / "in").iterdir():
        shard.unlink()
    rows = factory.make_rows(8)
    a_n = np.abs(rows["a"].to_numpy())
    for place, what in acts.items():
        a_n[place] = what
    # Different rows, since a row that is known to be deadly is not tried again.
    b_n = np.where(a_n < 0, rows["id"].to_numpy(), 1.0)
    rows = rows.set_column(1, "a", pa.array(a_n)).set_column(2, "b", pa.array(b_n))
    factory.write_shard(folder / "in/0.parquet", rows)
    return factory.change_job(folder, {"model.path": "line", **changes})


def test_a_row_that_crashes_the_model_is_rejected_alone(tmp_path: Path, formats: Path) -> None:
    """The run goes on in another process, and the reason says how the first one died."""
    job = faulty_job(tmp_path / "job", {5: SEGFAULT}, **{"rejects.max_ratio": 1.0})
    done = factory.run_json("run", job, *ON)
    assert "rows" in done, done["error"][:600]
    assert (done["rows"]["scored"], done["rows"]["rejected"]) == (7, 1)
    (why,) = done["rejects"]["reasons"]
    assert why == "infer: ModelProcessDied: was killed by signal 11 (SIGSEGV)"
    found = factory.published(tmp_path / "job/out")
    assert found["id"].to_pylist() == [0, 1, 2, 3, 4, 6, 7]
    expected = np.abs(np.sin(found["id"].to_numpy())).astype(np.float32) + np.float32(1)
    np.testing.assert_allclose(found["score"].to_numpy(), expected, atol=1e-6)


def test_a_model_that_crashes_for_all_rows_ends_the_run(
    tmp_path: Path, formats: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One message says how, before anything is scored."""
    job = faulty_job(tmp_path / "job", dict.fromkeys(range(8), EXIT))
    done = factory.run_cli("run", job, *ON)
    assert done.exit_code == 2
    fields = " ".join(done.output.split())
    assert "the model's process ended with exit code 3, each time; see what it printed" in fields
    assert "ERROR" not in {record.levelname for record in caplog.records}


GUARD = """
import sys

def keep(batch):
    assert "torch" not in sys.modules
    return batch
"""
COMMANDS = """
import sys
from batchscore.cli import cli

if __name__ == "__main__":
    cli(["run", *sys.argv[1:]], standalone_mode=False)
    assert "torch" not in sys.modules
"""


def test_a_launcher_whose_model_is_in_a_process_imports_no_torch(tmp_path: Path) -> None:
    """Nor do its workers, which share the process."""
    job = factory.write_job(tmp_path, {"postprocess": [{"function": "guard.py:keep"}]})
    (tmp_path / "guard.py").write_text(GUARD)
    script = tmp_path / "commands.py"
    script.write_text(COMMANDS)
    done = subprocess.run(
        [sys.executable, str(script), str(job), "--json", "--set", "runtime.workers=2", *ON],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"]["scored"] == 500
