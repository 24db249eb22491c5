"""Whether a network gives the scores of versions that put the file's weights into it as they are.

Versions up to commit 020ad64 cast no weights to the types of the network.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from batchscore.errors import FunctionError, ModelError
from batchscore.models.backends.torch.building import Blueprint
from batchscore.models.backends.torch.load import fill, probe
from batchscore.models.backends.torch.outside import differences, tensors
from batchscore.models.backends.torch.weights import State, agree, persistent, read_weights
from batchscore.models.loadable import Model, localize, read_sources

_CASTS = frozenset(("to", "_to_copy", "type_as"))
_known: dict[tuple[Any, ...], bool] = {}


def scores_as_earlier(model: Model) -> bool:
    """Tells whether rows that an earlier version scored with a model have the scores of today.

    Where a weight is cast, they do if the cast keeps its value, and a call with a few inputs makes
    the same operations on the same types. True too for a model that cannot be loaded: whoever
    scores with it says why.
    """
    code = tuple(sorted(model.code_files.items()))
    key = (model.identity, model.folder, model.code, code)
    if key not in _known:
        _known[key] = _scores_alike(model)
    return _known[key]


def _scores_alike(model: Model) -> bool:
    try:
        folder = localize(model)
        blueprint = Blueprint(model, folder, read_sources(model, folder))
        read = partial(read_weights, folder / model.weights, model)
        filled, _ = fill(blueprint, read, model)
    except (ModelError, FunctionError):
        return True
    now, state = filled.module, read()
    if not filled.casts:
        return agree(persistent(now), state)
    try:
        then = blueprint.fill_uncast(state)
    except ModelError:
        return False
    return _have_equal_values(persistent(now), persistent(then)) and _call_alike(now, then, model)


def _have_equal_values(ours: State, theirs: State) -> bool:
    """Tells whether tensors hold the same values, each in its own type."""
    if ours.keys() != theirs.keys():
        return False
    there = {name: each.to(theirs[name].dtype) for name, each in ours.items()}
    back = {name: each.to(ours[name].dtype) for name, each in theirs.items()}
    return not differences(there, theirs) and not differences(ours, back)


def _call_alike(now: torch.nn.Module, then: torch.nn.Module, model: Model) -> bool:
    ours, theirs = _RecordedOperations(), _RecordedOperations()
    try:
        given = [_call(module, model, each) for module, each in ((now, ours), (then, theirs))]
    except Exception:
        return False  # what it gives is unknown
    return ours.made == theirs.made and not differences(*given)


def _call(module: torch.nn.Module, model: Model, operations: _RecordedOperations) -> State:
    with operations:
        found = probe(module, model)
    return {str(place): each for place, each in enumerate(tensors(found))}


class _RecordedOperations(TorchDispatchMode):
    """Records the operations of a call, and the types of what they make, without mere casts."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.made: list[tuple[str, list[torch.dtype]]] = []

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Tells torch to import its compiler, to keep it out of here: nothing is compiled here."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Makes one operation."""
        made = func(*args, **(kwargs or {}))
        if func._opname not in _CASTS and not _is_view(func):
            self.made.append((str(func), [each.dtype for each in tensors(made)]))
        return made


def _is_view(operation: Any) -> bool:
    """Tells whether an operation computes nothing, and only shows a tensor in another shape."""
    aliases = [each.alias_info for each in operation._schema.returns]
    return any(each is not None and not each.is_write for each in aliases)
