"""Results as lines of text for people; nothing here prints or decides."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from batchscore.cli.render.times import TIMES, busy_and_help, phases, speed_and_limit, time_rows
from batchscore.cli.render.times import duration as duration
from batchscore.cli.render.times import rate as rate
from batchscore.finish.drift_gate import describe
from batchscore.messages.wording import count as count
from batchscore.messages.wording import counted, one_line

if TYPE_CHECKING:
    from batchscore.commands.trace import Match, Traced
    from batchscore.commands.verify import SliceVerified, Verified

ROLLED_BACK = "rolled_back"
"""What `rollback` reports in place of the status of the run that it made."""
_DECISIONS = ("revoked", "discarded", "released", "rollback")
_REASONS = 5
_PROFILE = ("count", "nulls", "min", "p05", "p50", "p95", "max")


def size(number: float) -> str:
    """Returns bytes in the largest fitting unit: 6.7 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if round(number, 1) < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


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


def row_equation(rows: Mapping[str, int]) -> str:
    """Returns where every row of the input went."""
    left_out = rows.get("quarantined", 0)
    return (
        f"read {count(rows['input'])} = scored {count(rows['scored'])} "
        f"+ rejected {count(rows['rejected'])} + filtered {count(rows['filtered'])}"
        + (f" + quarantined {count(left_out)}" if left_out else "")
    )


def title(manifest: Mapping[str, Any]) -> str:
    """Returns what ran: the run, the slice and the model."""
    params = " ".join(f"{k}={v}" for k, v in manifest.get("params", {}).items())
    job = f"{manifest['job']} {params}".strip()
    model = manifest["model"]
    run = manifest["run"]
    if manifest["status"] == ROLLED_BACK:
        run = f"{manifest['undoes']} by run {run}"
    return (
        f"{manifest['status'].replace('_', ' ').upper()} run {run}   {one_line(job)}   "
        f"model {one_line(model['name'])} {one_line(model['version'])}"
    )


def ended(manifest: Mapping[str, Any], output: str) -> list[str]:
    """Returns what a run came to, or what a decision made of it."""
    lines = [title(manifest)]
    if "error" in manifest:
        return [*lines, f"error  {manifest['error']}"]
    if "units" in manifest:
        lines += _worked(manifest)
    lines += decisions(manifest)
    lines += [f"CHECK FAILED  {each}" for each in failed_checks(manifest)]
    if "drift" not in _failed(manifest):
        lines += [f"drift  {each}" for each in drift_found(manifest)]
    lines += _rejects(manifest, output)
    lines += [
        f"BAD SHARD  {one_line(bad['path'], 120)}: {one_line(bad['reason'], 200)}"
        for bad in manifest.get("bad_shards", ())
    ]
    lines += [
        f"SCORED AGAIN  {one_line(path, 120)} {one_line(wrong, 200)}"
        for path, wrong in manifest.get("damaged", {}).items()
    ]
    return [*lines, files_line(manifest, output)]


def steps(manifest: Mapping[str, Any], where: str, program: str) -> list[str]:
    """Returns the commands that a person may want next.

    Args:
        manifest: Of the run.
        where: How the user names the job or the output.
        program: How the shell finds this program.
    """
    run, status = manifest["run"], manifest["status"]
    if "units" not in manifest:
        return []
    lines = ["", f"report   {program} report {where} {run} -o report.html"]
    if status == "held":
        lines.append(f"release  {program} release {where} {run} --reason …")
        lines.append(f"discard  {program} discard {where} {run}")
    if status in ("published", "empty"):
        lines.append(f"undo     {program} rollback {where} --undo {run}")
    return lines


def decisions(manifest: Mapping[str, Any]) -> list[str]:
    """Returns a line for each decision on a run, the one that counts first."""
    kinds = [kind for kind in _DECISIONS if kind in manifest]
    return [f"{kind} by {one_line(decided(manifest[kind]), 200)}" for kind in kinds]


