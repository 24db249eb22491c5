"""torch without the modules that it imports only for its compiler and for tensors without data.

They take two fifths of the time that torch takes to import, and few networks need them. They are
imported when code, of a model or of torch itself, imports one of them, asks torch for one or for an
operator of one, makes the first tensor on the device `meta`, has a function made functional, or
registers a kernel of its own where they have theirs.
"""

from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from functools import partial, wraps
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.metadata import PackageNotFoundError
from types import FrameType, ModuleType
from typing import Any

from batchscore.system.imports import replaced, stand_in
from batchscore.system.packages import version
from batchscore.system.resources import shows_gpu

TESTED = "2.15"
"""The minor version of torch that leaving out was tested with; others are imported in full."""

_BINDINGS = "cuda.bindings"
_METAS = "torch._meta_registrations"
# The first imports these, so torch has none of them.
_FAMILY = (_METAS, "torch._decomp", "torch._prims", "torch._refs")
# Modules that expect the operators which the first one registers.
_USERS = ("torch._dynamo", "torch._inductor", "torch.fx.experimental.symbolic_shapes")
# All tensors on the device `meta`, those of the compiler too, come from these.
_MAKERS = ("empty.memory_format", "empty_strided.default")
# What torch calls first to make a function functional.
_NESTING = "_func_increment_nesting"
# Where operators that they define are found, in `torch.ops`.
_NAMESPACES = ("prims", "rngprims", "debugprims")


def import_torch() -> None:
    """Imports torch; does nothing if this process has it, or an import of it failed before."""
    if "torch" in sys.modules or not _is_tested():
        return
    # torch does without bindings of its own to CUDA, as where their package is not installed.
    useless: dict[str, ModuleType | None] = {} if shows_gpu() else {_BINDINGS: None}
    with replaced({_METAS: stand_in(_METAS, __file__=None), **useless}), _quick_frames():
        import_module("torch")
    _LeftOut().watch()


def _is_tested() -> bool:
    try:
        return version("torch").split(".")[:2] == TESTED.split(".")
    except PackageNotFoundError:
        return False


class _LeftOut(MetaPathFinder, Loader):
    """Imports what was left out, once, before anybody can miss it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._specs: dict[str, ModuleSpec] = {}
        self._library: Any = None
        self._taken: list[tuple[Any, str, Any]] = []

    def watch(self) -> None:
        """Waits for all that the module's docstring names."""
        import torch
        from torch._custom_class_base import CustomClassBaseMeta
        from torch._functorch import eager_transforms

        # A module that is left out does this, and before it torch makes no random generator.
        torch._C._set_generator_metaclass(CustomClassBaseMeta)

        for name in _FAMILY:
            vars(torch)[name.rpartition(".")[2]] = stand_in(name)
        self._library = torch.library.Library("aten", "IMPL", "Meta")
        for name in _MAKERS:
            packet, _, overload = name.partition(".")
            operator = getattr(getattr(torch.ops.aten, packet), overload)
            self._library.impl(operator, partial(self._call, operator))
        for name in _NAMESPACES:
            self._take(torch.ops, name, self._namespace(name))
        # torch tries each operator that changes a tensor without data, and makes those in C++.
        nesting = vars(eager_transforms)[_NESTING]
        self._take(eager_transforms, _NESTING, partial(self._call, nesting))
        self._take(torch.library.Library, "impl", self._registering(torch.library.Library.impl))
        sys.meta_path.insert(0, self)

    def _take(self, owner: Any, name: str, instead: object) -> None:
        self._taken.append((owner, name, vars(owner).get(name)))
        setattr(owner, name, instead)

    def _give_back(self) -> None:
        while self._taken:
            owner, name, own = self._taken.pop()
            if own is None:
                delattr(owner, name)
            else:
                setattr(owner, name, own)

    def _namespace(self, name: str) -> ModuleType:
        """Returns a namespace of operators that finds them once torch has them."""
        import torch

        def find(asked: str) -> Any:
            self._load()
            return getattr(getattr(torch.ops, name), asked)

        namespace = ModuleType(f"torch.ops.{name}")
        vars(namespace)["__getattr__"] = find
        return namespace

    def _registering(self, impl: Callable[..., None]) -> Callable[..., None]:
        """Returns what registers a kernel after those that were left out, which it may replace."""

        @wraps(impl)
        def registers(
            library: Any, op_name: Any, fn: Any, dispatch_key: str = "", **options: Any
        ) -> None:
            if library.ns == "aten" and (dispatch_key or library.dispatch_key) == "Meta":
                self._load()
            impl(library, op_name, fn, dispatch_key, **options)

        return registers

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Has the modules imported; one of them is then not imported a second time."""
        if not name.startswith((*_FAMILY, *_USERS)):
            return None
        self._load()
        module = sys.modules.get(name)
        if module is None or module.__spec__ is None:
            return None
        # Python takes the module's own spec, and would run the module again.
        self._specs[name], module.__spec__ = module.__spec__, copy(module.__spec__)
        module.__spec__.loader = self
        return module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Returns a module that was imported meanwhile."""
        return sys.modules[spec.name]

    def exec_module(self, module: ModuleType) -> None:
        """Leaves the module as it is."""
        module.__spec__ = self._specs.pop(module.__name__)

    def _call(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Calls what makes tensors on `meta`, once all that is called with them has its kernels."""
        self._load()
        return function(*args, **options)

    def _load(self) -> None:
        import torch
        from torch.utils._python_dispatch import _disable_current_modes

        with self._lock:
            if self not in sys.meta_path:
                return
            sys.meta_path.remove(self)
            self._library._destroy()
            self._give_back()
            # Whoever watches or changes operators is not to see those of an import.
            with torch._C.DisableTorchFunction(), _disable_current_modes():
                import_module(_METAS)


@contextmanager
def _quick_frames() -> Iterator[None]:
    """Inside, frames are described without their source lines.

    torch asks for the place of each operator that it registers. To find lines and module, Python
    looks through the files of all modules, each time.
    """
    full, find_module = inspect.getframeinfo, inspect.getmodule

    def quick(frame: FrameType, context: int = 1) -> inspect.Traceback:
        code = frame.f_code
        return inspect.Traceback(code.co_filename, frame.f_lineno, code.co_name, None, None)

    def module_of(asked: object, _filename: str | None = None) -> ModuleType | None:
        if isinstance(asked, FrameType):
            return sys.modules.get(asked.f_globals["__name__"])
        return find_module(asked, _filename)

    vars(inspect).update(getframeinfo=quick, getmodule=module_of)
    try:
        yield
    finally:
        vars(inspect).update(getframeinfo=full, getmodule=find_module)
