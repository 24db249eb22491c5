"""Beam without the modules that it imports only for pipelines that batchscore does not have.

With them Beam takes twice as long to import, and RunInference imports torch and SciPy. Later
users of Beam in this process miss nothing: a left-out name is imported when it is asked for, pandas
when a type hint may name its frames, and Google's client when a path is on its storage. Only `from
apache_beam.io import *` has no MongoDB, BigQuery, Pub/Sub and text files then. Modules that the
process has imported before stay as they are.

The other modules of the package take Beam from here, or import it after this module.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from batchscore.system.imports import replaced, stand_in

_MANAGER = "apache_beam.ml.inference.model_manager"
_TEXTS = "apache_beam.io.textio"  # It copies the texts of pandas' functions into its own.
_MONGODB = "apache_beam.io.mongodbio"
_BIGQUERY = "apache_beam.io.gcp.bigquery"
# Beam imports these after BigQuery, each only if the one before could be imported.
_PUBSUB = "apache_beam.io.gcp.pubsub"
_GCSIO = "apache_beam.io.gcp.gcsio"  # Needs Google's client, which the extra `gcs` installs.
_OTHERS = "apache_beam.transforms.xlang.io"
_GCS = "apache_beam.io.gcp.gcsfilesystem"
_DATAFLOW = "google.cloud.dataflow"  # What the extra `dataflow` installs.
_HTTP = "httplib2"
_PANDAS = "pandas"
_FRAMES = "apache_beam.typehints.pandas_type_compatibility"
_HINTS = "apache_beam.typehints.typehints"
_DOOR, _ROAR = "beartype.door", "beartype.roar"
_UTIL = "apache_beam.transforms.util"
_FERNET = "cryptography.fernet"


def _late(user: str, name: str, **homes: str) -> Callable[..., Any]:
    """Returns what a module has in place of a function until it calls that.

    Args:
        user: The module.
        name: The function.
        homes: Names that the module gets at the first call, and the module that each is from.
    """

    def call(*args: Any, **options: Any) -> Any:
        found = {each: getattr(import_module(home), each) for each, home in homes.items()}
        vars(sys.modules[user]).update(found)
        return found[name](*args, **options)

    return call


def _find_io(asked: str) -> Any:
    """Returns what `apache_beam.io` would have if nothing was left out."""
    own = f"apache_beam.io.{asked}"
    if own in (_TEXTS, _MONGODB):
        return import_module(own)
    # For `from apache_beam.io import a_submodule` Python asks here first, then imports it.
    if not asked.startswith("_") and find_spec(own) is None:
        for name in (_TEXTS, _MONGODB, _BIGQUERY, _PUBSUB, _GCSIO, _OTHERS):
            try:
                module = import_module(name)
            except ImportError:
                break
            offered = {"gcsio": module} if name == _GCSIO else _offered(module)
            if asked in offered:
                return offered[asked]
    raise AttributeError(f"module 'apache_beam.io' has no attribute {asked!r}")


def _offered(module: ModuleType) -> dict[str, Any]:
    """Returns what `from module import *` would import."""
    names = getattr(module, "__all__", [each for each in vars(module) if not each.startswith("_")])
    return {each: getattr(module, each) for each in names}


def _find_hints(asked: str) -> Any:
    """Returns what `apache_beam.typehints` would have if nothing was left out."""
    if asked == _FRAMES.rpartition(".")[2]:
        return import_module(_FRAMES)
    raise AttributeError(f"module 'apache_beam.typehints' has no attribute {asked!r}")


def _converter(**hints: Any) -> Any:
    """Finds what converts batches of two type hints, those of pandas among them from now on."""
    BatchConverter.from_typehints = staticmethod(_from_typehints)  # type: ignore[method-assign]
    import_module(_FRAMES)
    return _from_typehints(**hints)


def _file_system(path: str) -> Any:
    """Returns Beam's file system of a path; for one of `gs://` it is imported first."""
    if path.startswith("gs://"):
        FileSystems.get_filesystem = staticmethod(_get_filesystem)  # type: ignore[method-assign]
        with suppress(ImportError):
            import_module(_GCS)
    return _get_filesystem(path)


def _left_out() -> dict[str, ModuleType | None]:
    """Returns what is in place of the modules that are left out."""
    door = {"is_subhint": _DOOR, "BeartypeDoorException": _ROAR}
    return {
        # Beam imports it again where it is None and a pipeline wants it.
        _MANAGER: stand_in(_MANAGER, ModelManager=None),
        _TEXTS: stand_in(_TEXTS, __all__=()),
        # An ImportError in it would have Beam log a warning.
        _MONGODB: stand_in(_MONGODB, __all__=()),
        # An ImportError: Beam does without Google Cloud, as where its extra is not installed.
        _BIGQUERY: None,
        _GCS: None,
        _DATAFLOW: None,
        _HTTP: stand_in(_HTTP),
        # An ImportError would have Arrow, on another thread, do without pandas for good.
        _PANDAS: stand_in(_PANDAS),
        _FRAMES: stand_in(_FRAMES, __all__=()),
        _DOOR: stand_in(_DOOR, is_subhint=_late(_HINTS, "is_subhint", **door)),
        _ROAR: stand_in(_ROAR, BeartypeDoorException=None),
        _FERNET: stand_in(_FERNET, Fernet=_late(_UTIL, "Fernet", Fernet=_FERNET)),
    }


_is_first = "apache_beam.io" not in sys.modules
with replaced(_left_out()):
    import apache_beam as beam
    from apache_beam.coders.coders import Coder
    from apache_beam.coders.typecoders import registry
    from apache_beam.io.filesystems import FileSystems
    from apache_beam.metrics.metric import Metrics
    from apache_beam.ml.inference.base import ModelHandler, RunInference
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.pvalue import PCollection
    from apache_beam.transforms.combiners import ToList
    from apache_beam.transforms.window import GlobalWindows
    from apache_beam.typehints.batch import BatchConverter
    from apache_beam.utils.windowed_value import WindowedValue
_from_typehints = BatchConverter.from_typehints
_get_filesystem = FileSystems.get_filesystem
if _is_first:
    vars(beam.io)["__getattr__"] = _find_io
    vars(beam.typehints)["__getattr__"] = _find_hints
    if _GCS not in sys.modules:
        FileSystems.get_filesystem = staticmethod(_file_system)  # type: ignore[method-assign]
    if _FRAMES not in sys.modules:
        BatchConverter.from_typehints = staticmethod(_converter)  # type: ignore[method-assign]

__all__ = [
    "Coder",
    "GlobalWindows",
    "Metrics",
    "ModelHandler",
    "PCollection",
    "PipelineOptions",
    "RunInference",
    "ToList",
    "WindowedValue",
    "beam",
    "registry",
]
