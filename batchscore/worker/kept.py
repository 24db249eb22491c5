"""Models that a process keeps from one run to the next, if it scores many."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from batchscore.models.backends.protocol import Predictor

# The one that runs share, and what another precision or another date's own model needs.
_MOST = 2


@dataclass(frozen=True)
class Kind:
    """How a model is loaded: two that are loaded alike are the same.

    Args:
        identity: Of the model.
        folder: Where its files lie.
        device: What it computes on.
        threads: Threads that one call may use.
        compiled: Whether it is compiled.
        in_process: Whether it is in a process of its own.
    """

    identity: str
    folder: str
    device: str
    threads: int
    compiled: bool
    in_process: bool


@dataclass
class _KeptModels:
    scope: str = ""
    models: list[tuple[Kind, Predictor]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


_keeping = _KeptModels()


def keep_models(scope: str) -> None:
    """Has this process keep the models that it loads from now on.

    Args:
        scope: Names what processes share that have one model process together; empty: keep none.
    """
    _keeping.scope = scope
    _keeping.models.clear()


def scope_or(run: str) -> str:
    """Returns the name under which a model's process shares what it loads for this process."""
    return _keeping.scope or run


def kept(kind: Kind, load: Callable[[], Predictor]) -> Predictor:
    """Returns the model that is kept, else a new one."""
    if not _keeping.scope:
        return load()
    with _keeping.lock:
        found = next((each for known, each in _keeping.models if known == kind), None)
        if found is None:
            found = load()
            _keeping.models.insert(0, (kind, found))
            del _keeping.models[_MOST:]
        return found
