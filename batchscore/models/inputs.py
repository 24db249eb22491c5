"""A model's inputs: as its card declares them, and what scoring needs to know of each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import pydantic

from batchscore.columnar.ragged import Varying
from batchscore.errors import ModelError
from batchscore.models.validate import Frozen

DType = Literal["float16", "float32", "float64", "int8", "uint8", "int16", "int32", "int64", "bool"]
Size = Annotated[int, pydantic.Field(ge=1)]

_OF_VARYING = ("max_length", "pad", "truncate")


class InputTensor(Frozen):
    """One model input: its type, and its shape without the batch ([] is a scalar).

    A shape that begins with null has a length of each row's own, `max_length` at most. Rows are
    padded with `pad`; one that is longer is rejected, or cut off where `truncate` is true.
    """

    type: DType
    shape: tuple[Size | None, ...] = ()
    max_length: Annotated[int, pydantic.Field(ge=1, lt=1 << 31, strict=True)] | None = None
    pad: int | float | None = None
    truncate: bool | None = None

    @pydantic.model_validator(mode="after")
    def _null_and_max_length_go_together(self) -> InputTensor:
        if None in self.shape[1:]:
            raise ValueError(f"only the first number of shape {shape_text(self.shape)} may be null")
        given = [
            name for name in ("max_length", "pad", "truncate") if name in self.model_fields_set
        ]
        if given and None not in self.shape:
            raise ValueError(
                f"{', '.join(given)}: only for a shape that begins with null, such as [null]; "
                f"found {shape_text(self.shape)}"
            )
        if self.max_length is None and None in self.shape:
            raise ValueError(
                f"shape {shape_text(self.shape)} needs max_length, the most steps of a row: add it"
            )
        return self


def shape_text(shape: Sequence[int | None]) -> str:
    """Returns a shape as a card shows it."""
    return f"[{', '.join('null' if size is None else str(size) for size in shape)}]"


@dataclass(frozen=True)
class ModelInput:
    """A model input and the columns it comes from: raw ones where there is preprocessing.

    `shape` is that of one row, or where `varying` is set of one step; there is one column then.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    columns: tuple[str, ...]
    varying: Varying | None = None


def model_input(name: str, declared: InputTensor, columns: tuple[str, ...]) -> ModelInput:
    """Returns a declared input with the columns that feed it."""
    shape = tuple(size for size in declared.shape if size is not None)
    if declared.max_length is None:
        return ModelInput(name, declared.type, shape, columns)
    varying = Varying(declared.max_length, declared.pad or 0, bool(declared.truncate))
    return ModelInput(name, declared.type, shape, columns, varying)


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
