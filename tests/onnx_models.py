"""ONNX models that a process of their own makes, with onnxruntime's own scores of all rows.

`python -m tests.onnx_models FOLDER` does it once, as a person would who knows nothing of
batchscore. What is small is made node by node, so that a test can make it too.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).parents[1]
ROWS = 20_000
COLUMNS = [f"f{place:02d}" for place in range(8)]
OPSET = 20


def numbers(rows: int = ROWS) -> Any:
    """Returns rows (b, f) of float32, the same each time."""
    return np.random.default_rng(4).normal(size=(rows, len(COLUMNS))).astype(np.float32)


def cities() -> Any:
    """Returns a text for each row."""
    return np.array(["Lima", "Genève", "Oslo"], object)[np.arange(ROWS) % 3]


def model_of(
    nodes: Sequence[Any],
    inputs: Mapping[str, Any],
    outputs: Mapping[str, Any],
    tensors: Mapping[str, Any] | None = None,
    domains: Mapping[str, int] | None = None,
) -> Any:
    """Returns a model of nodes; inputs and outputs have a type and a shape by name."""
    given, made = (
        [helper.make_tensor_value_info(name, *facts) for name, facts in each.items()]
        for each in (inputs, outputs)
    )
    held = [numpy_helper.from_array(np.asarray(a), name) for name, a in (tensors or {}).items()]
    graph = helper.make_graph([*nodes], "graph", given, made, held)
    opsets = [helper.make_opsetid(name, v) for name, v in {"": OPSET, **(domains or {})}.items()]
    model = helper.make_model(graph, opset_imports=opsets, producer_name="tests")
    model.ir_version = 10
    return model


def network(batch: Any = "n", width: int = len(COLUMNS)) -> Any:
    """Returns a small network of an input `x` and an output `logit`."""
    rng = np.random.default_rng(8)
    tensors = {
        "w1": (rng.normal(size=(width, 48)) / 3).astype(np.float32),
        "b1": rng.normal(size=48).astype(np.float32),
        "w2": (rng.normal(size=(48, 1)) / 7).astype(np.float32),
    }
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["kept"]),
        helper.make_node("MatMul", ["kept", "w2"], ["logit"]),
    ]
    kind = TensorProto.FLOAT
    return model_of(nodes, {"x": (kind, [batch, width])}, {"logit": (kind, [batch, 1])}, tensors)


def two_inputs() -> Any:
    """Returns a model of a number `f00`, of whole numbers `k` and of a vector `v` of open size."""
    nodes = [
        helper.make_node("Cast", ["k"], ["whole"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["v", "axis"], ["sum"], keepdims=0),
        helper.make_node("Squeeze", ["f00", "axis"], ["flat"]),
        helper.make_node("Add", ["whole", "sum"], ["half"]),
        helper.make_node("Add", ["half", "flat"], ["total"]),
    ]
    inputs = {
        "f00": (TensorProto.FLOAT, ["n", 1]),
        "k": (TensorProto.INT64, ["n"]),
        "v": (TensorProto.FLOAT, ["n", "m"]),
    }
    tensors = {"axis": np.array([1], np.int64)}
    return model_of(nodes, inputs, {"total": (TensorProto.FLOAT, ["n"])}, tensors)


def write_table(path: Path, rows: int = ROWS) -> pa.Table:
    """Writes rows with an id, in another order of columns than training's."""
    x = numbers()[:rows]
    floats = {name: x[:, place] for place, name in enumerate(COLUMNS)}
    others = {"id": np.arange(rows), "city": cities()[:rows]}
    table = pa.table({**dict(reversed(floats.items())), **others})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=5_000)
    return table


def _forest(x: Any) -> Any:
    from skl2onnx import to_onnx
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline

    y = x[:2000, 0] * x[:2000, 1] > 0.1
    forest = RandomForestClassifier(20, max_depth=6, random_state=1)
    model = make_pipeline(SimpleImputer(), forest).fit(x[:2000, :3], y)
    plain = to_onnx(model, x[:1, :3], options={id(model): {"zipmap": False}})
    return plain, to_onnx(model, x[:1, :3])


def _named(x: Any) -> Any:
    import pandas as pd
    from skl2onnx import to_onnx
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    y = (x[:, 0] * x[:, 1] > 0.1) ^ (cities() == "Oslo")
    rows = pd.DataFrame(x, columns=COLUMNS)[COLUMNS[:3]]
    made = []
    for encoder, known in (
        (StandardScaler(), rows),
        (
            make_column_transformer(
                (OneHotEncoder(handle_unknown="ignore"), ["city"]), remainder="passthrough"
            ),
            rows.assign(city=cities())[["city", *COLUMNS[:3]]],
        ),
    ):
        model = make_pipeline(encoder, LogisticRegression()).fit(known[:2000], y[:2000])
        made.append(to_onnx(model, known[:1], options={id(model): {"zipmap": False}}))
    return made


def _exported(x: Any) -> Any:
    import torch
    from torch import nn

    torch.manual_seed(3)
    net = nn.Sequential(nn.Linear(len(COLUMNS), 32), nn.ReLU(), nn.Dropout(), nn.Linear(32, 1))
    return torch.onnx.export(
        net.eval(),
        (torch.zeros(4, len(COLUMNS)),),
        dynamo=True,
        verbose=False,
        input_names=["x"],
        output_names=["logit"],
        dynamic_shapes=({0: torch.export.Dim("n")},),
    )


def make(folder: Path) -> None:
    """Writes the models, and what onnxruntime's own sessions make of all rows at once."""
    import onnxruntime
    from onnxruntime.quantization import quantize_dynamic

    x = numbers()
    onnx.save(network(), folder / "network.onnx")
    onnx.save(network(batch=8), folder / "fixed.onnx")
    pairs: Any = ((("forest", "zipmap"), _forest(x)), (("named", "texts"), _named(x)))
    for names, models in pairs:
        for name, model in zip(names, models, strict=True):
            onnx.save(model, folder / f"{name}.onnx")
    onnx.save(_exported(x).model_proto, folder / "exported.onnx")
    quantize_dynamic(folder / "network.onnx", folder / "dynamic_int8.onnx")
    gaps = x[:, :3].copy()
    gaps[::9, 1] = np.nan
    columns = {name: x[:, [place]] for place, name in enumerate(COLUMNS[:3])}
    given = {"network": {"x": x}, "exported": {"x": x}, "forest": {"X": gaps}, "named": columns}
    given["texts"] = {**columns, "city": cities()[:, None]}
    scores = {}
    # With several threads onnxruntime adds trees up in another order.
    options, providers = onnxruntime.SessionOptions(), ["CPUExecutionProvider"]
    options.intra_op_num_threads = 1
    for name, inputs in given.items():
        session = onnxruntime.InferenceSession(folder / f"{name}.onnx", options, providers)
        names = [each.name for each in session.get_outputs()]
        for each, array in zip(names, session.run(names, inputs), strict=True):
            scores[f"{name}_{each}"] = array
    np.savez(folder / "scores.npz", **scores)


def made(folder: Path) -> Path:
    """Returns the folder with what a process of its own has made."""
    command = [sys.executable, "-m", "tests.onnx_models", str(folder)]
    settings = {**os.environ, "OMP_NUM_THREADS": "2"}
    subprocess.run(command, cwd=ROOT, env=settings, check=True, capture_output=True)
    return folder


if __name__ == "__main__":
    make(Path(sys.argv[1]))