def decided(decision: Mapping[str, str]) -> str:
    """Returns who decided something, when, and why."""
    why = f": {decision['reason']}" if decision.get("reason") else ""
    return f"{decision['by']} at {decision['at']}{why}"


def _worked(manifest: Mapping[str, Any]) -> list[str]:
    why = why_rescored(manifest)
    return [
        row_line(manifest),
        *([why] if why else []),
        speed_and_limit(manifest),
        *busy_and_help(manifest),
    ]


def row_line(manifest: Mapping[str, Any], why: str = "") -> str:
    """Returns where every row went, how many were scored before, and why no more were."""
    rows, units = manifest["rows"], manifest["reused_units"]
    reused = f"reused {count(rows['reused'])}" + (f" in {counted(units, 'unit')}" if units else "")
    return f"{row_equation(rows)}      ({reused}{f'; {why}' if why else ''})"


def why_rescored(manifest: Mapping[str, Any]) -> str:
    """Returns why a run scored rows again that were published; empty where it did not."""
    earlier = (f"{name} changed" for name in manifest.get("changed", ()))
    shown = one_line("; ".join(manifest.get("rescored", earlier)), 300)
    return f"scored again: {shown}" if shown else ""


def drift_found(manifest: Mapping[str, Any], notes: bool = True) -> list[str]:
    """Returns what each comparison found, or why there is none, and notes on the references."""
    drift = manifest.get("drift")
    if not drift:
        return []
    more = [one_line(note, 300) for note in drift.get("notes", ()) if notes]
    if not drift["comparisons"]:
        why = drift.get("why", "no reference")
        return [f"not judged: {why}; the run is profiled", *more]
    return [*(one_line(describe(each), 600) for each in drift["comparisons"]), *more]


def failed_checks(manifest: Mapping[str, Any]) -> list[str]:
    """Returns the name and the findings of each check that did not pass."""
    return [check_line(check) for check in manifest.get("checks", ()) if not check["passed"]]


def _failed(manifest: Mapping[str, Any]) -> list[str]:
    return [check["name"] for check in manifest.get("checks", ()) if not check["passed"]]


def _drifted(manifest: Mapping[str, Any]) -> str:
    """Returns the verdict of drift where it alarms but did not hold the run; else nothing."""
    verdict = (manifest.get("drift") or {}).get("verdict")
    return verdict if verdict in ("warn", "fail") and "drift" not in _failed(manifest) else ""


def check_line(check: Mapping[str, Any]) -> str:
    """Returns a check's name and findings."""
    return f"{check['name']}: {one_line(check['detail'], 600)}"


def _rejects(manifest: Mapping[str, Any], output: str) -> list[str]:
    reasons = manifest["rejects"]["reasons"]
    shown = list(reasons.items())[:_REASONS]
    lines = [f"rejected {count(n)}  {one_line(reason, 160)}" for reason, n in shown]
    if len(reasons) > _REASONS:
        lines.append(f"rejected for {counted(len(reasons) - _REASONS, 'more reason')}")
    folders = sorted({path.rpartition("/")[0] for path in manifest["rejects"]["files"]})
    return [*lines, *(f"rejects in {output}/{folder}" for folder in folders[:_REASONS])]


def files_line(manifest: Mapping[str, Any], output: str) -> str:
    """Returns how many files a run added and replaced, and where; or what came of it instead."""
    if manifest["status"] == "revoked":
        return "the run was undone: what was published before it is published again"
    if manifest["status"] not in ("published", "empty", ROLLED_BACK):
        return "nothing was published; earlier results are unchanged"
    mine = f"/{manifest['run']}-"
    added = sum(mine in f"/{file['path']}" for file in manifest["files"])
    kept, replaced = len(manifest["files"]) - added, len(manifest["replaced"])
    total = size(sum(file["bytes"] for file in manifest["files"]))
    still = f"{kept} kept, " if kept else ""
    return f"files: {added} added, {still}{replaced} replaced, {total}   in {output}/data"


