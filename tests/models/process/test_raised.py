"""Tests of errors on their way between processes."""

from __future__ import annotations

import json
import traceback

import pytest

from batchscore.errors import FailedError, ModelError, ShardError, StepError
from batchscore.models.process.raised import failure_from_json, failure_to_json


def sent(error: BaseException) -> Exception:
    """The error as another process gets it."""
    return failure_from_json(json.loads(json.dumps(failure_to_json(error))))


@pytest.mark.parametrize(
    "error",
    [ModelError("a model"), StepError("a step"), FailedError("x" * 1000), MemoryError("much")],
)
def test_known_errors_keep_their_class_and_words(error: Exception) -> None:
    """Also words that are longer than a line."""
    found = sent(error)
    assert type(found) is type(error)
    assert str(found) == str(error)


def test_a_subclass_comes_as_the_nearest_that_is_known() -> None:
    """What a caller catches still catches it."""
    assert type(sent(ShardError("a.parquet", "is gone"))) is StepError


def test_the_cause_of_a_step_keeps_its_class_and_words() -> None:
    """A rejected row's reason is the same as from a model in this process."""
    error = StepError("the model raised")
    error.__cause__ = ZeroDivisionError("by zero")
    causes = [sent(error).__cause__, sent(error).__cause__]
    assert [(type(each).__name__, str(each)) for each in causes] == [
        ("ZeroDivisionError", "by zero")
    ] * 2
    assert type(causes[0]) is type(causes[1])


def test_an_error_says_where_it_was_raised() -> None:
    """`--debug` shows the lines of the other process."""

    def fail() -> None:
        raise ValueError("here")

    with pytest.raises(ValueError, match="here") as error:
        fail()
    assert "in fail" in "".join(traceback.format_exception(sent(error.value)))


def test_an_error_of_the_system_keeps_its_number() -> None:
    """Its number says what to do."""
    found = sent(FileNotFoundError(2, "No such file or directory", "a/b"))
    assert isinstance(found, FileNotFoundError)
    assert found.filename == "a/b"


def test_an_error_that_cannot_say_what_it_is_has_no_words() -> None:
    """Its class must do."""

    class MuteError(Exception):
        def __str__(self) -> str:
            raise ValueError

    assert (type(sent(MuteError())).__name__, str(sent(MuteError()))) == ("MuteError", "")
