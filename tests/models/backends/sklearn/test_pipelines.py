"""Tests of pipelines of scikit-learn: each score is scikit-learn's own, next to any rows."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from batchscore.columnar.arrays import Array, to_numpy
from batchscore.columnar.tables import as_batch
from batchscore.models.backends.facts import Inputs
from batchscore.models.backends.protocol import Predictor
from batchscore.models.backends.registry import backend_of
from batchscore.models.features import encode
from batchscore.models.folder import single_file_model
from batchscore.models.loadable import Model
from tests.pipelines import FRAMES, ROWS, make_frame, of_frames, of_numbers, rows_for

NAMES = [*of_numbers(), *of_frames()]
# A product of matrices adds in another order in tiles; kernels amplify that.
TOLERANCE = {"process": 1e-13, "kernel": 1e-13}


def model_of(path: Path) -> Model:
    """Returns the model of a path alone."""
    return single_file_model(
        str(path), format="sklearn", architecture=None, inputs=(), outputs=(), base=str(path.parent)
    )


def inputs_of(model: Model, name: str) -> Mapping[str, Array]:
    """Returns what the stages of a run make of all rows."""
    assert model.features is not None
    # Boosting takes a category that it does not know for a gap; pandas makes none of it.
    frame = make_frame()
    rows = as_batch(frame if name == "categories" else rows_for(name, frame), "rows")
    return {key: to_numpy(column) for key, column in encode(model.features, rows).items()}


@cache
def loaded(folder: Path, name: str) -> tuple[Predictor, Mapping[str, Array], Array]:
    """Returns a predictor, its inputs, and the scores of all rows."""
    model = model_of(folder / f"{name}.skops")
    predictor = backend_of("sklearn").load(model, "cpu")
    inputs = inputs_of(model, name)
    return predictor, inputs, np.asarray(predictor(inputs)["score"])


def _at(inputs: Inputs, places: Array) -> dict[str, Array]:
    return {key: np.asarray(values)[places] for key, values in inputs.items()}


def _pieces(predictor: Predictor, inputs: Inputs, size: int, end: int) -> Array:
    parts = [np.arange(start, min(start + size, end)) for start in range(0, end, size)]
    return np.concatenate([predictor(_at(inputs, places))["score"] for places in parts])


@pytest.mark.parametrize("name", NAMES)
def test_scores_are_scikit_learns_own(name: str, pipelines: Path) -> None:
    """With gaps, and with texts that training lacks, at most the last bits differ."""
    _, _, found = loaded(pipelines, name)
    expected = np.load(pipelines / "scores.npz")[name].reshape(found.shape)
    assert len(found) == ROWS
    if name not in NAMES_OF_PRODUCTS:
        assert found.tobytes() == expected.astype(found.dtype).tobytes()
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE.get(name, 1e-14))


@pytest.mark.parametrize("name", NAMES)
def test_a_score_depends_on_its_row_alone(name: str, pipelines: Path) -> None:
    """One row, seven, all of them shuffled, and four threads give the same bits."""
    predictor, inputs, found = loaded(pipelines, name)
    assert _pieces(predictor, inputs, 1, 12).tobytes() == found[:12].tobytes()
    assert _pieces(predictor, inputs, 7, 49).tobytes() == found[:49].tobytes()
    shuffled = np.random.default_rng(1).permutation(ROWS)
    again = predictor(_at(inputs, shuffled))["score"]
    assert again.tobytes() == found[shuffled].tobytes()


@pytest.mark.parametrize("name", ["logistic", "knn", "forest", "usual", "categories"])
def test_threads_change_no_bit(name: str, pipelines: Path) -> None:
    """Several threads may call a predictor together, and one may have several threads."""
    predictor, inputs, found = loaded(pipelines, name)
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: predictor(inputs)["score"], range(8)))
    assert {each.tobytes() for each in made} == {found.tobytes()}
    other = backend_of("sklearn").load(model_of(pipelines / f"{name}.skops"), "cpu", threads=4)
    assert np.asarray(other(inputs)["score"]).tobytes() == found.tobytes()
    assert other.promises.threads == 4


NAMES_OF_PRODUCTS = frozenset(NAMES) - {
    *FRAMES,
    "forest",
    "forest_regressor",
    "extra",
    "boosting",
    "boosting_regressor",
    "histogram",
    "ada",
    "bagging",
    "isolation",
    "tree",
    "calibrated",
} | {"indicated", "usual", "filled", "rare", "strict", "target", "places"}
