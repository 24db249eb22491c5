"""What a fitted pipeline knows of its columns: the texts and numbers that it tells apart.

A value that no part of a pipeline knows scores like any other such value. So these values, and one
more, are all that a column of texts has to hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from batchscore.columnar.array_type import Array
from batchscore.errors import ModelError
from batchscore.models.backends.sklearn.node_checks import VECTORIZERS

Names = Sequence[str] | None
"""Names of the columns that a step gets; None where they are not known any more."""


@dataclass
class Known:
    """What steps know of a column.

    Args:
        values: The values that they tell apart, each once.
        has_none: Whether one of them is None.
        are_objects: Whether numbers or booleans were Python's own objects.
    """

    values: dict[Any, None] = field(default_factory=dict)
    has_none: bool = False
    are_objects: bool = False


@dataclass
class FittedValues:
    """What was found.

    Args:
        by_column: By the column that it is of.
        anywhere: Of steps whose columns are not known.
        unused: Columns that nothing reads.
        free: Columns of free texts.
    """

    by_column: dict[str, Known] = field(default_factory=dict)
    anywhere: Known = field(default_factory=Known)
    unused: set[str] = field(default_factory=set)
    free: set[str] = field(default_factory=set)

    def of(self, column: str) -> tuple[Any, ...]:
        """Returns the values of a column, each once."""
        return tuple({**self._of(column).values, **self.anywhere.values})

    def takes_none(self, column: str) -> bool:
        """Tells whether a gap of a column is None and not NaN."""
        return self._of(column).has_none or self.anywhere.has_none

    def are_objects(self, column: str) -> bool:
        """Tells whether numbers or booleans of a column were Python's own objects."""
        return self._of(column).are_objects

    def _of(self, column: str) -> Known:
        return self.by_column.get(column, Known())

    def add(self, columns: Names, place: int, values: Iterable[Any]) -> None:
        """Adds the values of the column at a place."""
        known = [*values]
        found = self.anywhere
        if columns is not None and place < len(columns):
            found = self.by_column.setdefault(columns[place], Known())
        found.has_none |= any(each is None for each in known)
        found.are_objects |= any(isinstance(each, bool | int | float) for each in known) and (
            isinstance(values, np.ndarray) and values.dtype == object
        )
        found.values |= dict.fromkeys(_plain(each) for each in known if _is_value(each))


def _is_value(value: Any) -> bool:
    import pandas as pd

    return not pd.isna(value)


def _plain(value: Any) -> Any:
    found = value.item() if isinstance(value, np.generic) else value
    return int(found) if isinstance(found, float) and found.is_integer() else found


def fitted_values(estimator: Any, names: Sequence[str]) -> FittedValues:
    """Returns what an estimator knows of its columns.

    Raises:
        ModelError: It reads free texts that are no column of the table.
    """
    found = FittedValues()
    _look(estimator, names, found)
    _find_unused(estimator, names, found)
    return found


def _look(each: Any, names: Names, found: FittedValues) -> Names:
    """Adds what an estimator knows; returns the names of the columns that it makes."""
    kind = type(each).__name__
    if kind in VECTORIZERS:
        if names is None or len(names) != 1:
            raise ModelError(
                f"{kind} reads a column that other steps made; give it a column of the table, as "
                "in make_column_transformer((vectorizer, 'text'))"
            )
        found.free.add(names[0])
        return None
    if kind == "Pipeline":
        for _, step in each.steps:
            names = _look(step, names, found)
        return names
    if kind == "ColumnTransformer":
        for name, step, _ in each.transformers_:
            places = each._transformer_to_input_indices.get(name, ())
            chosen = None if names is None else [names[place] for place in places]
            _look(step, chosen, found)
        return None
    if kind == "FeatureUnion":
        for _, step in each.transformer_list:
            _look(step, names, found)
        return None
    if kind == "KBinsDiscretizer":
        return None  # what its encoder knows are bins, and no values of a column
    for place, values in enumerate(_categories(each)):
        found.add(names, place, values)
    if kind == "SimpleImputer":
        return _imputed(each, names, found)
    for inner in _members(each):
        width = getattr(inner, "n_features_in_", None)
        _look(inner, names if names is not None and width == len(names) else None, found)
    return names if each in ("passthrough", None) else None


def _categories(each: Any) -> list[Array]:
    known = getattr(each, "categories_", ())
    return [*known] if isinstance(known, list | tuple) else []


def _imputed(each: Any, names: Names, found: FittedValues) -> Names:
    for place, value in enumerate(each.statistics_):
        found.add(names, place, [value, each.missing_values])
    is_same = each.indicator_ is None and names is not None
    return names if is_same and each.get_feature_names_out().shape == (len(names or ()),) else None


def _members(each: Any) -> list[Any]:
    """Returns the estimators that an estimator holds."""
    waiting = [*getattr(each, "__dict__", {}).values()]
    members = []
    while waiting:
        value = waiting.pop()
        if isinstance(value, list | tuple) or (
            isinstance(value, np.ndarray) and value.dtype == object
        ):
            waiting += [*(value.ravel() if isinstance(value, np.ndarray) else value)]
        elif hasattr(value, "get_params") and hasattr(value, "__dict__"):
            # What was given to be fitted was copied, and knows nothing itself.
            members += [value] if _is_fitted(value) else []
        elif type(value).__name__ == "_CalibratedClassifier":
            members.append(value.estimator)
    return members


def _is_fitted(value: Any) -> bool:
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        check_is_fitted(value)
    except (NotFittedError, TypeError):  # TypeError: of a kernel, which nobody fits
        return False
    return True


def _find_unused(estimator: Any, names: Sequence[str], found: FittedValues) -> None:
    """Notes the columns that the first step leaves out."""
    each = estimator
    while type(each).__name__ == "Pipeline":
        each = each.steps[0][1]
    if type(each).__name__ == "ColumnTransformer":
        read = {
            place
            for name, step, _ in each.transformers_
            if not (isinstance(step, str) and step == "drop")
            for place in each._transformer_to_input_indices.get(name, ())
        }
        found.unused |= {name for place, name in enumerate(names) if place not in read}
