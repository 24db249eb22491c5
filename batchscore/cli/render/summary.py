"""What a run, or a decision on one, ends with: at most six lines; `show` prints the rest."""

from __future__ import annotations

from collections.abc import Sequence

from batchscore.cli.render.results import (
    decisions,
    drift_found,
    failed_checks,
    files_line,
    row_line,
    title,
    why_rescored,
)
from batchscore.cli.render.times import times
from batchscore.messages.wording import one_line
from batchscore.runs.manifest_model import Manifest

_FINDINGS = 900
"""So many characters of what checks found are shown."""


def summary(manifest: Manifest, output: str, show: str) -> list[str]:
    """Returns the lines that a run ends with, or a decision on it.

    Args:
        manifest: Manifest of the run.
        output: The output's address.
        show: The command that shows a run whose name is added.
    """
    look = f"look   {show} {manifest.run}"
    if manifest.error is not None:
        return [title(manifest), f"error  {manifest.error}", look]
    found = [*_worked(manifest), *_findings(manifest)]
    return [title(manifest), *found, files_line(manifest, output), look]


def _worked(manifest: Manifest) -> list[str]:
    """Returns where the rows went, and how long that took or who decided on it."""
    decided = decisions(manifest)[:1]
    if manifest.units is None:
        return decided
    return [row_line(manifest, _why(manifest)), *(decided or [times(manifest)])]


def _why(manifest: Manifest) -> str:
    """Returns why rows were scored again; empty if none were."""
    damaged = len(manifest.damaged)
    lost = f"scored again, since files are damaged: {damaged}" if damaged else ""
    return "; ".join(each for each in (why_rescored(manifest), lost) if each)


def _findings(manifest: Manifest) -> list[str]:
    """Returns one line of failed checks, else of drift, and of rejects and bad shards."""
    failed = failed_checks(manifest)
    found = failed or drift_found(manifest, notes=False)
    reasons, bad = manifest.reject_reasons, manifest.bad_shards
    found += [f"rejected most often: {one_line(reason, 160)}" for reason in list(reasons)[:1]]
    if bad:
        found.append(f"bad shards left out: {len(bad)}, such as {one_line(bad[0]['path'], 120)}")
    mark = "CHECK FAILED  " if failed else "drift  " if manifest.drift else ""
    return [_line(mark, found)] if found else []


def _line(mark: str, found: Sequence[str]) -> str:
    return f"{mark}{one_line(' | '.join(found), _FINDINGS)}"


def submitted(manifest: Manifest, follow: str) -> list[str]:
    """Returns the lines of a run that was left, and goes on.

    Args:
        manifest: What is known of it.
        follow: The command that waits for its end.
    """
    job = manifest.document["submission"]
    found = job.get("job") or job.get("name") or "unknown"
    return [
        title(manifest),
        f"engine {one_line(str(job.get('engine', '')))} has it as job {one_line(str(found))}; it "
        "goes on without this command, and publishes by itself",
        f"wait   {follow}",
    ]


def unchanged(manifest: Manifest, output: str, show: str) -> list[str]:
    """Returns the lines of a run that had nothing to do, as `summary` does."""
    at = manifest.published_at or manifest.public_since
    drift = drift_found(manifest, notes=False)
    return [
        title(manifest),
        f"nothing to do: run {manifest.run} published these rows at {one_line(at, 40)}, and "
        "job, input and model are the same (--rescore scores them again)",
        times(manifest),
        *([_line("drift  ", drift)] if drift else []),
        f"files: {len(manifest.files)} published   in {output}/data",
        f"look   {show} {manifest.run}",
    ]
