"""Results as lines of text for people; nothing here prints or decides."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from batchscore.gate import describe
from batchscore.render_times import TIMES, busy_and_help, phases, speed_and_limit, time_rows
from batchscore.render_times import duration as duration
from batchscore.render_times import rate as rate
from batchscore.runs.manifest import published_at, released_by
from batchscore.telemetry import STAGES
from batchscore.wording import counted, one_line

if TYPE_CHECKING:
    from batchscore.commands.check import Checked
    from batchscore.commands.trace import Match, Traced
    from batchscore.commands.verify import SliceVerified, Verified
    from batchscore.plan import Plan
    from batchscore.plan.rehearsal import Rehearsal

ROLLED_BACK = "rolled_back"
"""What `rollback` reports in place of the status of the run that it made."""
_REASONS = 5
_PROFILE = ("count", "nulls", "min", "p05", "p50", "p95", "max")


def count(number: float) -> str:
    """Returns a count with thousands marked: 336,776; an integer exactly, however large."""
    return f"{number:,}" if isinstance(number, int) else f"{number:,.0f}"


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


def summary(
    manifest: Mapping[str, Any], output: str, where: str, program: str = "batchscore"
) -> list[str]:
    """Returns the lines that a run ends with.

    Args:
        output: the output's address.
        where: how the user named the job or the output, for the next command.
        program: how the shell finds this program.
    """
    lines = ended(manifest, output)
    if "error" in manifest:
        return lines
    run = manifest["run"]
    look = f"{program} show {where}"
    report = f"{program} report {where} {run} -o report.html"
    if manifest["status"] == "failed":
        return [*lines, f"look   {look} {run}", f"report {report}"]
    if manifest["status"] != "held":
        undo = f"{program} rollback {where} --undo {run}"
        return [*lines, f"next   {look}", f"report {report}", f"undo   {undo}"]
    if "units" not in manifest:
        return [*lines, f"look   {look} {run}"]
    return [
        *lines,
        f"look     {look} {run}",
        f"report   {report}",
        f"release  {program} release {where} {run} --reason …",
        f"discard  {program} discard {where} {run}",
    ]


def ended(manifest: Mapping[str, Any], output: str) -> list[str]:
    """Returns what a run came to, or what a decision made of it."""
    lines = [title(manifest)]
    if "error" in manifest:
        return [*lines, f"error  {manifest['error']}"]
    if "units" in manifest:
        lines += _worked(manifest)
    for kind in ("released", "discarded", "rollback", "revoked"):
        if kind in manifest:
            lines.append(f"{kind} by {one_line(decided(manifest[kind]), 200)}")
    lines += [f"CHECK FAILED  {_check(c)}" for c in manifest["checks"] if not c["passed"]]
    lines += [] if "drift" in _failed(manifest) else _drift(manifest)
    lines += _rejects(manifest, output)
    lines += [
        f"BAD SHARD  {one_line(bad['path'], 120)}: {one_line(bad['reason'], 200)}"
        for bad in manifest.get("bad_shards", ())
    ]
    lines += [
        f"SCORED AGAIN  {one_line(path, 120)} {one_line(wrong, 200)}"
        for path, wrong in manifest.get("damaged", {}).items()
    ]
    return [*lines, *_files(manifest, output)]


def decided(decision: Mapping[str, str]) -> str:
    """Returns who decided something, when, and why."""
    why = f": {decision['reason']}" if decision.get("reason") else ""
    return f"{decision['by']} at {decision['at']}{why}"


def _worked(manifest: Mapping[str, Any]) -> list[str]:
    rows, units = manifest["rows"], manifest["reused_units"]
    reused = f"reused {count(rows['reused'])}" + (f" in {counted(units, 'unit')}" if units else "")
    changed = one_line(", ".join(manifest.get("changed", ())), 200)
    return [
        f"{row_equation(rows)}      ({reused})",
        *([f"no published row was kept, since this changed: {changed}"] if changed else []),
        speed_and_limit(manifest),
        *busy_and_help(manifest),
    ]


def _drift(manifest: Mapping[str, Any]) -> list[str]:
    drift = manifest.get("drift")
    if not drift:
        return []
    notes = [f"drift  {one_line(note, 300)}" for note in drift.get("notes", ())]
    if not drift["comparisons"]:
        why = drift.get("why", "no reference")
        return [f"drift  not judged: {why}; the run is profiled", *notes]
    return [*(f"drift  {one_line(describe(each), 600)}" for each in drift["comparisons"]), *notes]


def _failed(manifest: Mapping[str, Any]) -> list[str]:
    return [check["name"] for check in manifest.get("checks", ()) if not check["passed"]]


def _drifted(manifest: Mapping[str, Any]) -> str:
    """Returns the verdict of drift where it alarms but did not hold the run; else nothing."""
    verdict = (manifest.get("drift") or {}).get("verdict")
    return verdict if verdict in ("warn", "fail") and "drift" not in _failed(manifest) else ""


def _check(check: Mapping[str, Any]) -> str:
    return f"{check['name']}: {one_line(check['detail'], 600)}"


def _rejects(manifest: Mapping[str, Any], output: str) -> list[str]:
    reasons = manifest["rejects"]["reasons"]
    shown = list(reasons.items())[:_REASONS]
    lines = [f"rejected {count(n)}  {one_line(reason, 160)}" for reason, n in shown]
    if len(reasons) > _REASONS:
        lines.append(f"rejected for {counted(len(reasons) - _REASONS, 'more reason')}")
    folders = sorted({path.rpartition("/")[0] for path in manifest["rejects"]["files"]})
    return [*lines, *(f"rejects in {output}/{folder}" for folder in folders[:_REASONS])]


def _files(manifest: Mapping[str, Any], output: str) -> list[str]:
    if manifest["status"] in ("published", "empty", ROLLED_BACK):
        mine = f"/{manifest['run']}-"
        added = sum(mine in f"/{file['path']}" for file in manifest["files"])
        stand, replaced = len(manifest["files"]) - added, len(manifest["replaced"])
        total = size(sum(file["bytes"] for file in manifest["files"]))
        kept = f"{stand} kept, " if stand else ""
        return [f"files: {added} added, {kept}{replaced} replaced, {total}   in {output}/data"]
    return ["nothing was published; what was published before stands"]


def unchanged(
    manifest: Mapping[str, Any], output: str, where: str, program: str = "batchscore"
) -> list[str]:
    """Returns the lines of a run that had nothing to do."""
    return [
        title(manifest),
        f"nothing to do: run {manifest['run']} published these rows at "
        f"{one_line(published_at(manifest), 40)}, and job, input and model are the same",
        *_drift(manifest),
        f"files: {len(manifest['files'])} stand in {output}/data   (--rescore scores them again)",
        f"next   {program} show {where}",
    ]


def details(manifest: Mapping[str, Any], output: str) -> list[str]:
    """Returns all that `show` tells of a run."""
    lines = ended(manifest, output)
    facts = [
        ("started", manifest["started"]),
        ("engine", f"{manifest['engine']}, workers {manifest['workers']}"),
        ("batches", f"{counted(manifest['batch_rows'], 'row')}, tiles of {manifest['tile_rows']}"),
        ("device", manifest["device"]),
        ("input", f"{counted(len(manifest['inputs']), 'shard')}, {_input_size(manifest)}"),
        ("model", manifest["model"]["identity"]),
        *(("weights", one_line(w, 300)) for w in [_casts(manifest)] if w),
        ("job file", manifest["job_sha256"]),
        ("versions", "  ".join(f"{k} {v}" for k, v in manifest["packages"].items())),
    ]
    lines += ["", *(f"{name:<9} {value}" for name, value in facts)]
    times = time_rows(manifest)
    lines += ["", *phases(manifest), *table(TIMES, times, left=2)] if times else []
    if "checks" in manifest:
        lines += ["", *(f"{_mark(c, manifest):<6} {_check(c)}" for c in manifest["checks"])]
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


def _input_size(manifest: Mapping[str, Any]) -> str:
    return size(sum(shard["size"] for shard in manifest["inputs"]))


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
    return table(header, rows, left=6) if rows else ["no runs yet"]


def _history_row(m: Mapping[str, Any], current: bool) -> list[str]:
    rows = m.get("rows", {})
    drifted = _drifted(m)
    why = ",".join([*_failed(m), *([f"drift {drifted}"] if drifted else []), *_decision(m)])
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


def _decision(m: Mapping[str, Any]) -> list[str]:
    """Returns by whom and when a run was released, or which run it took back."""
    if "undoes" in m:
        return [f"rollback of {m['undoes']}"]
    if released_by(m):
        return [f"released {str(published_at(m))[:19]} by {one_line(released_by(m), 24)}"]
    return []


def checked(found: Checked, probed: bool) -> list[str]:
    """Returns what `check` found."""
    plan, work, rehearsal = found.plan, found.work, found.rehearsal
    spec = plan.spec
    lines = [
        f"{found.status.upper()}   {one_line(spec.slice)}   nothing was written",
        f"input   {counted(len(plan.shards), 'shard')}, "
        f"{counted(sum(s.rows for s in plan.shards), 'row')}, {size(plan.input_bytes)}; the filter "
        f"skips {counted(plan.pruned_rows, 'row')} unread",
        f"units   {len(work.units)} to score, {counted(work.unit_rows, 'row')}; "
        f"{len(work.kept) + len(work.resumed)} reused, {counted(work.reused_rows, 'row')}",
        f"model   {one_line(spec.model.name)} {one_line(spec.model.version)}, "
        f"{counted(len(spec.model.sha256), 'file')}, SHA-256 as pinned",
        f"output  {spec.output.address}, "
        + ("an object was put and removed" if probed else "may be written (--probe tries it)"),
        *(f"{key:<10}  {value}" for key, value in plan.choices.items()),
        *(
            f"bad shard   {one_line(b.path, 120)}: {one_line(b.reason, 200)}"
            for b in plan.bad_files
        ),
        *_references(plan),
        *_changes(found),
        "",
        *_rehearsed(rehearsal),
        *_many_rejects(plan, rehearsal),
    ]
    return [*lines, "", _verdict(found)]


def _references(plan: Plan) -> list[str]:
    drift, found = plan.spec.drift, plan.references
    columns = ", ".join(drift.columns or (*plan.spec.model_columns, "scores"))
    against = " and ".join(each.title for each in found.chosen)
    line = f"against {against}, on_fail {drift.on_fail}; judged: {columns}"
    return [
        f"drift       {one_line(line if found.chosen else 'not judged: no reference yet', 400)}",
        *(f"drift       {one_line(note, 300)}" for note in found.notes),
    ]


def _changes(found: Checked) -> list[str]:
    lines = [
        f"{'change    ' if check.passed else 'HELD      '}  {_check(vars(check))}"
        for check in found.work.checks
    ]
    if found.pending is not None:
        lines.append(f"pending     {interrupted(found.pending)}")
    if found.held_by is not None:
        lines.append(f"in use      {found.held_by}")
    return lines


def interrupted(run: str) -> str:
    """Says that a publication was begun and not finished."""
    return (
        f"a publication of run {run} was interrupted or is under way; the next run, release, "
        "discard or rollback finishes it"
    )


def _rehearsed(rehearsal: Rehearsal | None) -> list[str]:
    if rehearsal is None:
        return ["no row is left to score, so no batch was tried"]
    rows = [
        (
            stage.name,
            f"{rehearsal.seconds.get(stage.name, 0.0) * 1e3:.1f}",
            _stage_rate(rehearsal, stage.name),
        )
        for stage in STAGES
    ]
    reasons = [
        f"rejected {count(n)}  {one_line(r, 160)}" for r, n in rehearsal.reject_reasons.items()
    ]
    marks = {True: "golden rows ok", False: "HELD"}
    golden = [f"{marks[check.passed]}  {_check(vars(check))}" for check in rehearsal.golden]
    example = "  ".join(f"{k}={one_line(v)}" for k, v in rehearsal.example.items())
    return [
        f"one batch of {counted(rehearsal.rows, 'row')}: {count(rehearsal.scored)} scored",
        *reasons,
        *golden,
        *table(("stage", "ms", "speed"), rows),
        f"columns {', '.join(f'{one_line(n)} {k}' for n, k in rehearsal.columns)}",
        f"first row's scores {example}",
    ]


def _stage_rate(rehearsal: Rehearsal, stage: str) -> str:
    return rate(rehearsal.rows, rehearsal.seconds.get(stage, 0.0))


def _many_rejects(plan: Plan, rehearsal: Rehearsal | None) -> list[str]:
    if rehearsal is None:
        return []
    ratio, allowed = 1 - rehearsal.scored / rehearsal.rows, plan.spec.rejects.max_ratio
    if ratio <= allowed:
        return []
    return [
        f"WARNING  {ratio:.2%} of the batch is rejected, and rejects.max_ratio is {allowed:.2%}"
    ]


def _verdict(found: Checked) -> str:
    work = found.work
    if work.unchanged and work.base is not None:
        return f"a run would do nothing: run {work.base['run']} published the same already"
    if work.held:
        return "a run would be held (exit 3) and score nothing, for what stands under HELD"
    if found.status == "held" and found.rehearsal is not None:
        failed = ", ".join(check.name for check in found.rehearsal.golden if not check.passed)
        return f"a run would be held (exit 3), for what stands under HELD: {failed}"
    if found.status == "held":
        return (
            "a run would be held (exit 3): 0 rows to score; input.allow_empty: true would "
            "publish an empty result"
        )
    if found.seconds is None:
        return "a run would score nothing, and check and publish what was scored before"
    return (
        f"a run would score about {counted(work.unit_rows, 'row')} in "
        f"{duration(found.seconds)}, and start Python, Beam and torch before"
    )


def verified(found: Verified) -> list[str]:
    """Returns what `verify` found: a line a problem, and one for each slice at the end."""
    problems = [f"{each.kind:<10}  {each.path}  {each.detail}" for each in found.problems]
    return [*problems, *(_verified(each) for each in found.slices)]


def _verified(found: SliceVerified) -> str:
    status, slice_ = found.status.upper(), one_line(found.slice)
    if found.run is None:
        return f"{status}  what is published cannot be told   {slice_}"
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
