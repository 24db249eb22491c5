"""What of drift counts on a night: not columns that are muted, and nothing while a job learns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from batchscore.drift.findings import VERDICTS, TableDrift
from batchscore.job import Drift, Mute
from batchscore.messages.wording import one_line
from batchscore.runs.history import nights_before, slice_date
from batchscore.storage.store import Store


@dataclass(frozen=True)
class Policy:
    """What a job says of drift, on the day of a run.

    Args:
        muted: The columns that do not count.
        ended: Mutes whose last day is over.
        nights: Published slices before this one, as far as `learn` asks for them.
        learn: How many there must be before drift holds anything.
    """

    muted: tuple[Mute, ...] = ()
    ended: tuple[Mute, ...] = ()
    nights: int = 0
    learn: int = 0

    @property
    def is_learning(self) -> bool:
        """Whether a verdict of `fail` only warns."""
        return self.nights < self.learn

    @property
    def night(self) -> dict[str, int]:
        """Which of the nights this is that the job learns from; empty once it has learnt."""
        return {"night": self.nights + 1, "of": self.learn} if self.is_learning else {}

    @property
    def columns(self) -> frozenset[str]:
        """Names of the columns that do not count."""
        return frozenset(each.column for each in self.muted)

    @property
    def notes(self) -> list[str]:
        """What else a person should know."""
        return [
            f"drift.mute of {one_line(each.column, 60)} ended with {each.until}, so the column "
            "counts again; remove the mute, or write a later day"
            for each in self.ended
        ]


def policy_of(drift: Drift, store: Store, slice_: str, job: str, started: str) -> Policy:
    """Returns what counts in a run.

    Args:
        drift: The job's section.
        store: The output.
        slice_: The slice that is scored.
        job: The job's name.
        started: When the run started, ISO 8601 in UTC.
    """
    day = slice_date(slice_) or date.fromisoformat(started[:10])
    muted = tuple(each for each in drift.mute if day <= each.until)
    ended = tuple(each for each in drift.mute if day > each.until)
    nights = nights_before(store, slice_, job, drift.learn) if drift.learn else 0
    return Policy(muted, ended, nights, drift.learn)


def muted_facts(policy: Policy, found: TableDrift) -> list[dict[str, Any]]:
    """Returns each muted column that was compared, why, and the verdict that does not count."""
    facts = []
    for each in policy.muted:
        verdicts = [a.verdict for a in found.aspects if a.column == each.column]
        if verdicts:
            said = {"column": each.column, "until": each.until.isoformat(), "why": each.why}
            facts.append({**said, "verdict": max(verdicts, key=VERDICTS.index)})
    return facts


def learning_line(night: Mapping[str, int]) -> str:
    """Returns that nothing is held yet, and until when.

    Args:
        night: The number of the `night` and how many are learnt from, `of`.
    """
    return f"learning, night {night['night']} of {night['of']}: failures only warn"


def muted_line(muted: Sequence[Mapping[str, Any]]) -> str:
    """Returns the muted columns in one line; empty if there are none."""
    said = [
        f"{one_line(each['column'], 40)} ({each['verdict'].replace('_', ' ')}) until "
        f"{each['until']}, {one_line(each['why'], 80)}"
        for each in muted
    ]
    return "; ".join(said)
