"""Models of each format with rows for them, and each framework's own call of those rows.

    python -m benchmarks.conformance_cases CASE FOLDER ROWS

writes the rows, and the framework's own scores: of all rows at once, and of the first ones in
batches of 1 and 7. Nothing of batchscore is called for that. The models are those of the tests.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tests import boosters, factory, keras_models, onnx_models, pipelines

BATCHES = {1: 2_000, 7: 20_000}
"""Rows that are scored in batches of a size."""
_GROUP_ROWS = 50_000

Predict = Callable[[slice], Sequence[Any]]
"""Returns the framework's own scores of some rows, one array for each output."""


@dataclass(frozen=True)
class Case:
    """A model of a format.

    Args:
        model: The file, in the folder that `make` fills.
        make: Trains it, in a process of its own.
        rows: Returns so many rows as a person has them, with an id.
        own: Loads the file with its framework, for a table's rows.
        facts: More of the job's section `model`.
        outputs: Names of the scores.
    """

    model: str
    make: Callable[[Path], object]
    rows: Callable[[int], pa.Table]
    own: Callable[[Path, int], Predict]
    facts: Mapping[str, Any] = field(default_factory=dict)
    outputs: tuple[str, ...] = ("score",)


def _boosted(framework: str) -> Callable[[Path], object]:
    return lambda folder: boosters.trained(framework, folder)


def _with_ids(frame: pd.DataFrame) -> pa.Table:
    table = pa.Table.from_pandas(frame.assign(id=np.arange(len(frame))), preserve_index=False)
    place = table.schema.get_field_index("plan")
    if place >= 0:  # a person has texts where training had categories
        table = table.set_column(place, "plan", table["plan"].cast(pa.string()))
    return table


def _own_xgboost(path: Path, rows: int) -> Predict:
    import xgboost

    model = xgboost.XGBClassifier(n_jobs=1)
    model.load_model(path)
    frame = boosters.for_training(boosters.make_frame(rows))
    return lambda some: [np.asarray(model.predict_proba(frame[some]))[:, 1]]


def _own_lightgbm(path: Path, rows: int) -> Predict:
    import lightgbm

    model = lightgbm.Booster(model_file=path)
    frame = boosters.for_training(boosters.make_frame(rows))
    return lambda some: [np.asarray(model.predict(frame[some], num_threads=1))]


def _own_catboost(path: Path, rows: int) -> Predict:
    import catboost

    model = catboost.CatBoostClassifier().load_model(path)
    frame = boosters.for_catboost(boosters.make_frame(rows))
    return lambda some: [np.asarray(model.predict_proba(frame[some], thread_count=1))[:, 1]]


def _onnx_rows(rows: int) -> pa.Table:
    x_bf = _gaps(rows)
    return pa.table({"id": np.arange(rows), **dict(zip(onnx_models.COLUMNS, x_bf.T, strict=True))})


def _gaps(rows: int) -> Any:
    x_bf = onnx_models.numbers(rows)
    x_bf[::9, 1] = np.nan
    return x_bf


def _own_onnx(path: Path, rows: int) -> Predict:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    x_bf = _gaps(rows) if path.stem == "forest" else onnx_models.numbers(rows)
    x_bf = np.ascontiguousarray(x_bf[:, : given.shape[1]])
    return lambda some: session.run(None, {given.name: x_bf[some]})


def _network_rows(rows: int) -> pa.Table:
    x_bf = onnx_models.numbers(rows)
    return pa.table({"id": np.arange(rows), **dict(zip(onnx_models.COLUMNS, x_bf.T, strict=True))})


def _own_sklearn(path: Path, rows: int) -> Predict:
    import skops.io

    model = skops.io.load(path, trusted=skops.io.get_untrusted_types(file=path))
    frame = pipelines.make_frame(rows)
    return lambda some: [pipelines.own_scores(model, frame[some])]


def _own_keras(path: Path, rows: int) -> Predict:
    import keras

    model = keras.saving.load_model(path, compile=False)
    made = keras_models.make_rows(rows)
    names = ["pixels"] if path.stem == "image" else ["numbers", "ids"]

    def predict(some: slice) -> list[Any]:
        given = [made[name][some] for name in names]
        found = model.predict(given if len(given) > 1 else given[0], batch_size=1024, verbose=0)
        return found if isinstance(found, list) else [found]

    return predict


