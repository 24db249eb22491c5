"""Which run came after which, whatever the clocks said that dated them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta, timezone
from typing import Protocol, TypeVar


class Started(Protocol):
    """What tells a run's place among others: its name, its start and what it was built on."""

    @property
    def run(self) -> str:
        """The run's name."""

    @property
    def started(self) -> str:
        """When it started."""

    @property
    def base(self) -> str | None:
        """The run that was published before, or None."""


AnyRun = TypeVar("AnyRun", bound=Started)

# Clocks that agree differ by less.
_TOLERANCE = timedelta(minutes=1)
# Sorts after every time.
_AHEAD = "~"

# When a run started, and its place among those that count as started at that time.
_Moment = tuple[str, int]


def newest_first(runs: Sequence[AnyRun]) -> list[AnyRun]:
    """Returns runs by when they started, the newest first.

    A run comes after its base, which was published when it started. So a base that a wrong clock
    dates later counts as started just before. A run that is dated ahead of now, and that no run
    has as its base, counts as started just after its own base.
    """
    moments = _moments(runs)
    return sorted(runs, key=lambda each: (*moments[each.run], each.run), reverse=True)


def is_ahead(moment: str) -> bool:
    """Tells whether an ISO time in UTC lies ahead of now."""
    return moment > (datetime.now(timezone.utc) + _TOLERANCE).isoformat(timespec="milliseconds")


def _moments(runs: Iterable[Started]) -> dict[str, _Moment]:
    bases = {each.run: str(each.base) for each in runs}
    started = {each.run: each.started for each in runs}
    moments = {run: (_AHEAD if is_ahead(at) else at, 0) for run, at in started.items()}
    for run in sorted(bases):
        (at, place), base, steps = moments[run], bases[run], 1
        while base in moments and moments[base] >= (at, place):
            moments[base] = (at, place - steps)
            base, steps = bases[base], steps + 1
    ahead = [run for run, (at, _) in moments.items() if at == _AHEAD]
    for run in sorted(ahead, key=lambda run: moments[run]):
        at, place = moments.get(bases[run], ("", -1))
        moments[run] = (at, place + 1)
    return moments
