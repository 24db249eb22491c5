"""Test which files beside a job's functions are held to be part of its code."""

from __future__ import annotations

from pathlib import Path

from batchscore.job import load_job
from batchscore.plan import make_plan
from tests import factory


def fingerprint(job: Path) -> str:
    return make_plan(load_job(str(job))).fingerprint


def test_code_below_counts_but_not_what_is_no_part_of_the_job(tmp_path: Path) -> None:
    """A package or table counts; an environment, an output, a log and notes do not."""
    (tmp_path / "f.py").write_text("def f(batch):\n    return batch\n")
    job = factory.write_job(tmp_path, {"postprocess": {"function": "f.py:f"}})
    before = fingerprint(job)
    for path in ("venv/pyvenv.cfg", "venv/lib/x.py", "old/_batchscore/a", "old/x.py", ".git/x.py"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("x = 1")
    for name in ("nightly.log", "notes.md", "other.yaml"):
        (tmp_path / name).write_text("x")
    assert fingerprint(job) == before
    for path in ("lib/deep/x.py", "table.json", "f.py"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("x = 2")
        assert fingerprint(job) != before
        before = fingerprint(job)
