"""The runs of a job before one of its runs, with their profiles and what drift found."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

from batchscore.errors import BatchscoreError
from batchscore.report import RUNS
from batchscore.runs import layout
from batchscore.runs.history import read_raw
from batchscore.runs.manifest_model import Manifest
from batchscore.runs.order import is_ahead, newest_first
from batchscore.storage.store import Store

HISTORY = RUNS - 1
_DAY = re.compile(r"\d{8}-")


def earlier_runs(store: Store, manifest: Manifest) -> list[Manifest]:
    """Returns what there is to look back on: the job's runs with a profile, newest first.

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
    return earlier[:HISTORY]


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
