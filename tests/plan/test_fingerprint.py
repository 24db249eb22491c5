"""Test what changes the fingerprint of a job, and what does not."""

from __future__ import annotations

from pathlib import Path

from batchscore.job import load_job
from batchscore.plan import make_plan
from tests import factory


def fingerprint(job: Path) -> str:
    return make_plan(load_job(str(job))).fingerprint


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
