"""Tests of the backends against what every backend promises."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from batchscore.columnar.arrays import Array
from batchscore.columnar.texts import make_texts
from batchscore.models.backends.facts import Inputs
from batchscore.models.folder import read_model_folder, single_file_model
from batchscore.models.inputs import ModelInput
from batchscore.models.loadable import ModelOutput
from tests import factory
from tests.backends import installed
from tests.backends.linear import LinearBackend, LinearPredictor
from tests.models.backends.conformance import CHECKS, Case

ROWS = 1500
WEIGHTS = np.array([0.5, -0.25], np.float32)


def numbers() -> dict[str, Any]:
    return {"x": np.random.default_rng(7).normal(size=(ROWS, 2)).astype(np.float32)}


def torch_case(folder: Path) -> Case:
    def own(inputs: Inputs) -> Mapping[str, Array]:
        linear = torch.nn.Linear(2, 1)
        linear.load_state_dict({k.partition(".")[2]: v for k, v in factory.STATE.items()})
        x = inputs["x"]
        assert isinstance(x, np.ndarray)
        with torch.inference_mode():
            return {"logit": linear(torch.from_numpy(x)).squeeze(1).numpy()}

    return Case(read_model_folder(str(factory.write_model(folder))), numbers(), own)


def layers_case(folder: Path) -> Case:
    """Returns layers that oneDNN computes, as torch's own call scores them."""
    net = factory.build_net()

    def own(inputs: Inputs) -> Mapping[str, Array]:
        x = inputs["x"]
        assert isinstance(x, np.ndarray)
        with torch.inference_mode():
            return {"logit": net(torch.from_numpy(x)).numpy()}

    state = net.state_dict()
    model = read_model_folder(str(factory.write_model(folder, net=factory.LAYERS, state=state)))
    return Case(model, numbers(), own, kernels="onednn")


def xgboost_case(folder: Path) -> Case:
    """Returns a model of an array with gaps and infinities, as its Booster scores it."""
    import xgboost

    x_bf = numbers()["x"]
    x_bf[::5, 0], x_bf[1::50, 1] = np.nan, np.inf
    given = xgboost.DMatrix(np.nan_to_num(x_bf), label=x_bf[:, 1] > 0)
    booster = xgboost.train({"objective": "binary:logistic", "nthread": 1}, given, 12)
    folder.mkdir()
    booster.save_model(folder / "trees.ubj")
    model = single_file_model(
        str(folder / "trees.ubj"),
        format="xgboost",
        architecture=None,
        inputs=[ModelInput("x", "float32", (2,), ("a", "b"))],
        outputs=(),
        base=str(folder),
    )

    def own(inputs: Inputs) -> Mapping[str, Array]:
        return {"score": booster.inplace_predict(inputs["x"])}

    return Case(model, {"x": x_bf}, own, tolerance=0)


def lightgbm_case(folder: Path) -> Case:
    """Returns a model of an array with gaps and infinities, as its Booster scores it."""
    import lightgbm

    x_bf = numbers()["x"].astype(np.float64)
    x_bf[::5, 0] = np.nan
    options = {"objective": "binary", "verbose": -1, "num_threads": 1}
    data = lightgbm.Dataset(x_bf.copy(), label=x_bf[:, 1] > 0)
    booster = lightgbm.train(options, data, 12)
    x_bf[1::50, 1] = np.inf
    folder.mkdir()
    booster.save_model(folder / "trees.txt")
    model = single_file_model(
        str(folder / "trees.txt"),
        format="lightgbm",
        architecture=None,
        inputs=[ModelInput("x", "float64", (2,), ("a", "b"))],
        outputs=(),
        base=str(folder),
    )

    def own(inputs: Inputs) -> Mapping[str, Array]:
        return {"score": np.asarray(booster.predict(inputs["x"], num_threads=2))}

    return Case(model, {"x": x_bf}, own, tolerance=0)


def catboost_case(folder: Path) -> Case:
    """Returns a model of gaps, and of texts of which it has seen some, as it scores them itself."""
    import catboost
    import pandas as pd

    x_bf = numbers()["x"]
    x_bf[::5, 0] = np.nan
    words = np.random.default_rng(8).choice(["a", "b", "ü", "d e"], ROWS).tolist()
    frame = pd.DataFrame({"a": x_bf[:, 0], "word": words, "b": x_bf[:, 1]})
    options: dict[str, Any] = {"verbose": 0, "allow_writing_files": False}
    known = frame.assign(word=frame["word"].replace("b", "c"))
    model = catboost.CatBoostClassifier(iterations=12, cat_features=["word"], **options)
    model.fit(known, x_bf[:, 1] + (frame["word"] == "a") > 0)
    folder.mkdir()
    model.save_model(folder / "trees.cbm")
    found = single_file_model(
        str(folder / "trees.cbm"),
        format="catboost",
        architecture=None,
        inputs=(),
        outputs=(),
        base=str(folder),
    )

    def own(inputs: Inputs) -> Mapping[str, Array]:
        return {"score": np.asarray(model.predict_proba(frame))[:, 1]}

    texts = make_texts([word.encode() for word in words])
    return Case(found, {"features": x_bf, "word": texts}, own, tolerance=0)


