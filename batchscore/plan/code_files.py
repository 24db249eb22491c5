"""The code of a job: what its functions and architecture import, and what it declares."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from batchscore.errors import FunctionError
from batchscore.job import Job, LoadedJob, Preprocess, UserFunction
from batchscore.messages.wording import reason
from batchscore.models.code import hashes
from batchscore.models.imported import imported_files
from batchscore.storage.reading import digest_of, open_plain
from batchscore.storage.store import is_local

# The manifest names each file.
_MOST_FILES = 10_000


def code_files(loaded: LoadedJob) -> dict[str, str]:
    """Returns the SHA-256 of each file that decides a job's scores, by path from its folder.

    Raises:
        FunctionError: What the job declares is not there, or changes with each run.
    """
    job, base = loaded.job, loaded.base
    if not is_local(base):
        if job.code:
            raise FunctionError(
                f"code: the job file is at {base}, and code is read from a local folder only; "
                "copy job file and code to this machine"
            )
        return {}
    found: dict[str, str] = {}
    for file in called_files(job):
        found |= hashes(imported_files(base, file))
    every = (file for entry in job.code for file in _declared(loaded, entry))
    declared = {*islice(every, _MOST_FILES + 1)}
    if len(declared) > _MOST_FILES:
        raise FunctionError(
            f"code: declares over {_MOST_FILES:,} files; declare those that the functions read"
        )
    found |= {file: _sha256(os.path.join(base, file)) for file in declared - {*found}}
    return dict(sorted(found.items()))


def called_files(job: Job) -> list[str]:
    """Returns the files of a job's functions, and that of its own architecture."""
    steps = (job.preprocess, *job.postprocess)
    calls = [step.function for step in steps if isinstance(step, (Preprocess, UserFunction))]
    calls += [job.model.architecture] if job.model.architecture else []
    return [call.partition(":")[0] for call in calls]


def _declared(loaded: LoadedJob, entry: str) -> Iterator[str]:
    """Yields the files that an entry of `code` means: itself, or all that are visible below it."""
    path = Path(loaded.base, entry)
    if path.is_file():
        yield entry
    elif path.is_dir():
        _require_apart(loaded.job, path, entry)
        yield from _below(path, entry)
    else:
        raise FunctionError(
            f"code: no such file or folder: {entry!r} in {loaded.base}; correct the name, or take "
            "it out"
        )


def _require_apart(job: Job, folder: Path, entry: str) -> None:
    output = os.path.realpath(job.output.path)
    if is_local(job.output.path) and Path(output).is_relative_to(os.path.realpath(folder)):
        raise FunctionError(
            f"code: folder {entry!r} holds the output, which changes with each run; declare the "
            "files that the functions read"
        )


def _below(folder: Path, entry: str) -> Iterator[str]:
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith((".", "__"))]
        place = Path(parent).relative_to(folder).as_posix()
        visible = (name for name in files if not name.startswith("."))
        yield from (posixpath.normpath(f"{entry}/{place}/{name}") for name in visible)


def _sha256(path: str) -> str:
    try:
        with open_plain(path) as file:
            return digest_of(file).sha256
    except OSError as error:
        raise FunctionError(
            f"code: file {path} cannot be read: {reason(error)}; correct it"
        ) from error
