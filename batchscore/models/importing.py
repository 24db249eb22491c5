"""Imports user code as Python that is started in its folder does, apart from all other code."""

from __future__ import annotations

import builtins
import functools
import hashlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.readers
import importlib.util
import re
import sys
import threading
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, cast

from batchscore.errors import FunctionError
from batchscore.models.afresh import AFRESH, other_hash
from batchscore.models.modules import Module, Tree, parts_of
from batchscore.models.undeclared import undeclared
from batchscore.storage.reading import digest_of, open_plain

_PREFIX = "batchscore_user_"
# The built-ins of user code hold its Code under this name, so that a frame leads to it.
_MARK = "__batchscore_code__"
_OWN_NAME = re.compile(rf"{_PREFIX}[0-9a-f]{{16}}\.")
_IMPORTERS = (__name__, "importlib", "importlib._bootstrap", "importlib._bootstrap_external")
_import = builtins.__import__
_lock = threading.RLock()


@dataclass(frozen=True)
class Listed:
    """The files of a folder that code may be imported from.

    Args:
        sha256: SHA-256 of each, by its path from the folder.
        readable: Further files that code may read.
    """

    sha256: Mapping[str, str]
    readable: frozenset[str] = frozenset()


class Code:
    """User code below one folder, in one version.

    Its modules are entered under a name of their own, so that no other code finds them, and they
    find each other by built-ins of their own, whenever and on whichever thread they import.

    Args:
        tree: The modules.
        listed: The files that may be imported or read.
        edition: Another number gives modules of their own, without what the first ones keep.
            Those of `AFRESH` are as in another process: `hash()` gives texts other numbers.
    """

    def __init__(self, tree: Tree, listed: Listed, edition: int = 0) -> None:
        self.tree, self.listed, self.edition = tree, listed, edition
        files = (sorted(listed.sha256.items()), sorted(listed.readable))
        named = repr((tree.base, tree.start, files, edition))
        self.name = _PREFIX + hashlib.sha256(named.encode()).hexdigest()[:16]
        self.builtins = {**vars(builtins), "__import__": self._import, _MARK: self}
        self.builtins |= {"hash": other_hash} if edition == AFRESH else {}
        self.written = _written.setdefault(tree.base, set())
        self._verified: dict[str, tuple[int, int, int]] = {}
        self._path = [*sys.path]
        self._tops: dict[str, Module | None] = {}
        self._names: dict[str, tuple[str, str] | None] = {}

    def load(self, file: str) -> types.ModuleType:
        """Returns the module that a file holds; it runs once.

        Raises:
            FunctionError: A file that it imports is not listed, or not as it was.
        """
        parts = parts_of(file)
        found = self.tree.find(parts)
        if found is None or found.file != file:  # a package has the same name
            parts = (*file.split("/"),)
        return importlib.import_module(self.full_name(parts))

    def full_name(self, parts: Sequence[str]) -> str:
        """Returns the name that a module is entered under."""
        return ".".join((self.name, *(part.replace(".", "%2E") for part in parts)))

    def top(self, name: str) -> Module | None:
        """Returns what `import name` finds in the folder, or None."""
        self._follow_path()
        if name not in self._tops:
            self._tops[name] = self.tree.find_top(name)
        return self._tops[name]

    def spec(self, full_name: str) -> importlib.machinery.ModuleSpec | None:
        """Returns how a module is loaded; None where there is none of this name."""
        names = full_name.split(".")[1:]
        found = self.tree.find(tuple(name.replace("%2E", ".") for name in names))
        if found is None:
            return None
        path = self.tree.base.joinpath(*found.parts)
        inside = [str(path)] if found.is_package else None
        if found.file is None:
            spec = importlib.machinery.ModuleSpec(full_name, _Folder(path), is_package=True)
            spec.submodule_search_locations = inside
            return spec
        return importlib.util.spec_from_file_location(
            full_name,
            self.tree.base / found.file,
            loader=self._loader(full_name, found.file),
            submodule_search_locations=inside,
        )

    def _loader(self, full_name: str, file: str) -> importlib.abc.Loader:
        path = str(self.tree.base / file)
        if file.endswith(".py"):
            return _FromSource(self, full_name, file)
        self.read(file)
        return importlib.machinery.ExtensionFileLoader(full_name, path)

    def read(self, file: str) -> bytes:
        """Returns the bytes of a listed file, which are those that were hashed.

        Raises:
            FunctionError: It is not listed, or was changed since.
        """
        if file not in self.listed.sha256:
            self.refuse(file, "imports")
        content = (self.tree.base / file).read_bytes()
        self._compare(file, hashlib.sha256(content).hexdigest())
        return content

    def verify(self, file: str) -> None:
        """Compares a listed file that code opens with its hash, again whenever it was written.

        Raises:
            FunctionError: It was changed since; the call fails at its end, too.
        """
        path = self.tree.base / file
        found = path.stat()
        mark = found.st_ino, found.st_size, found.st_mtime_ns
        if self._verified.get(file) != mark:
            with open_plain(str(path)) as opened:
                self._compare(file, digest_of(opened).sha256)
            self._verified[file] = mark

    def _compare(self, file: str, sha256: str) -> None:
        if sha256 != self.listed.sha256[file]:
            message = f"{self.tree.base / file} was changed since it was hashed; run again"
            _refused[self.tree.base] = message
            raise FunctionError(message)

    def refuse(self, file: str, does: str) -> NoReturn:
        """Raises FunctionError for a file that is not listed, now and at the end of the call."""
        message = undeclared(self._place(), does, file)
        _refused[self.tree.base] = message
        raise FunctionError(message)

    def _place(self) -> str:
        """Says where on this thread user code is."""
        frame = calling_frame()
        if frame is None:
            return "it"
        file = frame.f_code.co_filename.removeprefix(f"{self.tree.base}/")
        return f"{file}, line {frame.f_lineno},"

    def _import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> types.ModuleType:
        """Does what `import` statements of user code ask for."""
        # C code, as pickle's, passes a list, and then looks for the plain name.
        names = None
        if level == 0 and not isinstance(fromlist, list):
            names = self._known_names(name)
        if names is None:
            return _import(name, globals, locals, fromlist or (), level)
        first, full_name = names
        found = _import(full_name, globals, locals, fromlist or (), 0)
        return found if fromlist else sys.modules[first]

    def _known_names(self, name: str) -> tuple[str, str] | None:
        """Returns what `_find_names` does, but looks once: a function may import for each row."""
        self._follow_path()
        if name not in self._names:
            self._names[name] = self._find_names(name)
        return self._names[name]

    def _follow_path(self) -> None:
        """Forgets what was found if code has changed where Python looks for modules."""
        if self._path != sys.path:
            self._path = [*sys.path]
            self._names.clear()
            self._tops.clear()

    def _find_names(self, name: str) -> tuple[str, str] | None:
        """Returns what a module's top package and itself are entered under, if they lie here."""
        top, _, rest = name.partition(".")
        found = self.top(top)
        if found is None:
            return None
        first = self.full_name(found.parts)
        return first, f"{first}.{rest}" if rest else first


