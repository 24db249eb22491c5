"""A run that goes on without its launcher: workers renew its lease, and end it if it must fail."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

from batchscore.errors import BatchscoreError, RetryError, StoppedError
from batchscore.runs import layout
from batchscore.runs.checks import too_many_rejected
from batchscore.runs.failures import is_final, read_failure, recorded
from batchscore.runs.holder import RENEWAL_SECONDS
from batchscore.runs.lease import Heartbeat
from batchscore.runs.ledger import finished_units, read_heads
from batchscore.runs.progress import read_stop, request_stop
from batchscore.runs.run_plan import read_plan
from batchscore.worker.spec import RunSpec

_lock = threading.Lock()
_beating: dict[tuple[str, str], _Beating] = {}


def start_beating(spec: RunSpec) -> None:
    """Renews the run's lease from now on, by one thread a process, until as many calls ended it."""
    if not spec.identity.submitted:
        return
    with _lock:
        key = (spec.output.address, spec.identity.run)
        if key not in _beating or not _beating[key].is_alive():
            _beating[key] = _Beating(spec)
            _beating[key].start()
        _beating[key].users += 1


def stop_beating(spec: RunSpec) -> None:
    """Ends the thread, if nobody else in this process needs it."""
    with _lock:
        beating = _beating.get((spec.output.address, spec.identity.run))
        if beating is None:
            return
        beating.users -= 1
        if beating.users <= 0:
            beating.ended.set()
            del _beating[spec.output.address, spec.identity.run]


class _Beating(threading.Thread):
    """Renews a run's lease while it counts; whoever renewed it last counts rejected rows."""

    def __init__(self, spec: RunSpec) -> None:
        super().__init__(name="heartbeat", daemon=True)
        self._spec, self._rejects = spec, RejectedSoFar(spec)
        self.users, self.ended = 0, threading.Event()

    def run(self) -> None:
        """Beats until the lease is over, or nobody needs it any more."""
        spec = self._spec
        beat = Heartbeat(spec.output, spec.slice, spec.identity.lease, spec.identity.run)
        while True:
            # A store that cannot be reached now may be in ten seconds.
            with suppress(OSError, RetryError):
                mine = beat.beat()
                if mine is None:
                    return
                if mine:
                    self._rejects.check()
            if self.ended.wait(RENEWAL_SECONDS):
                return


class RejectedSoFar:
    """Rejected rows of the units that a run has finished; each record is read once."""

    def __init__(self, spec: RunSpec) -> None:
        self._spec = spec
        self._rejected: dict[str, int] = {}

    def check(self) -> None:
        """Ends the run if there are too many already, whatever the rest brings.

        Counts of units that are not finished are left out, since an engine may start them again.
        """
        spec = self._spec
        with suppress(BatchscoreError, FileNotFoundError), recording(spec):
            rejected = self._count()
            if rejected > spec.execution.max_rejects:
                raise too_many_rejected(rejected, spec.execution.max_rejects)

    def _count(self) -> int:
        spec, identity = self._spec, self._spec.identity
        plan = read_plan(spec.output, identity.run)
        done = finished_units(spec.output, spec.slice, identity.score) & plan.units.keys()
        new = read_heads(spec.output, spec.slice, identity.score, done - self._rejected.keys())
        self._rejected |= {unit: head.rejected for unit, head in new.items()}
        return plan.rejected + sum(self._rejected.values())


def recording(spec: RunSpec) -> AbstractContextManager[None]:
    """Writes down an error that leaves the block; one after which all work is in vain ends the run.

    Without a launcher to cancel the job, an engine would go on with the rest, and try again.
    """
    if not spec.identity.submitted:
        return recorded(spec.output, spec.identity.run)
    return _ending(spec)


@contextmanager
def _ending(spec: RunSpec) -> Iterator[None]:
    try:
        with recorded(spec.output, spec.identity.run):
            yield
    except Exception as error:
        if is_final(error):
            with suppress(OSError):
                request_stop(spec.output, spec.identity.run)
        raise


def is_over(spec: RunSpec) -> bool:
    """Tells whether a run without a launcher has ended, or must fail, so that nothing is left."""
    if not spec.identity.submitted:
        return False
    run, store = spec.identity.run, spec.output
    return store.exists(layout.run_file(run, "manifest.json")) or must_fail(spec) is not None


def must_fail(spec: RunSpec) -> BatchscoreError | None:
    """Returns what ended a run without a launcher, if all else would be in vain."""
    if not spec.identity.submitted:
        return None
    found = read_failure(spec.output, spec.identity.run, final=True)
    return found[0] if found else _cancelled(spec)


def _cancelled(spec: RunSpec) -> StoppedError | None:
    """Returns the error of a run that somebody cancelled, or None."""
    asked = read_stop(spec.output, spec.identity.run)
    if asked is None:
        return None
    error = StoppedError(
        f"cancelled by {asked.by}; nothing was published. Run the job again, which scores what is "
        "left"
    )
    error.by, error.exit_code = asked.by, 128 + signal.SIGTERM
    return error
