"""An estimator or pipeline as it is called: a matrix of numbers to what its card says.

Suffixes: `_bf` rows by features, `_bg` rows by raw scores, `_gc` these by columns, `_bc` rows by
columns, `_e` contributions, of which there is one for each number or text of the inputs, `_be` rows
by these.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import sklearn
from sklearn.pipeline import Pipeline
from threadpoolctl import ThreadpoolController

from batchscore.columnar.array_type import Array
from batchscore.columnar.texts import TEXT, Texts
from batchscore.errors import ModelError, StepError
from batchscore.messages.wording import one_line
from batchscore.models.backends.facts import (
    CONTRIBUTIONS,
    DEFAULT_OUTPUT,
    RAW,
    TILE_ROWS,
    Inputs,
    Promises,
)
from batchscore.models.backends.protocol import Predictor
from batchscore.models.backends.sklearn.allowed_types import INEXACT
from batchscore.models.backends.sklearn.described import DescribedFile
from batchscore.models.backends.sklearn.frames import TrainingFrame
from batchscore.models.backends.sklearn.linear_parts import LinearParts, known_means, take_apart
from batchscore.models.backends.sklearn.node_checks import check_objects, parts_of
from batchscore.models.backends.sklearn.pipeline_results import EstimatorCall, call_estimator
from batchscore.models.backends.sklearn.skops_objects import build_objects
from batchscore.models.backends.sklearn.tiled_products import cut_tile, with_tiled_products
from batchscore.models.backends.tree_files import INPUT
from batchscore.models.loadable import Model

_ALONE = (("n_jobs", 1), ("_n_threads", 1))


@dataclass(frozen=True)
class PipelinePredictor(Predictor):
    """A loaded estimator.

    Args:
        first: Transformers that treat each number alone, called for all rows at once.
        last: What is called then.
        quick: The same for any number of rows of an array, if there is such a thing.
        tile: Rows of its calls, if its scores' bits depend on that; None: any number.
        frame: The columns that it takes.
        call: What of it is called.
        threads: Threads that a call may use.
        pools: Libraries whose threads are limited.
        given: Name of the input.
        made: Name of the output.
        mean_gc: What reasons compare columns with, if the file says it.
    """

    first: tuple[Any, ...]
    last: Any
    quick: Any | None
    tile: int | None
    frame: TrainingFrame
    call: EstimatorCall
    threads: int
    pools: ThreadpoolController
    given: str
    made: str
    mean_gc: Array | None = None

    def explaining(self) -> Predictor:
        """Returns what explains the raw scores of a linear model."""
        parts = take_apart([*self.first, self.last], [each.name for each in self.frame.columns])
        return PipelineContributions(self, parts, known_means(self.mean_gc, parts))

    @property
    def promises(self) -> Promises:
        """Tiles are cut here, so that a call may have any number of rows."""
        return Promises(None, True, "nan", "cpu", self.threads, str(sklearn.__version__), True)

    def __call__(self, inputs: Inputs) -> Mapping[str, Array]:
        """Returns the output of each row."""
        rows_bf, texts = self.taken(inputs)
        made = np.empty((len(rows_bf), *self.call.shape), self.call.kind)
        with self.limited():
            for places, rows in self.frame.split(rows_bf, texts):
                made[places] = self._of(rows)
        return {self.made: made}

    def taken(self, inputs: Inputs) -> tuple[Array, dict[str, Array]]:
        """Returns the numbers of rows, and their free texts by column."""
        texts = {name: _spelled(inputs, name) for name in self.frame.texts}
        count = max((len(text_b) for text_b in texts.values()), default=0)
        given = inputs[self.given] if self.frame.numbers else np.empty((count, 0))
        return np.ascontiguousarray(given, np.float64), texts

    @contextmanager
    def limited(self) -> Iterator[None]:
        """Limits the threads of a call, and leaves out its warnings."""
        with self.pools.limit(limits={"blas": 1, "openmp": self.threads}), quiet():
            yield

    def _of(self, rows: Any) -> Array:
        count = len(rows)
        try:
            for each in self.first:
                rows = each.transform(rows)
            if self.tile is None:
                return call_estimator(self.last, self.call, rows)
            if self.quick is not None and count >= self.tile and isinstance(rows, np.ndarray):
                return call_estimator(self.quick, self.call, rows)
            starts = range(0, count, self.tile)
            tiles = (cut_tile(rows, start, self.tile) for start in starts)
            parts = [call_estimator(self.last, self.call, tile) for tile in tiles]
            return np.concatenate(parts)[:count]
        except (ValueError, TypeError) as error:
            raise StepError(
                f"scikit-learn cannot score it ({one_line(error, 200)}); correct the rows, or "
                "train the pipeline on rows like them"
            ) from error


@dataclass(frozen=True)
class PipelineContributions(Predictor):
    """What columns contributed to the raw scores of a linear model.

    Args:
        model: The model.
        parts: It, taken apart.
        mean_gc: The mean part of each column in each raw score.
    """

    model: PipelinePredictor
    parts: LinearParts
    mean_gc: Array

    @property
    def promises(self) -> Promises:
        """Those of the model."""
        return self.model.promises

    def __call__(self, inputs: Inputs) -> Mapping[str, Array]:
        """Returns contributions and raw score of each row."""
        frame = self.model.frame
        rows_bf, texts = self.model.taken(inputs)
        # Inputs have the numbers first, then each text.
        entries = [*(each.name for each in frame.numbers), *frame.texts]
        columns = [each.name for each in frame.columns]
        place_e = [columns.index(name) for name in entries] + [len(columns)]
        found_be, raw_b = np.empty((len(rows_bf), len(place_e))), np.empty(len(rows_bf))
        with self.model.limited():
            for places, rows in frame.split(rows_bf, texts):
                for start in range(0, len(places), TILE_ROWS):
                    part = places[start : start + TILE_ROWS]
                    found_bc, made_b = self._explained(cut_tile(rows, start, TILE_ROWS), len(part))
                    found_be[part], raw_b[part] = found_bc[:, place_e], made_b
        return {CONTRIBUTIONS: found_be, RAW: raw_b}

    def _explained(self, rows: Any, count: int) -> tuple[Array, Array]:
        """Returns contributions by column, the base last, and raw scores of a tile's first rows."""
        features = self.parts.features(rows)
        raw_bg = self.parts.raw(features)
        best_b = raw_bg.argmax(axis=1)
        found_bc = np.empty((len(raw_bg), self.mean_gc.shape[1] + 1))
        for group in np.unique(best_b):
            own_b = best_b == group
            part_bc = self.parts.by_column(features[own_b], group)
            part_bc[:, :-1] -= self.mean_gc[group]
            part_bc[:, -1] += self.mean_gc[group].sum()
            found_bc[own_b] = part_bc
        call = self.model.call
        sign = -1.0 if call.is_of_class and call.positive == 0 else 1.0
        return sign * found_bc[:count], sign * raw_bg[np.arange(count), best_b[:count]]


