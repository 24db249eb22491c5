"""Where everything lies within an output, and what names slices and runs."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any
from urllib.parse import quote

from batchscore import __version__
from batchscore.errors import OutputError
from batchscore.messages.wording import reason
from batchscore.storage.store import Store, encode_json

DATA = "data"
HOME = "_batchscore"
RETIRED = f"{HOME}/retired"
CODE = f"{HOME}/code"
MODELS = f"{HOME}/models"
LOGS = f"{HOME}/logs"
GOLDEN = "golden-"
PROBE = "probe-"
FORMAT = f"{HOME}/format.json"
_KEY, _MOST_VERSION = "batchscore_output", 10**9
# Of an output, and of one some of whose manifests refer to segments.
_FIRST, _VERSION = 1, 2
_MARK = f'restore it from a copy, or write {{"{_KEY}": {_FIRST}}} into it'
_NAME_LENGTH = 100
_NO_BUCKET = "bucket does not exist"
"""As S3 and Google Cloud Storage put it."""


def slice_id(job: str, params: Mapping[str, Any]) -> str:
    """Names a slice, a job with its parameters, as one folder: `job` or `job,date=2026-11-20`."""
    parts = [f"{quote(k, safe='')}={quote(str(v), safe='')}" for k, v in sorted(params.items())]
    name = ",".join([quote(job, safe=""), *parts])
    if len(name) <= _NAME_LENGTH:
        return name
    return f"{name[: _NAME_LENGTH - 13]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def new_run_id(store: Store) -> str:
    """Returns a name that no run of the output has: the day in UTC and four hex digits."""
    # A run that is under way may have left nothing but what it works with.
    taken = {*store.names(f"{HOME}/runs"), *store.names(f"{HOME}/work")}
    day = datetime.now(timezone.utc).strftime("%Y%m%d")
    while (run := f"{day}-{secrets.token_hex(2)}") in taken:
        continue
    return run


def staging(slice_: str) -> str:
    """Folder of a slice's attempts: files that were written and are not published."""
    return f"{HOME}/staging/{slice_}"


def ledger(slice_: str, score: str) -> str:
    """Folder of the records of a slice's finished units that were scored one way.

    `UNIT.parquet` is a unit's record; `ATTEMPT.rows.parquet` and `ATTEMPT.keys.parquet` belong to
    the attempt that the record names.
    """
    return f"{HOME}/ledger/{slice_}/{score[:16]}"


def record(slice_: str, score: str, unit: str) -> str:
    """Path of a finished unit's record."""
    return f"{ledger(slice_, score)}/{unit}.parquet"


def golden(slice_: str, score: str, golden_sha256: str) -> str:
    """How the paths begin of what processes made of the golden rows of that hash."""
    return f"{ledger(slice_, score)}/{GOLDEN}{golden_sha256[:12]}-"


def work(run: str) -> str:
    """Folder of what a run needs only while it works."""
    return f"{HOME}/work/{run}"


def plan_file(run: str) -> str:
    """Path of what a run's last step needs of its plan; there while the run is open."""
    return f"{work(run)}/plan.json"


def failures(run: str) -> str:
    """Folder of the errors that a run's workers met."""
    return f"{work(run)}/failures"


def progress(run: str) -> str:
    """Folder of the counts that a run's workers write while they work."""
    return f"{work(run)}/progress"


def halvings(run: str) -> str:
    """Folder of what a run's workers tell of devices whose memory ran out."""
    return f"{work(run)}/halvings"


def logs(slice_: str, run: str) -> str:
    """Folder of what a run's worker processes logged."""
    return f"{LOGS}/{slice_}/{run}"


def rejects(run: str, unit: str) -> str:
    """Path of the rejected rows of a unit that `run` scored."""
    return f"{HOME}/rejects/{run}/{unit}.parquet"


def run_file(run: str, name: str) -> str:
    """Path of a file that a run leaves for good, such as `manifest.json`."""
    return f"{HOME}/runs/{run}/{name}"


def slice_file(slice_: str, name: str) -> str:
    """Path of a file of a slice, such as `current.txt`."""
    return f"{HOME}/slices/{slice_}/{name}"


def retired(run: str, path: str) -> str:
    """Where a published file goes when `run` replaces it."""
    return f"{RETIRED}/{run}/{path}"


def claim_output(store: Store) -> None:
    """Marks an output as batchscore's.

    Raises:
        OutputError: It holds files and is not batchscore's, or is of another format.
    """
    check_output(store)
    if not is_claimed(store):
        store.create_new(FORMAT, encode_json({_KEY: _FIRST}))


def raise_format(store: Store) -> None:
    """Marks an output as of the newest format, so that earlier versions refuse it by name."""
    with suppress(FileNotFoundError):  # whoever only reads does without, and `verify` reports it
        old = store.read(FORMAT)
        if old == encode_json({_KEY: _FIRST}):
            store.exchange(FORMAT, old, encode_json({_KEY: _VERSION}))


def is_claimed(store: Store) -> bool:
    """Tells whether an output is there and is batchscore's; one that was removed is not."""
    return store.exists(FORMAT)


def check_output(store: Store) -> None:
    """Raises OutputError when an output is not batchscore's, or is of a format that it cannot read.

    An output of an earlier format is read, and written, as it is.
    """
    try:
        found = store.read_json(FORMAT)
        _check_format(store, found[_KEY])
    except (FileNotFoundError, NotADirectoryError) as error:
        if _NO_BUCKET in f"{error} {error.__cause__}":
            raise OutputError(
                f"output {store.address}: there is no such bucket; create it, or correct the "
                "address"
            ) from error
        _check_unmarked(store)
    except (KeyError, TypeError, ValueError) as error:
        raise OutputError(f"{store.url(FORMAT)}: damaged ({reason(error)}); {_MARK}") from error


def check_readable(store: Store) -> None:
    """Raises OutputError when an output is of a format later than is known.

    Whoever only reads does without a file that is gone or damaged; `verify` reports it.
    """
    with suppress(FileNotFoundError, KeyError, TypeError, ValueError):
        _check_format(store, store.read_json(FORMAT)[_KEY])


def _check_format(store: Store, version: Any) -> None:
    if type(version) is not int or not 0 < version < _MOST_VERSION:
        raise ValueError("its version is not a number")
    if version > _VERSION:
        raise OutputError(
            f"{store.url(FORMAT)}: the output is of format {version}, and batchscore "
            f"{__version__} knows formats up to {_VERSION}; install a newer batchscore"
        )


def _check_unmarked(store: Store) -> None:
    found = store.names()
    inside = store.names(HOME) if HOME in found else []
    # What `check --probe` puts there for a moment is nobody's.
    ours = found == [HOME] and all(name.startswith(PROBE) for name in inside)
    # Of runs that start at once another one may have marked the output since the first look; it
    # did so before it wrote anything else.
    if not found or ours or is_claimed(store):
        return
    if {"runs", "slices"} & set(inside):
        raise OutputError(f"{store.url(FORMAT)}: no such file; {_MARK}")
    raise OutputError(
        f"output {store.address}: holds {found[0]!r} and is not an output of batchscore; "
        "choose an empty or a new folder"
    )
