"""How this process imports: without garbage collection, and without modules that are left out."""

from __future__ import annotations

import gc
import logging
import shlex
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

# Python 3.12 itself freezes some objects.
_FROZEN_AT_START = gc.get_freeze_count()
# Held by whoever thaws what is frozen.
_freezing = threading.Lock()


@contextmanager
def uncollected() -> Iterator[None]:
    """Imports inside are not searched for garbage.

    Modules are some hundred thousand objects that stay; to look through them again and again is a
    fifth of the time that Beam and torch take to import.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def frozen() -> Iterator[None]:
    """What there is at the start is not searched for garbage inside, unless a caller froze some.

    Each search through all that was imported would stop every thread for a tenth of a second. Of
    two that overlap the first to end thaws all, which costs the other no more than time.
    """
    # To count what is frozen takes as long as a search, so what is frozen here is not counted.
    if not _freezing.acquire(blocking=False):
        yield
        return
    try:
        with _frozen_unless_before():
            yield
    finally:
        _freezing.release()


@contextmanager
def _frozen_unless_before() -> Iterator[None]:
    if gc.get_freeze_count() > _FROZEN_AT_START:
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def warn_of_compiling(module: str) -> None:
    """Warns if Python compiles an imported module, and others like it, again in each process.

    Args:
        module: A package that was imported.
    """
    spec = sys.modules[module].__spec__
    if spec is None or spec.origin is None or spec.cached is None or Path(spec.cached).exists():
        return
    command = shlex.join(
        [sys.executable, "-m", "compileall", "-q", str(Path(spec.origin).parents[1])]
    )
    logging.warning(
        "Python compiles the modules of %s at each start, which takes seconds: run %r once, or "
        "install with bytecode (uv pip install --compile-bytecode)",
        module,
        command,
    )


def stand_in(name: str, **given: object) -> ModuleType:
    """Returns a module in place of another, which is imported when something else is asked of it.

    Args:
        name: The module that is left out.
        given: What others take from it while it is left out.
    """

    def find(asked: str) -> Any:
        if asked == "__path__":  # An import asks whether the module is a package.
            raise AttributeError(f"{name}.{asked} is left out")
        if sys.modules.get(name) is module:
            del sys.modules[name]
        return getattr(import_module(name), asked)

    module = ModuleType(name)
    vars(module).update(given, __getattr__=find)
    return module


@contextmanager
def replaced(modules: Mapping[str, ModuleType | None]) -> Iterator[None]:
    """Replaces modules that are not imported yet; importing one for which there is None fails."""
    names = [name for name in modules if name not in sys.modules]
    vars(sys)["modules"].update({name: modules[name] for name in names})
    try:
        yield
    finally:
        for name in names:
            if sys.modules.get(name) is modules[name]:
                sys.modules.pop(name, None)
