"""The panel of a column as HTML: its distributions, distances, statistics and history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from batchscore.messages.wording import count
from batchscore.report.drawing import histogram
from batchscore.report.formats import percent
from batchscore.report.plot_rows import Plot, PlotRow, bars_of, description, notes, sides_of
from batchscore.report.run_charts import Chart
from batchscore.report.templates import render


def panel(
    name: str, column: Mapping[str, Any], titles: Sequence[str], charts: Sequence[Chart]
) -> str:
    """Returns the panel of a column.

    Args:
        name: The column's name, as its row has it.
        column: What `column_list.details` returns.
        titles: The titles of the comparisons.
        charts: Its charts over runs.
    """
    view = {"name": name, "column": column, "titles": list(titles), "charts": charts}
    functions = {
        "bars_of": bars_of,
        "description": description,
        "histogram": histogram,
        "largest": _largest,
        "notes": notes,
        "row_lines": _row_lines,
        "sides_of": sides_of,
        "value_lines": _value_lines,
    }
    return render("panel.html.jinja", {**view, **functions})


def _largest(bars: Sequence[PlotRow]) -> float:
    """Returns the largest share of any bar, which is drawn across the whole plot."""
    return max((share for bar in bars for share in bar.shares.values()), default=0.0) or 1.0


def _value_lines(plot: Plot) -> list[list[str]]:
    return [[bar.label, *bar.figures] for bar in bars_of(plot)]


def _row_lines(column: Mapping[str, Any]) -> list[list[str]]:
    """Returns the lines of rows and nulls, of the current side and of each reference."""
    rows = [("none", "none") if each is None else _rows(*each) for each in column["rows"]]
    return [["rows", *(each[0] for each in rows)], ["nulls", *(each[1] for each in rows)]]


def _rows(number: int, missing: int) -> tuple[str, str]:
    share = f"{count(missing)}, {percent(missing / number)}" if missing else "0"
    return count(number), share
