"""Results as lines of text for people; nothing here prints or decides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from batchscore.telemetry import STAGES
from batchscore.wording import one_line

if TYPE_CHECKING:
    from batchscore.commands.check import Checked
    from batchscore.plan import Plan
    from batchscore.plan.rehearsal import Rehearsal

_PROFILE = ("count", "nulls", "min", "p05", "p50", "p95", "max")


def count(number: float) -> str:
    """Returns a count with thousands marked: 336,776."""
    return f"{number:,.0f}"


def size(number: float) -> str:
    """Returns bytes in the largest fitting unit: 6.7 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if round(number, 1) < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def rate(rows: float, seconds: float) -> str:
    """Returns rows a second, short: 49k rows/s."""
    value = rows / seconds if seconds > 0 else 0.0
    if value >= 999_500:
        return f"{value / 1e6:.1f}M rows/s"
    return f"{value / 1e3:.0f}k rows/s" if value >= 1e4 else f"{value:,.0f} rows/s"


def duration(seconds: float) -> str:
    """Returns seconds, or minutes and hours above 99 s."""
    if seconds < 99.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


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
    return (
        f"read {count(rows['input'])} = scored {count(rows['scored'])} "
        f"+ rejected {count(rows['rejected'])} + filtered {count(rows['filtered'])}"
    )


def stage_seconds(seconds: Mapping[str, float]) -> str:
    """Returns the busy seconds of each stage."""
    return "  ".join(f"{stage.name} {seconds.get(stage.name, 0.0):.2f}" for stage in STAGES)


