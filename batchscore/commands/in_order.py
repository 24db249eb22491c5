"""Dates are scored side by side, and judged and published one after another: who may do what when.

It knows dates, workers and what became of them, and nothing of runs, processes or stores. A worker
scores one date at a time. A date whose rows are scored waits for its turn without keeping its
worker. It gets its turn once every date before it has been judged, or has ended without.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

K = TypeVar("K")

Place = Literal["ahead", "scoring", "waiting", "judging", "judged", "ended"]


@dataclass(frozen=True)
class NextStep(Generic[K]):
    """What a worker is to do with a date.

    Args:
        what: `score` its rows, or `judge` it, since it has its turn.
        date: The date.
        worker: Number of the worker.
    """

    what: Literal["score", "judge"]
    date: K
    worker: int


@dataclass
class _Entry:
    place: Place = "ahead"
    worker: int = -1
    again: bool = False


@dataclass
class InOrder(Generic[K]):
    """The dates of a backfill, and how far each is.

    Args:
        dates: All of them, in their order.
        workers: How many there are, numbered from 0.
        alone: Whether a date goes alone as long as none has been published.
        one_by_one: Whether a date is started only when none is open, since each holds its slice.
    """

    dates: Sequence[K]
    workers: int
    alone: bool = False
    one_by_one: bool = False
    stopped: bool = False
    _of: dict[K, _Entry] = field(init=False)

    def __post_init__(self) -> None:
        self._of = {date: _Entry() for date in self.dates}

    @property
    def is_done(self) -> bool:
        """Whether nothing is open, and nothing is to be started."""
        ahead = 0 if self.stopped else self._count("ahead")
        return not self.open and not ahead

    @property
    def open(self) -> list[K]:
        """The dates that were started and have not ended."""
        return [date for date, entry in self._of.items() if entry.place not in ("ahead", "ended")]

    def place_of(self, date: K) -> Place:
        """Returns how far a date is."""
        return self._of[date].place

    def next_steps(self) -> list[NextStep[K]]:
        """Returns what may be done now, and notes it as being done."""
        return [*self._turn(), *self._starts()]

    def scored(self, date: K) -> None:
        """Notes that a date's rows are scored: it waits for its turn."""
        self._of[date].place = "waiting"

    def judged(self, date: K) -> None:
        """Notes that a date was judged, and published or not, so that the next has its turn."""
        self._of[date].place = "judged"

    def ended(self, date: K, published: bool) -> None:
        """Notes that nothing more will come of a date."""
        self._of[date].place = "ended"
        self.alone = self.alone and not published

    def lost(self, worker: int) -> list[K]:
        """Notes that a worker died; returns the dates that it took with it.

        A date that it was scoring may have killed it, and is not started again. One that waited is,
        once, and one that was judged always: what was scored and published of them is kept.
        """
        taken = []
        for date, entry in self._of.items():
            if entry.worker != worker or entry.place in ("ahead", "ended"):
                continue
            if entry.place == "scoring" or (entry.again and entry.place != "judged"):
                entry.place = "ended"
                taken.append(date)
            else:
                entry.place, entry.again = "ahead", True
        return taken

    def _turn(self) -> list[NextStep[K]]:
        """Returns the date that may be judged now, if there is one."""
        first = self._first_unjudged()
        if first is None or self._of[first].place != "waiting":
            return []
        self._of[first].place = "judging"
        return [NextStep("judge", first, self._of[first].worker)]

    def _starts(self) -> list[NextStep[K]]:
        steps = []
        ahead = [date for date, entry in self._of.items() if entry.place == "ahead"]
        for worker, date in zip(self._idle(), ahead, strict=False):
            if not self._may_start(date):
                break
            self._of[date].place, self._of[date].worker = "scoring", worker
            steps.append(NextStep[K]("score", date, worker))
        return steps

    def _may_start(self, date: K) -> bool:
        """Tells whether there is room for one date more, which holds its slice while it waits."""
        if self.stopped:
            return False
        many = len(self.open)
        if self.alone or self.one_by_one:
            return many == 0
        # One that its worker's death sent back may be whom all that are open wait for.
        return many < 2 * self.workers or self._of[date].again

    def _idle(self) -> list[int]:
        busy = {entry.worker for entry in self._of.values() if entry.place == "scoring"}
        return [worker for worker in range(self.workers) if worker not in busy]

    def _first_unjudged(self) -> K | None:
        over = ("judged", "ended")
        return next((date for date, entry in self._of.items() if entry.place not in over), None)

    def _count(self, place: Place) -> int:
        return sum(entry.place == place for entry in self._of.values())
