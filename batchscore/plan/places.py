"""Where a run reads and writes: apart from each other, ready, and open to be written."""

from __future__ import annotations

import os
import posixpath
import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path

from batchscore.errors import OutputError, RetryError
from batchscore.runs import layout
from batchscore.storage import Store, open_filesystem


def check_apart(output: str, inputs: Iterable[str]) -> None:
    """Raises OutputError when an output and an input lie within one another."""
    target = open_filesystem(output)[1]
    for address in inputs:
        source = open_filesystem(address)[1].split("*")[0].rstrip("/")
        for inner, outer in ((target, source), (source, target)):
            if inner == outer or inner.startswith(f"{outer}/"):
                raise OutputError(
                    f"output.path {output}: lies within input.path {address}, or the other way "
                    "round, so that a run would read what it wrote; choose another folder"
                )


def check_writable(output: Store) -> None:
    """Raises OutputError for an output that is not batchscore's, or cannot be written to."""
    try:
        layout.check_output(output)
    except OSError as error:
        raise OutputError(f"output {output.address}: cannot be read ({error})") from error
    if not output.is_local:
        return
    folder = Path(output.path(""))
    existing = next(part for part in (folder, *folder.parents) if part.exists())
    if not existing.is_dir():
        raise OutputError(f"output {folder}: {existing} is a file; choose another folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise OutputError(
            f"output {folder}: no permission to write in {existing}; "
            "grant it, or choose another folder"
        )


def check_ready(marker: str | None, inputs: Sequence[str]) -> None:
    """Raises RetryError when the input's marker is not there yet."""
    if marker is None:
        return
    address = marker
    if "://" not in marker and not marker.startswith("/"):
        folder = inputs[0].split("*")[0].rstrip("/")
        filesystem, path = open_filesystem(folder)
        at = folder if filesystem.isdir(path) else posixpath.dirname(folder)
        address = posixpath.join(at, marker)
    filesystem, path = open_filesystem(address)
    if not filesystem.exists(path):
        raise RetryError(
            f"input.ready {address}: is not there yet; run again once the input is complete"
        )


def probe_output(output: Store) -> None:
    """Puts one object into an output and removes it, and the folder if it was not there.

    Raises:
        OutputError: it cannot be written.
    """
    existed = output.exists()
    path = f"{layout.HOME}/probe-{secrets.token_hex(4)}" if existed else "probe"
    try:
        output.write(path, b"")
        output.remove(path if existed else "")
        output.prune_empty([layout.HOME] if existed else [])
    except OSError as error:
        raise OutputError(
            f"output {output.address}: cannot be written ({error}); "
            "grant the permission, or choose another folder"
        ) from error
