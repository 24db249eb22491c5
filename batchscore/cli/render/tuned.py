"""What `tune` found, as lines of text: which nights alarm, by what, and the tuned thresholds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import yaml

from batchscore.cli.render.results import table
from batchscore.commands.tune import Replayed
from batchscore.drift.replay import Key, Night, alarms, failing
from batchscore.messages.wording import counted, one_line

_LISTED = 40
_STEPS = (1.0, 1.5, 2.0)
_REASONS = 3


def tuned_lines(found: Replayed) -> list[str]:
    """Returns the nights that alarm today, what each threshold does, and the tuned ones."""
    nights, bad = found.nights, failing(found.nights, found.fails)
    span = f", {nights[0].name} to {nights[-1].name}" if nights else ""
    all_ = counted(len(nights), "night")
    lines = [
        f"TUNE    {one_line(found.job, 120)}   {all_}{span}",
        f"today   {len(bad)} of {all_} alarm; wanted: at most {found.most}",
        *(f"left out   {each}" for each in found.skipped[:_LISTED]),
    ]
    if bad:
        lines += ["", *table(("night", "tuned", "by"), _bad(found, bad), left=3)]
        lines += ["", *table(_HEADER, _steps(found), left=2)]
    return [*lines, "", *_outcome(found, bad)]


def section_text(found: Replayed) -> str:
    """Returns the tuned thresholds as lines of a job file; empty if nothing has to change."""
    if not found.section:
        return ""
    text: str = yaml.safe_dump(found.section, allow_unicode=True, default_flow_style=None)
    return text


_HEADER = (
    "column",
    "measure",
    "fails from",
    *(f"alarms at x {step:g}" for step in _STEPS),
    "tuned",
)


def _bad(found: Replayed, bad: list[Night]) -> Iterator[list[str]]:
    for night in bad[-_LISTED:]:
        what = [
            f"{one_line(column, 40)} {measure} {night.effects[column, measure]:.3g}"
            for (column, measure), _ in alarms(night, found.fails)
        ]
        more = f" and {len(what) - _REASONS} more" if len(what) > _REASONS else ""
        why = night.broken or ", ".join(what[:_REASONS]) + more
        yield [night.name, "alarms" if night.name in found.tuned.kept else "silent", why]


def _steps(found: Replayed) -> Iterator[list[str]]:
    """Yields, for each threshold that a night meets, on how many it would alarm if it were more."""
    for key, effects in sorted(_met(found).items()):
        fail = found.fails[key]
        assert fail is not None
        counts = [str(sum(effect >= step * fail for effect in effects)) for step in _STEPS]
        new = found.tuned.fails.get(key, fail)
        yield [
            one_line(key[0], 40),
            key[1],
            f"{fail:g}",
            *counts,
            "never" if new is None else f"{new:g}",
        ]


def _met(found: Replayed) -> dict[Key, list[float]]:
    effects: dict[Key, list[float]] = defaultdict(list)
    for night in found.nights:
        for key, _ in alarms(night, found.fails):
            effects[key].append(night.effects[key])
    return effects


def _outcome(found: Replayed, bad: list[Night]) -> list[str]:
    kept = found.tuned.kept
    if not found.section:
        broken = sum(bool(night.broken) for night in bad)
        if len(bad) > found.most:
            return [f"{counted(broken, 'night')} alarm whatever the thresholds are; fix the data"]
        return ["nothing to tune: no more nights alarm than are wanted"]
    names = ", ".join(kept[:_LISTED]) or "none"
    return [
        f"tuned   {counted(len(kept), 'night')} would alarm: {names}; in the job file:",
        "",
        *section_text(found).splitlines(),
    ]
