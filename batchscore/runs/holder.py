"""Who holds a slice: what its newest lease file says, and how that is read and written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from datetime import datetime, timezone
from typing import Any

from batchscore.errors import RecordError
from batchscore.messages.wording import reason
from batchscore.runs import layout
from batchscore.runs.submission import Submission
from batchscore.storage.documents import parse_json
from batchscore.storage.store import Store, encode_json
from batchscore.storage.typed import decode, plain, require_version
from batchscore.system.processes import machine, start_of

EXPIRY_SECONDS = 60.0
"""A lease that was not renewed for so long is over; it is renewed six times as often."""
RENEWAL_SECONDS = 10.0
# A lease is renewed three times within so many seconds.
_RECENT_SECONDS = 3 * RENEWAL_SECONDS
_MOST_BYTES = 1 << 16
# A lease without the key is of version 1: earlier commits refuse one that has other keys.
_VERSION = "batchscore_lease"
_NEWEST = 2
_NAME = re.compile(r"([0-9]{8})\.json")
_KINDS: Mapping[str, Any] = {
    **{"number": int, "pid": int, "released": bool},
    "submission": Submission | None,
}


@dataclass(frozen=True)
class Holder:
    """Who holds, or held, a slice: what its lease file says.

    Args:
        number: Number of the lease; the highest of a slice is the one that counts.
        run: The run that it is held for, or empty.
        command: The command that holds it.
        user: Who started the command.
        host: The machine's name.
        pid: The process.
        started: The process's start, as its machine counts it, or empty: a pid is used again.
        machine: Names a boot of a machine and a space of process ids in it.
        since: When it was taken, ISO 8601 in UTC.
        renewed: When it was last renewed, ISO 8601 in UTC.
        released: Whether it was given back.
        submission: The job of an engine whose workers renew the lease too, or None.
    """

    number: int
    run: str
    command: str
    user: str
    host: str
    pid: int
    started: str
    machine: str
    since: str
    renewed: str
    released: bool
    submission: Submission | None = None

    @property
    def age(self) -> float:
        """Seconds since it was renewed, by the reader's clock."""
        return seconds_since(self.renewed)

    @property
    def patience(self) -> float:
        """Seconds after its last renewal until it is over."""
        waits = self.submission.patience(self.renewed) if self.submission else 0.0
        return max(EXPIRY_SECONDS, waits)

    @property
    def is_alive(self) -> bool:
        """Whether it keeps others out, if the holder's clock and the reader's agree."""
        return not self.is_over and self.is_recent

    @property
    def is_recent(self) -> bool:
        """Whether the holder's clock dates the last renewal shortly before the reader's now."""
        return self.is_within(self.patience)

    def is_within(self, seconds: float) -> bool:
        """Whether its clock dates the last renewal so many seconds before the reader's now."""
        return -RENEWAL_SECONDS <= self.age <= seconds

    @property
    def is_over(self) -> bool:
        """Whether it was released, or the process that it needs is known to be dead."""
        return self.released or (self.submission is None and self.is_dead)

    @property
    def job(self) -> Submission | None:
        """How this machine may ask for its job at the engine; None if it has none."""
        if self.submission is None or self.machine == machine():
            return self.submission
        return self.submission.from_elsewhere()

    @property
    def is_dead(self) -> bool:
        """Whether the process that took it is known to be dead."""
        if self.machine != machine():
            return False
        start = start_of(self.pid)
        # What one of them does not tell cannot differ.
        return start is None or ("" not in (start, self.started) and start != self.started)


_NAMES = frozenset(each.name for each in fields(Holder))
_BEFORE = _NAMES - {"submission"}


def lease_path(slice_: str, number: int) -> str:
    """Path of a lease file."""
    return layout.slice_file(slice_, f"lease/{number:08d}.json")


def lease_numbers(store: Store, slice_: str) -> list[int]:
    """Returns the numbers of a slice's lease files."""
    names = store.names(layout.slice_file(slice_, "lease"))
    return [int(found[1]) for name in names if (found := _NAME.fullmatch(name))]


def holder(store: Store, slice_: str) -> Holder | None:
    """Returns who holds a slice, or None if it is free: given back, expired, or its holder dead.

    This is a look, by the store's clock where this machine's may be wrong. `acquire` judges.
    """
    last = last_holder(store, slice_)
    if last is None or last.is_over:
        return None
    return None if silence(store, slice_, last)[0] > last.patience else last


