"""Results as lines of text for people; nothing here prints or decides."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from batchscore.cli.render.times import (
    TIMES,
    busy_and_help,
    phases,
    speed_and_limit,
    time_rows,
    used,
)
from batchscore.cli.render.times import duration as duration
from batchscore.cli.render.times import rate as rate
from batchscore.cli.render.times import size as size
from batchscore.finish.drift_gate import describe, usual_lines
from batchscore.finish.drift_policy import learning_line
from batchscore.messages.wording import count as count
from batchscore.messages.wording import counted, one_line
from batchscore.runs.checks import Check
from batchscore.runs.manifest_model import FOUND_FINISHED, Manifest
from batchscore.runs.manifest_parts import Decision, JudgedCheck, RowCounts

if TYPE_CHECKING:
    from batchscore.commands.trace import Match, Traced
    from batchscore.commands.verify import SliceVerified, Verified
    from batchscore.runs.history import Unreadable

ROLLED_BACK = "rolled_back"
"""What `rollback` reports in place of the status of the run that it made."""
_DECISIONS = ("revoked", "discarded", "released", "rollback")
_REASONS = 5
_PROFILE = ("count", "nulls", "min", "p05", "p50", "p95", "max")


def table(header: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> list[str]:
    """Aligns columns; the first `left` of them to the left, the others to the right."""
    cells = [list(header), *[list(row) for row in rows]]
    widths = [max(len(row[index]) for row in cells) for index in range(len(header))]
    return [
        "  ".join(
            cell.ljust(width) if index < left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]


def row_equation(rows: RowCounts) -> str:
    """Returns where every row of the input went."""
    left_out = f" + quarantined {count(rows.quarantined)}" if rows.quarantined else ""
    return (
        f"read {count(rows.input)} = scored {count(rows.scored)} "
        f"+ rejected {count(rows.rejected)} + filtered {count(rows.filtered)}{left_out}"
    )


def title(manifest: Manifest) -> str:
    """Returns what ran: the run, the slice and the model."""
    params = " ".join(f"{k}={v}" for k, v in manifest.params.items())
    job = f"{manifest.job} {params}".strip()
    model, run = manifest.model, manifest.run
    if manifest.status == ROLLED_BACK:
        run = f"{manifest.undoes} by run {run}"
    return (
        f"{manifest.status.replace('_', ' ').upper()} run {run}   {one_line(job)}   "
        f"model {one_line(model.name)} {one_line(model.version)}"
    )


def ended(manifest: Manifest, output: str) -> list[str]:
    """Returns what a run came to, or what a decision made of it."""
    lines = [title(manifest)]
    if manifest.error is not None:
        return [*lines, f"error  {manifest.error}"]
    if manifest.units is not None:
        lines += _worked(manifest)
    lines += decisions(manifest)
    lines += [f"CHECK FAILED  {each}" for each in failed_checks(manifest)]
    if "drift" not in _failed(manifest):
        lines += [f"drift  {each}" for each in drift_found(manifest)]
    lines += _rejects(manifest, output)
    lines += [
        f"BAD SHARD  {one_line(bad['path'], 120)}: {one_line(bad['reason'], 200)}"
        for bad in manifest.bad_shards
    ]
    lines += [
        f"SCORED AGAIN  {one_line(path, 120)} {one_line(wrong, 200)}"
        for path, wrong in manifest.damaged.items()
    ]
    return [*lines, files_line(manifest, output)]


def steps(manifest: Manifest, where: str, program: str) -> list[str]:
    """Returns the commands that a person may want next.

    Args:
        manifest: Manifest of the run.
        where: How the user names the job or the output.
        program: How the shell finds this program.
    """
    run, status = manifest.run, manifest.status
    if manifest.units is None:
        return []
    lines = ["", f"report   {program} report {where} {run} -o report.html"]
    if status == "held":
        lines.append(f"release  {program} release {where} {run} --reason …")
        lines.append(f"discard  {program} discard {where} {run}")
    if status in ("published", "empty"):
        lines.append(f"undo     {program} rollback {where} --undo {run}")
    return lines


def decisions(manifest: Manifest) -> list[str]:
    """Returns a line for each decision on a run, the one that counts first."""
    made = [(kind, manifest.decision(kind)) for kind in _DECISIONS]
    return [f"{kind} by {one_line(decided(each), 200)}" for kind, each in made if each]


def decided(decision: Decision) -> str:
    """Returns who decided something, when, and why."""
    why = f": {decision.reason}" if decision.reason else ""
    return f"{decision.by} at {decision.at}{why}"


def _worked(manifest: Manifest) -> list[str]:
    why = why_rescored(manifest)
    return [
        row_line(manifest),
        *([why] if why else []),
        speed_and_limit(manifest),
        *busy_and_help(manifest),
        *used(manifest),
    ]


def row_line(manifest: Manifest, why: str = "") -> str:
    """Returns where every row went, how many were scored before, and why no more were."""
    rows, units = manifest.rows, manifest.reused_units
    reused = f"reused {count(rows.reused)}" + (f" in {counted(units, 'unit')}" if units else "")
    notes = "; ".join(each for each in (reused, _found_finished(manifest), why) if each)
    return f"{row_equation(rows)}      ({notes})"


def _found_finished(manifest: Manifest) -> str:
    """Returns what an engine that started its work again did not do twice; empty where none did."""
    found = sum(m["value"] for m in manifest.beam_metrics if m["name"] == FOUND_FINISHED)
    return f"restarted, {counted(found, 'finished unit')} not scored again" if found else ""


def why_rescored(manifest: Manifest) -> str:
    """Returns why a run scored rows again that were published; empty where it did not."""
    earlier = [f"{name} changed" for name in manifest.changed]
    why = earlier if manifest.rescored is None else manifest.rescored
    shown = one_line("; ".join(why), 300)
    return f"scored again: {shown}" if shown else ""


def drift_found(manifest: Manifest, notes: bool = True) -> list[str]:
    """Returns what each comparison found, or why there is none, and notes on the references."""
    drift = manifest.drift
    if not drift:
        return []
    more = [one_line(note, 300) for note in drift.get("notes", ()) if notes]
    if not drift["comparisons"]:
        why = drift.get("why", "no reference")
        return [f"not judged: {why}; the run is profiled", *more]
    learning = [learning_line(drift["learning"])] if "learning" in drift else []
    found = [one_line(describe(each), 600) for each in drift["comparisons"]]
    usual = [one_line(line, 300) for each in drift["comparisons"] for line in usual_lines(each)]
    return [*learning, *found, *(usual if notes else ()), *more]


def failed_checks(manifest: Manifest) -> list[str]:
    """Returns the name and the findings of each check that did not pass."""
    return [check_line(check) for check in manifest.failed_checks]


def _failed(manifest: Manifest) -> list[str]:
    return [check.name for check in manifest.failed_checks]


def _drifted(manifest: Manifest) -> str:
    """Returns the verdict of drift where it alarms but did not hold the run; else nothing."""
    verdict = (manifest.drift or {}).get("verdict")
    return verdict if verdict in ("warn", "fail") and "drift" not in _failed(manifest) else ""


def check_line(check: JudgedCheck | Check) -> str:
    """Returns a check's name and findings."""
    return f"{check.name}: {one_line(check.detail, 600)}"


