"""How a job's last runs compare, as small plots of text."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from batchscore.cli.render.results import table
from batchscore.cli.render.times import duration
from batchscore.messages.wording import count, counted, one_line
from batchscore.runs.series import RunFacts, Series

RUNS = 40
BARS = "▁▂▃▄▅▆▇█"
ASCII = "_.-=+*%#"
_MISSING = " "
_ENDED = ("published", "empty", "held")


def trend(jobs: Sequence[Series], is_unicode: bool) -> list[str]:
    """Returns a block of lines for each job: a plot of each figure over its last runs.

    Args:
        jobs: The jobs.
        is_unicode: Whether the output has characters beyond ASCII.
    """
    blocks = [_block(job, BARS if is_unicode else ASCII) for job in jobs]
    lines = [line for block in blocks if block for line in ["", *block]]
    return lines[1:] or ["no run has scored anything yet"]


def trend_json(jobs: Sequence[Series]) -> list[dict[str, Any]]:
    """Returns the figures of each job's last runs, the oldest first."""
    return [
        {"job": job.job, "runs": [_facts(run) for run in _shown(job)]}
        for job in jobs
        if _shown(job)
    ]


def _facts(run: RunFacts) -> dict[str, Any]:
    known = ("run", "slice", "status", "started", "rows", "seconds", "cpu_s")
    return {**{key: getattr(run, key) for key in known}, "rejected_share": _rejected_share(run)}


def _block(job: Series, bars: str) -> list[str]:
    runs = _shown(job)
    if not runs:
        return []
    first, last = runs[0], runs[-1]
    rows = [
        _line("rows", [_number(run.rows) for run in runs], count, bars),
        _line("duration", [run.seconds for run in runs], duration, bars),
        _line("CPU time", [run.cpu_s for run in runs], duration, bars),
        _line("rejected", [_rejected_share(run) for run in runs], _share, bars),
    ]
    span = f"{first.run} to {last.run}" if len(runs) > 1 else last.run
    head = f"{one_line(job.job, 160)}   {counted(len(runs), 'run')}, {span}"
    return [head, *table(("", "trend", "least", "median", "most", "last"), rows, left=2)]


def _shown(job: Series) -> list[RunFacts]:
    """Returns the last runs that scored, the oldest first."""
    return [run for run in job.runs if run.status in _ENDED][:RUNS][::-1]


def _number(value: int | None) -> float | None:
    return None if value is None else float(value)


def _rejected_share(run: RunFacts) -> float | None:
    judged = (run.scored or 0) + (run.rejected or 0)
    return (run.rejected or 0) / judged if judged else None


def _share(value: float) -> str:
    return f"{value:.2%}" if value else "0 %"


def _line(
    name: str, values: Sequence[float | None], words: Callable[[float], str], bars: str
) -> list[str]:
    known = [value for value in values if value is not None]
    if not known:
        return [name, "", "-", "-", "-", "-"]
    last = values[-1]
    figures = [min(known), statistics.median(known), max(known)]
    said = [words(each) for each in figures]
    return [name, sparkline(values, bars), *said, "-" if last is None else words(last)]


def sparkline(values: Sequence[float | None], bars: str = BARS) -> str:
    """Returns a sign for each value, from the lowest at zero to the highest at the largest one."""
    most = max((value for value in values if value is not None), default=0.0)
    steps = len(bars) - 1
    return "".join(
        _MISSING if value is None else bars[round(steps * value / most) if most else 0]
        for value in values
    )
