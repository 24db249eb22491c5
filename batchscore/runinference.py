"""Beam's RunInference, imported without torch, which Beam's own model manager imports.

batchscore does not use the model manager. In a process that imports this module first, Beam works
as where torch is not installed: a pipeline that asks for `use_model_manager` fails.
"""

from __future__ import annotations

import sys
from types import ModuleType

_MANAGER = "apache_beam.ml.inference.model_manager"


def _without_manager() -> ModuleType:
    """Returns a module in place of the manager's, which says that there is none yet."""
    empty = ModuleType(_MANAGER)
    empty.__dict__["ModelManager"] = None
    return empty


_known = sys.modules.setdefault(_MANAGER, _without_manager())
try:
    from apache_beam.ml.inference.base import ModelHandler, RunInference
finally:
    if not hasattr(_known, "__file__"):
        del sys.modules[_MANAGER]

__all__ = ["ModelHandler", "RunInference"]
