"""Test that an error in a worker is written down once and comes back as what it was."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from batchscore import errors
from batchscore.errors import (
    BatchscoreError,
    FailedError,
    Int96Error,
    RetryError,
    ShardError,
    StepError,
    StoppedError,
)
from batchscore.runs import layout
from batchscore.runs.failures import (
    describe,
    find_os_error,
    find_own_error,
    is_final,
    read_failure,
    recorded,
    shortened,
)
from batchscore.storage.store import Store

KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type)
    and issubclass(kind, BatchscoreError)
    and kind is not BatchscoreError
    and not issubclass(kind, ShardError)
]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An output."""
    return Store(str(tmp_path))


def _record(store: Store, error: Exception, run: str = "r") -> None:
    with pytest.raises(type(error)), recorded(store, run):
        raise error


def test_without_a_failure_there_is_none(store: Store) -> None:
    """A run whose workers wrote nothing down has no failure, and nothing is written for it."""
    with recorded(store, "r"):
        pass
    assert read_failure(store, "r") is None
    assert store.names() == []


@pytest.mark.parametrize("kind", [ShardError, Int96Error])
def test_a_bad_shard_comes_back_as_a_failed_step(store: Store, kind: type[ShardError]) -> None:
    """Path and problem are in the message, which survives."""
    _record(store, kind("in/0.parquet", "cut off"))
    found = read_failure(store, "r")
    assert found is not None
    assert (type(found[0]), str(found[0])) == (StepError, "shard in/0.parquet: cut off")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_our_errors_come_back(store: Store, kind: type[BatchscoreError]) -> None:
    """Class, exit code, message and trace survive; a wrong job is a failure by now."""
    _record(store, kind("the message"))
    found = read_failure(store, "r")
    assert found is not None
    error, trace = found
    expected = FailedError if kind.exit_code == 2 else kind
    assert type(error) is expected
    assert error.exit_code == expected.exit_code
    assert str(error) == "the message"
    assert "test_failures.py" in trace


def test_a_foreign_error_is_named(store: Store) -> None:
    """An error that is not ours comes back as a failure that says what it was."""
    _record(store, ZeroDivisionError("by zero"))
    found = read_failure(store, "r")
    assert found is not None
    assert type(found[0]) is FailedError
    assert str(found[0]) == "unexpected ZeroDivisionError: by zero"


def test_an_error_that_passes_several_steps_is_written_once(store: Store) -> None:
    """Beam hands an error through every step; it makes one record."""
    with pytest.raises(StepError), recorded(store, "r"), recorded(store, "r"):
        raise StepError("once")
    assert len(store.names(layout.failures("r"))) == 1


def test_a_failure_is_reported_before_a_stop(store: Store) -> None:
    """Of several workers' errors, that they were asked to stop comes last."""
    for _ in range(5):
        _record(store, StoppedError("stopped"))
    _record(store, StepError("the cause"))
    found = read_failure(store, "r")
    assert found is not None
    assert str(found[0]) == "the cause"


def test_runs_do_not_see_each_others_failures(store: Store) -> None:
    """A failure belongs to the run that met it."""
    _record(store, StepError("other"), run="other")
    assert read_failure(store, "r") is None


def test_an_output_that_cannot_be_written_hides_no_error(tmp_path: Path) -> None:
    """When even the record fails, the error itself still goes on."""
    (tmp_path / "file").write_bytes(b"")
    _record(Store(str(tmp_path / "file")), StepError("the cause"), run="unwritten")


def test_a_record_left_half_written_is_passed_over(store: Store) -> None:
    """What a killed worker left of a record does not hide the others' errors."""
    _record(store, StepError("the cause"))
    name = store.names(layout.failures("r"))[0]
    store.write(f"{layout.failures('r')}/{name}.0123abcd-99-0123abcd.tmp", b'{"type": "St')
    found = read_failure(store, "r")
    assert found is not None
    assert str(found[0]) == "the cause"


def test_a_description_has_the_cause_too() -> None:
    """The trace holds the chain of errors down to the first."""
    try:
        try:
            raise KeyError("deep")
        except KeyError as error:
            raise StepError("shown") from error
    except StepError as error:
        facts = describe(error)
    assert (facts["type"], facts["message"]) == ("StepError", "shown")
    assert "KeyError: 'deep'" in facts["trace"]


