"""The page: everything that it shows, and what a browser may do with it."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any

from batchscore.drift.table import TableProfile
from batchscore.messages.wording import count, one_line
from batchscore.report.column_list import Compared, Row, details, findings_of, list_rows
from batchscore.report.formats import VERDICT_SIGNS, measure_words, size
from batchscore.report.outcome import decisions_of, outcome_of, steps_of
from batchscore.report.panel import panel
from batchscore.report.past import PastRun, runs_of
from batchscore.report.run_charts import charts_of
from batchscore.report.templates import read_file, render
from batchscore.runs.manifest_model import Manifest
from batchscore.telemetry import BETWEEN, STAGES

PAGE_BYTES = 1_950_000
LISTED = 2_000
WRITTEN, WRITTEN_BYTES = 20, 800_000
"""How many panels are there without scripts at most, those of the worst columns, and how large."""

_OPENED = 5
_AT_ONCE = 25  # panels that are packed together
_SCRIPT = "page.js"
_BANNER = 12
_REASONS = 20
_WORST_FIRST = tuple(VERDICT_SIGNS)


def make_report(
    manifest: Manifest | None,
    compared: Sequence[Compared],
    history: Sequence[Manifest] = (),
    profile: TableProfile | None = None,
    missing: Sequence[str] = (),
    where: str = "",
) -> str:
    """Returns a page of HTML that needs no other file and no network, under 2 MB.

    Args:
        manifest: Manifest of the run; None for two profiles that belong to no run.
        compared: The comparisons, the one with the chosen reference first; may be empty.
        history: Manifests of earlier runs with their `profile` and `drift`, newest first.
        profile: What is reported where nothing is compared; may be missing, as of a failed run.
        missing: What should be on the page and could not be read, a message each.
        where: The address of the run's output, for the commands that the page offers.
    """
    current = compared[0].current if compared else profile or TableProfile.empty()
    findings, runs = findings_of(compared), runs_of(manifest, history)
    rows = list_rows(compared, current, findings)
    view = {**_view(manifest, compared, rows, runs), **_outcome(manifest, where)}
    view |= {"missing": missing, "judged": runs[-1].verdict if manifest and runs else None}
    titles = [one_line(each.title, 120) for each in compared]
    panels = (
        panel(
            row.shown,
            details(row.name, compared, current, findings.get(row.name, ())),
            titles,
            charts_of(row.name, runs),
        )
        for row in rows[:LISTED]
    )
    written, rest = write_out(panels)
    room = PAGE_BYTES - len(_render({**view, "written": written}).encode())
    packs, packed = pack(rest, room)
    detailed = len(written) + packed
    return _render({**view, "written": written, "packs": packs, "detailed": detailed})


def _view(
    manifest: Manifest | None,
    compared: Sequence[Compared],
    rows: Sequence[Row],
    runs: Sequence[PastRun],
) -> dict[str, Any]:
    """Returns what the template takes in addition to the data."""
    checks = (manifest.checks if manifest else None) or []
    verdicts = [row.verdict for row in rows]
    return {
        "manifest": manifest,
        "title": _title(manifest, compared),
        "compared": compared,
        "verdict": _verdict(compared),
        "tally": [(each, verdicts.count(each)) for each in VERDICT_SIGNS if each in verdicts],
        "rows": rows[:LISTED],
        "opened": sum(each in ("fail", "warn") for each in verdicts[:_OPENED]),
        "failed": [row for row in rows if row.verdict == "fail"][:_BANNER],
        "more_failed": max(verdicts.count("fail") - _BANNER, 0),
        "unlisted": max(len(rows) - LISTED, 0),
        "detailed": len(rows),
        "checks": [each for each in checks if not each.name.startswith("golden")],
        "golden": [each for each in checks if each.name.startswith("golden")],
        "reasons": _reasons(manifest),
        "stages": _stages(manifest),
        "runs": list(reversed(runs)),
        "parametrised": any(run.about != run.started[:10] for run in runs),
        "facts_of_run": _run_facts(manifest) if manifest else [],
        "measures": measure_words(),
        "packs": (),
    }


def _outcome(manifest: Manifest | None, where: str) -> dict[str, Any]:
    """Returns what the template tells of a run's end, and of what may be done about it."""
    if manifest is None:
        return {"outcome": "", "decisions": [], "steps": [], "where": ""}
    return {
        "outcome": outcome_of(manifest),
        "decisions": decisions_of(manifest),
        "steps": steps_of(manifest, where) if where else [],
        "where": where,
    }


