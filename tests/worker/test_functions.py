"""Test which functions of a job are taken, by what they can be called with."""

from __future__ import annotations

import pytest

from batchscore.errors import FunctionError
from batchscore.job import UserFunction, load_job
from batchscore.plan import make_plan
from batchscore.worker.scoring import load_call
from batchscore.worker.spec import Spec
from tests.factory import write_job

CODE = """
import functools


def one(batch, *, scale=1): return batch
def any_(*args): return args[0]
def two(a, b): return a
def none(): ...
def named(*, batch): return batch
partial = functools.partial(two, b=1)


def given(function):
    @functools.wraps(function)
    def inner(batch): return function(batch, 2)
    return inner


wrapped = given(two)
built_in = max


class Callable:
    def __call__(self, batch): return batch


class Empty: ...


instance = Callable()
"""


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Spec:
    """The spec of a job that lists the functions' file."""
    folder = tmp_path_factory.mktemp("job")
    (folder / "f.py").write_text(CODE)
    job = write_job(folder, {"postprocess": {"function": "f.py:one"}})
    return make_plan(load_job(str(job))).spec


@pytest.mark.parametrize("name", ["one", "any_", "partial", "wrapped", "built_in", "instance"])
def test_a_function_that_takes_a_batch_is_loaded(spec: Spec, name: str) -> None:
    """What counts is how it can be called, not what it wraps or what it is."""
    assert load_call(UserFunction(function=f"f.py:{name}"), spec).reference == f"f.py:{name}"


@pytest.mark.parametrize(
    ("name", "takes"), [("two", "(a, b)"), ("none", "()"), ("named", "(*, batch)"), ("Empty", "()")]
)
def test_a_function_that_takes_something_else_is_refused(spec: Spec, name: str, takes: str) -> None:
    """It is named with its arguments before any work."""
    with pytest.raises(FunctionError) as caught:
        load_call(UserFunction(function=f"f.py:{name}"), spec)
    assert f"function f.py:{name}: takes {takes}; expected a function of one" in str(caught.value)
