"""Writes the table of measures in drift.md from their declarations."""

from __future__ import annotations

from pathlib import Path

from batchscore.drift.measures.all_measures import MEASURES
from batchscore.drift.measures.declaration import MeasureSpec

PAGE = Path(__file__).with_name("drift.md")
_HEAD = "| measure | of | warn | fail | more than noise when |\n|---|---|---|---|---|\n"


def render() -> str:
    """Return the table: first the measures that are judged, then those that are only shown."""
    specs = sorted(MEASURES.values(), key=lambda each: not each.tested)
    return _HEAD + "\n".join(map(_row, specs)) + "\n"


def _row(spec: MeasureSpec) -> str:
    limits = (spec.defaults.warn, spec.defaults.fail)
    warn, fail = ("" if each is None else f"{each:g}" for each in limits)
    return f"| `{spec.name}` | {spec.samples} | {warn} | {fail} | {spec.noise or 'only shown'} |"


def _write() -> None:
    text = PAGE.read_text(encoding="utf-8")
    before, _, after = text.partition(_HEAD)
    rows = after.split("\n\n", 1)
    PAGE.write_text(f"{before}{render()}\n{rows[1]}", encoding="utf-8")


if __name__ == "__main__":
    _write()
