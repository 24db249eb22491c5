"""What checks of columns count: the rows that break them, with examples, merged in any order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

EXAMPLES = 5
_MOST = 2**127  # nanoseconds that any timestamp has, since 1970


@dataclass(frozen=True, order=True)
class Example:
    """A row that breaks a check: its shard, its number there, and its value as text."""

    shard: str
    row: int
    value: str


@dataclass(frozen=True)
class Tally:
    """What one check of one column counted.

    Args:
        rows: Scored rows that it looked at.
        failed: Of these, rows that break it.
        examples: The first of them, by shard and row; five at most.
        newest: The largest instant, in nanoseconds since 1970 in UTC; None where there is none, or
            where the check asks for none.
    """

    rows: int = 0
    failed: int = 0
    examples: tuple[Example, ...] = ()
    newest: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns the tally as JSON-able values."""
        examples = [[each.shard, each.row, each.value] for each in self.examples]
        facts = {"examples": examples, "newest": self.newest}
        kept = {key: value for key, value in facts.items() if value not in (None, [])}
        return {"rows": self.rows, "failed": self.failed, **kept}

    @staticmethod
    def from_json(facts: Mapping[str, Any]) -> Tally:
        """Reverses `to_json`; TypeError, ValueError or KeyError if it is not a tally's."""
        examples = tuple(Example(*each) for each in facts.get("examples", ()))
        newest = facts.get("newest")
        found = Tally(facts["rows"], facts["failed"], examples, newest)
        _check(found)
        return found


def _check(found: Tally) -> None:
    counts = [found.rows, found.failed, *(each.row for each in found.examples)]
    if any(type(count) is not int or not 0 <= count < 2**63 for count in counts):
        raise ValueError("a check's count is not a count")
    if any(type(text) is not str for each in found.examples for text in (each.shard, each.value)):
        raise ValueError("a check's example is not a text")
    newest = found.newest
    if newest is not None and (type(newest) is not int or abs(newest) > _MOST):
        raise ValueError("a check's newest value is not an instant")


def merge_tallies(tallies: Sequence[Tally]) -> Tally:
    """Returns the tally of all rows; the same however they were split, and in any order."""
    examples = sorted({example for each in tallies for example in each.examples})
    newest = [each.newest for each in tallies if each.newest is not None]
    return Tally(
        rows=sum(each.rows for each in tallies),
        failed=sum(each.failed for each in tallies),
        examples=tuple(examples[:EXAMPLES]),
        newest=max(newest, default=None),
    )
