"""Two tables compared: each a stored profile, an output's published run, or data."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from batchscore.arguments import checks_arguments
from batchscore.commands.files import is_profile, read_profile
from batchscore.commands.profile import (
    Data,
    check_address,
    hints_of,
    open_rows,
    profile_rows,
)
from batchscore.drift.findings import Rules, TableDrift, Thresholds
from batchscore.drift.sentences import sentences
from batchscore.drift.table import TableProfile
from batchscore.errors import InputError, InvalidError
from batchscore.messages.addresses import redacted_address
from batchscore.messages.wording import nearest
from batchscore.runs import layout
from batchscore.runs.history import current_runs, read_history
from batchscore.runs.profiles import read_profile as read_file
from batchscore.runs.profiles import run_profile
from batchscore.storage.store import Store

Effects = Mapping[str, tuple[float | None, float | None]]


@dataclass(frozen=True)
class Side:
    """One of the two tables.

    Args:
        title: What it is, for people.
        profile: Profile of its columns.
        keys: Keys of its hive folders, left out since they are the same in all files.
    """

    title: str
    profile: TableProfile
    keys: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Comparison:
    """Two tables and how they differ."""

    reference: Side
    current: Side
    drift: TableDrift

    @property
    def exit_code(self) -> int:
        """3 where the verdict is fail, as of a run that is held, or all rows are gone; else 0."""
        vanished = self.drift.reference_rows > 0 == self.drift.current_rows
        return 3 if self.drift.verdict == "fail" or vanished else 0

    def to_json(self) -> dict[str, Any]:
        """Returns the findings as JSON-able values."""
        titles = {"reference": self.reference.title, "current": self.current.title}
        drift = {**self.drift.to_json(), "sentences": self.sentences()}
        return {**titles, **drift, "exit_code": self.exit_code}

    def sentences(self) -> list[str]:
        """Returns a sentence for each judged column that warns or fails, the worst first."""
        sides = self.reference.profile, self.current.profile
        return list(sentences(self.drift, *sides, self.reference.title).values())


@checks_arguments
def compare(
    reference: TableProfile | Data,
    current: TableProfile | Data,
    *,
    alpha: float = 0.001,
    columns: Collection[str] | None = None,
    thresholds: Effects | None = None,
) -> TableDrift:
    """Returns how a table differs from a reference. Verdicts need an effect beyond noise.

    Args:
        reference: A profile, or data as `profile` takes them. An address may also be that of a
            stored profile, or of an output, which means its newest published run.
        current: The same, for the data to judge.
        alpha: The largest probability that noise alone warns or fails.
        columns: The columns to judge. None means all.
        thresholds: The effects that warn and fail, by measure, instead of the defaults. None means
            never. For example `{"psi": (0.1, 0.25), "null_rate": (0.01, None)}`.

    Returns:
        The verdict of the table, and of each aspect of a column, worst first.

    Raises:
        InvalidError: A side, a column or a threshold is wrong.

    Examples:
        >>> import batchscore as bs
        >>> january, july = (f"data/samples/flights/month={month}" for month in (1, 7))
        >>> found = bs.compare(january, july, columns=["carrier", "distance", "hour"])
        >>> found.verdict
        'ok'
        >>> [each.column for each in found.aspects if each.verdict == "fail"]
        []
    """
    wanted = None if columns is None else [*columns]
    return compare_data(reference, current, alpha, wanted, thresholds).drift


def compare_data(
    reference: TableProfile | Data,
    current: TableProfile | Data,
    alpha: float = 0.001,
    columns: Sequence[str] | None = None,
    thresholds: Effects | None = None,
) -> Comparison:
    """Compares two tables, and returns their profiles too; see `compare`."""
    # SciPy takes a second to import: only who compares needs it.
    from batchscore.drift.compare import compare_profiles

    rules = _rules(alpha, columns, thresholds or {})
    sides = _sides(reference, current, columns)
    _check_columns(columns or (), *(side.profile for side in sides))
    keys = frozenset[str]() if columns else sides[0].keys | sides[1].keys
    before, now = (replace(each, profile=_only(each.profile, columns, keys)) for each in sides)
    return Comparison(before, now, compare_profiles(before.profile, now.profile, rules))


def _rules(alpha: float, columns: Sequence[str] | None, thresholds: Effects) -> Rules:
    from batchscore.drift.thresholds import check_rules

    given = {measure: Thresholds(*effects) for measure, effects in thresholds.items()}
    rules = Rules(float(alpha), None if columns is None else frozenset(columns), given)
    try:
        check_rules(rules)
    except ValueError as error:
        raise InvalidError(str(error)) from error
    return rules


def _sides(reference: Data, current: Data, columns: Sequence[str] | None) -> tuple[Side, Side]:
    """Returns both sides; data are profiled the way that a stored side was."""
    stored = [_known_side(each) for each in (reference, current)]
    known = next((side.profile for side in stored if side is not None), TableProfile.empty())
    before, now = (
        side or _data_side(data, known, columns)
        for side, data in zip(stored, (reference, current), strict=True)
    )
    return before, now


def _known_side(data: Data) -> Side | None:
    if isinstance(data, TableProfile):
        return Side("profile", data)
    if not isinstance(data, str | os.PathLike):
        return None
    address = os.fspath(data)
    check_address(address)
    if is_profile(address):
        return Side(redacted_address(address), read_profile(address))
    return _output_side(address)


def _output_side(address: str) -> Side | None:
    """Returns the newest published run of an output; None for another folder."""
    store = Store(address if "://" in address else os.path.abspath(address))
    try:
        is_output = store.exists(layout.HOME)
    except Exception:  # a store's client raises errors of its own; to read it as data tells which
        return None
    if not is_output:
        return None
    current = current_runs(store, None)
    run = next((each.run for each in read_history(store) if each.run in current), None)
    if run is None:
        raise InputError(f"output {address}: no run is published; run its job first")
    return Side(f"run {run} of {address}", read_file(run_profile(store, run)))


def _data_side(data: Data, known: TableProfile, columns: Sequence[str] | None) -> Side:
    rows = open_rows(data, lambda names: _there(columns, names))
    profile = profile_rows(rows, hints_of(known))
    is_address = isinstance(data, str | os.PathLike)
    title = redacted_address(os.fspath(data)) if is_address else type(data).__name__
    return Side(title, profile, rows.keys)


def _there(columns: Sequence[str] | None, names: Sequence[str]) -> Sequence[str]:
    """Returns the judged columns that there are; all where there are none of them."""
    return [name for name in columns or () if name in names] or names


def _only(
    profile: TableProfile, columns: Sequence[str] | None, keys: frozenset[str]
) -> TableProfile:
    """Returns a profile of these columns alone; where there are none, of all but the keys."""
    kept = {n: column for n, column in profile.columns.items() if n in (columns or ())}
    return TableProfile(kept or {n: c for n, c in profile.columns.items() if n not in keys})


def _check_columns(columns: Sequence[str], *sides: TableProfile) -> None:
    known = {name for side in sides for name in side.columns}
    for name in columns:
        if name not in known:
            raise InputError(
                f"column {name!r} is in neither the reference nor the current data; "
                f"{nearest(name, known)}"
            )