def _rejects(manifest: Manifest, output: str) -> list[str]:
    reasons = manifest.reject_reasons
    shown = list(reasons.items())[:_REASONS]
    lines = [f"rejected {count(n)}  {one_line(reason, 160)}" for reason, n in shown]
    if len(reasons) > _REASONS:
        lines.append(f"rejected for {counted(len(reasons) - _REASONS, 'more reason')}")
    rejects = manifest.rejects.files if manifest.rejects else ()
    folders = sorted({path.rpartition("/")[0] for path in rejects})
    return [*lines, *(f"rejects in {output}/{folder}" for folder in folders[:_REASONS])]


def files_line(manifest: Manifest, output: str) -> str:
    """Returns how many files a run added and replaced, and where; or what came of it instead."""
    if manifest.status == "revoked":
        return "the run was undone: what was published before it is published again"
    if manifest.status not in ("published", "empty", ROLLED_BACK):
        return "nothing was published; earlier results are unchanged"
    mine = f"/{manifest.run}-"
    added = sum(mine in f"/{path}" for path in manifest.paths)
    kept, replaced = len(manifest.files) - added, len(manifest.replaced)
    total = size(manifest.bytes)
    still = f"{kept} kept, " if kept else ""
    return f"files: {added} added, {still}{replaced} replaced, {total}   in {output}/data"


