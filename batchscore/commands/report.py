"""The HTML report of a run with its history, or of two tables that belong to no run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace

from batchscore.arguments import checks_arguments
from batchscore.commands.compare import Comparison
from batchscore.commands.earlier_runs import earlier_runs
from batchscore.commands.files import Address, write_page
from batchscore.drift.findings import TableDrift
from batchscore.drift.table import TableProfile
from batchscore.errors import RecordError
from batchscore.finish.drift_gate import is_counted, rules_from_json
from batchscore.report import Compared, make_report
from batchscore.runs.manifest_model import Manifest
from batchscore.runs.profiles import (
    Reference,
    new_rows_profile,
    read_profile,
    read_reference,
    run_profile,
)
from batchscore.storage.store import Store


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
    earlier = earlier_runs(store, manifest)
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
