"""Drift as lines for a terminal: the verdict first, the worst on top, no line broken."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from batchscore.cli.render.drift import compared, drift_tables, profiled
from batchscore.commands.compare import compare_data
from batchscore.commands.profile import profile_data
from batchscore.finish.drift_gate import summarize
from tests.manifests import make_manifest

RNG = np.random.default_rng(20261121)
HOSTILE = "\x1b[2Jname\nof <script> \u202e" + "long " * 2_000


def tables(columns: int = 1, shift: float = 1.0) -> tuple[pa.Table, pa.Table]:
    """Rows of so many columns that moved, and one that did not."""
    first, second = (
        pa.table(
            {f"x{i:02}": RNG.normal(by, size=2_000) for i in range(columns)}
            | {"same": RNG.normal(size=2_000)}
        )
        for by in (0.0, shift)
    )
    return first, second


def test_the_verdict_is_first_and_the_worst_on_top() -> None:
    """A comparison begins with its verdict, tells the worst measure of each, and who is ok."""
    lines = compared(compare_data(*tables()), every=False)
    assert lines[0] == "FAIL   Table   against Table"
    assert lines[1].startswith("rows 2,000 and 2,000; ")
    header, worst = lines[3].split(), lines[4].split()
    assert header == ["column", "verdict", "measure", "value", "noise", "warn", "fail", "about"]
    assert worst[:2] == ["x00", "fail"]
    assert float(worst[3]) > float(worst[6]) > float(worst[5])
    assert lines[-1] == "1 ok: same"


def test_only_the_worst_are_shown_unless_asked() -> None:
    """Of many only some are listed, the others counted; `--all` lists every one."""
    found = compare_data(*tables(40))
    short, long = (compared(found, every=each) for each in (False, True))
    assert sum(line.startswith("x") for line in short) == 20
    assert "and 20 more (--all)" in short
    assert sum(line.startswith(("x", "same")) for line in long) == 41
    assert not any("--all" in line for line in long)


def test_columns_that_came_and_went_are_named() -> None:
    """A column that is gone fails, with the reason; one that was added is named."""
    before, now = tables(shift=0)
    found = compare_data(before, now.rename_columns(["y", "same"]))
    text = "\n".join(compared(found, every=False))
    assert "current data lack this column" in text
    assert "1 gone: x00" in text
    assert "1 added: y" in text


def test_hostile_names_stay_on_their_line() -> None:
    """A name of 10 kB with control characters is one short piece of one line."""
    before, now = (table.rename_columns([HOSTILE, "same"]) for table in tables())
    found = compare_data(before, now)
    made = [*compared(found, every=True), *profiled(profile_data(before, None), "p", 1)]
    assert all(line.isprintable() and len(line) < 250 for line in made)
    assert any("name" in line for line in made)


def test_a_runs_comparisons_are_reported_each() -> None:
    """`show` has a table for the reference and one for the anchor, where there are any."""
    facts: dict[str, Any] = summarize(compare_data(*tables()).drift)
    heads = ({"title": "run 1", "anchor": False}, {"title": "model m 1", "anchor": True})
    manifest = make_manifest(drift={"comparisons": [{**head, **facts} for head in heads]})
    lines = drift_tables(manifest)
    assert "drift fail   against the reference, run 1" in lines
    assert "drift fail   against the anchor, model m 1" in lines
    assert sum(line.startswith("x00") for line in lines) == 2
    nothing = make_manifest(drift={"verdict": None, "comparisons": []})
    assert drift_tables(nothing) == drift_tables(make_manifest()) == []


def test_a_profile_says_what_it_read() -> None:
    """A profile begins with rows, columns, files and speed, and has a line a column."""
    lines = profiled(profile_data(tables()[0], None), "out.parquet", 12_345)
    assert lines[0].startswith("PROFILED  2,000 rows, 2 columns, 0 files, in ")
    assert [line.split()[0] for line in lines[2:5]] == ["column", "same", "x00"]
    assert lines[-1] == "wrote out.parquet   12.3 kB"
