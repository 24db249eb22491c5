"""Laws of dates that are scored side by side and judged one after another, with no run at all."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from batchscore.commands.in_order import InOrder

FATES = ("published", "held", "fails at once", "fails late")


@dataclass
class World:
    """Workers that do what they are asked in an order that a list of numbers chooses.

    `published` has what was published before each date that was judged.
    """

    line: InOrder[int]
    fates: list[str]
    choices: list[int]
    deadly: frozenset[int] = frozenset()
    done: dict[int, str] = field(default_factory=dict)
    starts: list[int] = field(default_factory=list)
    judgements: list[int] = field(default_factory=list)
    before: dict[int, tuple[int, ...]] = field(default_factory=dict)
    pending: list[tuple[str, int, int]] = field(default_factory=list)

    def run(self, steps: int = 10_000) -> None:
        """Goes on until all is done, or for so many events."""
        while not self.line.is_done and steps:
            self.take_orders()
            assert self.pending, "nothing is under way, and not all is done"
            place = self.choices.pop() % len(self.pending) if self.choices else 0
            self.happen(*self.pending.pop(place))
            steps -= 1

    def take_orders(self) -> None:
        for step in self.line.next_steps():
            if step.what == "score":
                self.starts.append(step.date)
            else:
                self.judgements.append(step.date)
            self.pending.append((step.what, step.date, step.worker))
        scoring = [date for date in self.line.open if self.line.place_of(date) == "scoring"]
        assert len(scoring) <= self.line.workers
        # More than that only if dates are started again that all others wait for.
        assert len(self.line.open) <= 2 * self.line.workers * (2 if self.deadly else 1)
        judging = [d for d in self.line.open if self.line.place_of(d) == "judging"]
        assert len(judging) <= 1

    def happen(self, what: str, date: int, worker: int) -> None:
        fate = self.fates[date]
        if what == "score" and date in self.deadly:
            self.die(worker)
        elif what == "score" and fate == "fails at once":
            self.end(date, fate)
        elif what == "score":
            self.line.scored(date)
        elif what == "judge":
            # Whoever is judged sees all that is published before it, and nothing after it.
            assert all(earlier in self.done for earlier in range(date))
            seen = (d for d, how in self.done.items() if how == "published" and d != date)
            self.before.setdefault(date, tuple(sorted(seen)))
            self.done[date] = fate
            self.line.judged(date)
            self.pending.append(("end", date, worker))
        else:
            self.end(date, self.done[date])

    def end(self, date: int, fate: str) -> None:
        self.done[date] = fate
        self.line.ended(date, fate == "published")

    def die(self, worker: int) -> None:
        for date in self.line.lost(worker):
            self.done[date] = "killed its worker"
        self.pending = [each for each in self.pending if each[2] != worker]


def night_by_night(fates: list[str], deadly: frozenset[int] = frozenset()) -> dict[int, list[int]]:
    """What is published before each date that is judged, if dates are run one after another."""
    published: list[int] = []
    before = {}
    for date, fate in enumerate(fates):
        if date in deadly or fate == "fails at once":
            continue
        before[date] = [*published]
        if fate == "published":
            published.append(date)
    return before


NIGHTS = st.lists(st.sampled_from(FATES), min_size=1, max_size=12)
CHOICES = st.lists(st.integers(0, 1000), max_size=60)


@given(NIGHTS, st.integers(1, 4), CHOICES, st.booleans(), st.booleans())
def test_each_date_is_judged_as_night_by_night(
    fates: list[str], workers: int, choices: list[int], alone: bool, one_by_one: bool
) -> None:
    """Whoever is slow, each date is started once, judged in order, after the same dates."""
    line = InOrder(range(len(fates)), workers, alone, one_by_one)
    world = World(line, fates, choices)
    world.run()
    assert world.starts == [*range(len(fates))]
    assert world.judgements == sorted(world.judgements)
    assert {date: list(seen) for date, seen in world.before.items()} == night_by_night(fates)
    assert world.done == dict(enumerate(fates))


@given(NIGHTS, CHOICES)
def test_a_first_date_is_published_before_others_start(
    fates: list[str], choices: list[int]
) -> None:
    """Where nothing is published, dates go alone until one is, so that others follow its types."""
    line = InOrder(range(len(fates)), 3, alone=True)
    world = World(line, fates, choices)
    while line.alone and not line.is_done:
        world.take_orders()
        assert len(line.open) == 1
        world.happen(*world.pending.pop(0))
    world.run()
    assert len(world.done) == len(fates)


@given(NIGHTS, st.integers(1, 4), CHOICES, st.sets(st.integers(0, 11), max_size=3))
def test_a_date_that_kills_its_worker_takes_no_other_with_it(
    fates: list[str], workers: int, choices: list[int], killers: set[int]
) -> None:
    """Dates that waited in a worker that died are scored again, and judged in order once."""
    deadly = frozenset(date for date in killers if date < len(fates))
    world = World(InOrder(range(len(fates)), workers), fates, choices, deadly)
    world.run()
    expected = night_by_night(fates, deadly)
    twice = {date for date in world.done if world.done[date] == "killed its worker"} - deadly
    # Only who was in the way of two deaths is given up.
    assert not twice or len(deadly) > 1
    kept = {date: seen for date, seen in expected.items() if date not in twice}
    assert world.before.keys() == kept.keys()
    assert all(
        list(world.before[date]) == [d for d in seen if d not in twice]
        for date, seen in kept.items()
    )
    assert len(world.done) == len(fates)


@given(NIGHTS, st.integers(1, 4), CHOICES, st.integers(0, 40))
def test_a_backfill_that_was_killed_goes_on_as_if_it_was_not(
    fates: list[str], workers: int, choices: list[int], events: int
) -> None:
    """Killed anywhere and started again with what is not published, all is published the same."""
    first = World(InOrder(range(len(fates)), workers), fates, [*choices])
    first.run(events)
    published = [date for date, how in first.done.items() if how == "published"]
    assert published == sorted(published)
    left = [date for date in range(len(fates)) if date not in published]
    second = World(InOrder(left, workers), fates, choices)
    second.done = dict.fromkeys(published, "published")
    second.run()
    assert second.starts == left
    assert second.judgements == sorted(second.judgements)
    assert second.done == dict(enumerate(fates))


@given(NIGHTS, st.integers(1, 4), CHOICES, st.integers(0, 40))
def test_once_stopped_no_date_starts(
    fates: list[str], workers: int, choices: list[int], events: int
) -> None:
    """After a stop only dates that are open go on, and all is done when these have ended."""
    line = InOrder(range(len(fates)), workers)
    world = World(line, fates, choices)
    world.run(events)
    started = [*world.starts]
    line.stopped = True
    world.run()
    assert world.starts == started
    assert not line.open
