"""Dictionaries and rows to batches, and back."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pytest

from batchscore.errors import InputError
from batchscore.job import load_embedded
from batchscore.score.elementwise import element_spec, plan_elements
from batchscore.score.python_rows import fields_of, score_rows
from batchscore.score.scorer import ElementScorer, scorer_of
from tests import factory

DECLARED = pa.schema([("id", pa.int64()), ("a", pa.float32()), ("b", pa.float64())])


class Pair(NamedTuple):
    """A row."""

    a: int
    b: str


@dataclasses.dataclass
class Point:
    """A row."""

    a: int
    b: str


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> ElementScorer:
    """What scores dictionaries, three rows at a time."""
    job = factory.write_job(tmp_path_factory.mktemp("job"), {"runtime.batch_rows": 3})
    planned = plan_elements(load_embedded(str(job)), DECLARED, None, "", 1)
    return scorer_of(element_spec(planned, DECLARED))


@pytest.mark.parametrize("element", [{"a": 1, "b": "x"}, Pair(1, "x"), Point(1, "x")])
def test_the_fields_of_a_row_are_found_by_name(element: Any) -> None:
    """Of a dictionary, a named tuple, or a dataclass."""
    assert fields_of(element) == {"a": 1, "b": "x"}


@pytest.mark.parametrize("element", [1, "text", (1, 2), Point, None])
def test_what_is_no_row_is_refused(element: Any) -> None:
    """The message says what was found and what is taken."""
    with pytest.raises(InputError, match=r"bs.Score found .* among its elements; it takes record"):
        fields_of(element)


def test_a_number_that_its_type_cannot_hold_is_rejected(scorer: ElementScorer) -> None:
    """A float that would become infinite, and an integer that a float would round."""
    rows = [{"id": 1, "a": 1e300, "b": 1.0}, {"id": 2, "a": 1.0, "b": 2**60 + 1}]
    ((_, scored, rejected),) = score_rows(rows, scorer)
    assert scored == {}
    assert [row["_error"] for row in rejected.values()] == ["InvalidValue"] * 2


def test_a_schema_may_name_dictionaries(tmp_path: Path) -> None:
    """Their values have no limit, however small the indices are."""
    part = pa.field("part", pa.dictionary(pa.int8(), pa.string()))
    declared = pa.schema([*DECLARED, part])
    job = factory.write_job(tmp_path, {"checks.not_null": ["part"]})
    planned = plan_elements(load_embedded(str(job)), declared, None, "", 1)
    rows = [{"id": i, "a": 1.0, "b": 1.0, "part": f"p{i}" if i else 3} for i in range(300)]
    ((_, scored, rejected),) = score_rows(rows, scorer_of(element_spec(planned, declared)))
    assert len(scored) == 299
    assert rejected[0]["_detail"] == "field 'part': 3, expected string"


def test_a_row_that_does_not_fit_its_types_is_rejected_alone(scorer: ElementScorer) -> None:
    """Wherever in its block it is; the reason shows the field, its value and its type."""
    good: dict[str, Any] = {"id": 1, "a": 0.5, "b": 2}
    rows: list[dict[str, Any]] = [
        good,
        {"id": 2, "a": "x", "b": 1.0},
        {"id": 3, "b": 1.0},
        good,
        {"id": 2**70, "a": "y" * 200, "b": 1.0, "_stage": 7},
        good,
        good,
    ]
    found = list(score_rows(rows, scorer))
    scored = {place for _, some, _ in found for place in some}
    rejected = {place: row for _, _, some in found for place, row in some.items()}
    assert scored == {0, 3, 5, 6}
    assert rejected[1] == {
        "_stage": "convert",
        "_error": "InvalidValue",
        "_message": "field 'a' has a value that is not float",
        "_detail": "field 'a': 'x', expected float",
        **rows[1],
    }
    assert rejected[2]["_message"] == "the row has no field 'a'"
    assert rejected[2]["_detail"] is None
    assert rejected[4]["_detail"] == f"field 'id': {2**70}, expected int64"
    assert (rejected[4]["_stage"], rejected[4]["input._stage"]) == ("convert", 7)
    assert [outcome.read for outcome, _, _ in found] == [3, 3, 1]