def onnx_case(folder: Path) -> Case:
    """Returns a forest with gaps and infinities, as one call of all rows scores it."""
    import onnxruntime
    from skl2onnx import to_onnx
    from sklearn.ensemble import RandomForestClassifier

    x_bf = numbers()["x"]
    forest = RandomForestClassifier(10, max_depth=5, random_state=1)
    fitted = forest.fit(x_bf[:500], x_bf[:500, 0] > x_bf[:500, 1])
    folder.mkdir()
    made = to_onnx(fitted, x_bf[:1], options={"zipmap": False})
    (folder / "forest.onnx").write_bytes(made.SerializeToString())
    x_bf[::5, 0], x_bf[1::50, 1] = np.nan, np.inf
    model = single_file_model(
        str(folder / "forest.onnx"),
        format="onnx",
        architecture=None,
        inputs=[ModelInput("X", "float32", (2,), ("a", "b"))],
        outputs=(),
        base=str(folder),
    )

    def own(inputs: Inputs) -> Mapping[str, Array]:
        # With several threads onnxruntime adds trees up in another order.
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        providers = ["CPUExecutionProvider"]
        session = onnxruntime.InferenceSession(folder / "forest.onnx", options, providers)
        label_b, probabilities_bc = session.run(None, {"X": inputs["X"]})
        return {"label": label_b, "probabilities": probabilities_bc}

    return Case(model, {"X": x_bf}, own, tolerance=0)


def keras_case(folder: Path) -> Case:
    """Returns layers of several kinds, as Keras's own predict scores them in one batch."""
    from batchscore.models.backends.keras.lean_keras import import_keras

    import_keras()
    import keras

    keras.utils.set_random_seed(2)
    layers = [keras.layers.Dense(8, "gelu"), keras.layers.LayerNormalization()]
    network = keras.Sequential([keras.Input((2,), name="x"), *layers, keras.layers.Dense(1)])
    folder.mkdir()
    network.save(folder / "network.keras")
    model = single_file_model(
        str(folder / "network.keras"),
        format="keras",
        architecture=None,
        inputs=[ModelInput("x", "float32", (2,), ("a", "b"))],
        outputs=[ModelOutput("logit", "float32", ())],
        base=str(folder),
    )

    def own(inputs: Inputs) -> Mapping[str, Array]:
        return {"logit": network.predict(inputs["x"], batch_size=ROWS, verbose=0)[:, 0]}

    return Case(model, numbers(), own)


def sklearn_case(folder: Path) -> Case:
    """Returns a pipeline of an array, as its own predict_proba scores it."""
    import skops.io
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x_bf = numbers()["x"].astype(np.float64)
    fitted = make_pipeline(StandardScaler(), LogisticRegression()).fit(x_bf, x_bf[:, 1] > 0)
    folder.mkdir()
    skops.io.dump(fitted, folder / "line.skops")
    model = single_file_model(
        str(folder / "line.skops"),
        format="sklearn",
        architecture=None,
        inputs=[ModelInput("x", "float64", (2,), ("a", "b"))],
        outputs=(),
        base=str(folder),
    )

    def own(inputs: Inputs) -> Mapping[str, Array]:
        return {"score": fitted.predict_proba(inputs["x"])[:, 1]}

    return Case(model, {"x": x_bf}, own, tolerance=1e-14)


def linear_case(folder: Path) -> Case:
    def own(inputs: Inputs) -> Mapping[str, Array]:
        x = inputs["x"]
        assert isinstance(x, np.ndarray)
        return {"score": x @ WEIGHTS + 0.125}

    installed.write_linear_model(folder, WEIGHTS, 0.125)
    return Case(read_model_folder(str(folder)), numbers(), own)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize(
    "make",
    [
        torch_case,
        layers_case,
        linear_case,
        xgboost_case,
        lightgbm_case,
        onnx_case,
        keras_case,
        catboost_case,
        sklearn_case,
    ],
    ids=[
        *("torch", "onednn", "linear", "xgboost", "lightgbm"),
        *("onnx", "keras", "catboost", "sklearn"),
    ],
)
def test_a_backend_keeps_its_promises(
    make: Callable[[Path], Case],
    check: Callable[[Case], None],
    tmp_path: Path,
    linear_format: Path,
) -> None:
    """Each backend passes each check."""
    check(make(tmp_path / "model"))


@dataclass(frozen=True)
class _Broken(LinearPredictor):
    """Scores that depend on more than the row, in one way at a time."""

    way: str = ""
    calls: list[int] = field(default_factory=list)

    def __call__(self, inputs: Inputs) -> Mapping[str, Array]:
        self.calls.append(1)
        score_b = super().__call__(inputs)["score"]
        return {"score": score_b + {"mean": score_b.mean(), "calls": len(self.calls)}[self.way]}


@pytest.mark.parametrize(
    ("way", "found"),
    [("mean", {"check_alone", "check_other_rows"}), ("calls", {"check_twice", "check_shuffled"})],
)
def test_the_checks_find_a_broken_backend(
    way: str,
    found: set[str],
    tmp_path: Path,
    linear_format: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A score that takes the other rows or earlier calls in fails the checks."""
    case = linear_case(tmp_path / "model")
    broken = _Broken("x", WEIGHTS, 0.125, way)
    monkeypatch.setattr(LinearBackend, "load", lambda *_: broken)
    failed = set()
    for check in CHECKS:
        try:
            check(case)
        except AssertionError:
            failed.add(check.__name__)
    assert found <= failed
