"""A model's inputs: what scoring needs to know of each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from batchscore.columnar.ragged import Varying
from batchscore.columnar.texts import TEXT
from batchscore.errors import ModelError


@dataclass(frozen=True)
class ModelInput:
    """A model input and the columns it comes from: raw ones where there is preprocessing.

    `shape` is that of one row, or where `varying` is set of one step; there is one column then.
    `dtype` is NumPy's name of the type, or `TEXT`, of one column. `missing` is the text that takes
    the place of null there; without it such rows are rejected. `types` are those that the columns
    had in training, as a card names them; empty if nobody says them.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    columns: tuple[str, ...]
    varying: Varying | None = None
    missing: str | None = None
    types: tuple[str, ...] = ()


def check_varying(inputs: Iterable[ModelInput]) -> None:
    """Raises ModelError where inputs of varying length differ in what they allow, or pads misfit.

    A row has one length, so that one `max_length` and one `truncate` hold for all of them.
    """
    found = [(each, each.varying) for each in inputs if each.varying]
    for each, varying in found:
        first, expected = found[0][0], found[0][1]
        for key in ("max_length", "truncate"):
            ours, theirs = getattr(varying, key), getattr(expected, key)
            if ours != theirs:
                raise ModelError(
                    f"model inputs {first.name!r} and {each.name!r} are of varying length, and "
                    f"each row has one length for all: {key} is {theirs} and {ours}; make them "
                    "agree"
                )
        if each.dtype == TEXT:
            raise ModelError(
                f"model input {each.name!r}: max_length is for lists of numbers, and the input is "
                "a text; leave it out"
            )
        if not _holds(each.dtype, varying.pad):
            raise ModelError(
                f"model input {each.name!r}: pad {varying.pad} is no {each.dtype}; give a number "
                "that the input's type holds"
            )


def _holds(dtype: str, number: float) -> bool:
    kind = np.dtype(dtype)
    if kind.kind == "b":
        return number in (0, 1)
    if kind.kind == "f":
        return abs(number) <= float(np.finfo(kind).max)
    limits = np.iinfo(kind)
    return bool(limits.min <= number <= limits.max and number == int(number))
