"""The checks before publishing: what was scored compared with what may be published."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, isnan
from statistics import median

from batchscore.errors import FailedError
from batchscore.job import Checks, Rejects
from batchscore.messages.wording import counted, counted_were, of_count
from batchscore.runs.reconcile import Rows
from batchscore.stages.reasons import KIND, REASONS
from batchscore.units.record import UnitRecord

_REASONS = (REASONS, str(KIND))

Columns = Sequence[Sequence[str]]


@dataclass(frozen=True)
class Check:
    """One check before publishing: its name, whether it passed, its figures, and what it holds.

    `status` is what a run becomes that does not pass: `held`, or `failed` where nobody may
    release it.
    """

    name: str
    passed: bool
    detail: str
    status: str


def check_rows(rows: Rows) -> Check:
    """States where every row went; rows that did not add up would have failed the run before."""
    left_out = f" + {rows.quarantined:,}" if rows.quarantined else ""
    names = "scored, rejected, filtered" + (", quarantined" if rows.quarantined else "")
    return Check(
        "rows",
        True,
        f"input {rows.input:,} = {rows.scored:,} + {rows.rejected:,} + {rows.filtered:,}"
        f"{left_out} {names}",
        "failed",
    )


def check_rejects(rows: Rows, reasons: Counter[str], rejects: Rejects) -> list[Check]:
    """Compares the number of rejected rows with the job's bounds."""
    kept = rows.scored + rows.rejected
    ratio = rows.rejected / kept if kept else 0.0
    worst = "".join(f"; most often {reason}" for reason, _ in reasons.most_common(1))
    allowed = f"rejects.max_ratio allows {rejects.max_ratio:.4%}"
    passed = ratio <= rejects.max_ratio
    if rejects.max_rows is not None:
        allowed += f", rejects.max_rows {rejects.max_rows:,}"
        passed = passed and rows.rejected <= rejects.max_rows
    return [
        Check(
            "rejects",
            passed,
            f"{_share(rows.rejected, kept)} rejected, {ratio:.4%}; {allowed}{worst}",
            "failed",
        ),
        Check(
            "scored",
            rows.scored > 0 or not kept,
            f"{_share(rows.scored, kept)} scored{worst}",
            "failed",
        ),
    ]


def _share(part: int, rows: int) -> str:
    return f"{part:,} of {counted(rows, 'row')} {of_count(part, 'was', 'were')}"


def rejects_allowed(rejects: Rejects, rows: int) -> int:
    """Returns how many of so many rows to score may be rejected."""
    allowed = int(rejects.max_ratio * rows + 1e-9)
    return allowed if rejects.max_rows is None else min(allowed, rejects.max_rows)


def too_many_rejected(rejected: int, allowed: int) -> FailedError:
    """Returns the error of a run that rejected too many rows before it was done."""
    return FailedError(
        f"{counted_were(rejected, 'row')} rejected so far, more than the {allowed:,} that "
        "rejects.max_ratio and rejects.max_rows allow of all rows; nothing was published. "
        "Correct the rows or the code, or allow more"
    )


def check_not_empty(rows: Rows, allow_empty: bool) -> Check:
    """Holds a run that had no row to score."""
    kept = rows.scored + rows.rejected
    remedy = "" if kept else "; input.allow_empty: true would publish an empty result"
    detail = f"{counted(kept, 'row')} to score{remedy}"
    return Check("not_empty", kept > 0 or allow_empty, detail, "held")


def check_bad_shards(bad: Sequence[tuple[str, str]], allowed: int) -> list[Check]:
    """Counts shards (path, reason) that were left out; no check where none was."""
    if not bad:
        return []
    names = "; ".join(f"{path}: {reason}" for path, reason in bad[:3])
    return [
        Check(
            "bad_shards",
            len(bad) <= allowed,
            f"{counted_were(len(bad), 'shard')} left out, input.max_bad_shards allows {allowed:,} "
            f"({names})",
            "failed",
        )
    ]


def check_volume(rows: Rows, before: Sequence[int], what: str, checks: Checks) -> list[Check]:
    """Compares the number of rows to score with that of earlier runs; no check if there are none.

    Args:
        before: Rows of the slice's last publication, or of the slices before it.
        what: Whose rows these are.
    """
    if not before or not median(before):
        return []
    kept, usual, bounds = rows.scored + rows.rejected, median(before), checks.rows
    ratio = kept / usual
    passed = ratio >= bounds.min_ratio and (bounds.max_ratio is None or ratio <= bounds.max_ratio)
    allowed = f"at least {bounds.min_ratio:g}"
    allowed += "" if bounds.max_ratio is None else f" and at most {bounds.max_ratio:g}"
    found = f"{counted(kept, 'row')} {of_count(kept, 'is', 'are')} {ratio:.3g} of the {usual:,.0f}"
    detail = f"{found} of {what}; allowed is {allowed}"
    return [Check("volume", passed, detail, "held")]