def _title(manifest: Manifest | None, compared: Sequence[Compared]) -> str:
    if manifest is None:
        about = next((each.about for each in compared if each.about), "Comparison of two profiles")
        return one_line(about, 160) if compared else "Profile of a table"
    params = " ".join(f"{k}={v}" for k, v in manifest.params.items())
    return one_line(f"{manifest.job} {params}".strip(), 120)


def _verdict(compared: Sequence[Compared]) -> str:
    found = [each.drift.verdict for each in compared if each.counts]
    return min(found, key=_WORST_FIRST.index, default="none")


def _reasons(manifest: Manifest | None) -> list[tuple[str, int]]:
    found = manifest.reject_reasons if manifest else {}
    return [(one_line(reason, 200), rows) for reason, rows in list(found.items())[:_REASONS]]


def _stages(manifest: Manifest | None) -> list[tuple[str, str, float, float]]:
    """Returns name, meaning, seconds and share of the longest for each measure of the stages."""
    spent = (manifest.stage_seconds if manifest else None) or {}
    known = [m for m in (*STAGES, *BETWEEN) if m.name in spent]
    longest = max((float(spent[m.name]) for m in known), default=0.0) or 1.0
    return [(m.name, m.meaning, float(spent[m.name]), spent[m.name] / longest) for m in known]


def _run_facts(manifest: Manifest) -> list[tuple[str, str]]:
    """Returns what else to know of the run; facts that it has not are left out."""
    files = len(manifest.files)
    facts = {
        "engine": manifest.engine,
        "device": manifest.device,
        "started by": manifest.actor,
        "model": manifest.model.identity,
        "explain": manifest.score_facts.get("explain"),
        "job file": manifest.job_sha256,
        "files": f"{count(files)}, {size(manifest.bytes)}" if files else None,
        "versions": ", ".join(f"{name} {version}" for name, version in manifest.packages.items()),
    }
    return [(name, one_line(value, 300)) for name, value in facts.items() if value]


def write_out(panels: Iterable[str]) -> tuple[list[str], Iterator[str]]:
    """Returns the panels that are part of the page as they are, and the others."""
    written: list[str] = []
    room = WRITTEN_BYTES
    rest = iter(panels)
    for each in islice(rest, WRITTEN):
        room -= len(each.encode())
        if room < 0:
            return written, chain([each], rest)
        written.append(each)
    return written, rest


def pack(panels: Iterable[str], room: int) -> tuple[list[str], int]:
    """Returns panels in packs, as many as there is room for in bytes, and how many these are.

    A pack is a JSON list, compressed by deflate, as base64.
    """
    packs: list[str] = []
    packed = 0
    rest = iter(panels)
    while some := [*islice(rest, _AT_ONCE)]:
        text = base64.b64encode(zlib.compress(json.dumps(some).encode(), 9)).decode()
        room -= len(text) + len('<script type="text/plain" class="pack"></script>')
        if room < 0:
            break
        packs.append(text)
        packed += len(some)
    return packs, packed


def _render(view: Mapping[str, Any]) -> str:
    script = read_file(_SCRIPT)
    policy = (
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
        f"script-src {_digest(script)}"
    )
    files = {"style": read_file("page.css"), "script": script, "policy": policy}
    return render("page.html.jinja", {**view, **files, "at_once": _AT_ONCE})


def _digest(script: str) -> str:
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
