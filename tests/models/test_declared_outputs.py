"""Outputs that a card declares, compared with those of the model's file before any work."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.errors import ModelError, StepError
from batchscore.models.backends.calling import cast_output, check_outputs
from batchscore.models.backends.facts import Facts, FileTensor, OutputSpec
from batchscore.models.declared_outputs import check_declared_outputs
from batchscore.models.loadable import Model, ModelOutput

TYPES = ("bool", "int8", "uint8", "int32", "int64", "float16", "float32", "float64")


def model(*outputs: tuple[str, str, tuple[int, ...]]) -> Model:
    """Returns a model of declared outputs."""
    declared = tuple(ModelOutput(*each) for each in outputs)
    return Model("m", "1", "onnx", "/m", "m.onnx", "", {}, (), declared, {})


def refused(declared: Model, made: Sequence[FileTensor]) -> str:
    """Returns why outputs are refused; nothing if they are not."""
    try:
        check_declared_outputs(declared, Facts(made=tuple(made)))
    except ModelError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(("declared", "own"), [*itertools.product(TYPES, TYPES)], ids="_".join)
def test_what_no_batch_could_pass_is_refused(declared: str, own: str) -> None:
    """A type is refused if a call's check would refuse each value of the file's type."""
    wrong = refused(model(("s", declared, ())), [FileTensor("s", own, ())])
    spec = OutputSpec("s", declared, ())
    try:
        cast_output(np.ones(3, own), spec)
    except StepError:
        assert f"output 's' is {declared} as declared, which cannot hold {own} of m.onnx" in wrong
    else:
        assert not wrong


@given(st.lists(st.integers(1, 3), max_size=3), st.lists(st.integers(1, 3), max_size=3))
def test_a_shape_is_refused_that_a_call_refuses(declared: list[int], own: list[int]) -> None:
    """Only a last size of one may be left out."""
    wrong = refused(
        model(("s", "float32", tuple(declared))), [FileTensor("s", "float32", tuple(own))]
    )
    spec = OutputSpec("s", "float32", tuple(declared))
    try:
        check_outputs({"s": np.ones((2, *own), np.float32)}, [spec], 2)
    except StepError:
        assert f"output 's' has shape {declared} as declared, and {own} in m.onnx" in wrong
    else:
        assert not wrong


def test_sizes_that_a_file_leaves_open_fit() -> None:
    """So does a file that says nothing of a shape."""
    wide = model(("s", "float32", (3,)))
    assert not refused(wide, [FileTensor("s", "bfloat16", (None,))])
    assert not refused(wide, [FileTensor("s", "float32", None)])
    assert "and [?, 4] in m.onnx" in refused(wide, [FileTensor("s", "float32", (None, 4))])


def test_outputs_are_found_by_name_or_in_their_order() -> None:
    """Other names are those of the card, for what the file returns in its order."""
    made = [FileTensor("a", "float32", ()), FileTensor("b", "int64", ())]
    assert not refused(model(("b", "int64", ()), ("a", "float32", ())), made)
    assert not refused(model(("u", "float32", ()), ("v", "int64", ())), made)
    assert "output 'u' is int64" in refused(model(("u", "int64", ()), ("v", "int64", ())), made)


def test_trees_have_one_output() -> None:
    """A second one is refused with the names of those declared."""
    facts = Facts(declared=(OutputSpec("score", "float32", ()),))
    with pytest.raises(ModelError, match=r"2 outputs \(s, t\) are declared, and m\.onnx has 1 out"):
        check_declared_outputs(model(("s", "float32", ()), ("t", "float32", ())), facts)
    wrong: Any = model(("s", "int64", ()))
    with pytest.raises(ModelError, match="is int64 as declared, which cannot hold float32"):
        check_declared_outputs(wrong, facts)
