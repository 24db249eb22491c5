"""Loads a model in a process of its own first, where a damaged file could end the process.

That process has limits of time and memory, none of the launcher's variables, which may hold
credentials, and no network where the system lets it give that up. It gets a private copy of the
bytes whose SHA-256 was compared, and they are what is loaded later.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import pickle
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from batchscore.columnar.ragged import Ragged
from batchscore.columnar.texts import TEXT, make_texts
from batchscore.errors import BatchscoreError, ModelError, StepError
from batchscore.messages.wording import counted, one_line, reason
from batchscore.models.backends.facts import Call, Facts
from batchscore.models.backends.protocol import Backend
from batchscore.models.backends.registry import backend_of
from batchscore.models.backends.remembered import recall, remember
from batchscore.models.inputs import ModelInput
from batchscore.models.loadable import Model, copy_verified
from batchscore.models.process.started import describe_end
from batchscore.system.packages import version

_REMEMBERED = "loads.json"
_RESULT = "result.json"
_RESULT_BYTES = 1 << 16
_SECONDS = 300
# Seconds of CPU time for all calls, and for each of their rows on top. The first call sets much up,
# and a model that needs more than a second a row would score 86,400 rows a day on a core.
# It is no time of the clock, since a busy machine must not end an honest model.
_CALL_SECONDS, _ROW_SECONDS = 30, 1
_LEAST_BYTES = 8 << 30
_TIMES_ITS_SIZE = 32
# An expression of a vectorizer may look for the words of a long text without an end.
_TEXTS = (b"", b"0" * 200 + b"!", b"a" * 200 + b"!", b"a", b"\xc3\xbc " * 100)
_NO_MEMORY = ("allocate memory", "bad_alloc", "not enough memory", "Unable to allocate")
_NEW_USER, _NEW_NETWORK = 0x10000000, 0x40000000
_KEPT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR", "OMP_NUM_THREADS")
_COMMAND = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from batchscore.models.process.loading_trial import main; main(*sys.argv[2:])"
)


def try_loading(model: Model) -> None:
    """Loads and calls a model in a process of its own; once per content and version.

    Raises:
        ModelError: The model cannot be loaded, or the process died of it.
    """
    backend = backend_of(model.format)
    versions = [f"{name} {version(name)}" for name in backend.packages]
    hashes = {name: model.sha256[name] for name in backend.needed(model)}
    key = " ".join([model.format, *hashes.values(), *versions])
    if recall(_REMEMBERED, key):
        return
    with tempfile.TemporaryDirectory(prefix="batchscore-trial-") as folder:
        copy_verified(model, hashes, Path(folder))
        copied = replace(model, folder=folder, sha256=hashes, features=None)
        _require_loaded(model, _ended(copied, Path(folder)), Path(folder))
    remember(_REMEMBERED, key, True)


def _ended(model: Model, folder: Path) -> int | None:
    """Returns the exit code of a process that loads a model; None if it took too long."""
    (folder / "model.pickle").write_bytes(pickle.dumps(model))
    try:
        done = subprocess.run(
            [sys.executable, "-c", _COMMAND, json.dumps(sys.path), str(folder), *_limits()],
            env={name: os.environ[name] for name in _KEPT if name in os.environ}
            | {"HOME": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None
    return done.returncode


def _require_loaded(model: Model, code: int | None, folder: Path) -> None:
    found = _result(folder / _RESULT)
    if code == 0 and found.get("loaded") is True:
        return
    where = f"{model.folder}/{model.weights}"
    if isinstance(found.get("error"), str):
        text = one_line(found["error"].replace(str(folder), model.folder), 1000)
        raise ModelError(text if where in text else f"{where}: cannot be loaded: {text}")
    if code == -signal.SIGXCPU and isinstance(found.get("calling"), int):
        reads_texts = any(each.dtype == TEXT for each in model.inputs)
        how = ", such as another token_pattern" if reads_texts else ""
        raise ModelError(
            f"{where}: calls for {counted(found['calling'], 'row')} took more than "
            f"{found.get('seconds')} s of CPU time, so the model may never end; if it does, "
            f"make it quicker{how}, or export it with fewer rows per call"
        )
    is_late = code is None or code == -signal.SIGXCPU
    how = f"took more than {_SECONDS} s" if is_late else describe_end(code)
    raise ModelError(
        f"{where}: a process that only tried to load it {how}; the file is damaged, or made to do "
        "harm: restore it, or save the model again"
    )


def _result(path: Path) -> dict[str, Any]:
    """Returns what the process wrote; nothing if it is no such thing, since it may be anybody's."""
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(_RESULT_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _limits() -> tuple[str, str]:
    """Returns the seconds for all calls, and for each row, as the process gets them."""
    return str(_CALL_SECONDS), str(_ROW_SECONDS)


def main(folder: str, seconds: str, row_seconds: str) -> None:
    """Loads the model of a folder with limits, and writes how that ended.

    Args:
        folder: Where the model lies, and where the answer is written.
        seconds: Seconds of CPU time for all calls.
        row_seconds: Those for each of their rows on top.
    """
    place = Path(folder)
    model: Model = pickle.loads((place / "model.pickle").read_bytes())
    _limit(sum((place / name).stat().st_size for name in model.sha256))
    limit = partial(_limit_calls, place, int(seconds), int(row_seconds))
    (place / _RESULT).write_text(json.dumps(outcome_of(model, limit)))
    os._exit(0)


def _limit_calls(place: Path, seconds: int, row_seconds: int, rows: int) -> None:
    """Notes that the model is called, and has the process end if that takes too long."""
    allowed = seconds + rows * row_seconds
    (place / _RESULT).write_text(json.dumps({"calling": rows, "seconds": allowed}))
    spent = resource.getrusage(resource.RUSAGE_SELF)
    most = math.ceil(spent.ru_utime + spent.ru_stime) + allowed
    resource.setrlimit(resource.RLIMIT_CPU, (min(most, _SECONDS), _SECONDS))


def _unlimited(rows: int) -> None:
    """Sets no limit."""


def outcome_of(model: Model, limit: Callable[[int], None] = _unlimited) -> dict[str, object]:
    """Returns what comes of loading a model and calling it for a few rows, JSON-able.

    Args:
        model: The model.
        limit: Called with the number of rows, once the model is loaded.
    """
    try:
        backend = backend_of(model.format)
        predictor, values = backend.load(model, "cpu"), backend.trial_values
        inputs = model.inputs or _inputs_of_file(backend.inspect(model))
        calls = [*dict.fromkeys((values, *((value,) for value in values)))]
        limit(sum(_rows_of_call(backend, model, len(some)) for some in calls))
        for some in calls:
            try:
                predictor.call_few({each.name: _input(each, some) for each in inputs}, len(some))
            except StepError as error:
                # Rows that the model cannot score are no sign of a damaged file.
                if _lacks_memory(error):
                    return {"error": _too_large()}
    except BatchscoreError as error:
        return {"error": str(error)}
    except Exception as error:  # a framework raises what it likes
        return {"error": reason(error)}
    return {"loaded": True}


def _rows_of_call(backend: Backend, model: Model, rows: int) -> int:
    """Returns the rows that a call for a few rows has: more, if the file fixes how many."""
    known, _ = backend.known_rows(model, Call(rows=rows, batch_rows=rows))
    return max(known or rows, rows)


def _lacks_memory(error: StepError) -> bool:
    """Tells whether a call failed at a bound of memory, which each library says in its own way."""
    said = f"{error} {error.__cause__}"
    return isinstance(error.__cause__, MemoryError) or any(each in said for each in _NO_MEMORY)


def _too_large() -> str:
    gigabytes = resource.getrlimit(resource.RLIMIT_AS)[0] / (1 << 30)
    return (
        f"a call for a few rows takes more than {gigabytes:,.0f} GiB of memory; export the model "
        "with a small fixed number of rows per call, if it is meant to take so much"
    )


def _inputs_of_file(facts: Facts) -> tuple[ModelInput, ...]:
    """Returns the inputs of a file of which nothing is declared yet."""
    found = facts.inputs.items()
    return tuple(ModelInput(name, facts.input_type, shape, ()) for name, shape in found)


def _input(each: ModelInput, floats: tuple[float, ...]) -> Any:
    """Returns rows of an input; where they differ in length, each has one step."""
    made = _rows(each.shape, each.dtype, floats)
    return Ragged(made, np.arange(len(made) + 1)) if each.varying else made


def _rows(shape: tuple[int, ...], dtype: str, floats: tuple[float, ...]) -> Any:
    """Returns as many rows: of such floats, of texts, or of whole numbers."""
    if dtype == TEXT:
        return make_texts(_TEXTS[: len(floats)])
    values = floats if np.dtype(dtype).kind == "f" else (0, 1, 0, 1, 1)[: len(floats)]
    return np.stack([np.full(shape, value, dtype) for value in values])


def _limit(size: int) -> None:
    most = _LEAST_BYTES + _TIMES_ITS_SIZE * size
    resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).unshare(_NEW_USER | _NEW_NETWORK)