def _tensors(folder: Path) -> None:
    (folder / "net.py").write_text(factory.LAYERS)
    net = factory.build_net()
    for ending in ("pt", "safetensors"):
        factory.write_weights(folder / f"net.{ending}", net.state_dict())
    import torch

    rows = torch.export.Dim("rows", min=1)
    program = torch.export.export(net, (torch.randn(4, 2),), dynamic_shapes=({0: rows},))
    torch.export.save(program, folder / "net.pt2")


def _own_torch(path: Path, rows: int) -> Predict:
    import torch

    torch.set_num_threads(1)
    net = torch.export.load(path).module() if path.suffix == ".pt2" else factory.build_net()
    x_bf = torch.from_numpy(onnx_models.numbers(rows)[:, :2].copy())

    def predict(some: slice) -> list[Any]:
        with torch.inference_mode():
            return [net(x_bf[some]).numpy()]

    return predict


_NUMBERS = {"numbers": [f"n{place}" for place in range(6)]}
_INPUTS: dict[str, Any] = {"inputs": {"x": onnx_models.COLUMNS[:2]}}
_NET: dict[str, Any] = {
    "architecture": "net.py:Net",
    "inputs": {"x": {"columns": onnx_models.COLUMNS[:2]}},
    "outputs": {"logit": {"type": "float32"}},
}


def _trees(rows: int) -> pa.Table:
    return _with_ids(boosters.make_frame(rows))


def _filled_trees(rows: int) -> pa.Table:
    return _with_ids(boosters.for_catboost(boosters.make_frame(rows)))


def _pipeline(rows: int) -> pa.Table:
    return _with_ids(pipelines.make_frame(rows))


def _keras(model: str, inputs: Mapping[str, Any], *outputs: str) -> Case:
    facts = {"inputs": inputs} if inputs else {}
    return Case(model, keras_models.built, keras_models.make_table, _own_keras, facts, outputs)


def _net(form: str) -> Case:
    facts = {**_NET, "format": form}
    return Case(f"net.{form}", _tensors, _network_rows, _own_torch, facts, ("logit",))


CASES: Mapping[str, Case] = {
    "xgboost ubj": Case("binary.ubj", _boosted("xgboost"), _trees, _own_xgboost),
    "xgboost json": Case("binary.json", _boosted("xgboost"), _trees, _own_xgboost),
    "lightgbm": Case("binary.txt", _boosted("lightgbm"), _trees, _own_lightgbm),
    "catboost": Case("binary.cbm", _boosted("catboost"), _filled_trees, _own_catboost),
    "onnx network": Case(
        "network.onnx",
        onnx_models.made,
        _network_rows,
        _own_onnx,
        {"inputs": {"x": onnx_models.COLUMNS}},
        ("logit",),
    ),
    "onnx forest": Case(
        "forest.onnx",
        onnx_models.made,
        _onnx_rows,
        _own_onnx,
        {"inputs": {"X": onnx_models.COLUMNS[:3]}},
        ("label", "probabilities"),
    ),
    "sklearn linear": Case("usual.skops", pipelines.trained_pipelines, _pipeline, _own_sklearn),
    "sklearn forest": Case("coded.skops", pipelines.trained_pipelines, _pipeline, _own_sklearn),
    "keras image": _keras("image.keras", {}, "score"),
    "h5 mixed": _keras("mixed.h5", _NUMBERS, "amount", "classes"),
    "safetensors": _net("safetensors"),
    "pt": _net("pt"),
    "pt2": Case(
        "net.pt2", _tensors, _network_rows, _own_torch, {**_INPUTS, "allow_code": True}, ("score",)
    ),
}


def _batched(predict: Predict, rows: int, size: int) -> list[Any]:
    made = [predict(slice(first, min(first + size, rows))) for first in range(0, rows, size)]
    return [np.concatenate(parts) for parts in zip(*made, strict=True)]


def main() -> None:
    """Writes `rows.parquet` and `own.npz`."""
    name, folder, rows = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    case = CASES[name]
    pq.write_table(case.rows(rows), folder / "rows.parquet", row_group_size=_GROUP_ROWS)
    predict = case.own(folder / case.model, rows)
    found = {"all": predict(slice(0, rows))}
    for size, most in BATCHES.items():
        found[str(size)] = _batched(predict, min(most, rows), size)
    arrays = {
        f"{key}-{n}": np.asarray(each) for key, made in found.items() for n, each in enumerate(made)
    }
    np.savez(folder / "own.npz", allow_pickle=False, **arrays)


if __name__ == "__main__":
    main()
