"""What is known of rows before a pipeline runs."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import pyarrow as pa
import pytest
from apache_beam.typehints.row_type import RowTypeConstraint

from batchscore.columnar.ragged import Varying
from batchscore.errors import InputError
from batchscore.job import load_embedded
from batchscore.models.features import Calendar, Categorical
from batchscore.models.inputs import ModelInput
from batchscore.models.tree_features import Coded
from batchscore.score.elementwise import ElementPlan, plan_elements
from batchscore.score.row_types import outcome_types, require_free, require_types, schema_of
from batchscore.score.shape import needs_schema
from tests import factory


class Trip(NamedTuple):
    """A row with fields that Beam knows no type of."""

    a: float
    b: float | None
    part: str | None
    when: datetime
    cost: Decimal


@dataclasses.dataclass(frozen=True)
class Scored:
    """A row that has a score already."""

    a: float
    b: float
    score: float


def planned(folder: Path, **changes: Any) -> ElementPlan:
    """Returns a plan of the small job."""
    dotted = {key.replace("__", "."): value for key, value in changes.items()}
    job = str(factory.write_job(folder, dotted))
    return plan_elements(load_embedded(job), pa.schema([]), None, "", 1)


def test_fields_without_a_type_are_left_out_where_the_job_does_not_read_them(
    tmp_path: Path,
) -> None:
    """The others have their annotations' types, also in today's spelling."""
    found = schema_of(Trip)
    types = [("a", pa.float64()), ("b", pa.float64()), ("part", pa.string())]
    assert found == pa.schema(types)
    require_types(Trip, found, planned(tmp_path))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"input__filters": [["cost", ">", 1]]}, "'cost' is a Decimal"),
        ({"checks__not_null": ["when"]}, "'when' is a datetime"),
        ({"output__columns": ["when"]}, "'when' is a datetime"),
    ],
)
def test_a_field_that_the_job_reads_needs_a_type(
    tmp_path: Path, changes: dict[str, Any], field: str
) -> None:
    """The message names the field, and says how to give its type."""
    with pytest.raises(InputError, match=rf"field {field}, .*give schema.*\(\"a\", pa.float32"):
        require_types(Trip, schema_of(Trip), planned(tmp_path, **changes))


def test_a_field_with_the_name_of_a_score_is_refused_before_a_pipeline_runs(
    tmp_path: Path,
) -> None:
    """Unless the job leaves it out."""
    row = RowTypeConstraint.from_fields([("a", float), ("model_version", str)])
    for kind, name in ((Scored, "score"), (row, "model_version")):
        with pytest.raises(InputError, match=f"a row has a field '{name}'.*leave the field out"):
            require_free(kind, planned(tmp_path / name))
    left_out = planned(tmp_path / "columns", output__columns=["a"])
    require_free(Scored, left_out)
    names = [name for name, _ in outcome_types(Scored, left_out)[0]._fields]
    assert names == ["a", "score", "model_version"]


def test_the_schema_that_is_proposed_fits_the_model(tmp_path: Path) -> None:
    """Texts where the model's categories are texts, and the numbers that it takes elsewhere."""
    plan = planned(tmp_path).plan
    members = (
        Categorical(column="carrier", vocabulary=("UA", "B6")),
        Coded(column="gate", vocabulary=(3, 7)),
        Calendar(column="time", part="hour", timezone="America/New_York"),
    )
    columns = tuple(each.column for each in members)
    model = plan.spec.scoring.model
    for made, shown in (
        (model, '[("a", pa.float32()), ("b", pa.float32())]'),
        (
            replace(model, inputs=(ModelInput("x", "int64", (), ("ids",), Varying(8, 0, False)),)),
            '[("ids", pa.list_(pa.int64()))]',
        ),
        (
            replace(
                model,
                inputs=(ModelInput("x", "float32", (4,), columns),),
                features=cast(Any, SimpleNamespace(inputs={"x": members})),
            ),
            '[("carrier", pa.string()), ("gate", pa.int64()), ("time", pa.timestamp("us", "UTC"))]',
        ),
    ):
        assert (
            f"why; give schema, with the types of what the job reads: schema=pa.schema({shown})"
            in str(needs_schema(plan.loaded.job, made, "why"))
        )
