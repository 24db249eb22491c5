"""Outputs that a card or job declares, compared with those that a model's file has."""

from __future__ import annotations

from collections.abc import Sequence

from batchscore.errors import ModelError
from batchscore.messages.wording import counted
from batchscore.models.backends.calling import may_hold
from batchscore.models.backends.facts import Facts, FileTensor
from batchscore.models.loadable import Model, ModelOutput


def check_declared_outputs(model: Model, facts: Facts) -> None:
    """Compares a model's outputs with its file's, so that no batch is scored to find out.

    Raises:
        ModelError: They are more or fewer, or one has a type or a shape that the file's cannot
            become.
    """
    one = tuple(FileTensor(each.name, each.dtype, each.shape) for each in facts.declared)
    if one and len(one) != len(model.outputs):
        raise ModelError(
            f"model {model.name!r}: {counted(len(model.outputs), 'output')} "
            f"({', '.join(each.name for each in model.outputs)}) are declared, and "
            f"{model.weights} has {counted(len(one), 'output')}; correct the declaration"
        )
    compare_outputs(model, facts.made or one)


def compare_outputs(model: Model, known: Sequence[FileTensor]) -> None:
    """Compares declared outputs with as many of a file; by their names, or else by their order."""
    if len(known) != len(model.outputs):
        return
    by_name = {each.name: each for each in known}
    if {*by_name} == {each.name for each in model.outputs}:
        known = [by_name[each.name] for each in model.outputs]
    for declared, own in zip(model.outputs, known, strict=True):
        where = f"model {model.name!r}: output {declared.name!r}"
        if not _holds(declared.dtype, own.dtype):
            raise ModelError(
                f"{where} is {declared.dtype} as declared, which cannot hold {own.dtype} of "
                f"{model.weights}; correct the declaration"
            )
        if own.shape is not None and not _fits(declared, own.shape):
            raise ModelError(
                f"{where} has shape {list(declared.shape)} as declared, and "
                f"[{', '.join('?' if size is None else str(size) for size in own.shape)}] in "
                f"{model.weights}; correct the declaration"
            )


def _holds(declared: str, own: str) -> bool:
    # NumPy does not know bfloat16, which a run widens.
    return may_hold(declared, "float32" if own == "bfloat16" else own)


def _fits(declared: ModelOutput, own: Sequence[int | None]) -> bool:
    """Tells whether rows of a shape, which may leave sizes open, become those that are declared."""
    shapes = (declared.shape, (*declared.shape, 1))
    return any(
        len(shape) == len(own)
        and all(size in (None, given) for size, given in zip(own, shape, strict=True))
        for shape in shapes
    )
