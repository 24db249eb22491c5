"""SciPy's special functions, without the rest of SciPy.

`scipy.special` imports wrappers for arrays of other libraries, and with them NumPy's compiler of
Fortran: a quarter of a second, for which the end of each run would wait.
"""

from __future__ import annotations

import sys
from functools import cache
from importlib import import_module
from types import ModuleType

from batchscore.system.imports import replaced, stand_in

_NAME = "scipy.special"


@cache
def functions() -> ModuleType:
    """Returns the module that has SciPy's compiled functions, such as `ndtri`."""
    if _NAME in sys.modules:
        return sys.modules[_NAME]
    folders = [f"{path}/special" for path in import_module("scipy").__path__]
    try:
        with replaced({_NAME: stand_in(_NAME, __path__=folders)}):
            return import_module(f"{_NAME}._ufuncs")
    except ImportError:  # A later SciPy may have them elsewhere.
        return import_module(_NAME)
