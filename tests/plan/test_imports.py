"""Test that nothing heavy is imported before something is to be scored."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from tests import factory

HEAVY = "apache_beam", "grpc", "pandas", "safetensors", "scipy", "torch"

# Runs jobs in one process, and prints how each ended and what of `HEAVY` was imported.
RUNS = f"""
import sys
from batchscore.cli import cli
for job in sys.argv[1:]:
    print(cli.main(["run", job, "--set", "runtime.workers=2"], standalone_mode=False))
print(sorted(set({HEAVY}) & set(sys.modules)))
"""


@pytest.mark.slow
def test_what_is_left_is_found_without_heavy_imports(tmp_path: Path) -> None:
    """A run that has nothing to do, and the server of workers, need not wait for pandas."""
    program = (
        "import sys\nfrom batchscore.job import load_job\n"
        "from batchscore.plan import make_plan, settle\n"
        f"assert settle(make_plan(load_job({str(factory.write_job(tmp_path))!r}))).units\n"
        f"print(sorted(set({HEAVY}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.slow
def test_runs_that_score_nothing_import_neither_beam_nor_a_framework(tmp_path: Path) -> None:
    """Whether nothing changed, or the job holds what did: no row is scored, no model is loaded."""
    unchanged = factory.write_job(tmp_path / "unchanged")
    held = factory.write_job(tmp_path / "held", {"on_change.model": "hold"})
    for job in (unchanged, held):
        assert factory.run_json("run", job)["status"] == "published"
    factory.write_model(tmp_path / "held/model", version="1.1")
    program = [sys.executable, "-c", RUNS, str(unchanged), str(held)]
    done = subprocess.run(program, capture_output=True, text=True)
    printed = done.stdout.splitlines()
    assert [line for line in printed if line in "03"] == ["0", "3"], done.stderr
    assert printed[0].startswith("UNCHANGED")
    assert printed[-1] == "[]"


@pytest.mark.slow
def test_a_run_without_filters_and_functions_imports_no_pandas(tmp_path: Path) -> None:
    """Arrow imports it as soon as it is given a Python value, which a plain job does not need.

    Neither do rows that are rejected, and the reasons for that.
    """
    settings = {
        "checks.unique": ["id"],
        "output.partition_by": ["part"],
        "rejects.max_ratio": 1.0,
        "runtime.model_process": "on",
    }
    job = factory.write_job(tmp_path, settings)
    rows = factory.make_rows()
    holes = pa.array([None if i % 9 == 4 else 0.5 for i in range(len(rows))], pa.float32())
    factory.write_shard(tmp_path / "in/0.parquet", rows.set_column(1, "a", holes))
    program = RUNS.replace("runtime.workers=2", "runtime.workers=1")
    done = subprocess.run([sys.executable, "-c", program, str(job)], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "['apache_beam', 'grpc']", done.stdout + done.stderr


@pytest.mark.slow
def test_the_process_of_a_model_imports_its_framework_and_little_else() -> None:
    """Arrow and what reads cards would have each short run wait for them."""
    program = (
        "import sys\nimport batchscore.models.process.child\n"
        "from batchscore.models.backends.registry import backend_of\n"
        "backend_of('safetensors').prepare()\n"
        "print(sorted({'pyarrow', 'pydantic', 'yaml', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "['torch']\n", done.stderr
