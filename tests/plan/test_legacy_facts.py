"""Test the words of facts as commit dc42d60 wrote them; the literal ones were printed by it."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from batchscore.columnar.ragged import Varying
from batchscore.job import load_job
from batchscore.plan import Plan, make_plan
from batchscore.plan.fingerprint import sha256_of
from batchscore.plan.legacy_facts import complete, is_legacy, legacy_score, respell
from batchscore.stages.preprocess import InputColumns
from tests import factory

PLAIN = "InputColumns(name='x', dtype='float32', shape=(2,), columns=('a', 'b'), varying=None)"
VARYING = (
    "InputColumns(name='ids', dtype='int64', shape=(), columns=('tokens',), "
    "varying=Varying(max_length=4, pad=0.5, truncate=True))"
)
VERSIONS = dict.fromkeys(("pyarrow", "numpy", "pandas", "torch", "safetensors"), "1")
SCORE = "d2bde6e1bb4c34c1d4e779bb88cd18a93a219a23e36f40a840d4ec51d1b087ab"


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """A job with filters of all kinds, under fixed versions."""
    for module in ("fingerprint", "legacy_facts"):
        monkeypatch.setattr(f"batchscore.plan.{module}.version", VERSIONS.__getitem__)
    filters = [["part", "in", ["p0", "p1"]], ["a", "<", 0.5]]
    job = load_job(str(factory.write_job(tmp_path, {"input.filters": filters})))
    made = make_plan(job)
    return replace(made, score_facts={**made.score_facts, "model": "cafe"})


def test_inputs_filters_and_columns_have_their_old_words(plan: Plan) -> None:
    """The rest is spelled as it was."""
    varying = InputColumns("ids", "int64", (), ("tokens",), Varying(4, 0.5, True))
    scoring = replace(plan.spec.scoring, inputs=(*plan.spec.scoring.inputs, varying))
    spec = replace(plan.spec, scoring=scoring)
    old = respell(plan.score_facts, plan.loaded.job, spec)
    assert old["model inputs"] == sha256_of([PLAIN, VARYING])
    assert old["input.filters"] == "[[('part', 'in', ['p0', 'p1']), ('a', '<', 0.5)]]"
    assert old["columns that are read"] == "id: int64\na: float\nb: double\npart: string"
    assert old["postprocess"] == plan.score_facts["postprocess"]
    assert is_legacy(old)
    assert not is_legacy(plan.score_facts)


def test_dates_and_no_filter_have_their_old_words(plan: Plan) -> None:
    """A date was spelled as Python does, and no filter as None."""
    job = plan.loaded.job
    for filters, text in (
        ((), "None"),
        (((("on", ">=", date(2026, 1, 2)),),), "[[('on', '>=', datetime.date(2026, 1, 2))]]"),
    ):
        section = job.input.model_copy(update={"filters": filters})
        changed = job.model_copy(update={"input": section})
        assert respell(plan.score_facts, changed, plan.spec)["input.filters"] == text


def test_what_that_version_could_not_say_equals_nothing_of_it(plan: Plan) -> None:
    """A fact of later days stays, and another version of scoring has another hash."""
    job, spec = plan.loaded.job, plan.spec
    later = {**plan.score_facts, "new": "1"}
    assert respell(later, job, spec)["new"] == "1"
    other = {**plan.score_facts, "scoring": "version 2"}
    found = [legacy_score(facts, job, spec) for facts in (plan.score_facts, later, other)]
    assert len(set(found)) == 3
    assert complete({"a": "1"})["scoring"] == "version 1"


def test_the_hash_is_that_of_then(plan: Plan) -> None:
    """It leads to what a killed run finished before anything was published."""
    found = legacy_score(plan.score_facts, plan.loaded.job, plan.spec)
    assert found == SCORE
