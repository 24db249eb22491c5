"""Each change that warns or fails in a sentence: what is, what was, and how much that is."""

from __future__ import annotations

from collections.abc import Mapping

from batchscore.drift.figures import figure
from batchscore.drift.findings import AspectDrift, Measure, TableDrift
from batchscore.drift.measures.all_measures import MEASURES
from batchscore.drift.table import TableProfile
from batchscore.drift.verdict import is_unresolved
from batchscore.messages.wording import one_line

_SAID = ("warn", "fail", "insufficient_resolution")

Sentences = Mapping[tuple[str, str], str]
"""By column and aspect."""


def sentences(
    drift: TableDrift, reference: TableProfile, current: TableProfile, title: str
) -> dict[tuple[str, str], str]:
    """Returns a sentence for each judged aspect that warns, fails or is known too coarsely.

    Args:
        drift: The result of comparing the two profiles.
        reference: The profile that was compared with.
        current: The profile that is judged.
        title: Names the reference.
    """
    said = changes(drift, reference, current, title)
    return {key: f"{aspect_name(*key)}: {change}" for key, change in said.items()}


def changes(
    drift: TableDrift, reference: TableProfile, current: TableProfile, title: str
) -> dict[tuple[str, str], str]:
    """Returns the sentences without the names of the aspects; see `sentences`."""
    bad = [each for each in drift.aspects if each.judged and each.verdict in _SAID]
    return {
        (each.column, each.aspect): _with_cause(
            _change(each, reference, current, one_line(title, 60)), each.cause
        )
        for each in bad
    }


def _with_cause(change: str, cause: str) -> str:
    return f"{change}; likely cause: {cause}" if cause else change


def aspect_name(column: str, aspect: str) -> str:
    """Returns what people call an aspect: its column, and the aspect if not the value."""
    name = one_line(column, 40)
    return name if aspect == "value" else f"{name} {aspect}"


def _change(aspect: AspectDrift, reference: TableProfile, current: TableProfile, title: str) -> str:
    if aspect.verdict == "insufficient_resolution":
        coarse = next(filter(is_unresolved, aspect.measures))
        return coarse_reason(coarse.name, coarse.detail)
    measure = next((m for m in aspect.measures if m.outcome == aspect.verdict), None)
    if measure is None or measure.value is None:
        return aspect.note or aspect.verdict
    changed = _changed(aspect, measure, reference, current, title)
    return "; ".join(filter(None, [changed, _size(measure)]))


def coarse_reason(name: str, detail: str) -> str:
    """Returns why a measure is known too coarsely to judge, by how much, and what to do."""
    remedy = MEASURES[name].remedy if name in MEASURES else ""
    silence = f"give the column `{name}: null`"
    return f"{name} is {detail}; {f'{remedy}, or {silence}' if remedy else silence}"


def _size(measure: Measure) -> str:
    """Returns how large a change is next to the threshold that it meets."""
    spec = MEASURES[measure.name]
    size = f"{spec.words or spec.name} {measure.value:.3g}"
    limit = measure.fail if measure.outcome == "fail" else measure.warn
    assert measure.value is not None
    if limit is None or measure.value < limit:
        return f"{size}, {spec.below(measure.shares)}" if spec.below and measure.shares else size
    return f"{size}, {measure.outcome}s from {limit:g}"


def _changed(
    aspect: AspectDrift,
    measure: Measure,
    reference: TableProfile,
    current: TableProfile,
    title: str,
) -> str:
    """Returns what is and what was, in the figure that shows it best."""
    said = _of_shares(measure, title)
    if said or aspect.kind != "numbers" or _is_rate(aspect):
        # PSI of categories has no figure of its own: the value that changed most shows it best.
        return said or next(filter(None, (_of_shares(m, title) for m in _of_values(aspect))), "")
    now, before = (
        each.columns[aspect.column].aspects[aspect.aspect] for each in (current, reference)
    )
    return figure({**now.summary(), "n": now.n}, {**before.summary(), "n": before.n}, title)


def _is_rate(aspect: AspectDrift) -> bool:
    """Returns whether an aspect's numbers were compared as categories."""
    return any(MEASURES[each.name].kinds == ("categories",) for each in aspect.measures)


def _of_values(aspect: AspectDrift) -> list[Measure]:
    return [each for each in aspect.measures if each.shares and each.shares.value]


def _of_shares(measure: Measure, title: str) -> str:
    """Returns what a measure says of its shares; empty if it compares no shares."""
    changed = MEASURES[measure.name].changed
    return changed(measure.shares, title) if changed and measure.shares else ""