def test_an_error_that_cannot_be_written_down_is_reported_by_its_process(tmp_path: Path) -> None:
    """Where an output takes no record, as on a full disk, the error still comes back whole."""
    (tmp_path / "file").write_bytes(b"")
    store = Store(str(tmp_path / "file"))
    _record(store, OSError(errno.ENOSPC, "No space left on device"), run="full")
    found = read_failure(store, "full")
    assert found is not None
    assert type(found[0]) is FailedError
    assert "No space left on device); make room and run again" in str(found[0])
    assert read_failure(store, "other") is None


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "make room and"),
        (errno.EDQUOT, "make room and"),
        (errno.EACCES, "grant the permission and"),
        (errno.EROFS, "mount its file system for writing and"),
        (errno.EIO, "check the disk or store and"),
        (None, "check the disk or store and"),
    ],
)
def test_a_systems_error_comes_with_its_remedy(number: int | None, remedy: str) -> None:
    """What helps depends on what is wrong; that nothing was published is not for it to say."""
    error = OSError("gone") if number is None else OSError(number, "x")
    message = describe(error)["message"]
    assert f"; {remedy} run again; finished units are kept" in message
    assert "published" not in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "Traceback\n  File x\nOSError: [Errno 28] No space left on device "
            "[while running 'Write']\n\n",
            "[Errno 28] No space left on device",
        ),
        ("PermissionError: [Errno 13] Permission denied: 'a/b'", "[Errno 13] Permission denied: "),
        ("OSError: [Errno 28] No space left\nbatchscore.errors.StepError: x", None),
        ("", None),
    ],
)
def test_a_workers_text_tells_of_the_systems_error(text: str, expected: str | None) -> None:
    """Only what the traceback ends with is the cause."""
    found = find_os_error(text)
    assert (found is None) if expected is None else str(found).startswith(expected)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "RuntimeError: Pipeline construction environment and pipeline runtime environment are "
            "not compatible. If you use a custom container image, check it. Submission "
            "environment: beam:version:sdk_base:apache/beam_python3.11_sdk:2.77.0. Runtime "
            "environment: beam:version:sdk_base:apache/beam_python3.10_sdk:2.76.0.\n",
            "a worker has Python 3.10 and apache-beam 2.76.0, and the launcher Python 3.11 and "
            "apache-beam 2.77.0; nothing was published: install",
        ),
        (
            "Traceback\n  x\nModuleNotFoundError: No module named 'batchscore.worker'\n",
            "a worker has no module 'batchscore.worker'",
        ),
        (
            "Traceback\nbatchscore.errors.FailedError: numpy 1.0 [while running 'Write']\nmore",
            "numpy 1.0",
        ),
    ],
)
def test_what_a_worker_could_not_write_down_is_found(text: str, words: str) -> None:
    """In what an engine says, between lines of its own; the first text is Beam's, as it came."""
    found = find_own_error(f"java.lang.RuntimeException: Error received\n{text}\n\tat org.apache\n")
    assert isinstance(found, FailedError)
    assert str(found).startswith(words)


def test_other_errors_are_none_of_ours() -> None:
    """An engine's own words are reported as they are."""
    assert find_own_error("RuntimeError: no slot\n") is None


def _caused(by: BaseException) -> StepError:
    error = StepError("a shard cannot be read")
    error.__cause__ = by
    return error


@pytest.mark.parametrize(
    "error",
    [
        StepError("the column has other types"),
        FailedError("another batchscore"),
        ShardError("in/0.parquet", "cut off"),
        _caused(FileNotFoundError(errno.ENOENT, "no such file")),
        _caused(PermissionError(errno.EACCES, "permission denied")),
        _caused(OSError("Couldn't deserialize thrift")),
        _caused(ZeroDivisionError("by zero")),
    ],
    ids=repr,
)
def test_what_fails_again_is_final(store: Store, error: Exception) -> None:
    """The launcher need not wait for an engine that does it again."""
    assert is_final(error)
    _record(store, error)
    found = read_failure(store, "r", final=True)
    assert found is not None
    assert str(found[0]) == str(error)


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError("reset"),
        ZeroDivisionError("not ours"),
        RetryError("a lock is kept"),
        StoppedError("stopped"),
        _caused(TimeoutError("the store did not answer")),
        _caused(OSError(errno.ENOSPC, "no space left")),
        _caused(MemoryError()),
        _caused(_caused(ConnectionRefusedError())),
    ],
    ids=repr,
)
def test_what_may_pass_is_not_final(store: Store, error: Exception) -> None:
    """Stores, disks, memory and locks may be better the next time, or elsewhere."""
    assert not is_final(error)
    _record(store, error)
    assert read_failure(store, "r", final=True) is None
    assert read_failure(store, "r") is not None


TRACE = """java.lang.Exception: The user defined 'open()' method caused an exception: UNAVAILABLE
\tat org.apache.beam.ExternalEnvironmentFactory.createEnvironment(Factory.java:113)
Caused by: java.lang.RuntimeException: java.net.UnknownHostException: pool: not known
Caused by: java.net.UnknownHostException: pool: not known
\t... 6 more
"""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            TRACE,
            "reaches no pool of Python workers (java.net.UnknownHostException: pool: not known)",
        ),
        (TRACE.replace("UNAVAILABLE", "x"), "java.net.UnknownHostException: pool: not known"),
        ("one line\nanother", "one line"),
        ("x" * 999, "x" * 299 + "…"),
    ],
)
def test_a_trace_of_java_is_named_by_its_last_cause(text: str, words: str) -> None:
    """In one line; that a pool cannot be reached is said in words."""
    assert words in shortened(text)
    assert "\n" not in shortened(text)


def test_an_engine_that_ended_a_job_is_not_unexpected() -> None:
    """The message has its state and the last cause."""
    error = RuntimeError(f"Pipeline x-1 failed in state FAILED: {TRACE.replace('UNAVAIL', '')}")
    assert describe(error)["message"] == (
        "the engine ended the job as FAILED: java.net.UnknownHostException: pool: not known"
    )