def _spelled(inputs: Inputs, column: str) -> Array:
    """Returns the texts of a column; its input has another name if numbers have that one."""
    found = inputs.get(column)
    texts = found if isinstance(found, Texts) else inputs[f"{column}_"]
    assert isinstance(texts, Texts)
    return texts.spelled()


@contextmanager
def quiet() -> Iterator[None]:
    """Leaves out warnings of scikit-learn, such as of categories that are not known."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def load_pipeline(
    model: Model, found: DescribedFile, call: EstimatorCall, threads: int
) -> Predictor:
    """Builds the estimator of a file.

    Raises:
        ModelError: It is of another version, damaged, or holds what is not loaded.
    """
    require_same_version(found.version, str(sklearn.__version__))
    given = next((each.name for each in model.inputs if each.dtype != TEXT), INPUT)
    made = model.outputs[0].name if model.outputs else DEFAULT_OUTPUT
    return predictor_of(built(found), found, call, threads, given, made)


def built(found: DescribedFile) -> Any:
    """Returns the estimator of a file, checked, and with one thread for each of its parts."""
    try:
        with quiet():
            estimator = build_objects(found.archive)
            check_objects(estimator)
    except ModelError:
        raise
    except Exception as error:  # scikit-learn and NumPy raise what they like
        raise ModelError(
            f"no skops file, or damaged ({type(error).__name__}: {one_line(error, 120)}); restore "
            "the file, or save the model again"
        ) from error
    for each in parts_of(estimator):
        # Jobs would add up numbers in an order of their own, and start processes.
        # KMeans keeps as many threads as the machine had that trained it.
        for name, value in (*_ALONE, ("memory", None), ("verbose", False)):
            if name in vars(each):
                setattr(each, name, value)
    return estimator


def predictor_of(
    estimator: Any,
    found: DescribedFile,
    call: EstimatorCall,
    threads: int,
    given: str = INPUT,
    made: str = DEFAULT_OUTPUT,
) -> PipelinePredictor:
    """Returns an estimator as it is called."""
    first, last = _cut(estimator)
    tile = None if is_exact(last) else TILE_ROWS
    pools, quick = ThreadpoolController(), with_tiled_products(last)
    return PipelinePredictor(
        first, last, quick, tile, found.frame, call, threads, pools, given, made, found.mean_gc
    )


def _cut(estimator: Any) -> tuple[tuple[Any, ...], Any]:
    """Returns the transformers at a pipeline's start that treat each number alone, and the rest."""
    if type(estimator) is not Pipeline:
        return (), estimator
    steps: Sequence[tuple[str, Any]] = [
        step for step in estimator.steps if step[1] not in (None, "passthrough")
    ]
    count = next((n for n, (_, each) in enumerate(steps) if not is_exact(each)), len(steps))
    count = min(count, len(steps) - 1)
    rest = [*steps[count:]]
    return tuple(each for _, each in steps[:count]), rest[0][1] if len(rest) == 1 else Pipeline(
        rest
    )


def is_exact(estimator: Any) -> bool:
    """Tells whether a row has the same bits in calls of any number of rows."""
    return not any(type(each).__name__ in INEXACT for each in parts_of(estimator))


def require_same_version(written: str, installed: str) -> None:
    """Refuses another release of scikit-learn, whose estimators may have other attributes.

    Raises:
        ModelError: It is another one.
    """
    release, here = (".".join(each.split(".")[:2]) for each in (written, installed))
    if release != here:
        raise ModelError(
            f"the model was written by scikit-learn {written}, and {installed} is installed, which "
            f"may score otherwise: install 'scikit-learn=={release}.*', or train and save the "
            f"model with {installed}"
        )
