"""What saving has in common for models that name each input, as an array of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from batchscore.errors import InputError
from batchscore.messages.wording import nearest
from batchscore.models.backends.facts import FileTensor
from batchscore.models.backends.saving import Asked, Draft, draft_of_features
from batchscore.models.features import dump_features
from batchscore.models.sampled_inputs import declare_inputs


def draft_of_tensors(known: Sequence[FileTensor], rows: pa.RecordBatch, asked: Asked) -> Draft:
    """Returns the inputs of a model, and the columns that fill them.

    Raises:
        InputError: Model, rows and what is asked do not fit.
    """
    if asked.features is not None:
        if asked.columns or asked.inputs:
            raise InputError(
                "features: already say which columns make each input, and its type; leave columns "
                "and inputs out"
            )
        return draft_of_features(asked.features)
    sources = _sources(known, rows, asked.columns)
    given = {each.name: _declared(each, asked.inputs) for each in known}
    for name in asked.inputs or {}:
        if name not in given:
            raise InputError(f"inputs: the model has no input {name!r}; {nearest(name, given)}")
    return Draft(sources, declare_inputs(rows, sources, "float32", given), None)


def tensor_card(
    format: str, weights: str, content: bytes, draft: Draft
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Returns a card's keys and the files of a model."""
    files = {weights: content}
    card: dict[str, Any] = {"format": format, "weights": weights}
    card["inputs"] = {n: t.model_dump(exclude_unset=True) for n, t in draft.declared.items()}
    if draft.features is not None:
        files["preprocessing.json"] = dump_features(draft.features).encode()
        card["preprocessing"] = "preprocessing.json"
    return card, files


def _sources(
    known: Sequence[FileTensor],
    rows: pa.RecordBatch,
    given: Mapping[str, Sequence[str]] | None,
) -> dict[str, tuple[str, ...]]:
    """Returns the columns that fill each input: those given, the one of its name, or all."""
    names = [each.name for each in known]
    for name in given or {}:
        if name not in names:
            raise InputError(f"columns: the model has no input {name!r}; {nearest(name, names)}")
    made = dict[str, tuple[str, ...]]()
    for each in known:
        made[each.name] = tuple((given or {}).get(each.name, (each.name,)))
    (first, *more), every = known, tuple(rows.schema.names)
    if not given and not more and first.name not in every and first.shape == (len(every),):
        made[first.name] = every
    missing = next(
        (n for n in made if n not in (given or {}) and made[n] == (n,) and n not in every), None
    )
    if missing is not None:
        raise InputError(
            f"sample: has no column {missing!r}, an input of the model; name the columns that fill "
            f"it: columns={{{missing!r}: {[*every[:3]]}}}, or give features"
        )
    return made


def _declared(known: FileTensor, given: Mapping[str, Mapping[str, Any]] | None) -> dict[str, Any]:
    """Returns what the model says of an input, and what the caller says of it."""
    asked = dict((given or {}).get(known.name, {}))
    shape = known.shape or ()
    sizes = {} if None in shape[1:] else {"shape": [*shape]}
    return {"type": known.dtype, **sizes, **asked}
