"""Where modules of user code lie: below a folder, as Python that is started there finds them."""

from __future__ import annotations

import functools
import importlib.machinery
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# The endings that Python tries, in its order, and whether they make a package.
_ENDINGS = (
    ("/__init__.py", True),
    *((ending, False) for ending in importlib.machinery.EXTENSION_SUFFIXES),
    (".py", False),
)


@dataclass(frozen=True)
class Module:
    """A module below a folder.

    Args:
        parts: its path from the folder, without an ending, which is also its name.
        file: its file, from the folder on; None for a package without `__init__.py`.
        is_package: whether other modules may lie in it.
    """

    parts: tuple[str, ...]
    file: str | None
    is_package: bool


@dataclass(frozen=True)
class Tree:
    """The modules below a folder, as one file of it imports them.

    Args:
        base: the folder, with links resolved.
        start: the parts of that file's own folder, which is searched before the base.
    """

    base: Path
    start: tuple[str, ...] = ()

    def find(self, parts: tuple[str, ...]) -> Module | None:
        """Returns the module with this path, or None."""
        path = "/".join(parts)
        for ending, is_package in _ENDINGS:
            if self._has_file(f"{path}{ending}"):
                return Module(parts, f"{path}{ending}", is_package)
        if path.endswith(".py") and self._has_file(path):
            return Module(parts, path, False)
        return Module(parts, None, True) if (self.base / path).is_dir() else None

    def find_top(self, name: str) -> Module | None:
        """Returns what `import name` finds here; None where it is built in, or lies elsewhere.

        A file or a package here wins over an installed module, as in Python. A folder without
        `__init__.py` does not.
        """
        if not name or "/" in name or _is_reserved(name):
            return None
        folders = dict.fromkeys((self.start, ()))
        found = [each for folder in folders if (each := self.find((*folder, name)))]
        whole = next((each for each in found if each.file), None)
        if whole or not found or is_installed(name, self.base):
            return whole
        return found[0]

    def chain(self, top: tuple[str, ...], rest: tuple[str, ...]) -> Iterator[Module]:
        """Yields the modules that importing a module runs: its packages, outer ones first."""
        for depth in range(1, len(top) + len(rest) + 1):
            found = self.find((*top, *rest)[:depth])
            if found is None:
                return
            yield found

    def _has_file(self, file: str) -> bool:
        return (self.base / file).is_file()


def parts_of(file: str) -> tuple[str, ...]:
    """Returns the path of the module that a file holds."""
    *folders, name = file.split("/")
    return (*folders, name.removesuffix(".py")) if name != "__init__.py" else (*folders,)


def is_installed(name: str, base: Path) -> bool:
    """Tells whether a module of this name is found elsewhere than below a folder."""
    finders = [each for each in sys.meta_path if not getattr(each, "of_user_code", False)]
    specs = (each.find_spec(name, None) for each in finders if hasattr(each, "find_spec"))
    spec = next((each for each in specs if each is not None), None)
    if spec is None:
        return False
    places = spec.submodule_search_locations if spec.origin is None else [spec.origin]
    return not all(Path(place).resolve().is_relative_to(base) for place in places or ["/"])


@functools.cache
def _is_reserved(name: str) -> bool:
    """Tells whether Python finds a module before it looks into folders; so is batchscore itself."""
    finders = (importlib.machinery.BuiltinImporter, importlib.machinery.FrozenImporter)
    return name == "batchscore" or any(each.find_spec(name) for each in finders)