def silence(store: Store, slice_: str, last: Holder) -> tuple[float, bool]:
    """Returns for how many seconds a lease was not renewed, and whether that is certain.

    A renewal that looks recent is taken for that. For others the store's clock is asked, since the
    clocks of who holds it and of this machine may differ by hours. A store that cannot be asked,
    such as a disk that this user may not write to, leaves it uncertain.
    """
    if last.is_within(_RECENT_SECONDS):
        return max(0.0, last.age), True
    with suppress(OSError):
        found = store.age(lease_path(slice_, last.number))
        if found is not None:
            return max(0.0, found), True
    return max(0.0, last.age), False


def last_holder(store: Store, slice_: str) -> Holder | None:
    """Returns who took a slice last, whether it is still held or not; None if nobody ever did."""
    while numbers := lease_numbers(store, slice_):
        # A file that was listed goes when its successor gives the slice back.
        with suppress(FileNotFoundError):
            return read_lease(store, slice_, max(numbers))[1]
    return None


def read_lease(store: Store, slice_: str, number: int) -> tuple[bytes, Holder]:
    """Returns the bytes of a lease file, and what it says.

    Raises:
        FileNotFoundError: There is none.
        RecordError: It is damaged, or a newer batchscore wrote it.
    """
    path = lease_path(slice_, number)
    try:
        data = store.read(path, _MOST_BYTES)
        return data, _decode(data, number, f"lease {store.url(path)}")
    except (TypeError, ValueError, IsADirectoryError) as error:
        raise RecordError(
            f"lease {store.url(path)}: damaged ({reason(error)}); when no run of the slice is "
            "under way, remove the file"
        ) from error


def encode_lease(lease: Holder) -> bytes:
    """Returns a lease as the bytes of its file.

    One without a submission has the form that earlier versions read. They refuse the other by
    name, since they would take the slice once the launcher is dead.
    """
    facts: dict[str, Any] = plain(lease)
    if lease.submission is None:
        del facts["submission"]
        return encode_json(facts)
    return encode_json({_VERSION: _NEWEST, **facts})


def _decode(data: bytes, number: int, what: str) -> Holder:
    if not data.strip(b"\0"):
        return _lost(number)
    facts = parse_json(data)
    if not isinstance(facts, dict) or facts.keys() != _BEFORE:
        require_version(facts, _VERSION, _NEWEST, what)
        facts = {name: facts[name] for name in facts.keys() & _NAMES}
    if facts.get("submission") is not None:
        facts["submission"] = decode(Submission, facts["submission"])
    # Not `decode`, which costs more: workers look at the lease at each unit's end.
    found = Holder(**facts)
    wrong = [name for name, fact in facts.items() if not isinstance(fact, _KINDS.get(name, str))]
    if wrong or found.number != number or found.pid < 1:
        raise ValueError(f"its {wrong[0] if wrong else 'number or pid'} is not valid for a lease")
    seconds_since(found.renewed)
    return found


def _lost(number: int) -> Holder:
    """Returns a lease whose bytes a power cut took, before they were on disk, with its holder."""
    never = datetime.fromtimestamp(0, timezone.utc).isoformat()
    return Holder(number, "", "", "", "", 1, "", "", never, never, released=True)


def describe_holder(store: Store, slice_: str, last: Holder) -> str:
    """Says who holds a slice, since when, and what to do."""
    if last.submission is not None:
        return _describe_job(store, slice_, last, last.submission)
    run = f"run {last.run}" if last.run else f"`{last.command}`"
    renewed = f"renewed {last.age:.0f} s ago"
    if not last.is_recent:
        renewed = f"renewed just now; the clock of {last.host} or of this machine is wrong"
    return (
        f"slice {slice_} of {store.address} is held by {run}, {last.user}@{last.host}, "
        f"pid {last.pid}, since {last.since} ({renewed}); "
        "run again when it is done"
    )


def _describe_job(store: Store, slice_: str, last: Holder, submission: Submission) -> str:
    sign = "no worker has started yet" if submission.deadline else "its workers renew the lease"
    follow = f"{store.address} {last.run}"
    return (
        f"slice {slice_} of {store.address} is held by run {last.run} ({submission}), which "
        f"{last.user}@{last.host} started at {last.since}; {sign}. Run again when it is done: "
        f"`batchscore wait {follow}` waits for it, `batchscore cancel {follow}` ends it"
    )


def utc_now() -> datetime:
    """Returns this moment."""
    return datetime.now(timezone.utc)


def seconds_since(moment: str) -> float:
    """Returns seconds; ValueError or TypeError if it is no time of a known zone."""
    return (utc_now() - datetime.fromisoformat(moment)).total_seconds()
