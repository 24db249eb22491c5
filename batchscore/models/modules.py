"""Where modules of user code lie: below a folder, as Python that is started there finds them."""

from __future__ import annotations

import functools
import importlib.machinery
import os
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
# Caches, and what is installed below a job's folder.
_FOREIGN = {"__pycache__", "site-packages", "dist-packages"}
_ENVIRONMENT = ("pyvenv.cfg", "conda-meta")
# The system's own folders, for a job whose folder is the root.
_SYSTEM = ("/dev", "/etc", "/lib", "/lib64", "/proc", "/run", "/sys", "/usr", "/var")
_ROOTS = (sys.prefix, sys.base_prefix, *map(os.path.realpath, (sys.prefix, sys.base_prefix)))
_INSTALLED = (*map(Path, dict.fromkeys((*_ROOTS, *_SYSTEM))), Path(__file__).parents[1])


@dataclass(frozen=True)
class Module:
    """A module below a folder.

    Args:
        parts: Its path from the folder, without an ending, which is also its name.
        file: Its file, from the folder on; None for a package without `__init__.py`.
        is_package: Whether other modules may lie in it.
    """

    parts: tuple[str, ...]
    file: str | None
    is_package: bool


@dataclass(frozen=True)
class Tree:
    """The modules below a folder, as one file of it imports them.

    Args:
        base: The folder, with links resolved.
        start: The parts of that file's own folder, which is searched before the base.
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
        `__init__.py` does not. Folders of `sys.path` below the base count too, as an editable
        install adds them.
        """
        if not name or "/" in name or _is_reserved(name):
            return None
        folders = dict.fromkeys((self.start, ()))
        found = [each for folder in folders if (each := self.find((*folder, name)))]
        whole = next((each for each in found if each.file), None)
        if whole is not None:
            return whole
        spec = _installed_spec(name)
        if spec is None:
            return found[0] if found else None
        return self._place(name, spec)

    def is_installed(self, name: str) -> bool:
        """Tells whether a module of this name is found elsewhere than in the job's own code."""
        spec = _installed_spec(name)
        return spec is not None and self._place(name, spec) is None

    def _place(self, name: str, spec: importlib.machinery.ModuleSpec) -> Module | None:
        """Returns the module that Python found below the base, unless it was installed there."""
        is_package = spec.submodule_search_locations is not None
        given = spec.submodule_search_locations if is_package else [spec.origin]
        places = [Path(each).resolve() for each in given or () if each]
        if not places or any(is_foreign(self.base, each) for each in places):
            return None
        parts = places[0].relative_to(self.base).parts
        return self.find(parts if is_package else (*parts[:-1], name))

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


def _installed_spec(name: str) -> importlib.machinery.ModuleSpec | None:
    """Returns what Python finds under a name, without the finder of user code."""
    finders = [each for each in sys.meta_path if not getattr(each, "of_user_code", False)]
    specs = (each.find_spec(name, None) for each in finders if hasattr(each, "find_spec"))
    return next((each for each in specs if each is not None), None)


def is_foreign(base: Path, path: Path) -> bool:
    """Tells whether a path lies outside a job's folder, or was installed below it.

    Hidden files and caches are no part of a job's code either.
    """
    if not path.is_relative_to(base):
        return True
    parts = path.relative_to(base).parts
    if any(part.startswith(".") or part in _FOREIGN for part in parts):
        return True
    inside = [each for each in _INSTALLED if each != base and each.is_relative_to(base)]
    if any(path.is_relative_to(each) for each in inside):
        return True
    return any(_is_environment(base.joinpath(*parts[:n])) for n in range(1, len(parts)))


@functools.cache
def _is_environment(folder: Path) -> bool:
    """Tells whether a folder is a virtual environment, or `pip install --target` filled it."""
    if any((folder / name).exists() for name in _ENVIRONMENT):
        return True
    return any(folder.glob("*.dist-info/METADATA"))


@functools.cache
def _is_reserved(name: str) -> bool:
    """Tells whether Python finds a module before it looks into folders; so is batchscore itself."""
    finders = (importlib.machinery.BuiltinImporter, importlib.machinery.FrozenImporter)
    return name == "batchscore" or any(each.find_spec(name) for each in finders)