def details(manifest: Mapping[str, Any], output: str) -> list[str]:
    """Returns all that `show` tells of a run."""
    lines = ended(manifest, output)
    total = size(sum(shard["size"] for shard in manifest["inputs"]))
    facts = [
        ("started", manifest["started"]),
        ("engine", f"{manifest['engine']}, workers {manifest['workers']}"),
        ("batches", f"{counted(manifest['batch_rows'], 'row')}, tiles of {manifest['tile_rows']}"),
        ("device", manifest["device"]),
        ("input", f"{counted(len(manifest['inputs']), 'shard')}, {total}"),
        ("model", manifest["model"]["identity"]),
        *(("weights", one_line(w, 300)) for w in [_casts(manifest)] if w),
        ("job file", manifest["job_sha256"]),
        ("versions", "  ".join(f"{k} {v}" for k, v in manifest["packages"].items())),
    ]
    lines += ["", *(f"{name:<9} {value}" for name, value in facts)]
    times = time_rows(manifest)
    spent = [*phases(manifest), *(table(TIMES, times, left=2) if times else [])]
    lines += ["", *spent] if spent else []
    if "checks" in manifest:
        lines += ["", *(f"{_mark(c, manifest):<6} {check_line(c)}" for c in manifest["checks"])]
    if manifest.get("profile"):
        lines += ["", *profile_table(manifest["profile"])]
    return lines


def _casts(manifest: Mapping[str, Any]) -> str:
    """Returns which weights were cast to the network's types; runs of earlier versions say none."""
    return str(manifest.get("inference", {}).get("weights", ""))


def _mark(check: Mapping[str, Any], manifest: Mapping[str, Any]) -> str:
    if not check["passed"]:
        return "FAILED"
    return "WARN" if check["name"] == "drift" and _drifted(manifest) else "ok"


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


def history(manifests: Sequence[Mapping[str, Any]], current: Container[str]) -> list[str]:
    """Returns a line a run, newest first; those of `current` are what is published."""
    header = (
        *("run", "status", "slice", "model", "by", "started"),
        *("seconds", "read", "scored", "rejected", "reused"),
    )
    rows = [_history_row(m, str(m["run"]) in current) for m in manifests]
    unended = [m for m in manifests if "rows" not in m]
    notes = [f"run {m['run']}: {one_line(m['error'], 400)}" for m in unended if "error" in m]
    return [*table(header, rows, left=6), *notes] if rows else ["no runs yet"]


def _history_row(m: Mapping[str, Any], current: bool) -> list[str]:
    rows = m.get("rows", {})
    drifted = _drifted(m)
    why = ",".join([*_failed(m), *([f"drift {drifted}"] if drifted else []), *_marks(m)])
    status = f"{m['status']}{' *' if current else ''}{f' ({why})' if why else ''}"
    return [
        str(m["run"]),
        one_line(status, 96),
        one_line(m.get("slice", "-"), 48),
        one_line(m["model"]["version"] if "model" in m else "-", 16),
        one_line(m.get("actor", "-"), 24),
        str(m["started"])[:19],
        f"{m['seconds']:.1f}" if "seconds" in m else "-",
        *(
            count(rows[key]) if key in rows else "-"
            for key in ("input", "scored", "rejected", "reused")
        ),
    ]


def _marks(m: Mapping[str, Any]) -> list[str]:
    """Returns what else counts of a run: a release, a revocation, a rollback, rescored rows."""
    marks = [f"rollback of {m['undoes']}"] if "undoes" in m else []
    marks += [_by(m, kind) for kind in ("released", "revoked") if m.get(kind)]
    reasons = one_line(", ".join(m.get("rescored", ())), 48)
    return [*marks, f"rescored: {reasons}"] if reasons and "reused_units" in m else marks


def _by(m: Mapping[str, Any], kind: str) -> str:
    return f"{kind} {str(m[kind].get('at'))[:19]} by {one_line(m[kind].get('by'), 24)}"


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


def _traced(match: Match) -> list[str]:
    values = "  ".join(f"{one_line(k)}={one_line(v)}" for k, v in match.values.items())
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
