"""Tests of what a call of another package's model may return."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from batchscore.errors import StepError
from batchscore.models.backends.calling import PlainCalls
from batchscore.models.backends.facts import OutputSpec, Promises

PROMISES = Promises(None, True, "nan", "cpu", 1, "1.0")
SPEC = OutputSpec("score", "float32", ())


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (None, "returned NoneType; expected a mapping from each output's name"),
        (np.zeros(2, np.float32), "returned ndarray; expected a mapping"),
        ({"score": [[1.0], [1.0, 2.0]]}, "returned list for output 'score', which is not an array"),
        ({"score": np.zeros(1, np.float32)}, r"returned shape \[1\] for output 'score'"),
        ({"score": ["a", "b"]}, "expected booleans, integers or floats"),
    ],
)
def test_outputs_of_another_form_are_refused(returned: Any, words: str) -> None:
    """The message says what the model returned, and what was expected."""
    calls = PlainCalls(lambda inputs: returned, PROMISES, [SPEC])
    with pytest.raises(StepError, match=words):
        calls.predict({"x": np.zeros((2, 1), np.float32)}, 2)


@pytest.mark.parametrize("leaves", [True, False])
def test_only_a_model_that_says_so_gets_the_inputs_themselves(leaves: bool) -> None:
    """A model may write into what it receives, unless it promises not to."""
    values = np.zeros((3, 1), np.float32)
    given = []

    def model(inputs: Any) -> Any:
        given.append(inputs["x"])
        return {"score": inputs["x"][:, 0]}

    calls = PlainCalls(model, replace(PROMISES, leaves_inputs=leaves), [SPEC])
    calls.predict({"x": values}, 3)
    assert np.shares_memory(given[0], values) is leaves