def check_schema(columns: Columns, before: Columns | None) -> list[Check]:
    """Compares the written columns with those that the slice was published with before."""
    if not columns or not before:
        return []
    # Whether there are reasons is decided by on_change.explain, before any work.
    now, then = (_by_name([c for c in each if tuple(c) != _REASONS]) for each in (columns, before))
    gone = [f"{name} {kind} is gone" for name, kind in then.items() if name not in now]
    new = [f"{name} {kind} is new" for name, kind in now.items() if name not in then]
    other = [f"{n} was {then[n]}, is {k}" for n, k in now.items() if n in then and then[n] != k]
    found = [*gone, *new, *other]
    order = "" if found or list(now) == list(then) else "their order changed"
    detail = "; ".join(found) or order or f"{counted(len(now), 'column')} as published before"
    return [Check("schema", not found and not order, detail, "held")]


def _by_name(columns: Columns) -> dict[str, str]:
    return {each[0]: each[1] for each in columns}


def check_score_range(records: Sequence[UnitRecord], checks: Checks) -> list[Check]:
    """Compares the smallest and largest score of each column with the job's bounds.

    Where rows were scored, a column that the job names has to hold numbers, and some column has to
    where it names none.
    """
    if checks.score_range is None:
        return []
    ranges, scored = merge_ranges(records), any(record.scored for record in records)
    wanted = checks.score_range
    bounds = wanted if isinstance(wanted, dict) else dict.fromkeys(ranges, wanted)
    unknown = sorted(set(bounds) - set(ranges)) if scored else []
    outside = [
        f"{name} goes from {low:.6g} to {high:.6g}, allowed is {bounds[name][0]:g} to "
        f"{bounds[name][1]:g}"
        for name, (low, high) in ranges.items()
        if name in bounds and not bounds[name][0] <= low <= high <= bounds[name][1]
    ]
    missing = [f"there is no score column {name!r} of numbers" for name in unknown]
    if scored and not bounds:
        missing = ["there is no score column of numbers"]
    within = ", ".join(f"{n} {low:.6g} to {high:.6g}" for n, (low, high) in ranges.items())
    problems = [*outside, *missing]
    return [Check("score_range", not problems, "; ".join(problems) or within, "held")]


def merge_ranges(records: Sequence[UnitRecord]) -> dict[str, tuple[float, float]]:
    """Returns the smallest and largest number of each score column over all units."""
    merged: dict[str, tuple[float, float]] = {}
    for record in records:
        for name, (low, high) in record.score_ranges.items():
            old = merged.get(name, (low, high))
            merged[name] = min(old[0], low), max(old[1], high)
    return merged


def check_golden(gaps: Sequence[Mapping[str, float]], tolerance: float, rows: int) -> list[Check]:
    """Holds the golden rows' scores, as each process that loaded the model made them.

    Args:
        gaps: For each process, the largest difference to the known scores by output.
        tolerance: The largest difference that the model allows.
        rows: Golden rows.
    """
    if not gaps:
        return []
    worst: dict[str, float] = {}
    for each in gaps:
        for name, gap in each.items():
            worst[name] = max(worst.get(name, 0.0), inf if isnan(gap) else gap)
    shown = ", ".join(f"{name} by {gap:.3g}" for name, gap in worst.items())
    differ = f"{counted(rows, 'golden row')} {of_count(rows, 'differs', 'differ')}"
    detail = f"{differ} in {shown} at most; the model allows {tolerance:g}"
    return [Check("golden_rows", max(worst.values(), default=0.0) <= tolerance, detail, "held")]


def check_unique(columns: Sequence[str], count: int, examples: str) -> Check:
    """Holds rows whose key an earlier row has.

    Args:
        count: Of three rows with one key it counts two.
        examples: Some keys, each with its values and its rows.
    """
    key = ", ".join(columns)
    detail = f"no two rows have the same key ({key})"
    if count:
        have = f"{counted(count, 'row')} {of_count(count, 'has', 'have')}"
        detail = f"{have} the key ({key}) of another row: {examples}"
    return Check("unique", not count, detail, "held")


def outcome(rows: Rows, checks: Sequence[Check]) -> str:
    """Returns a run's status: published or empty where all checks passed, else held or failed."""
    return worst(checks) or ("published" if rows.scored else "empty")


def worst(checks: Sequence[Check]) -> str | None:
    """Returns how checks end a run: failed, else held; None where all passed."""
    failed = {check.status for check in checks if not check.passed}
    return "failed" if "failed" in failed else "held" if failed else None