def details(manifest: Manifest, output: str) -> list[str]:
    """Returns all that `show` tells of a run."""
    lines = ended(manifest, output)
    facts = [
        ("started", manifest.started),
        ("engine", f"{manifest.engine}, workers {manifest.workers}"),
        ("batches", f"{counted(manifest.batch_rows, 'row')}, tiles of {manifest.tile_rows}"),
        ("device", manifest.device),
        ("input", f"{counted(len(manifest.inputs), 'shard')}, {size(manifest.input_bytes)}"),
        ("model", manifest.model.identity),
        *(("explain", one_line(e, 300)) for e in [manifest.score_facts.get("explain")] if e),
        *(("weights", one_line(w, 300)) for w in [_casts(manifest)] if w),
        *(("library", one_line(v, 300)) for v in [_versions(manifest)] if v),
        *(("kernels", one_line(k, 300)) for k in [_kernels(manifest)] if k),
        ("job file", manifest.job_sha256),
        ("versions", "  ".join(f"{k} {v}" for k, v in manifest.packages.items())),
    ]
    lines += ["", *(f"{name:<9} {value}" for name, value in facts)]
    times = time_rows(manifest)
    spent = [*phases(manifest), *(table(TIMES, times, left=2) if times else [])]
    lines += ["", *spent] if spent else []
    if manifest.checks is not None:
        lines += ["", *(f"{_mark(c, manifest):<6} {check_line(c)}" for c in manifest.checks)]
    if manifest.profile:
        lines += ["", *profile_table(manifest.profile)]
    return lines


def _casts(manifest: Manifest) -> str:
    """Returns which weights were cast to the network's types; runs of earlier versions say none."""
    return str((manifest.inference or {}).get("weights", ""))


def _versions(manifest: Manifest) -> str:
    """Returns which library wrote the model and which computed, if they may score otherwise."""
    return str((manifest.inference or {}).get("versions", ""))


def _kernels(manifest: Manifest) -> str:
    """Returns which kernels were chosen and why; nothing if the job left no choice."""
    found = (manifest.inference or {}).get("kernels")
    return f"{found.get('chosen')}: {found.get('why')}" if isinstance(found, dict) else ""


def _mark(check: JudgedCheck, manifest: Manifest) -> str:
    if not check.passed:
        return "FAILED"
    return "WARN" if check.name == "drift" and _drifted(manifest) else "ok"


