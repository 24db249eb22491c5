"""The page: everything that it shows, the scripts that draw it, and what a browser may do."""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

from batchscore.drift.table import TableProfile
from batchscore.messages.wording import count, one_line
from batchscore.report import formats as figures
from batchscore.report.column_list import Compared, Row, details, findings_of, list_rows
from batchscore.report.formats import VERDICT_SIGNS, embedded_json, measure_words, size
from batchscore.report.outcome import decisions_of, outcome_of, steps_of
from batchscore.report.past import PastRun, column_history, runs_of
from batchscore.runs.manifest_model import Manifest
from batchscore.telemetry import BETWEEN, STAGES

PAGE_BYTES = 1_950_000
LISTED = 2_000
_OPENED = 3
_SCRIPTS = ("plots.js", "page.js")
_USED = "window.vegaEmbed = vegaEmbed;"
_REASONS = 20
_WORST_FIRST = tuple(VERDICT_SIGNS)


@dataclass(frozen=True)
class Drawing:
    """The library that draws the plots, packed, since it is most of the page.

    Args:
        packed: Its script, compressed by deflate, as base64.
        digest: SHA-256 of the script, as a content security policy names it.
    """

    packed: str
    digest: str


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
    bare = _render(view, _data(compared, runs, []))
    columns = (
        details(
            row.name,
            compared,
            current,
            findings.get(row.name, ()),
            column_history(row.name, runs),
        )
        for row in rows[:LISTED]
    )
    kept = _fitting(columns, PAGE_BYTES - len(bare.encode()))
    return _render({**view, "detailed": len(kept)}, _data(compared, runs, kept))


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
        "unlisted": max(len(rows) - LISTED, 0),
        "detailed": len(rows),
        "checks": [each for each in checks if not each.name.startswith("golden")],
        "golden": [each for each in checks if each.name.startswith("golden")],
        "reasons": _reasons(manifest),
        "stages": _stages(manifest),
        "runs": list(reversed(runs)),
        "parametrised": any(run.about != run.started[:10] for run in runs),
        "facts_of_run": _run_facts(manifest) if manifest else [],
        "signs": VERDICT_SIGNS,
        "measures": measure_words(),
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


def _data(
    compared: Sequence[Compared], runs: Sequence[PastRun], columns: Sequence[str]
) -> dict[str, str]:
    """Returns the JSON texts of the page, safe in script elements."""
    facts = {
        "sides": [one_line(each.title, 120) for each in compared],
        "runs": [{"run": each.run, "started": each.started, "about": each.about} for each in runs],
        "signs": dict(VERDICT_SIGNS),
        "measures": measure_words(),
    }
    return {"facts": embedded_json(facts), "columns": f"[{','.join(columns)}]"}


def _fitting(columns: Iterable[Mapping[str, Any]], room: int) -> list[str]:
    """Returns the JSON of the first columns, as many as there is room for in bytes."""
    kept: list[str] = []
    for column in columns:
        text = embedded_json(column)
        room -= len(text) + 1
        if room < 0:
            break
        kept.append(text)
    return kept


def _render(view: Mapping[str, Any], data: Mapping[str, str]) -> str:
    import jinja2

    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    for name in ("figure", "seconds", "moment", "shown_name"):
        environment.filters[name] = getattr(figures, name)
    environment.filters |= {"count": count, "line": one_line}
    script, drawing = "".join(map(_file, _SCRIPTS)), drawing_library()
    policy = (
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
        f"script-src {_digest(script)} {drawing.digest}"
    )
    return environment.from_string(_file("page.html.jinja")).render(
        view, **data, style=_file("page.css"), script=script, drawing=drawing, policy=policy
    )


@lru_cache(maxsize=1)
def drawing_library() -> Drawing:
    """Returns Vega-Lite with all that it needs, as one script."""
    import vl_convert

    # Its names would else be those of the page.
    script = f"(() => {{{vl_convert.javascript_bundle(_USED)}}})();"
    packed = base64.b64encode(zlib.compress(script.encode(), 9)).decode()
    return Drawing(packed, _digest(script))


def _digest(script: str) -> str:
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _file(name: str) -> str:
    return resources.files("batchscore.report").joinpath(name).read_text(encoding="utf-8")
