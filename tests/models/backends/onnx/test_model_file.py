"""Tests of what an ONNX file says of itself, and of what is refused before it is loaded."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from batchscore.errors import ModelError
from batchscore.models.backends.onnx.model_file import Tensor, read_model_file
from batchscore.models.backends.onnx.scored import check_file
from batchscore.models.folder import single_file_model
from batchscore.models.loadable import Model
from tests.models.backends.onnx.test_protobuf import encoded
from tests.onnx_models import model_of, network, two_inputs

FLOAT = TensorProto.FLOAT


def of_nodes(*nodes: Any, domains: dict[str, int] | None = None, **tensors: Any) -> Any:
    """Returns a model of an input x and an output y."""
    shape: tuple[int, list[Any]] = (FLOAT, ["n", 2])
    return model_of(nodes, {"x": shape}, {"y": shape}, tensors, domains)


def inside(node: Any) -> Any:
    """Returns a model that computes a node in one of two branches."""
    made = helper.make_tensor_value_info("y2", FLOAT, ["n", 2])
    branch = helper.make_graph([node], "branch", [], [made])
    other = helper.make_graph([helper.make_node("Identity", ["x"], ["y2"])], "other", [], [made])
    chosen = helper.make_node("If", ["flag"], ["y"], then_branch=branch, else_branch=other)
    return of_nodes(chosen, flag=np.array(True))


def check(model: Any, *listed: str) -> None:
    check_file(read_model_file(model.SerializeToString()), listed)


def test_a_file_says_its_inputs_and_outputs() -> None:
    """Names, types and shapes are those that onnx wrote; what has a value is no input."""
    model = two_inputs()
    model.graph.input.append(helper.make_tensor_value_info("axis", TensorProto.INT64, [1]))
    found = read_model_file(model.SerializeToString())
    assert found.inputs == (
        Tensor("f00", "float32", (None, 1)),
        Tensor("k", "int64", (None,)),
        Tensor("v", "float32", (None, None)),
    )
    assert found.outputs == (Tensor("total", "float32", (None,)),)
    assert (found.ir_version, found.opsets, found.producer) == (10, {"": 20}, "tests")
    assert {each.name for each in found.operators} == {"Cast", "ReduceSum", "Squeeze", "Add"}
    assert (found.parameters, found.nodes) == (1, 5)


def test_files_of_other_writers_are_read(onnx_models: Path) -> None:
    """What torch, scikit-learn and the quantizer write has the shapes that onnx reads of it."""
    for path in onnx_models.glob("*.onnx"):
        theirs, found = onnx.load(path), read_model_file(path.read_bytes())
        inputs = {each.name: each.type.tensor_type.shape.dim for each in theirs.graph.input}
        assert {e.name: len(e.shape or ()) for e in found.inputs} == {
            name: len(dims) for name, dims in inputs.items()
        }
        assert found.nodes >= len(theirs.graph.node)
        assert {(e.domain, e.name) for e in found.operators} >= {
            (each.domain, each.op_type) for each in theirs.graph.node
        }


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            of_nodes(helper.make_node("RandomNormalLike", ["x"], ["y"])),
            "random numbers (operator RandomNormalLike)",
        ),
        (
            inside(helper.make_node("RandomUniform", [], ["y2"], shape=[3, 2])),
            "random numbers (operator RandomUniform)",
        ),
        (
            of_nodes(helper.make_node("Dropout", ["x", "r", "t"], ["y"]), r=0.5, t=np.array(True)),
            "call model.eval() before the export",
        ),
        (
            of_nodes(helper.make_node("Magic", ["x"], ["y"], domain="a.b"), domains={"a.b": 1}),
            "operator Magic of domain a.b, which the ONNX standard does not define",
        ),
        (
            of_nodes(
                helper.make_node("Sampling", ["x"], ["y"], domain="com.microsoft"),
                domains={"com.microsoft": 1},
            ),
            "operator Sampling of domain com.microsoft",
        ),
    ],
    ids=["random", "in a branch", "dropout", "foreign", "of the runtime"],
)
def test_operators_that_are_random_or_foreign_are_refused(model: Any, message: str) -> None:
    """They are found in the graph, in its branches and in its functions."""
    with pytest.raises(ModelError) as caught:
        check(model)
    assert message in str(caught.value)


def test_functions_of_the_file_are_its_own_and_looked_into() -> None:
    """A domain that the file defines is not foreign; a random operator in it is refused."""
    for operator, refused in (("Relu", False), ("Bernoulli", True)):
        model = of_nodes(helper.make_node("Own", ["x"], ["y"], domain="mine"), domains={"mine": 1})
        body = [helper.make_node(operator, ["a"], ["b"])]
        opsets = [helper.make_opsetid("", 20)]
        model.functions.append(helper.make_function("mine", "Own", ["a"], ["b"], body, opsets))
        if refused:
            with pytest.raises(ModelError, match="Bernoulli"):
                check(model)
        else:
            check(model)


def test_a_dropout_that_is_switched_off_is_taken() -> None:
    """Without its third input, or with one that is false, it returns what it is given."""
    check(of_nodes(helper.make_node("Dropout", ["x"], ["y"])))
    off = helper.make_node("Dropout", ["x", "r", "t"], ["y"])
    check(of_nodes(off, r=np.array(0.5, np.float32), t=np.array(False)))


def external(path: Path, location: str) -> Model:
    """Returns a model whose weights lie elsewhere, in a file next to it as well."""
    model = network()
    for each in model.graph.initializer:
        each.ClearField("raw_data")
        each.data_location = TensorProto.EXTERNAL
        each.external_data.add(key="location", value=location)
    path.write_bytes(model.SerializeToString())
    return single_file_model(
        str(path), format="onnx", architecture=None, inputs=(), outputs=(), base="."
    )


@pytest.mark.parametrize(
    "location", ["/etc/passwd", "../weights.bin", "a/b.bin", "", ".hidden", "a\0b"]
)
def test_tensors_outside_the_folder_are_refused(location: str, tmp_path: Path) -> None:
    """An absolute path, one that leaves the folder, and one of a folder in it are no file names."""
    with pytest.raises(ModelError, match="no plain file name in the model's own folder"):
        external(tmp_path / "m.onnx", location)


def test_a_second_file_needs_a_folder_that_lists_it(tmp_path: Path) -> None:
    """A path alone says the SHA-256 of one file only; the message says how to list the other."""
    (tmp_path / "m.bin").write_bytes(b"\0" * 4096)
    with pytest.raises(ModelError, match=r"second file, 'm\.bin'.*bs\.save_model\('model'"):
        external(tmp_path / "m.onnx", "m.bin")


def nested(depth: int) -> bytes:
    graph = b""
    for _ in range(depth):
        graph = encoded([(1, encoded([(4, b"If"), (5, encoded([(6, graph)]))]))])
    return encoded([(1, 8), (7, graph)])


def test_hostile_files_take_no_time_and_no_memory() -> None:
    """Deep nesting, impossible sizes and texts that are none end in a message."""
    tensor = encoded([(1, 1 << 62), (1, 1 << 62), (8, b"t")])
    cases = {
        "nested too deeply": nested(sys.getrecursionlimit()),
        "has 2 graphs": encoded([(1, 8), (7, b""), (7, b"")]),
        "impossible dimensions": encoded([(1, 8), (7, encoded([(5, encoded([(1, 2**63)]))]))]),
        "no input, or no output": encoded([(1, 8), (7, encoded([(5, tensor)]))]),
        "damaged": encoded([(1, 8), (7, encoded([(1, encoded([(4, b"\xff\xfe")]))]))]),
        "field 1 is a number": encoded([(1, 8), (7, encoded([(1, encoded([(1, 3)]))]))]),
    }
    for message, content in cases.items():
        with pytest.raises(ModelError, match=message):
            read_model_file(content)


@pytest.mark.parametrize("size", [0, 1, 10, 200])
def test_cut_files_and_noise_are_refused(size: int) -> None:
    """No content but a model's is one."""
    for content in (network().SerializeToString()[:size], os.urandom(size), b"\x80\x04." * size):
        with pytest.raises(ModelError, match="no ONNX model, or damaged"):
            read_model_file(content)
