"""Test that public functions refuse arguments of wrong types in words, and take all others."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import batchscore as bs
from batchscore.arguments import _description, checks_arguments, checks_fields

FUNCTIONS = [name for name in bs.__all__ if inspect.isfunction(getattr(bs, name))]
CLASSES = ["Category", "DatePart", "Number"]


@checks_arguments
def example(
    path: str | Path,
    inputs: Mapping[str, Sequence[str]] | None = None,
    *,
    pairs: Mapping[str, tuple[float | None, float | None]] | None = None,
    names: Collection[str] = (),
    rows: int = 1,
    ratio: float = 0.5,
    again: bool = False,
    anything: Any = None,
) -> str:
    """Returns its path.

    Args:
        path: Where it is, such as
            `out/a`.
        inputs: Columns of each input.

    Raises:
        ValueError: Never.
    """
    return str(path)


RIGHT: list[dict[str, Any]] = [
    {"path": Path("x")},
    {"inputs": {}},
    {"inputs": {"a": ["x"], "b": ("y", "z")}},
    {"pairs": {"psi": (0.1, None), "ks": [1, np.float32(2)]}},
    {"names": {"a", "b"}},
    {"names": {"a": 1}.keys()},
    {"names": np.array(["a", "b"])},
    {"rows": np.int64(3)},
    {"ratio": 1},
    {"ratio": np.float32(0.5)},
    {"again": True},
    {"anything": object()},
]
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"path": None}, "example, argument path: expected a text or a Path, found None. path takes: "),
    ({"path": b"x"}, "found b'x' (type bytes). path takes: Where it is, such as out/a."),
    ({"inputs": "a"}, "argument inputs: expected a dict or None, found 'a' (type str). inputs tak"),
    ({"inputs": ["a"]}, "argument inputs: expected a dict or None, found a list. inputs takes: Co"),
    ({"inputs": {"a": "x"}}, "argument inputs['a']: expected a list of texts, found 'x' (type st"),
    ({"inputs": {"a": ["x", 1]}}, "argument inputs['a'][1]: expected a text, found 1 (type int)"),
    ({"inputs": {1: ["x"]}}, "argument inputs, a key: expected a text, found 1 (type int)"),
    ({"inputs": {"a": {"x"}}}, "argument inputs['a']: expected a list of texts, found a set"),
    ({"pairs": {"psi": 1}}, "pairs['psi']: expected a pair (a number or None, a number or None), "),
    ({"pairs": {"psi": (1,)}}, "pairs['psi']: expected a pair (a number or None, a number or None"),
    ({"pairs": {"psi": ("a", 1)}}, "pairs['psi'][0]: expected a number or None, found 'a' (type s"),
    ({"names": "ab"}, "argument names: expected a list of texts, found 'ab' (type str)"),
    ({"names": {"a": 1}}, "argument names: expected a list of texts, found a dict"),
    ({"rows": 1.5}, "argument rows: expected a whole number, found 1.5 (type float)"),
    ({"rows": True}, "argument rows: expected a whole number, found True"),
    ({"ratio": "1"}, "argument ratio: expected a number, found '1' (type str)"),
    ({"again": 1}, "argument again: expected True or False, found 1 (type int)"),
    ({"path": 3, "inputs": "s3://key:secret@b"}, "argument path: expected a text or a Path"),
    ({"inputs": "s3://key:secret@b"}, "found 's3://***@b' (type str)"),
]


@pytest.mark.parametrize("given", RIGHT)
def test_what_an_annotation_allows_is_taken(given: dict[str, Any]) -> None:
    """Numbers may be NumPy's, and what takes any collection takes sets and arrays."""
    assert example(**{"path": "x", **given}) == "x"


@pytest.mark.parametrize(("given", "words"), WRONG, ids=[words[:40] for _, words in WRONG])
def test_a_wrong_type_is_reported_in_words(given: dict[str, Any], words: str) -> None:
    """The message names the argument, what was expected and found, and what the docstring says."""
    with pytest.raises(bs.InvalidError) as caught:
        example(**{"path": "x", **given})
    assert words in str(caught.value)
    assert isinstance(caught.value, TypeError)
    assert "secret" not in str(caught.value)


def test_missing_and_unknown_arguments_are_pythons() -> None:
    """Python's own error names the function."""
    with pytest.raises(TypeError, match=r"example\(\) missing 1 required"):
        example()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"example\(\) got an unexpected .* 'pth'"):
        example(pth="x")  # type: ignore[call-arg]


@pytest.mark.parametrize("name", [*FUNCTIONS, *CLASSES])
def test_each_public_function_says_what_it_takes(name: str) -> None:
    """A new function is checked too, and its docstring describes each argument."""
    called = getattr(bs, name)
    checked = called if inspect.isfunction(called) else called.__init__
    assert inspect.isfunction(inspect.unwrap(checked))
    assert checked is not inspect.unwrap(checked)
    assert all(_description(called, each) for each in inspect.signature(called).parameters)


@checks_fields
@dataclass(frozen=True)
class Example:
    """A column.

    Args:
        column: Its name.
    """

    column: str
    rows: int = 1


def test_a_dataclass_refuses_fields_of_wrong_types() -> None:
    """The message names the class; what fits makes the same instance."""
    assert Example("x", rows=2) == Example("x", 2)
    with pytest.raises(bs.InvalidError, match="Example, argument column: expected a text, found 3"):
        Example(3)  # type: ignore[arg-type]
