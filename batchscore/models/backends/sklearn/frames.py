"""Rows as a pipeline was trained on them: columns of training's types, from a matrix of numbers.

A text travels as its place among the values that the pipeline knows. One more place is for a value
that it does not know, which becomes a text that no pipeline knows. NaN is a gap.

Suffixes: `_bf` rows by features, `_gc` raw scores by columns.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from batchscore.columnar.array_type import Array
from batchscore.models.backends.facts import FileColumn

MEMBER = "batchscore.json"
"""What batchscore adds to a skops file; skops reads such a file as before."""
UNKNOWN_TEXT = "\0unknown"
_VERSION = 1
_RESULTS = ("float64", "int64")
_MOST_RESULTS = 1 << 20
_TYPES = frozenset(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)) | {
    "bool",
    "float16",
    "float32",
    "float64",
}
Null = Literal["nan", "none"]
Nulls = Literal["keep", "reject"]


@dataclass(frozen=True)
class FrameColumn:
    """A column of the training's frame.

    Args:
        name: Its name.
        type: NumPy type of numbers; `text` or `category` of codes, or `free` for free texts.
        values: What a coded column may hold, in the order of its codes; None for plain numbers.
        null: What a gap is among texts: `nan` or `none`.
        nulls: What becomes of rows with a gap: the pipeline takes them, or they are rejected.
        unseen: What becomes of a value beyond `values`: the pipeline gets one that it does not
            know (`own`), or the row is rejected.
        is_read: Whether the pipeline reads the column.
        is_object: Whether numbers or booleans were Python's own objects, among which None is a
            value and no gap.
    """

    name: str
    type: str = "float64"
    values: tuple[str, ...] | tuple[int, ...] | None = None
    null: Null = "nan"
    nulls: Nulls = "keep"
    unseen: Literal["own", "reject"] = "own"
    is_read: bool = True
    is_object: bool = False


@dataclass(frozen=True)
class TrainingFrame:
    """What a pipeline was trained on.

    Args:
        columns: In order.
        is_array: Whether it was an array, without names.
        is_series: Whether it was one column of texts, without a frame around it.
    """

    columns: tuple[FrameColumn, ...]
    is_array: bool = False
    is_series: bool = False

    @property
    def read(self) -> tuple[FrameColumn, ...]:
        """The columns that the pipeline reads."""
        return tuple(each for each in self.columns if each.is_read)

    @property
    def numbers(self) -> tuple[FrameColumn, ...]:
        """Those that are one number of a row each."""
        return tuple(each for each in self.read if each.type != "free")

    @property
    def texts(self) -> tuple[str, ...]:
        """Names of those that are free texts."""
        return tuple(each.name for each in self.read if each.type == "free")

    @property
    def file_columns(self) -> tuple[FileColumn, ...]:
        """The columns that are read, as all backends say it."""
        return tuple(
            FileColumn(
                each.name,
                each.values,
                each.values is not None or each.type == "text",
                each.type == "free",
                unseen=each.unseen,
                nulls=each.nulls,
            )
            for each in self.read
        )

    @cached_property
    def one_type(self) -> str | None:
        """The type of all columns, if they are floats that the pipeline reads."""
        kinds = {each.type for each in self.columns}
        plain = all(
            each.values is None and each.is_read and not each.is_object for each in self.columns
        )
        kind = next(iter(kinds)) if len(kinds) == 1 and plain else ""
        return kind if kind in _TYPES and kind.startswith("float") else None

    def split(self, rows_bf: Array, texts: Mapping[str, Array]) -> Iterator[tuple[Array, Any]]:
        """Returns the rows in at most two frames or arrays, each with the places of its rows.

        Integers with a gap are floats in pandas. So rows with one have a frame of their own, and
        no row has its types from another.

        Args:
            rows_bf: The numbers.
            texts: The free texts (b,) by column.
        """
        whole = [n for n, each in enumerate(self.numbers) if _is_whole(each)]
        gap_b = np.isnan(rows_bf[:, whole]).any(axis=1)
        for has_gaps in (False, True):
            places = np.flatnonzero(gap_b == has_gaps)
            if len(places):
                part_bf = rows_bf if len(places) == len(rows_bf) else rows_bf[places]
                part = {name: text_b[places] for name, text_b in texts.items()}
                yield places, self._made(part_bf, part, has_gaps)

    def _made(self, rows_bf: Array, texts: Mapping[str, Array], has_gaps: bool) -> Any:
        import pandas as pd

        if self.is_series:
            return next(iter(texts.values()))
        if self.one_type is not None:
            with np.errstate(over="ignore", invalid="ignore"):
                own_bf = rows_bf.astype(self.one_type)
            if self.is_array:
                return own_bf
            # Laid out as pandas joins columns of their own, which takes five times as long.
            names = [each.name for each in self.columns]
            return pd.DataFrame(np.asfortranarray(own_bf), columns=names, copy=False)
        numbers = iter(range(len(self.numbers)))
        made: dict[str, Any] = {}
        for each in self.columns:
            if each.name in texts:
                made[each.name] = pd.Series(texts[each.name], dtype=object)
                continue
            value_b = rows_bf[:, next(numbers)] if each.is_read else np.full(len(rows_bf), np.nan)
            made[each.name] = _column(each, value_b, has_gaps)
        found = pd.DataFrame(made, copy=False)
        if not self.is_array:
            return found
        return np.ascontiguousarray(found.to_numpy())


def _is_whole(column: FrameColumn) -> bool:
    is_plain = column.values is None and not column.is_object
    return is_plain and not column.type.startswith("float")


def _column(column: FrameColumn, value_b: Array, has_gaps: bool) -> Any:
    import pandas as pd

    if column.is_object:
        return pd.Series(_objects(column, value_b), dtype=object)
    if column.values is None and column.type in _TYPES:
        kind = "float64" if has_gaps and _is_whole(column) else column.type
        with np.errstate(over="ignore", invalid="ignore"):
            return value_b.astype(kind)
    known = column.values or ()
    place_b = np.where(np.isnan(value_b), len(known) + 1, np.clip(value_b, 0, len(known)))
    place_b = place_b.astype(np.int64)
    if column.type == "category":
        place_b[place_b > len(known)] = -1
        categories = pd.Index([*known, _unknown(known)])
        return pd.Categorical.from_codes(place_b, categories, validate=False)
    if column.type in _TYPES:
        numbers = np.array([*known, 0, np.nan] if (place_b > len(known)).any() else [*known, 0])
        return numbers.astype("float64" if numbers.dtype.kind == "f" else column.type)[place_b]
    texts = np.empty(len(known) + 2, object)
    texts[:] = [*known, UNKNOWN_TEXT, None if column.null == "none" else np.nan]
    # pandas would make its own type of texts, in which a gap is always NaN.
    return pd.Series(texts[place_b], dtype=object)


def _objects(column: FrameColumn, value_b: Array) -> Array:
    """Returns numbers or booleans as Python's own objects."""
    gap_b = np.isnan(value_b)
    if column.values is not None:
        known = np.array([*column.values, _unknown(column.values)], np.float64)
        value_b = known[np.where(gap_b, 0, np.clip(value_b, 0, len(known) - 1)).astype(np.int64)]
    made_b = np.where(gap_b, 0, value_b).astype(column.type).astype(object)
    made_b[gap_b] = None if column.null == "none" else np.nan
    return made_b


