"""What is said of an output that cannot be written."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from batchscore.commands.unwritable import cannot_write, writable
from batchscore.errors import BatchscoreError, FailedError, OutputError
from batchscore.storage.store import Store


@pytest.mark.parametrize(
    ("number", "kind", "remedy"),
    [
        (errno.ENOSPC, FailedError, "make room"),
        (errno.EDQUOT, FailedError, "make room"),
        (errno.EACCES, OutputError, "grant the permission"),
        (errno.EROFS, OutputError, "mount its file system for writing"),
    ],
)
def test_the_remedy_fits_the_cause(
    tmp_path: Path, number: int, kind: type[BatchscoreError], remedy: str
) -> None:
    """A full disk fails the run and wants room; any other output is wrong before the work."""
    with pytest.raises(kind, match=remedy) as caught, writable(Store(str(tmp_path))):
        raise OSError(number, "no")
    assert type(caught.value) is kind
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("number", "full"), [(errno.ENOSPC, True), (errno.EROFS, True), (errno.ENOENT, False)]
)
def test_the_cause_of_a_failure_may_be_a_disk(number: int, full: bool) -> None:
    """Whatever an error was turned into on its way, what it comes from is found."""
    with pytest.raises(FailedError) as caught:
        try:
            raise OSError(number, "as the system says")
        except OSError as error:
            raise FailedError("the publication is not finished") from error
    assert cannot_write(caught.value) is full
