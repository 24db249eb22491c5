"""Two tables compared: what either side may be, and what is judged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from batchscore.commands.compare import compare, compare_data
from batchscore.commands.files import write_profile
from batchscore.commands.profile import profile
from batchscore.errors import InputError, InvalidError
from batchscore.runs import layout
from batchscore.runs.profiles import save_profile
from batchscore.runs.publication import Publication
from batchscore.runs.publish import publish
from batchscore.storage.store import Store
from tests.factory import make_rows, write_shard
from tests.manifests import make_manifest

RNG = np.random.default_rng(20261121)


def normal(shift: float, rows: int = 5_000) -> pa.Table:
    """Rows with a column that is shifted and one that is not."""
    return pa.table({"x": RNG.normal(shift, size=rows), "same": RNG.normal(size=rows)})


BEFORE, NOW = normal(0), normal(0.5)


def publish_profile(folder: Path, run: str, table: pa.Table) -> Path:
    """An output with one published run that has the table's profile."""
    store = Store(str(folder))
    layout.claim_output(store)
    save_profile(store, run, profile(table))
    documents = ((layout.run_file(run, "manifest.json"), make_manifest(run=run).document),)
    publish(store, "s", Publication(run, None, (), (), (), (), documents))
    return folder


@pytest.fixture(params=["table", "profile", "profile file", "data", "folder", "output"])
def sides(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, Any]:
    """Both tables in one of the forms that a side may have."""
    made = []
    for name, table in (("before", BEFORE), ("now", NOW)):
        path = tmp_path / name
        if request.param == "output":
            made.append(publish_profile(path, "20261120-aaaa", table))
            continue
        kinds: dict[str, Any] = {
            "table": table,
            "profile": profile(table),
            "profile file": path / "p.parquet",
            "data": write_shard(path / "d.parquet", table),
            "folder": path,
        }
        if request.param == "profile file":
            write_profile(kinds["profile"], path / "p.parquet")
        made.append(kinds[request.param])
    return made[0], made[1]


def test_a_side_may_be_anything_with_a_profile(sides: tuple[Any, Any]) -> None:
    """Whatever stands for the tables, the findings are the same: the shift, and nothing else."""
    found = compare(*sides)
    assert found == compare(BEFORE, NOW)
    assert found.verdict == "fail"
    assert [each.column for each in found.aspects if each.verdict == "fail"] == ["x"]


def test_only_the_columns_asked_for_are_judged() -> None:
    """Columns that are left out neither judge nor count as gone."""
    for before, now in ((BEFORE, NOW), (profile(BEFORE), NOW), (profile(BEFORE), profile(NOW))):
        found = compare(before, now, columns=["same"])
        assert (found.verdict, found.gone, found.added) == ("ok", (), ())
        assert [each.column for each in found.aspects] == ["same"]


def test_a_column_that_one_side_lacks_fails() -> None:
    """A judged column that is gone fails by name, though nothing else was asked for."""
    found = compare(BEFORE, NOW.drop_columns(["x"]), columns=["x"])
    assert found.verdict == "fail"
    assert (found.gone, found.current_rows) == (("x",), 5_000)


def test_data_are_seen_as_the_profile_was() -> None:
    """If the other side is a profile of probabilities, data are profiled as such."""
    rows = pa.table({"p": RNG.random(2_000)})
    known = profile(rows, probabilities=["p"])
    for pair in ((known, rows), (rows, known)):
        found = compare_data(*pair)
        assert found.drift.verdict == "ok"
        assert found.current.profile.columns["p"].kind == "probability"


def test_thresholds_are_those_given() -> None:
    """A measure fails from the effect given on, or never."""
    never = dict.fromkeys(("psi", "ks", "w1", "tail"), (None, None))
    assert compare(BEFORE, NOW, thresholds=never).verdict == "ok"
    strict = compare(BEFORE, NOW, thresholds={**never, "ks": (0.05, 0.1)})
    assert strict.verdict == "fail"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"columns": ["sam"]},
            "column 'sam' is in neither the reference nor the current data; nearest: 'same'",
        ),
        ({"alpha": 2.0}, r"alpha is 2\.0; it must be between 0 and 1"),
        ({"thresholds": {"pso": (0.1, 0.2)}}, "there is no measure 'pso'; nearest: 'psi'"),
        ({"thresholds": {"psi": (0.3, 0.2)}}, "warn must not be above fail"),
    ],
)
def test_wrong_rules_are_reported(options: dict[str, Any], words: str) -> None:
    """Rules that nothing can be judged by are wrong input."""
    with pytest.raises(InvalidError, match=words):
        compare(BEFORE, NOW, **options)


def test_an_output_without_a_published_run_is_reported(tmp_path: Path) -> None:
    """An output that nothing was published to has no profile to compare."""
    layout.claim_output(Store(str(tmp_path)))
    with pytest.raises(InputError, match="no run is published"):
        compare(str(tmp_path), BEFORE)


def test_findings_can_be_written_as_json() -> None:
    """What a comparison says is JSON, with both titles, and 3 for fail."""
    found = json.loads(json.dumps(compare_data(BEFORE, NOW).to_json(), allow_nan=False))
    assert (found["verdict"], found["exit_code"]) == ("fail", 3)
    assert found["reference"] == found["current"] == "Table"
    assert compare_data(make_rows(), make_rows()).exit_code == 0
