"""Which run came after which, whatever the clocks said that dated them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any, TypeVar

Manifest = TypeVar("Manifest", bound=Mapping[str, Any])

# Clocks that agree differ by less.
_TOLERANCE = timedelta(minutes=1)
# Sorts after every time.
_AHEAD = "~"

# When a run started, and its place among those that count as started at that time.
_Moment = tuple[str, int]


def newest_first(manifests: Sequence[Manifest]) -> list[Manifest]:
    """Returns runs by when they started, the newest first.

    A run comes after its base, which was published when it started. So a base that a wrong clock
    dates later counts as started just before. A run that is dated ahead of now, and that no run
    has as its base, counts as started just after its own base.
    """
    moments = _moments(manifests)
    return sorted(manifests, key=lambda m: (*moments[str(m["run"])], str(m["run"])), reverse=True)


def is_ahead(moment: str) -> bool:
    """Tells whether an ISO time in UTC lies ahead of now."""
    return moment > (datetime.now(timezone.utc) + _TOLERANCE).isoformat(timespec="milliseconds")


def _moments(manifests: Iterable[Mapping[str, Any]]) -> dict[str, _Moment]:
    bases = {str(m["run"]): str(m.get("base")) for m in manifests}
    started = {str(m["run"]): str(m["started"]) for m in manifests}
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
