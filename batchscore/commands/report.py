"""The HTML report of a run with its history, or of two tables that belong to no run."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from batchscore.arguments import checks_arguments
from batchscore.commands.compare import Comparison
from batchscore.commands.files import Address, write_page
from batchscore.drift.findings import TableDrift
from batchscore.drift.table import TableProfile
from batchscore.errors import BatchscoreError, RecordError
from batchscore.finish.drift_gate import is_counted, rules_from_json
from batchscore.report import RUNS, Compared, make_report
from batchscore.runs import layout
from batchscore.runs.history import read_raw
from batchscore.runs.manifest_model import Manifest
from batchscore.runs.order import is_ahead, newest_first
from batchscore.runs.profiles import (
    Reference,
    new_rows_profile,
    read_profile,
    read_reference,
    run_profile,
)
from batchscore.storage.store import Store

HISTORY = RUNS - 1
_DAY = re.compile(r"\d{8}-")


@dataclass(frozen=True)
class Page:
    """A report that was made.

    Args:
        html: The page.
        missing: What should be on it and could not be read, a message each.
        runs: Earlier ones that it looks back on.
    """

    html: str
    missing: tuple[str, ...] = ()
    runs: int = 0


def report_run(store: Store, manifest: Manifest) -> Page:
    """Returns the report of a run: its profile compared again with its references, by its rules.

    A reference or a profile that is gone is left out, and named.
    """
    missing: list[str] = []
    profile = _own_profile(store, manifest, missing)
    compared = [*_compared(store, manifest, profile, missing)] if profile.rows else []
    earlier = [*_earlier(store, manifest)]
    html = make_report(manifest, compared, earlier, profile, missing, store.address)
    return Page(html, tuple(missing), len(earlier))


def report_comparison(found: Comparison) -> Page:
    """Returns the report of two tables that belong to no run."""
    before, now = found.reference, found.current
    about = f"{now.title} against {before.title}"
    compared = Compared(
        before.title, before.profile, now.profile, found.drift, about, name=before.title
    )
    return Page(make_report(None, [compared]))


@checks_arguments
def write_report(
    path: Address, found: TableDrift, reference: TableProfile, current: TableProfile
) -> int:
    """Writes the report of a comparison: one HTML page that needs no network; returns its bytes.

    Args:
        path: Path of the page; any fsspec address.
        found: What `compare` returned for the two profiles.
        reference: The profile that was compared with.
        current: The profile that was compared.

    Raises:
        OutputError: It cannot be written, or its name does not end in .html.
    """
    html = make_report(None, [Compared("reference", reference, current, found)])
    return write_page(html, os.fspath(path))


def _own_profile(store: Store, manifest: Manifest, missing: list[str]) -> TableProfile:
    if not manifest.profile:
        return TableProfile.empty()
    try:
        return read_profile(run_profile(store, manifest.run))
    except RecordError as error:
        missing.append(str(error))
        return TableProfile.empty()


def _compared(
    store: Store, manifest: Manifest, profile: TableProfile, missing: list[str]
) -> Iterator[Compared]:
    # SciPy takes a second to import: only who compares needs it.
    from batchscore.drift.compare import compare_profiles

    for facts in (manifest.drift or {}).get("comparisons", ()):
        reference, new = Reference.from_json(facts), facts["rows"] == "new"
        try:
            before = read_reference(reference.files)
            now = read_profile(new_rows_profile(store, manifest.run)) if new else profile
        except RecordError as error:
            missing.append(f"{reference.title}: {error}")
            continue
        found = compare_profiles(before, now, rules_from_json(facts["rules"]))
        title = f"{'anchor' if reference.anchor else 'reference'}: {reference.title}"
        title += ", new rows" if new else ""
        title += f" (on_fail {reference.on_fail})" if reference.on_fail else ""
        found = found if is_counted(facts) else _unjudged(found)
        yield Compared(title, before, now, found, counts=is_counted(facts), name=reference.name)


def _unjudged(found: TableDrift) -> TableDrift:
    return replace(found, aspects=tuple(replace(each, judged=False) for each in found.aspects))


def _earlier(store: Store, manifest: Manifest) -> Iterator[Manifest]:
    """Yields what there is to look back on: the job's runs with a profile, newest first.

    Runs are named by their day, so that those before it are not opened once there are enough.
    """
    found: list[Manifest] = []
    earlier: list[Manifest] = []
    # A run that started before midnight may have taken its name after it.
    for runs in _by_day(store, max(manifest.started[:10], _day(manifest.run))):
        found += _profiled(store, runs, manifest)
        ordered = newest_first(_by_time([*found, manifest]))
        runs_in_order = [each.run for each in ordered]
        earlier = ordered[runs_in_order.index(manifest.run) + 1 :]
        if len(earlier) >= HISTORY:
            break
    yield from earlier[:HISTORY]


def _by_time(manifests: list[Manifest]) -> list[Manifest]:
    """Returns manifests whose bases tell their order only where a run is dated ahead of now.

    The page has an axis of time, so that elsewhere times count.
    """
    ahead = {each.run for each in manifests if is_ahead(each.started)}
    return [
        each if {each.run, str(each.base)} & ahead else replace(each, base=None)
        for each in manifests
    ]


def _day(run: str) -> str:
    return f"{run[:4]}-{run[4:6]}-{run[6:8]}" if _DAY.match(run) else ""


def _by_day(store: Store, last: str) -> list[list[str]]:
    """Returns the runs of each day until then, the last day first.

    Those that a wrong clock dated ahead of now come first: they may be of any day.
    """
    days: dict[str, list[str]] = {}
    for run in store.names(f"{layout.HOME}/runs"):
        day = _day(run)
        if day and (day <= last or is_ahead(day)):
            days.setdefault(day, []).append(run)
    return [days[day] for day in sorted(days, reverse=True)]


def _profiled(store: Store, runs: list[str], manifest: Manifest) -> Iterator[Manifest]:
    for run in runs:
        with suppress(BatchscoreError, OSError):
            other = read_raw(store, run)
            if other.job == manifest.job and other.profile and other.run != manifest.run:
                yield other.without_lists()
