"""Beam without the modules that it imports only for pipelines that batchscore does not have.

With them Beam takes half as long again to import, and RunInference imports torch and SciPy. Later
users of Beam in this process miss nothing: a left-out name is imported when it is asked for. Only
`from apache_beam.io import *` has no MongoDB, BigQuery and Pub/Sub then. Modules that the process
has imported before stay as they are.

The other modules of the package take Beam from here, or import it after this module.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

_MANAGER = "apache_beam.ml.inference.model_manager"
_MONGODB = "apache_beam.io.mongodbio"
_BIGQUERY = "apache_beam.io.gcp.bigquery"
_PUBSUB = "apache_beam.io.gcp.pubsub"  # Beam imports it after BigQuery, and not without it.
_HTTP = "httplib2"


def _stand_in(name: str, **given: object) -> ModuleType:
    """Returns a module in place of another, which is imported when something else is asked of it.

    Args:
        name: The module that is left out.
        given: What Beam takes from it while it is imported.
    """

    def find(asked: str) -> Any:
        found = import_module(name)
        if found is module:  # Beam asks while it is imported.
            raise AttributeError(f"{name}.{asked} is left out")
        return getattr(found, asked)

    module = ModuleType(name)
    vars(module).update(given, __getattr__=find)
    return module


def _find_io(asked: str) -> Any:
    """Returns what `apache_beam.io` would have if nothing was left out."""
    # For `from apache_beam.io import a_submodule` Python asks here first, then imports it.
    if not asked.startswith("_") and find_spec(f"apache_beam.io.{asked}") is None:
        for name in (_MONGODB, _BIGQUERY, _PUBSUB):
            module = import_module(name)
            if asked in vars(module)["__all__"]:
                return getattr(module, asked)
    raise AttributeError(f"module 'apache_beam.io' has no attribute {asked!r}")


@contextmanager
def _left_out() -> Iterator[None]:
    """Replaces the modules that are left out, where they are not imported yet."""
    replacing: dict[str, ModuleType | None] = {
        # Beam imports it again where it is None and a pipeline wants it.
        _MANAGER: _stand_in(_MANAGER, ModelManager=None),
        # An ImportError in it would have Beam log a warning.
        _MONGODB: _stand_in(_MONGODB, __all__=()),
        # An ImportError: Beam does without Google Cloud, as where its extra is not installed.
        _BIGQUERY: None,
        _HTTP: _stand_in(_HTTP),
    }
    names = [name for name in replacing if name not in sys.modules]
    vars(sys)["modules"].update({name: replacing[name] for name in names})
    try:
        yield
    finally:
        for name in names:
            sys.modules.pop(name, None)


_is_first = "apache_beam.io" not in sys.modules
with _left_out():
    import apache_beam as beam
    from apache_beam.coders.coders import Coder
    from apache_beam.coders.typecoders import registry
    from apache_beam.ml.inference.base import ModelHandler, RunInference
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.pvalue import PCollection
    from apache_beam.transforms.combiners import ToList
    from apache_beam.transforms.window import GlobalWindows
    from apache_beam.utils.windowed_value import WindowedValue
if _is_first:
    vars(beam.io)["__getattr__"] = _find_io

__all__ = [
    "Coder",
    "GlobalWindows",
    "ModelHandler",
    "PCollection",
    "PipelineOptions",
    "RunInference",
    "ToList",
    "WindowedValue",
    "beam",
    "registry",
]
