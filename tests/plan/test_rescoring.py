"""Test the phrases that say why published rows are scored again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batchscore.job import load_job
from batchscore.models.loadable import Model
from batchscore.plan import make_plan
from batchscore.plan.changes import changed_facts
from batchscore.plan.rescoring import explain_facts, explain_work
from batchscore.runs.manifest_parts import ModelFacts
from tests import factory

MODEL = Model(
    name="small",
    version="1.1",
    format="safetensors",
    folder="/m",
    weights="w",
    architecture="net.py:Net",
    architecture_args={},
    inputs=(),
    outputs=(),
    sha256={"w": "1", "net.py": "2", "golden.parquet": "3"},
    no_influence=("golden.parquet",),
)
SAME = ModelFacts("small", "1.1", sha256=dict(MODEL.sha256))


@pytest.mark.parametrize(
    ("facts", "before", "phrase"),
    [
        ({"code f.py": "a"}, {"code f.py": "b"}, "code f.py changed"),
        ({"code f.py": "a"}, {}, "code f.py is new"),
        ({}, {"code f.py": "a"}, "code f.py is gone"),
        ({"version of torch": "2.1"}, {"version of torch": "2.0"}, "torch 2.0 to 2.1"),
        ({"version of pandas": "2.1"}, {}, "pandas: 2.1"),
        (
            {"runtime.precision": "bf16"},
            {"runtime.precision": "float32"},
            "runtime.precision float32 to bf16",
        ),
        ({"scoring": "version 2"}, {"scoring": "version 1"}, "scoring version 1 to version 2"),
        ({"the model's tolerance": "0.1"}, {}, "the model's tolerance: 0.1"),
        ({}, {"the model's tolerance": "0.1"}, "the model's tolerance changed"),
        ({"types of weights": "cast"}, {}, "types of weights: cast"),
        ({"input.filters": "a" * 64}, {"input.filters": "b" * 64}, "input.filters changed"),
        ({"preprocess": "a"}, {"preprocess": "b"}, "preprocess changed"),
        ({"columns that are read": "a"}, {}, "columns that are read changed"),
    ],
)
def test_each_fact_has_its_phrase(
    facts: Mapping[str, str], before: Mapping[str, str], phrase: str
) -> None:
    """Values are shown if a person can read them."""
    names = changed_facts(facts, before)
    assert explain_facts(names, facts, before, MODEL, SAME) == (phrase,)


@pytest.mark.parametrize(
    ("before", "also", "phrases"),
    [
        (replace(SAME, version="1.0"), {}, ("model 1.0 to 1.1",)),
        (replace(SAME, name="large", version="3"), {}, ("model large 3 to small 1.1",)),
        (
            replace(SAME, sha256={**MODEL.sha256, "w": "0", "golden.parquet": "0"}),
            {},
            ("model 1.1 has other files (w)",),
        ),
        (SAME, {}, ("architecture, inputs or outputs of model 1.1 changed",)),
        (SAME, {"code net.py": "1"}, ("code net.py is new",)),
        (ModelFacts(), {}, ("model 1.1 has other files (net.py, w)",)),
    ],
)
def test_a_model_is_named_by_what_differs(
    before: ModelFacts, also: Mapping[str, str], phrases: tuple[str, ...]
) -> None:
    """Its version, else its files; code of the job that it is built with is named once."""
    facts = {"model": "a", **also}
    found = explain_facts(
        changed_facts(facts, {"model": "b"}), facts, {"model": "b"}, MODEL, before
    )
    assert found == phrases


def test_all_causes_are_said_in_one_line() -> None:
    """What changed, then what is gone; where a person asked for it, nothing else decides."""
    found = explain_work(("input.filters changed",), False, ("a", "b"), True)
    expected = "input.filters changed; 2 shards rewritten; files were lost or damaged"
    assert "; ".join(found) == expected
    assert explain_work(("input.filters changed",), True, ("a",), False) == ("--rescore",)
    assert explain_work((), False, (), False) == ()


def test_a_change_of_a_job_has_its_own_words(tmp_path: Path) -> None:
    """Each key that is edited gives the phrase of its fact, and no other."""
    (tmp_path / "f.py").write_text("import g\ndef f(batch): return batch\n")
    (tmp_path / "g.py").write_text("")
    factory.write_job(tmp_path, {"preprocess": {"function": "f.py:f"}})

    def edit(changes: Mapping[str, Any]) -> Callable[[], object]:
        return lambda: factory.change_job(tmp_path, changes)

    def facts() -> tuple[dict[str, str], Model, ModelFacts]:
        plan = make_plan(load_job(str(tmp_path / "job.yaml")))
        model = plan.spec.scoring.model
        reported = ModelFacts(model.name, model.version, sha256=dict(model.sha256))
        return plan.score_facts, model, reported

    edits: dict[str, Callable[[], object]] = {
        "code g.py changed": lambda: (tmp_path / "g.py").write_text("G = 1\n"),
        "model 1.0 to 1.1": lambda: factory.write_model(tmp_path / "model", version="1.1"),
        "input.filters changed": edit({"input.filters": [["a", "<", 0.5]]}),
        "postprocess changed": edit({"postprocess": None}),
        "runtime.micro_batch auto to 64": edit({"runtime.micro_batch": 64}),
        "code words.txt is new": edit({"code": ["words.txt"]}),
        "columns that are written changed": edit({"output.columns": ["id"]}),
    }
    (tmp_path / "words.txt").write_text("")
    before, _, reported_before = facts()
    for phrase, change in edits.items():
        change()
        now, model, reported = facts()
        found = explain_facts(changed_facts(now, before), now, before, model, reported_before)
        assert found == (phrase,)
        before, reported_before = now, reported
    same = replace(model, version="9")
    assert explain_facts((), before, before, same, reported_before) == ()
