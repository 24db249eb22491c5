"""Each change that warns or fails in a sentence: what is, what was, and how much that is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from batchscore.drift.figures import figure
from batchscore.drift.findings import AspectDrift, Measure, TableDrift
from batchscore.drift.table import TableProfile
from batchscore.messages.wording import one_line

Sentences = Mapping[tuple[str, str], str]
"""By column and aspect."""

_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "psi": "PSI",
        "ks": "KS",
        "w1": "Wasserstein distance",
        "js": "Jensen-Shannon distance",
        "hellinger": "Hellinger distance",
        "mmd": "MMD",
        "null_rate": "a difference of",
        "tail": "a difference of",
        "unseen": "an excess of",
        "category": "a difference of",
    }
)
_ARROW = " → "
_SHARES = re.compile(r"(.*): ([^:→]* %) → ([^:→]* %)(?:, [0-9]+ times as often)?", re.DOTALL)


def sentences(
    drift: TableDrift, reference: TableProfile, current: TableProfile, title: str
) -> dict[tuple[str, str], str]:
    """Returns a sentence for each judged aspect that warns or fails.

    Args:
        drift: what the comparison of the two profiles came to.
        reference: the profile that was compared with.
        current: the profile that is judged.
        title: names the reference.
    """
    bad = [each for each in drift.aspects if each.judged and each.verdict in ("warn", "fail")]
    return {
        (each.column, each.aspect): _sentence(each, reference, current, one_line(title, 60))
        for each in bad
    }


def aspect_name(column: str, aspect: str) -> str:
    """Returns what people call an aspect: its column, and the aspect if not the value."""
    name = one_line(column, 40)
    return name if aspect == "value" else f"{name} {aspect}"


def _sentence(
    aspect: AspectDrift, reference: TableProfile, current: TableProfile, title: str
) -> str:
    name = aspect_name(aspect.column, aspect.aspect)
    measure = next((m for m in aspect.measures if m.outcome == aspect.verdict), None)
    if measure is None or measure.value is None:
        return f"{name}: {aspect.note or aspect.verdict}"
    changed = _changed(aspect, measure, reference, current, title)
    return f"{name}: {'; '.join(filter(None, [changed, _size(measure)]))}"


def _size(measure: Measure) -> str:
    """Returns how large a change is next to the threshold that it meets."""
    size = f"{_NAMES.get(measure.name, measure.name)} {measure.value:.3g}"
    limit = measure.fail if measure.outcome == "fail" else measure.warn
    assert measure.value is not None
    if limit is None or measure.value < limit:
        return f"{size}, three times its share or more"
    return f"{size}, {measure.outcome}s from {limit:g}"


def _changed(
    aspect: AspectDrift,
    measure: Measure,
    reference: TableProfile,
    current: TableProfile,
    title: str,
) -> str:
    """Returns what is and what was, in the figure that shows it best."""
    was, _, is_ = measure.detail.partition(_ARROW)
    if measure.name == "null_rate":
        return f"{is_} of the rows are null, {was} were in {title}"
    if measure.name == "tail":
        return f"{is_} of the values lie beyond the tails, {was} did in {title}"
    if measure.name == "unseen":
        found, _, expected = measure.detail.partition(", ")
        return f"{found} of the rows have values that are not in {title} ({expected})"
    if aspect.kind == "categories":
        return _category(aspect, title)
    if aspect.kind != "numbers":
        return ""
    now, before = (
        each.columns[aspect.column].aspects[aspect.aspect] for each in (current, reference)
    )
    return figure({**now.summary(), "n": now.n}, {**before.summary(), "n": before.n}, title)


def _category(aspect: AspectDrift, title: str) -> str:
    """Returns how the value changed whose share changed most."""
    detail = next((m.detail for m in aspect.measures if m.name == "category"), "")
    found = _SHARES.fullmatch(detail)  # a value may hold any character
    if found is None:
        return ""
    value, was, is_ = found.groups()
    return f"{value} is {is_} of the rows, was {was} in {title}"