def plain(text: str) -> str:
    """Returns a text with modules of user code named as their files name them."""
    return _OWN_NAME.sub("", text)


def code_of(tree: Tree, listed: Listed, edition: int = 0) -> Code:
    """Returns the user code below a folder; the same for the same listed files and edition."""
    code = Code(tree, listed, edition)
    with _lock:
        if code.name not in _codes:
            _enter(code)
        return _codes[code.name]


def forget(edition: int) -> None:
    """Takes out the modules of an edition; what still runs of them cannot import any more."""
    with _lock:
        for name in [name for name, code in _codes.items() if code.edition == edition]:
            del _codes[name]
            for module in [each for each in sys.modules if each.partition(".")[0] == name]:
                del sys.modules[module]


def calling_frame() -> types.FrameType | None:
    """Returns the innermost frame of user code that is being run on this thread, or None."""
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None and _MARK not in frame.f_builtins:
        frame = frame.f_back
    return frame


def code_of_frame(frame: types.FrameType | None) -> Code | None:
    """Returns the user code that a frame runs; None for another's."""
    return None if frame is None else frame.f_builtins.get(_MARK)


def guarded(function: Callable[..., Any], base: str) -> Callable[..., Any]:
    """Returns a function that fails where user code did what is refused, though it caught that."""
    root = Path(base).resolve()

    @functools.wraps(function)
    def call(*args: Any, **keywords: Any) -> Any:
        with guarding(root):
            return function(*args, **keywords)

    return call


@contextmanager
def guarding(base: Path) -> Iterator[None]:
    """Raises FunctionError at its end where code below a folder did what is refused."""
    _enter_call(base)
    try:
        yield
    except ImportError as error:
        error.msg = plain(error.msg)
        raise
    finally:
        _leave_call(base)
        # Another thread may be between finding such a module and taking it.
        if _plain and not _calls:
            _forget_plain_names()
        if base in _refused:
            raise FunctionError(_refused.pop(base))


def _enter_call(base: Path) -> None:
    """Gives code below a folder the `sys.path` that it left, while a call of it is under way."""
    with _lock:
        if base not in _calls:
            _outside[base] = [*sys.path]
            own = _paths.get(base, [])
            sys.path[:] = [*own, *(each for each in sys.path if each not in own)]
        _calls.append(base)


