"""Checks that a row passes or fails alone."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from batchscore.errors import StepError
from batchscore.job import Checks, column_checks
from batchscore.stages.block import Block
from batchscore.stages.row_checks import reject_failing
from tests.factory import make_batch, make_block


def checked(values: dict[str, Any], **asked: Any) -> Block:
    """Returns four rows with scores, once they were checked."""
    batch = make_batch(id=[0, 1, 2, 3], kind=["a", None, "b", "c"])
    block = make_block(batch, values=make_batch(**values))
    checks = Checks(**asked)
    return reject_failing(block, column_checks(checks), checks)


def reasons(block: Block) -> list[tuple[int, str, str | None]]:
    """Returns each rejected row with its error and its detail."""
    return [
        (row, each.error, text)
        for each in block.rejects
        for row, text in zip(each.rows_r.to_pylist(), each.texts.to_pylist(), strict=True)
    ]


def test_a_row_is_rejected_for_the_first_check_that_it_fails() -> None:
    """Nulls, then values that are not accepted, then scores out of range."""
    done = checked(
        {"score": [0.5, 0.5, 2.0, 2.0]},
        not_null=["kind"],
        accepted={"kind": ["a", "b"]},
        score_range=[0, 1],
    )
    assert done.batch.column("id").to_pylist() == [0]
    assert reasons(done) == [
        (1, "Null", None),
        (3, "NotAccepted", "found c"),
        (2, "OutOfRange", "found 2"),
    ]


@pytest.mark.parametrize(
    "values",
    [
        {"score": pa.array([[0.5, 0.5], [1.5, -1], [0, 1], [2.0, 9]], pa.list_(pa.float32(), 2))},
        {"score": [[0.5], [0.1, 1.5], [], [2.0]]},
        {"score": pa.array([0, 3, 1, 2], pa.uint8())},
    ],
)
def test_all_numbers_of_a_score_have_to_be_in_its_range(values: dict[str, Any]) -> None:
    """Vectors, lists of any length, and integers; the first number outside is shown."""
    done = checked(values, score_range={"score": [0, 1]})
    assert [row for row, _, _ in reasons(done)] == [1, 3]


def test_scores_that_are_no_numbers_have_no_range() -> None:
    """Neither has the age of a column's newest value, which is none of a row."""
    done = checked({"score": ["x"] * 4}, score_range=[0, 1], fresh={"kind": "1h"})
    assert done.rejects == ()


def test_a_check_of_no_column_is_an_error() -> None:
    """It names the nearest one."""
    with pytest.raises(StepError, match=r"checks.not_null: there is no column 'knd'.*'kind'"):
        checked({"score": [0.5] * 4}, not_null=["knd"])
