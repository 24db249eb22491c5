"""Whether an installed module may hold a network: found out without running any of it."""

from __future__ import annotations

import importlib.machinery
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from batchscore.errors import ModelError

_STANDARD = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib")})
_INSTALLED = tuple({sysconfig.get_path(name) for name in ("purelib", "platlib")})
_STANDARD_LIBRARY = "belongs to Python's own library"
EXPECTED = (
    "expected a class or a function that is defined in the model's own files, or an installed "
    "subclass of torch.nn.Module: define a function there that calls it"
)


def require_importable(reference: str) -> None:
    """Refuses an architecture of a module that cannot hold a torch.nn.Module, unimported.

    An import runs code, and some modules do harm by it, or open a window. A module of Python's own
    library, a `__main__`, and a package none of whose files speaks of torch hold no network. One
    that is not installed may pass: its import says so.

    Args:
        reference: "file.py:name", which passes, or "package.module:name".

    Raises:
        ModelError: The module holds no network.
    """
    module = reference.partition(":")[0]
    why = None if module.endswith(".py") else _why_not(module)
    if why is not None:
        raise ModelError(
            f"architecture {reference}: module {module} {why}, so it was not imported; {EXPECTED}"
        )


def _why_not(module: str) -> str | None:
    top, *parts = module.split(".")
    if "__main__" in (top, *parts):
        return "is a program"
    if top == "torch":
        return None
    if top in sys.stdlib_module_names:
        return _STANDARD_LIBRARY
    found = _find(top)
    if found is None:
        return None
    if _is_standard(found):
        return _STANDARD_LIBRARY
    return None if _speaks_of_torch(found) else "belongs to a package that does not use torch"


def _find(top: str) -> importlib.machinery.ModuleSpec | None:
    """Returns where a module that is no part of another lies; to find it runs nothing of it."""
    finders = [each for each in sys.meta_path if not getattr(each, "of_user_code", False)]
    specs = (each.find_spec(top, None) for each in finders if hasattr(each, "find_spec"))
    return next((each for each in specs if each is not None), None)


def _places(found: importlib.machinery.ModuleSpec) -> list[Path]:
    """Returns the folders of a package, or the file of a module."""
    if found.submodule_search_locations is not None:
        return [Path(each) for each in found.submodule_search_locations]
    return [Path(found.origin)] if found.origin else []


def _is_standard(found: importlib.machinery.ModuleSpec) -> bool:
    places = _places(found)
    own = [any(map(each.is_relative_to, _STANDARD)) for each in places]
    installed = [any(map(each.is_relative_to, _INSTALLED)) for each in places]
    return bool(places) and all(own) and not any(installed)


def _speaks_of_torch(found: importlib.machinery.ModuleSpec) -> bool:
    """Tells whether the source of a package or module names torch; true where there is none."""
    sources = False
    for file in _files(found):
        sources = True
        if b"torch" in file.read_bytes():
            return True
    return not sources


def _files(found: importlib.machinery.ModuleSpec) -> Iterator[Path]:
    for place in _places(found):
        yield from place.rglob("*.py") if place.is_dir() else [place] * (place.suffix == ".py")
