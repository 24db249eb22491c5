"""Engines by name: those of batchscore, and those that other packages offer as entry points."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import cast

from batchscore.engines.protocol import Engine
from batchscore.errors import JobFileError

GROUP = "batchscore.engines"
"""Entry points of this group name an engine: an object with the methods of `Engine`."""
_BUILT_IN = {
    "direct": "batchscore.engines.direct:DirectEngine",
    "flink": "batchscore.engines.flink:FlinkEngine",
}


_MEMBERS = ("name", "experimental", "parse_flags", "place", "start_workers", "submit")


def find_engine(name: str) -> Engine:
    """Returns an engine by its name in the job file.

    Raises:
        JobFileError: No installed package offers it, or its package cannot be imported.
    """
    if name in _BUILT_IN:
        module, _, attribute = _BUILT_IN[name].partition(":")
        return cast(Engine, getattr(import_module(module), attribute)())
    offered = {point.name: point for point in entry_points(group=GROUP)}
    if name not in offered:
        known = ", ".join([*_BUILT_IN, *sorted(offered)])
        raise JobFileError(
            f"runtime.engine: expected one of {known}, found {name!r}; correct the name, or "
            f"install the package that offers it (entry point group {GROUP})"
        )
    return _load(offered[name])


def _load(point: EntryPoint) -> Engine:
    try:
        engine = point.load()()
    except Exception as error:
        raise JobFileError(
            f"runtime.engine {point.name}: {point.value} cannot be loaded: "
            f"{type(error).__name__}: {error}; repair or remove the package that offers it"
        ) from error
    missing = [name for name in _MEMBERS if not hasattr(engine, name)]
    if missing:
        raise JobFileError(
            f"runtime.engine {point.name}: {point.value} is no engine: it has no "
            f"{', '.join(missing)}; repair or upgrade the package that offers it"
        )
    return cast(Engine, engine)