def _leave_call(base: Path) -> None:
    """Takes back what the code added: other jobs' code would find its modules."""
    with _lock:
        _calls.remove(base)
        if base not in _calls and (before := _outside.pop(base)) != sys.path:
            _paths[base] = [*sys.path]
            sys.path[:] = [each for each in sys.path if each in before]


def _forget_plain_names() -> None:
    """Takes out what C code or `importlib` found under a plain name for user code."""
    while _plain:
        top, _ = _plain.popitem()
        for name in [*sys.modules]:
            if name == top or name.startswith(f"{top}."):
                del sys.modules[name]


_refused: dict[Path, str] = {}
_calls: list[Path] = []
_codes: dict[str, Code] = {}
# `sys.path` as code below a folder left it, and as it is outside of its calls.
_paths: dict[Path, list[str]] = {}
_outside: dict[Path, list[str]] = {}
# What code below a folder wrote, in whichever edition.
_written: dict[Path, set[str]] = {}
_plain: dict[str, Code] = {}


def _enter(code: Code) -> None:
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
    package = types.ModuleType(code.name)
    spec = importlib.machinery.ModuleSpec(code.name, None, is_package=True)
    package.__path__ = spec.submodule_search_locations = [str(code.tree.base)]
    package.__spec__, package.__package__ = spec, code.name
    _codes[code.name] = code
    sys.modules[code.name] = package


class _FromSource(importlib.machinery.SourceFileLoader):
    """Compiles the bytes that were hashed: nothing verified the byte code in the folder."""

    def __init__(self, code: Code, full_name: str, file: str) -> None:
        super().__init__(full_name, str(code.tree.base / file))
        self._code, self._file = code, file

    def get_code(self, fullname: str) -> types.CodeType:
        """Returns the code of the module's own source file."""
        return self.source_to_code(self._code.read(self._file), self.path)

    def exec_module(self, module: types.ModuleType) -> None:
        """Runs a module with the built-ins of its code."""
        vars(module)["__builtins__"] = self._code.builtins
        super().exec_module(module)


class _Folder(importlib.abc.Loader):
    """Makes the package of a folder without `__init__.py`."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "__init__.py")

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        """Leaves the module to Python."""

    def exec_module(self, module: types.ModuleType) -> None:
        """Runs nothing."""

    def get_resource_reader(self, fullname: str) -> importlib.readers.FileReader:
        """Returns what `importlib.resources` reads the folder's files by."""
        return importlib.readers.FileReader(cast(Any, self))


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules of user code, by their own names and, while it runs, by plain ones."""

    of_user_code = True

    def find_spec(
        self, fullname: str, path: object, target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Returns how a module of user code is loaded; None for any other."""
        top, _, rest = fullname.partition(".")
        if top in _codes:
            return _codes[top].spec(fullname)
        code = _plain.get(top) if rest else code_of_frame(calling_frame())
        return None if code is None else _plain_spec(code, top, rest, _asks() is code)


def _asks() -> Code | None:
    """Returns the user code that asks for a module, with nothing but `importlib` between."""
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__") in _IMPORTERS:
        frame = frame.f_back
    return code_of_frame(frame)


def _plain_spec(
    code: Code, top: str, rest: str, is_asked: bool
) -> importlib.machinery.ModuleSpec | None:
    """Returns what finds a module for `importlib.import_module` and for pickles.

    Args:
        code: Code that is being run.
        top: The module, or its outermost package.
        rest: What follows it.
        is_asked: Whether the code asks itself. If a library does, for reasons of its own, an
            installed module of the same name wins.
    """
    found = code.top(top)
    if found is None or (not rest and not is_asked and code.tree.is_installed(top)):
        return None
    first = code.full_name(found.parts)
    full_name = f"{first}.{rest}" if rest else first
    own = code.spec(full_name)
    if own is None:
        return None
    _plain[top] = code
    name = f"{top}.{rest}" if rest else top
    spec = importlib.machinery.ModuleSpec(name, _Same(full_name), origin=own.origin)
    spec.submodule_search_locations = own.submodule_search_locations
    return spec


class _Same(importlib.abc.Loader):
    """Loads a module that has another name already."""

    def __init__(self, full_name: str) -> None:
        self._full_name = full_name

    def get_data(self, path: str) -> bytes:
        """Returns the content of a file, as `pkgutil.get_data` asks for it."""
        return Path(path).read_bytes()

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        """Returns the module itself."""
        self._module = importlib.import_module(self._full_name)
        self._spec = self._module.__spec__
        return self._module

    def exec_module(self, module: types.ModuleType) -> None:
        """Gives the module back what belongs to its own name; it has run."""
        module.__spec__ = self._spec