def title(manifest: Mapping[str, Any]) -> str:
    """Returns what ran: the run, the slice and the model."""
    params = " ".join(f"{k}={v}" for k, v in manifest.get("params", {}).items())
    job = f"{manifest['job']} {params}".strip()
    model = manifest["model"]
    return (
        f"{manifest['status'].upper()} run {manifest['run']}   {one_line(job)}   "
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
    lines = _ended(manifest, output)
    return lines if "error" in manifest else [*lines, f"next   {program} show {where}"]


def _ended(manifest: Mapping[str, Any], output: str) -> list[str]:
    lines = [title(manifest)]
    if "error" in manifest:
        return [*lines, f"error  {manifest['error']}"]
    rows, seconds = manifest["rows"], manifest["seconds"]
    lines.append(f"{row_equation(rows)}      (reused {count(rows['reused'])})")
    speed = rate(rows["scored"], seconds)
    limit = f", limited by {manifest['limited_by']}" if manifest["limited_by"] else ""
    lines.append(f"{duration(seconds)}, {speed}{limit}, {manifest['device'].partition(',')[0]}")
    lines.append(f"busy seconds  {stage_seconds(manifest['stage_seconds'])}")
    lines += [f"CHECK FAILED  {_check(c)}" for c in manifest["checks"] if not c["passed"]]
    lines += _rejects(manifest, output)
    return [*lines, *_files(manifest, output)]


def _check(check: Mapping[str, Any]) -> str:
    return f"{check['name']}: {one_line(check['detail'], 300)}"


def _rejects(manifest: Mapping[str, Any], output: str) -> list[str]:
    reasons = manifest["rejects"]["reasons"]
    lines = [f"rejected {count(n)}  {one_line(reason, 160)}" for reason, n in reasons.items()]
    return [*lines, f"rejects in {output}/_batchscore/rejects/{manifest['run']}"] if lines else []


def _files(manifest: Mapping[str, Any], output: str) -> list[str]:
    if manifest["status"] in ("published", "empty"):
        added, replaced = len(manifest["files"]), len(manifest["replaced"])
        total = size(sum(file["bytes"] for file in manifest["files"]))
        return [f"files: {added} added, {replaced} replaced, {total}   in {output}/data"]
    return ["nothing was published; what was published before stands"]


def unchanged(
    manifest: Mapping[str, Any], output: str, where: str, program: str = "batchscore"
) -> list[str]:
    """Returns the lines of a run that had nothing to do."""
    return [
        title(manifest),
        f"nothing to do: run {manifest['run']} published these rows at {manifest['finished']}, and "
        "job, input and model are the same",
        f"files: {len(manifest['files'])} stand in {output}/data   (--rescore scores them again)",
        f"next   {program} show {where}",
    ]


def details(manifest: Mapping[str, Any], output: str) -> list[str]:
    """Returns all that `show` tells of a run."""
    lines = _ended(manifest, output)
    facts = [
        ("started", manifest["started"]),
        ("engine", f"{manifest['engine']}, workers {manifest['workers']}"),
        ("batches", f"{count(manifest['batch_rows'])} rows, tiles of {manifest['tile_rows']}"),
        ("device", manifest["device"]),
        ("input", f"{len(manifest['inputs'])} shards, {_input_size(manifest)}"),
        ("model", manifest["model"]["identity"]),
        ("job file", manifest["job_sha256"]),
        ("versions", "  ".join(f"{k} {v}" for k, v in manifest["packages"].items())),
    ]
    lines += ["", *(f"{name:<9} {value}" for name, value in facts)]
    if "checks" in manifest:
        marks = {True: "ok    ", False: "FAILED"}
        lines += [
            "",
            *(f"{marks[c['passed']]} {_check(c)}" for c in manifest["checks"]),
        ]
    if manifest.get("profile"):
        lines += ["", *profile_table(manifest["profile"])]
    return lines


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
        return one_line(value, 20)
    if isinstance(value, int):
        return count(value) if abs(value) >= 10_000 else str(value)
    return f"{value:.4g}"


def history(manifests: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns a line a run, newest first."""
    header = ("run", "status", "slice", "model", "started", "seconds", "read", "scored", "rejected")
    rows = [
        (
            m["run"],
            m["status"],
            one_line(m["slice"], 48),
            one_line(m["model"]["version"], 16),
            m["started"][:19],
            f"{m['seconds']:.1f}",
            count(m["rows"]["input"]),
            count(m["rows"]["scored"]),
            count(m["rows"]["rejected"]),
        )
        for m in manifests
    ]
    return table(header, rows, left=5) if rows else ["no runs yet"]


def checked(found: Checked, probed: bool) -> list[str]:
    """Returns what `check` found."""
    plan, rehearsal = found.plan, found.rehearsal
    spec = plan.spec
    lines = [
        f"{found.status.upper()}   {one_line(spec.slice)}   nothing was written",
        f"input   {len(plan.shards)} shards, {count(sum(s.rows for s in plan.shards))} rows, "
        f"{size(plan.input_bytes)}; the filter skips {count(plan.pruned_rows)} rows unread",
        f"units   {len(plan.units)}, {count(plan.unit_rows)} rows",
        f"model   {one_line(spec.model.name)} {one_line(spec.model.version)}, "
        f"{len(spec.model.sha256)} files, SHA-256 as pinned",
        f"output  {spec.output.address}, "
        + ("an object was put and removed" if probed else "may be written (--probe tries it)"),
        *(f"{key:<10}  {value}" for key, value in plan.choices.items()),
        "",
        *_rehearsed(rehearsal),
        *_many_rejects(plan, rehearsal),
    ]
    return [*lines, "", _verdict(found)]


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
    example = "  ".join(f"{k}={one_line(v)}" for k, v in rehearsal.example.items())
    return [
        f"one batch of {count(rehearsal.rows)} rows: {count(rehearsal.scored)} scored",
        *reasons,
        *table(("stage", "ms", "speed"), rows),
        f"columns {', '.join(f'{one_line(n)} {k}' for n, k in rehearsal.columns)}",
        f"first row's scores {example}",
    ]


def _stage_rate(rehearsal: Rehearsal, stage: str) -> str:
    return rate(rehearsal.rows, rehearsal.seconds.get(stage, 0.0))


def _many_rejects(plan: Plan, rehearsal: Rehearsal | None) -> list[str]:
    if rehearsal is None:
        return []
    ratio, allowed = 1 - rehearsal.scored / rehearsal.rows, plan.spec.max_reject_ratio
    if ratio <= allowed:
        return []
    return [
        f"WARNING  {ratio:.2%} of the batch is rejected, and rejects.max_ratio is {allowed:.2%}"
    ]


def _verdict(found: Checked) -> str:
    if found.same is not None:
        return f"a run would do nothing: run {found.same['run']} published the same already"
    if found.status == "held":
        return (
            "a run would be held (exit 3): 0 rows to score; input.allow_empty: true would "
            "publish an empty result"
        )
    if found.seconds is None:
        return "a run would publish an empty result"
    return (
        f"a run would score about {count(found.plan.unit_rows)} rows in "
        f"{duration(found.seconds)}, and start Python, Beam and torch before"
    )
