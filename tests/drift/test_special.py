"""Test that SciPy's functions are SciPy's, and come alone."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
from batchscore.drift import special

found = special.functions()
assert not {"numpy.f2py", "scipy._lib._array_api"} & set(sys.modules), sorted(sys.modules)
import scipy.special
from scipy.special import chdtrc, chdtri, expit, ndtri

assert (found.chdtrc, found.chdtri, found.ndtri) == (chdtrc, chdtri, ndtri)
assert scipy.special._ufuncs is found and expit(0.0) == 0.5
"""

WITHIN = """
import sys
from importlib import import_module
from batchscore.system import imports

with imports.replaced({"scipy.special": imports.stand_in("scipy.special")}):
    from scipy.special import expit
    assert sys.modules["scipy.special"].expit is expit
assert sys.modules["scipy.special"].expit is expit
"""


def test_the_functions_come_without_their_package_and_are_the_same() -> None:
    """Whoever imports SciPy afterwards gets all of it, with the same functions."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_what_is_left_out_is_there_for_whoever_asks_meanwhile() -> None:
    """An import of a left-out module's name imports the module, which then stays."""
    done = subprocess.run([sys.executable, "-c", WITHIN], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
