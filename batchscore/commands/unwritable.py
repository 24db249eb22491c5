"""What a command says where its output cannot be written."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from batchscore.errors import FailedError, OutputError
from batchscore.messages.wording import remedy_of
from batchscore.storage.remote import missing_bucket
from batchscore.storage.store import Store

_FULL = (errno.ENOSPC, errno.EDQUOT)
_MOST_CAUSES = 20


@contextmanager
def writable(store: Store) -> Iterator[None]:
    """Turns an OSError of a block that writes to an output into an error with its remedy.

    Raises:
        FailedError: The disk or the quota is full.
        OutputError: The output cannot be written for another reason.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise FailedError(
                f"output {store.address}: is full ({error}); make room and run again"
            ) from error
        if isinstance(error, FileNotFoundError) and (missing := _missing_bucket(store)):
            raise OutputError(f"output {store.address}: {missing}") from error
        raise OutputError(
            f"output {store.address}: cannot be written ({error}); "
            f"{remedy_of(error, 'grant the permission')}, or choose another folder"
        ) from error


def cannot_write(error: BaseException) -> bool:
    """Tells whether an error comes from a disk that is full or only readable."""
    found: BaseException | None = error
    for _ in range(_MOST_CAUSES):
        if isinstance(found, OSError) and found.errno in (*_FULL, errno.EROFS):
            return True
        if found is None:
            break
        found = found.__cause__ or found.__context__
    return False


def _missing_bucket(store: Store) -> str:
    """Says that the output's bucket is not there; empty if it is, or that cannot be asked."""
    with suppress(OSError):
        return missing_bucket(store.address)
    return ""