def _unknown(known: Sequence[Any]) -> Any:
    """Returns a value that is not known, of the type of those that are."""
    whole = [each for each in known if isinstance(each, int)]
    return max(whole) + 1 if whole else UNKNOWN_TEXT


def dump_frame(
    frame: TrainingFrame, results: Mapping[str, Any], mean_gc: Array | None = None
) -> bytes:
    """Returns the member of a skops file that says what frames it takes, and what it returns.

    Args:
        frame: What it takes.
        results: What it returns.
        mean_gc: Of a linear model, the mean part of each column in each raw score.
    """
    found: dict[str, Any] = {"version": _VERSION, **asdict(frame), "results": results}
    if mean_gc is not None:
        found["means"] = mean_gc.tolist()
    return json.dumps(found, ensure_ascii=False, separators=(",", ":")).encode()


def load_frame(found: Any) -> tuple[TrainingFrame, Mapping[str, Any]]:
    """Returns what `dump_frame` wrote; ValueError or KeyError if it is anything else."""
    if found["version"] != _VERSION:
        raise ValueError(f"{MEMBER} is of version {str(found['version'])[:20]}")
    columns = tuple(_loaded(each) for each in found["columns"])
    if len({each.name for each in columns}) < len(columns):
        raise ValueError(f"{MEMBER} names a column twice")
    results = {
        str(name): (str(kind), tuple(int(size) for size in shape))
        for name, (kind, shape) in found["results"].items()
    }
    if not all(kind in _RESULTS and _is_row(shape) for kind, shape in results.values()):
        raise ValueError(f"{MEMBER} says of the results what means nothing")
    return TrainingFrame(columns, bool(found["is_array"]), bool(found["is_series"])), results


def _is_row(shape: tuple[int, ...]) -> bool:
    return len(shape) <= 1 and all(0 <= size <= _MOST_RESULTS for size in shape)


def load_means(found: Any) -> Array | None:
    """Returns the means (g, c) that `dump_frame` wrote, if it did; ValueError for anything else."""
    if "means" not in found:
        return None
    mean_gc = np.array(found["means"], np.float64)
    if mean_gc.ndim != 2 or mean_gc.shape[1] != len(found["columns"]):
        raise ValueError(f"{MEMBER} has means of other columns")
    if not np.isfinite(mean_gc).all():
        raise ValueError(f"{MEMBER} has means that are not finite")
    return mean_gc


def _loaded(found: Mapping[str, Any]) -> FrameColumn:
    values = found["values"]
    made = FrameColumn(**{**found, "values": None if values is None else tuple(values)})
    fits = (
        isinstance(made.name, str)
        and made.type in _TYPES | {"text", "category", "free"}
        and made.null in ("nan", "none")
        and made.nulls in ("keep", "reject")
        and made.unseen in ("own", "reject")
        and isinstance(made.is_read, bool)
        and isinstance(made.is_object, bool)
        and (made.type in _TYPES or not made.is_object)
        and (made.values is None or _are_categories(made.values))
    )
    if not fits:
        raise ValueError(f"{MEMBER} says of column {str(made.name)[:40]!r} what means nothing")
    return made


def _are_categories(values: tuple[Any, ...]) -> bool:
    """Tells whether values are texts, or whole numbers of one type of Arrow, each once."""
    kinds = {type(each) for each in values}
    if kinds == {int} and not (
        all(-(1 << 63) <= each < 1 << 63 for each in values)
        or all(0 <= each < 1 << 64 for each in values)
    ):
        return False
    return kinds in ({str}, {int}) and len({*values}) == len(values)


def of_numbers(names: Sequence[str], is_array: bool, texts: Collection[str] = ()) -> TrainingFrame:
    """Returns a frame of float64, for a file that names its columns and no types.

    Args:
        names: Of the columns.
        is_array: Whether there are none.
        texts: Columns that hold texts, of which not all is known.
    """
    kinds = {True: "text", False: "float64"}
    return TrainingFrame(tuple(FrameColumn(n, kinds[n in texts]) for n in names), is_array)
