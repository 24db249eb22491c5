"""Loads damaged files of one format, each in a child of this process, and prints what became of it.

This process imports the framework once. A child does what a launcher does with the file, and says
so; then what the process does in which loading is tried; then it scores rows, if it can.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from batchscore.columnar.arrays import Array, to_arrow, to_numpy
from batchscore.columnar.text_columns import is_textual, texts_from_arrow
from batchscore.columnar.texts import TEXT, make_texts
from batchscore.errors import BatchscoreError
from batchscore.models.backends.registry import backend_of
from batchscore.models.features import check_schema, encode
from batchscore.models.loadable import Model
from batchscore.models.process.loading_trial import outcome_of
from batchscore.plan.alike import differing_rows
from tests.faults.model_files import FORMS, Form, rows_of

ROWS, GOLDEN = 1_000, 256
SECONDS, BYTES = 60, 8 << 30
_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Sound:
    """A file as it should be: rows, their inputs unless the file makes them, and its scores."""

    rows: pa.RecordBatch | None
    inputs: Mapping[str, Any]
    scores: Mapping[str, Array]


def main() -> int:
    """Prints a line of JSON for each file `NAME.NUMBER.ENDING` of a folder."""
    form, folder = FORMS[sys.argv[1]], Path(sys.argv[2])
    backend_of(form.format).prepare()
    sound = {name: _sound(form, folder, name) for name in form.names}
    for path in sorted((folder / "damaged").iterdir()):
        if path.suffix == f".{form.ending}":
            found = _tried(form, path, sound[path.name.split(".")[0]])
            print(json.dumps({"file": path.name, **found}), flush=True)
    return 0


def _sound(form: Form, folder: Path, name: str) -> Sound:
    model = form.model(folder / f"{name}.{form.ending}")
    rows = rows_of(form, name)
    inputs = {} if rows is not None else _inputs(model)
    return Sound(rows, inputs, _scores(form, model, rows, inputs))


def _scores(
    form: Form, model: Model, rows: pa.RecordBatch | None, inputs: Mapping[str, Any]
) -> dict[str, Array]:
    if rows is not None:
        assert model.features is not None
        check_schema(model.features, rows.schema)
        inputs = {key: _given(each) for key, each in encode(model.features, rows).items()}
    found = backend_of(form.format).load(model, "cpu")(inputs)
    return {name: np.asarray(values) for name, values in found.items()}


def _given(column: Any) -> Any:
    return texts_from_arrow(column) if is_textual(column.type) else to_numpy(column)


def _inputs(model: Model) -> dict[str, Any]:
    """Returns rows for each input that the model, or its file, declares."""
    facts = backend_of(model.format).inspect(model)
    given = [(each.name, each.dtype, each.shape) for each in model.inputs or facts.taken]
    rng = np.random.default_rng(7)
    return {name: _values(rng, dtype, shape or ()) for name, dtype, shape in given}


def _values(rng: Any, dtype: str, shape: tuple[int | None, ...]) -> Any:
    if dtype == TEXT:
        return make_texts([(b"Lima", b"Oslo", b"")[n % 3] for n in range(ROWS)])
    full = (ROWS, *(size or 1 for size in shape))
    if np.dtype(dtype).kind == "f":
        return rng.normal(size=full).astype(dtype)
    return rng.integers(0, 4, full).astype(dtype)


def _tried(form: Form, path: Path, sound: Sound) -> dict[str, Any]:
    """Returns what a child found, how it ended, and what it took."""
    sys.stdout.flush()
    reading, writing = os.pipe()
    started = time.monotonic()
    child = os.fork()
    if not child:
        os.close(reading)
        _work(form, path, sound, writing)
    os.close(writing)
    handle = os.pidfd_open(child)
    is_late = not select.select([handle], [], [], 2 * SECONDS)[0]
    if is_late:
        os.kill(child, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    os.close(handle)
    with os.fdopen(reading) as pipe:
        found = dict[str, Any]()
        for line in pipe:
            found |= json.loads(line)
    ended = {"status": os.waitstatus_to_exitcode(status), "late": is_late}
    took = {"seconds": time.monotonic() - started, "peak": usage.ru_maxrss * 1024}
    return found | ended | took


def _work(form: Form, path: Path, sound: Sound, pipe: int) -> None:
    """Never returns."""
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))

    def tell(**facts: Any) -> None:
        os.write(pipe, json.dumps(facts).encode() + b"\n")

    before = resource.getrusage(resource.RUSAGE_SELF)
    try:
        model = form.model(path)
        backend_of(form.format).inspect(model)
        after = resource.getrusage(resource.RUSAGE_SELF)
        tell(read=after.ru_utime - before.ru_utime, grown=(after.ru_maxrss - before.ru_maxrss))
        found = outcome_of(model)
        if "loaded" in found:
            tell(loaded=True)
            found = _compared(sound.scores, _scores(form, model, sound.rows, sound.inputs))
        tell(**found)
    except BatchscoreError as error:
        tell(error=str(error))
    except BaseException as error:
        tell(raised=f"{type(error).__name__}: {error}"[:500])
    os._exit(0)


def _compared(known: Mapping[str, Array], made: Mapping[str, Array]) -> dict[str, object]:
    """Tells whether scores have the same bits, and if not, whether golden rows show that."""
    if {k: (v.dtype, v.shape) for k, v in known.items()} != {
        k: (v.dtype, v.shape) for k, v in made.items()
    }:
        return {"scores": "other", "golden": True}
    if all(known[name].tobytes() == made[name].tobytes() for name in known):
        return {"scores": "equal"}
    is_found = any(_differ(known[name][:GOLDEN], made[name][:GOLDEN]) for name in known)
    return {"scores": "other", "golden": is_found}


def _differ(known: Array, made: Array) -> bool:
    return bool(differing_rows(to_arrow(known), to_arrow(made), _TOLERANCE).any())


if __name__ == "__main__":
    sys.exit(main())
