"""Every error that batchscore raises on purpose, each with the exit code of the command it ends.

BatchscoreError                1   root; never raised itself
├── InvalidError               2   invalid before any work
│   ├── JobFileError               the job file, a parameter or an override
│   ├── ArgumentError              an argument of a Python function; a TypeError too
│   ├── InputError                 shards: none found, unreadable, wrong schema
│   ├── ModelError                 model folder, weights, hash, architecture
│   ├── FunctionError              a user's function: not importable, or it reads unlisted files
│   ├── DeviceError                the device asked for does not exist
│   └── OutputError                the output: not writable, not ours, clash of names
├── FailedError                1   something went wrong while scoring or publishing
│   ├── StepError                  a stage could not do its work on a block of rows
│   │   ├── UnfitStepError         a postprocess step that no row can pass
│   │   └── ShardError             a shard cannot be read to its end, or changed meanwhile
│   │       └── Int96Error         an INT96 timestamp that the unit it is read in cannot hold
│   ├── RecordError                a record, manifest or journal is missing or damaged
│   │   └── VersionError           a newer batchscore wrote it
│   ├── UnseenError                a worker's machine does not have the output
│   └── LeaseError                 another run took the slice over while this one slept
├── HeldError                  3   a check did not pass; a person decides
├── RetryError                 4   not yet: input not ready, output in use, quota used up
└── StoppedError             130   Ctrl-C (130), SIGTERM or `cancel` (143)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from batchscore.messages.addresses import redacted_text


class BatchscoreError(Exception):
    """Root of the tree; its message names the value, what was expected and the remedy.

    Credentials and query values in addresses do not show in it.
    """

    exit_code = 1
    status = "failed"

    def __str__(self) -> str:
        return redacted_text(super().__str__())


class InvalidError(BatchscoreError):
    """Something is wrong. It was found before any work was done."""

    exit_code = 2
    status = "invalid"


class JobFileError(InvalidError):
    """The job file, a parameter or an override is wrong."""


class ArgumentError(InvalidError, TypeError):
    """An argument of a Python function is of a type that it does not take."""


class InputError(InvalidError):
    """The input's shards are missing, unreadable, or their schemas do not fit."""


class ModelError(InvalidError):
    """The model folder, its weights, hashes or architecture are wrong."""


class FunctionError(InvalidError):
    """A user's function cannot be imported or called as the job needs it."""


class DeviceError(InvalidError):
    """The device that was asked for does not exist on this machine."""


class OutputError(InvalidError):
    """The output cannot be written, is not batchscore's, or its columns clash."""


class FailedError(BatchscoreError):
    """Work was started and could not be completed."""


class StepError(FailedError):
    """A stage could not do its work on a block of rows."""


class UnfitStepError(StepError):
    """A postprocess step does not fit the names, shapes or types of the outputs it works on."""


class ShardError(StepError):
    """A shard cannot be read to its end, was removed, or changed since it was planned."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"shard {path}: {problem}")
        self.path = path
        self.problem = problem


class Int96Error(ShardError):
    """A shard's INT96 timestamp is beyond what the unit that it is read in holds."""


class RecordError(FailedError):
    """A record, manifest or journal is missing or damaged."""


class VersionError(RecordError):
    """A newer batchscore wrote a document, in a form that this one does not know."""


class UnseenError(FailedError):
    """A worker's machine has something else, or nothing, at the address of the output.

    Attributes:
        recorded: Whether it need not be written down for the launcher any more.
    """

    recorded = False


class LeaseError(FailedError):
    """Another run took the slice over while this process slept past its lease."""


class HeldError(BatchscoreError):
    """A check did not pass; nothing was published and a person decides."""

    exit_code = 3
    status = "held"


class RetryError(BatchscoreError):
    """The run cannot start yet; the same command may succeed later."""

    exit_code = 4
    status = "retry"


class StoppedError(BatchscoreError):
    """The run was stopped by Ctrl-C, SIGTERM or `cancel`; nothing was published.

    Attributes:
        by: Who stopped it, as `user@host`; empty if that is not known.
    """

    exit_code = 130
    status = "interrupted"
    by = ""


@contextmanager
def naming_package(kind: type[BatchscoreError], what: str, remedy: str) -> Iterator[None]:
    """Names another package's code, if it raises what nobody else expects.

    Args:
        kind: Class of the error in place of that.
        what: What was called, at the message's beginning.
        remedy: The message's end.
    """
    try:
        yield
    except (BatchscoreError, OSError, MemoryError):
        raise
    except Exception as error:  # another package's code raises what it likes
        from batchscore.messages.wording import reason  # not needed where nothing fails

        found = f"{type(error).__name__}: {reason(error)}"
        raise kind(f"{what} failed with {found}; {remedy}") from error
