"""Profiles and comparisons as lines of text for people: the verdict first, the worst on top."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from batchscore.cli.render.results import count, duration, profile_table, size, table
from batchscore.drift.findings import VERDICTS
from batchscore.drift.sentences import coarse_reason
from batchscore.finish.drift_gate import aspect_name, summarize
from batchscore.messages.wording import counted, of_count, one_line

if TYPE_CHECKING:
    from batchscore.commands.compare import Comparison
    from batchscore.commands.profile import Profiled
    from batchscore.runs.manifest_model import Manifest

_HEADER = ("column", "verdict", "measure", "value", "noise", "warn", "fail", "about")
_WORST = 20
_NAMED = 12
_ABOUT = 60
_LONGEST = 300
_BAD = ("fail", "warn")


def profiled(found: Profiled, output: str | None, written: int) -> list[str]:
    """Returns what `profile` found: rows, speed, and a line a column."""
    columns, shards = len(found.profile.columns), found.shards
    speed = found.values / found.seconds / 1e6 if found.seconds > 0 else 0.0
    lines = [
        f"PROFILED  {counted(found.profile.rows, 'row')}, {counted(columns, 'column')}, "
        f"{counted(shards, 'file')}, in {duration(found.seconds)}: {speed:,.1f}M values/s",
        "",
        *profile_table(found.profile.summary()),
    ]
    return lines if output is None else [*lines, "", f"wrote {output}   {size(written)}"]


def compared(found: Comparison, every: bool) -> list[str]:
    """Returns what `compare` found; the aspects that warn or fail, or every one."""
    drift = found.drift
    head = (
        f"{drift.verdict.upper()}   {one_line(found.current.title, 120)}   "
        f"against {one_line(found.reference.title, 120)}"
    )
    return [head, *drift_lines(summarize(drift), every)]


def drift_tables(manifest: Manifest) -> list[str]:
    """Returns a run's comparisons as its manifest keeps them; nothing where there are none."""
    lines: list[str] = []
    for each in (manifest.drift or {}).get("comparisons", ()):
        role = "anchor" if each["anchor"] else "reference"
        policy = f"   on_fail {each['on_fail']}" if "on_fail" in each else ""
        title = one_line(each["title"], 120)
        head = f"drift {each['verdict']}   against the {role}, {title}{policy}"
        lines += ["", head, *drift_lines(each, every=False)]
    return lines


def drift_lines(comparison: Mapping[str, Any], every: bool) -> list[str]:
    """Returns a comparison, as `gate.summarize` has it: figures, the worst, and who else is how."""
    judged = [each for each in comparison["aspects"] if each["judged"]]
    others = [each for each in comparison["aspects"] if not each["judged"]]
    listed = judged + others if every else [a for a in judged if a["verdict"] in _BAD]
    shown = listed if every else listed[:_WORST]
    tests = (
        f"{counted(comparison['tests'], 'test')} {of_count(comparison['tests'], 'has', 'share')}"
    )
    return [
        f"rows {count(comparison['reference_rows'])} and {count(comparison['current_rows'])}; "
        f"{tests} alpha {comparison['alpha']:g}",
        *(["", *_table(shown), ""] if shown else []),
        *([f"and {len(listed) - len(shown)} more (--all)"] if len(listed) > len(shown) else []),
        *_named("judged", judged, _BAD if shown else ()),
        *_named("not judged", others, ()),
        *(_names(key, comparison[key]) for key in ("gone", "added") if comparison[key]),
    ]


def _table(aspects: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = table(_HEADER[:-1], (_cells(each) for each in aspects), left=3)
    about = [_HEADER[-1], *map(_about, aspects)]
    width = max(map(len, rows))
    return [f"{row:<{width}}  {why}".rstrip() for row, why in zip(rows, about, strict=True)]


def _cells(aspect: Mapping[str, Any]) -> list[str]:
    worst = _worst(aspect)
    figures = [_figure(worst.get(key)) for key in ("value", "floor", "warn", "fail")]
    verdict = aspect["verdict"] if aspect["judged"] else f"({aspect['verdict']})"
    return [aspect_name(aspect), verdict.replace("_", " "), worst.get("name", "-"), *figures]


def _worst(aspect: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the measure behind the verdict, which is the first; none where a note tells why."""
    measures = aspect["measures"]
    if aspect["verdict"] in _BAD:
        measures = [each for each in measures if each["outcome"] == aspect["verdict"]]
    return next(iter(measures), {})


def _about(aspect: Mapping[str, Any]) -> str:
    why = one_line(_worst(aspect).get("detail") or aspect.get("note", ""), _ABOUT)
    cause = aspect.get("cause", "")
    return "; ".join(filter(None, [why, f"likely {one_line(cause, _ABOUT)}" if cause else ""]))


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _named(what: str, aspects: Sequence[Mapping[str, Any]], others: Sequence[str]) -> Iterator[str]:
    """Yields a line a verdict, from the worst, with the columns that have it."""
    for verdict in reversed(VERDICTS):
        names = [aspect_name(each) for each in aspects if each["verdict"] == verdict]
        if names and verdict not in others:
            how = "" if what == "judged" else f" ({what})"
            yield _names(f"{verdict.replace('_', ' ')}{how}", names)
        if verdict == "insufficient_resolution":
            coarse = [each for each in aspects if each["verdict"] == verdict]
            yield from map(_coarse, coarse[:_NAMED])


def _coarse(aspect: Mapping[str, Any]) -> str:
    """Returns why a measure is known within bounds only, by how much, and what to do."""
    bounded = (m for m in aspect["measures"] if m.get("high", 0) > m.get("low", 0))
    why = next((coarse_reason(m["name"], m["detail"]) for m in bounded if "detail" in m), "")
    return f"  {aspect_name(aspect)}: {one_line(why, _LONGEST)}"


def _names(what: str, names: Sequence[str]) -> str:
    shown = ", ".join(one_line(name, 40) for name in names[:_NAMED])
    more = f" and {count(len(names) - _NAMED)} more" if len(names) > _NAMED else ""
    return f"{count(len(names))} {what}: {shown}{more}"
