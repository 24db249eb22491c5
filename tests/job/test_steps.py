"""A postprocess step is declared in one place, and each surface reads that declaration."""

from __future__ import annotations

from typing import Any, ClassVar

import pyarrow as pa
import pytest
from pydantic import Field, TypeAdapter

from batchscore.columnar.arrays import to_arrow
from batchscore.job import job_schema
from batchscore.job.steps.all_steps import STEPS, union_of
from batchscore.job.steps.base import Columns, Kinds, Step, chosen, floats
from batchscore.plan.spelling import spell_steps
from batchscore.stages.postprocess import postprocess, score_kinds
from docs.make_job_reference import render
from tests.factory import make_batch, make_block


class Halve(Step):
    """Replaces a score by a part of it."""

    key: ClassVar[str] = "halve"
    short: ClassVar[type | None] = int
    by_name: ClassVar[bool] = True

    halve: int = Field(default=2, description="The divisor.")

    def apply(self, columns: Columns) -> Columns:
        """Divide."""
        name = chosen(self.output, columns)
        return {**columns, name: to_arrow(floats(name, columns[name]) / self.halve)}

    def kinds(self, kinds: Kinds) -> Kinds:
        """Halves of probabilities are probabilities, and no longer add up to 1."""
        name, kind, others = self.replaced(kinds)
        return {**others, name: "probability" if kind else ""}

    def spell(self) -> dict[str, Any]:
        """Write the settings out."""
        return {"output": self.output, "halve": self.halve}


def test_a_declared_step_is_read_applied_hinted_and_spelled() -> None:
    """Job file, stage, profile and score hash know it from its class alone."""
    adapter = TypeAdapter(union_of({**STEPS, "halve": Halve}))
    given: list[Any] = ["halve", {"halve": 4}, {"halve": {}}]
    steps = [adapter.validate_python(each) for each in given]
    assert steps == [Halve(), Halve(halve=4), Halve()]
    assert adapter.dump_python(steps[1]) == {"halve": {"output": None, "halve": 4}}
    values = make_batch(score=[1.0, 0.5])
    done = postprocess(make_block(make_batch(id=[1, 2]), values=values), steps[:2])
    assert done.values is not None
    assert done.values.column("score") == pa.array([0.125, 0.0625])
    assert score_kinds(["logits"], [STEPS["softmax"](), *steps]) == {"scores": "probability"}
    assert spell_steps(steps[1:2]) == [{"halve": {"output": None, "halve": 4}}]


def test_a_declared_step_is_in_the_schema_and_on_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name, its short form, its settings and their descriptions are there."""
    union = union_of({**STEPS, "halve": Halve})
    made = TypeAdapter(union).json_schema(ref_template="#/$defs/{model}")["$defs"]
    monkeypatch.setitem(STEPS, "halve", Halve)
    step = job_schema()["$defs"]["Step"]["anyOf"]
    assert "halve" in step[0]["enum"]
    short = {"type": "integer", "default": 2}
    assert step[-1]["properties"]["halve"]["anyOf"] == [{"$ref": "#/$defs/Halve"}, short]
    assert "The divisor." in made["Halve"]["properties"]["halve"]["description"]
    monkeypatch.setattr("docs.make_job_reference.job_schema", lambda: _with(made))
    assert "### `halve`\n\nReplaces a score by a part of it." in render()


def _with(definitions: dict[str, Any]) -> dict[str, Any]:
    schema = job_schema()
    return {**schema, "$defs": {**schema["$defs"], **definitions}}
