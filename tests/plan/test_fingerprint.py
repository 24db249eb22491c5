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


def test_rows_of_a_call_that_are_those_of_auto_change_nothing(tmp_path: Path) -> None:
    """On the CPU 1,024 is what `auto` stands for; other rows make other bits."""
    factory.write_job(tmp_path)

    def of(**runtime: object) -> str:
        changes = {f"runtime.{key}": value for key, value in runtime.items()}
        return fingerprint(factory.change_job(tmp_path, changes))

    assert of(micro_batch=1024) == of(micro_batch="auto") == of(micro_batch=1024, device="cpu")
    known = {
        of(micro_batch="auto", device="auto"),
        of(micro_batch=64),
        of(micro_batch=1024, device="cuda"),
    }
    assert len(known) == 3


def test_a_tolerance_counts_where_it_allows_scores(tmp_path: Path) -> None:
    """What was scored in bf16 under a larger tolerance is scored again under a smaller one."""
    factory.write_job(tmp_path)

    def of(precision: str, tolerance: float) -> str:
        job = factory.change_job(tmp_path, {"runtime.precision": precision})
        factory.write_model(tmp_path / "model", tolerance=tolerance)
        return fingerprint(job)

    assert of("float32", 1e-5) == of("float32", 0.1)
    assert of("bf16", 1e-5) != of("bf16", 0.1)
