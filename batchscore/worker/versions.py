"""The versions that a worker and its launcher must share, compared before anything else.

A worker of other versions may not be able to import the rest of batchscore, or to unpickle what
the launcher pickled. So this module imports little, and the launcher's versions come as plain JSON.
Beam itself refuses another Python or Beam, before a worker unpickles anything.
"""

from __future__ import annotations

import json
import pickle
import platform
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError
from typing import TYPE_CHECKING, Any, SupportsIndex

from batchscore import __version__
from batchscore.errors import FailedError
from batchscore.system.packages import version

if TYPE_CHECKING:
    from batchscore.worker.spec import SentSpec

_REMEDY = (
    "install the launcher's versions where the workers run, or launch from an environment like "
    "theirs"
)
_OURS, _PYTHON, _ABSENT = "batchscore", "Python", "none"


def versions_here(packages: Iterable[str]) -> dict[str, str]:
    """Returns the versions of batchscore, of Python without its patch, and of packages here."""
    return {name: _version(name) for name in dict.fromkeys((_OURS, _PYTHON, *packages))}


@cache
def _version(name: str) -> str:
    if name == _OURS:
        return __version__
    if name == _PYTHON:
        return ".".join(map(str, sys.version_info[:2]))
    try:
        return version(name)
    except PackageNotFoundError:
        return _ABSENT


def header_of(spec: SentSpec) -> str:
    """Returns what a worker reads of a spec before it unpickles anything: plain JSON."""
    assert spec.shipment is not None
    # The errors of a run are written down for its launcher; others are the pipeline's own.
    run = getattr(spec, "identity", None)
    facts = {} if run is None else {"run": run.run, "output": spec.output.address}
    return json.dumps({**facts, "versions": dict(spec.shipment.versions)})


def require_alike(header: str) -> None:
    """Compares this process with the launcher that wrote the header.

    Raises:
        FailedError: A version differs; the launcher finds the message in the output.
    """
    facts = json.loads(header)
    problem = _difference(facts["versions"])
    if problem is not None and "run" not in facts:
        raise FailedError(f"{problem}: {_REMEDY}")
    if problem is not None:
        from batchscore.runs.failures import recorded
        from batchscore.storage.store import Store

        with recorded(Store(facts["output"]), facts["run"]):
            raise FailedError(f"{problem}; nothing was published: {_REMEDY}")


def _difference(expected: Mapping[str, str]) -> str | None:
    differ = [name for name, wanted in expected.items() if _version(name) != wanted]
    if not differ:
        return None
    pairs = [f"{name} {_version(name)} (launcher: {expected[name]})" for name in differ]
    return (
        f"the worker on {platform.node()} has other versions than the launcher: {', '.join(pairs)}"
    )


class Sealed:
    """What is pickled with its spec: workers of other machines compare versions first."""

    _spec: SentSpec

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        """Pickles it; sealed if its workers fetch what they need."""
        if self._spec.shipment is None:
            return super().__reduce_ex__(protocol)
        return sealed(type(self), self._spec)


def sealed(kind: type[Any], spec: SentSpec) -> tuple[Any, ...]:
    """Returns how `kind(spec)` is pickled, so that a worker of other versions leaves it packed."""
    return unsealed, (header_of(spec), pickle.dumps((kind, spec)))


def unsealed(header: str, content: bytes) -> Any:
    """Reverses `sealed`.

    Raises:
        FailedError: This process has other versions than the launcher.
    """
    require_alike(header)
    kind, spec = pickle.loads(content)
    return kind(spec)