def profile_table(profile: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Returns a line a column: type, count, nulls and the quantiles of what was read and scored."""
    rows = []
    for name, column in profile.items():
        figures = {**column, **column.get("quantiles", {})}
        cells = [_figure(figures.get(key)) for key in _PROFILE]
        rows.append([one_line(name, 32), one_line(column["type"], 24), *cells])
    return table(("column", "type", *_PROFILE), rows, left=2)


def _figure(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool | str):
        return one_line(value, 32)
    if isinstance(value, int):
        return count(value) if abs(value) >= 10_000 else str(value)
    return f"{value:.4g}"


def history(runs: Sequence[Manifest | Unreadable], current: Container[str]) -> list[str]:
    """Returns a line a run, newest first; those of `current` are what is published."""
    header = (
        *("run", "status", "slice", "model", "by", "started"),
        *("seconds", "read", "scored", "rejected", "reused"),
    )
    rows = [_history_row(each, each.run in current) for each in runs]
    unended = [each for each in runs if not isinstance(each, Manifest)]
    notes = [f"run {each.run}: {one_line(each.error, 400)}" for each in unended]
    return [*table(header, rows, left=6), *notes] if rows else ["no runs yet"]


def _history_row(run: Manifest | Unreadable, current: bool) -> list[str]:
    ended = run if isinstance(run, Manifest) else None
    why = ",".join(_marks(ended)) if ended else ""
    status = f"{run.status}{' *' if current else ''}{f' ({why})' if why else ''}"
    return [
        run.run,
        one_line(status, 96),
        one_line(run.slice or "-", 48),
        one_line(run.model.version or "-", 16),
        one_line(run.actor or "-", 24),
        run.started[:19],
        *(_figures(ended) if ended else ["-"] * 5),
    ]


def _figures(m: Manifest) -> list[str]:
    rows = m.rows
    counts = (rows.input, rows.scored, rows.rejected, rows.reused)
    return [f"{m.seconds:.1f}", *map(count, counts)]


def _marks(m: Manifest) -> list[str]:
    """Returns what counts of a run: failed checks, drift, decisions, a rollback, rescored rows."""
    drifted = _drifted(m)
    marks = [*_failed(m), *([f"drift {drifted}"] if drifted else [])]
    marks += [f"rollback of {m.undoes}"] if m.undoes else []
    decided = (("released", m.released), ("revoked", m.revoked))
    marks += [_by(kind, decision) for kind, decision in decided if decision]
    reasons = one_line(", ".join(m.rescored or ()), 48)
    return [*marks, f"rescored: {reasons}"] if reasons and m.reused_units is not None else marks


def _by(kind: str, decision: Decision) -> str:
    return f"{kind} {decision.at[:19]} by {one_line(decision.by, 24)}"


def interrupted(run: str) -> str:
    """Says that a publication was started and not finished."""
    return (
        f"a publication of run {run} was interrupted or is under way; the next run, release, "
        "discard or rollback finishes it"
    )


def verified(found: Verified) -> list[str]:
    """Returns what `verify` found: a line a problem, and one for each slice at the end."""
    problems = [f"{each.kind:<10}  {each.path}  {each.detail}" for each in found.problems]
    return [*problems, *(_verified(each) for each in found.slices)]


def _verified(found: SliceVerified) -> str:
    status, slice_ = found.status.upper(), one_line(found.slice)
    if found.run is None:
        return f"{status}  what is published is not known   {slice_}"
    number = len(found.problems)
    problems = f", {counted(number, 'problem')}" if number else ""
    return (
        f"{status}  {counted(found.files, 'file')}, {counted(found.rows, 'row')}, "
        f"{size(found.bytes)} as published by run {found.run} at {one_line(found.published_at, 40)}"
        f"{_releaser(found.released_by)}{problems}   {slice_}"
    )


def _releaser(person: str | None) -> str:
    return f", released by {one_line(person, 60)}" if person else ""


def traced(found: Traced, conditions: Sequence[str]) -> list[str]:
    """Returns what `trace` found: a block of lines a row."""
    if not found.matches:
        return [_not_found(found, conditions)]
    lines = [line for match in found.matches for line in [*_traced(match), ""]]
    looked = f"{count(found.published_rows)} published and {count(found.rejected_rows)} rejected"
    if found.more:
        shown = count(len(found.matches))
        return [*lines, f"{shown} rows are shown, and there are more; name more columns"]
    return [*lines, f"found {counted(len(found.matches), 'row')}, of {looked}"]


def _not_found(found: Traced, conditions: Sequence[str]) -> str:
    left_out = counted(found.filtered_rows, "row")
    filtered = f"; the filter left out {left_out}, which the output does not hold"
    return (
        f"NOT FOUND  {' '.join(one_line(each) for each in conditions)}: no row has these values, "
        f"of {count(found.published_rows)} published and "
        f"{counted(found.rejected_rows, 'rejected row')}{filtered if found.filtered_rows else ''}"
    )


def row_text(values: Mapping[str, Any]) -> str:
    """Returns a row's values, each with its name; of reasons the columns and what they added."""
    return "  ".join(f"{one_line(k)}={one_line(_value_text(v))}" for k, v in values.items())


def _value_text(value: Any) -> str:
    if not isinstance(value, list) or not value:
        return str(value)
    if any(not isinstance(each, dict) or [*each] != ["column", "contribution"] for each in value):
        return str(value)
    return ", ".join(f"{each['column']} {each['contribution']:+.4g}" for each in value)


def _traced(match: Match) -> list[str]:
    values = row_text(match.values)
    reject = match.reject
    why = [("reason", ": ".join(reject.values()))] if reject else []
    published = f", published by {match.published_by} at {one_line(match.published_at, 40)}"
    published += _releaser(match.released_by)
    facts = [
        ("source", f"{match.shard}  row {count(match.shard_row)}"),
        ("file", f"{match.file}  row {count(match.file_row)}"),
        *why,
        ("values", values),
        ("run", f"scored by {match.scored_by}{published if match.published_by else ''}"),
        ("model", one_line("{name} {version} {identity}".format(**match.model), 200)),
        ("job file", match.job_sha256),
    ]
    head = f"{match.status.upper()}   {one_line(match.slice)}   unit {match.unit}"
    return [head, *(f"{name:<9} {value}" for name, value in facts)]
