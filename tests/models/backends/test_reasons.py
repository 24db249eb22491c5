"""Tests of jobs that explain their scores: contributions are those of the framework's own call."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import apache_beam as beam
import duckdb
import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from apache_beam.testing.util import assert_that

import batchscore as bs
from batchscore.columnar.arrays import Array
from batchscore.models.backends.tree_calls import TreeCall, explained
from batchscore.models.features import Features
from batchscore.models.tree_features import Coded, Plain
from tests import factory
from tests.boosters import CODES, COLOURS, COLUMNS, ROWS, TRAINED, make_frame
from tests.models.backends.xgboost.test_function import function_job
from tests.models.backends.xgboost.test_jobs import folder_of, job_of, own_scores, scores

pytestmark = pytest.mark.slow

ALL = {"columns": COLUMNS, "top": 5}


def models_of(request: pytest.FixtureRequest, framework: str) -> Path:
    found: Path = request.getfixturevalue(f"{framework}_models")
    return found


def file_of(models: Path, name: str) -> Path:
    return next(each for each in models.glob(f"{name}.*") if each.suffix in (".ubj", ".txt"))


def reasons(folder: Path) -> list[list[tuple[str, float]] | None]:
    """Returns the published reasons, by the number of their row."""
    found = factory.published(folder / "out")["reasons"].to_pylist()
    return [r if r is None else [(e["column"], e["contribution"]) for e in r] for r in found]


def expected(found_nc: Array, top: int, names: Iterable[str] = COLUMNS) -> list[Any]:
    """Ranks contributions in plain Python."""
    made = []
    for row in found_nc.astype(np.float64).tolist():
        known = [(n, v) for n, v in zip(COLUMNS, row, strict=False) if n in names and v]
        made.append(sorted(known, key=lambda each: -abs(each[1]))[:top])
    return made


def of_best_class(models: Path, name: str) -> Array:
    """Returns the contributions (n, c) to the class with the largest raw score."""
    found_nge = own_scores(models, f"{name}_contributions")
    best_n = found_nge.astype(np.float64).sum(axis=2).argmax(axis=1)
    return np.asarray(found_nge[np.arange(len(best_n)), best_n])


@pytest.mark.parametrize("framework", ["xgboost", "lightgbm"])
@pytest.mark.parametrize("name", ["binary", "many", "counts"])
def test_reasons_are_the_frameworks_own_contributions(
    framework: str, name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """To the bit, of the best class where there are several; rows below the bound have null."""
    models = models_of(request, framework)
    job = job_of(tmp_path, file_of(models, name), explain={**ALL, "top": 3, "above": 0.8})
    assert factory.run_json("run", job)["rows"]["scored"] == ROWS
    most_n = np.array([np.max(each) for each in scores(tmp_path)])
    wanted = expected(of_best_class(models, name), 3)
    assert 0 < (most_n > 0.8).sum() < ROWS
    assert reasons(tmp_path) == [
        row if most > 0.8 else None for row, most in zip(wanted, most_n, strict=True)
    ]
    assert factory.run_json("run", job)["status"] == "unchanged"


@pytest.mark.parametrize("framework", ["xgboost", "lightgbm"])
@pytest.mark.parametrize(
    "runtime", [{"batch_rows": 7}, {"batch_rows": 700, "workers": 3, "model_process": "on"}]
)
def test_no_way_of_running_changes_a_reason(
    framework: str, runtime: dict[str, Any], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Batches, workers and a process of the model's own."""
    models = models_of(request, framework)
    job = job_of(tmp_path, file_of(models, "binary"), explain=ALL, runtime=runtime)
    rows = pq.read_table(tmp_path / "in/rows.parquet").slice(0, 1_500)
    pq.write_table(rows, tmp_path / "in/rows.parquet", row_group_size=400)
    factory.run_json("run", job)
    assert reasons(tmp_path) == expected(of_best_class(models, "binary"), 5)[:1_500]


def _shapley(trees: list[Any], row: list[float]) -> list[float]:
    """Returns Shapley values of a row by their definition, over all sets of its columns."""
    places = range(len(row))
    value = {
        known: sum(_expectation(tree, 0, row, known) for tree in trees)
        for size in range(len(row) + 1)
        for known in combinations(places, size)
    }
    weight = [
        math.factorial(s) * math.factorial(len(row) - s - 1) / math.factorial(len(row))
        for s in places
    ]
    return [
        sum(
            weight[len(known)] * (value[tuple(sorted((*known, place)))] - value[known])
            for known in value
            if place not in known
        )
        for place in places
    ]


def _expectation(tree: Any, node: int, row: list[float], known: tuple[int, ...]) -> float:
    """Returns what a tree makes of the known numbers, averaged by training rows over the others."""
    left, right = tree["left_children"][node], tree["right_children"][node]
    if left == -1:
        return float(tree["split_conditions"][node])
    column = tree["split_indices"][node]
    if column in known:
        chosen = left if _goes_left(tree, node, row[column]) else right
        return _expectation(tree, chosen, row, known)
    shares = [tree["sum_hessian"][each] for each in (left, right)]
    sides = [_expectation(tree, each, row, known) for each in (left, right)]
    return float(np.dot(shares, sides) / sum(shares))


def _goes_left(tree: Any, node: int, value: float) -> bool:
    if math.isnan(value):
        return bool(tree["default_left"][node])
    if node not in tree["categories_nodes"]:
        return value < float(tree["split_conditions"][node])
    place = tree["categories_nodes"].index(node)
    start, size = tree["categories_segments"][place], tree["categories_sizes"][place]
    return value not in tree["categories"][start : start + size]


def test_reasons_are_shapley_values_by_their_definition(
    tmp_path: Path, xgboost_models: Path
) -> None:
    """Those of a handful of rows, over all 32 sets of columns and all trees of the file."""
    job = job_of(tmp_path, xgboost_models / "counts.ubj", explain=ALL)
    factory.run_json("run", job)
    learner = json.loads((xgboost_models / "counts.json").read_bytes())["learner"]
    trees = learner["gradient_booster"]["model"]["trees"]
    table, found = pq.read_table(tmp_path / "in/rows.parquet"), reasons(tmp_path)
    for place in (0, 7, 11, 77, 4_000, 4_005):
        values = {name: table[name][place].as_py() for name in COLUMNS}
        coded = {
            **values,
            "colour": _place(COLOURS, values["colour"]),
            "code": _place(CODES, values["code"]),
        }
        row = [math.nan if coded[n] is None else np.float32(coded[n]) for n in COLUMNS]
        known = dict(zip(COLUMNS, _shapley(trees, [float(each) for each in row]), strict=True))
        made = found[place]
        assert made is not None
        np.testing.assert_allclose([v for _, v in made], [known[n] for n, _ in made], atol=2e-6)


def _place(values: list[Any], value: Any) -> float:
    return float(values.index(value)) if value in values else math.nan


def _folder(models: Path, folder: Path, **call: Any) -> Path:
    return folder_of(folder, models / "binary.ubj", None, call=call)


def test_reasons_are_of_what_the_card_calls(tmp_path: Path, xgboost_models: Path) -> None:
    """Of the other class they have the other sign, and of some rounds they add up to these."""
    job = job_of(
        tmp_path,
        _folder(xgboost_models, tmp_path / "model", returns="probability", positive=0),
        explain=ALL,
    )
    factory.run_json("run", job)
    assert reasons(tmp_path) == expected(-of_best_class(xgboost_models, "binary"), 5)
    rounds = _folder(xgboost_models, tmp_path / "m2", returns="raw", iterations=[2, 5])
    factory.run_json("run", job_of(tmp_path / "j2", rounds, explain=ALL))
    sums = np.array([sum(v for _, v in row or ()) for row in reasons(tmp_path / "j2")])
    bases = scores(tmp_path / "j2") - sums
    np.testing.assert_allclose(bases, bases[0], atol=1e-5)


@pytest.mark.parametrize(
    ("columns", "explain", "named"),
    [
        (["id", "size", "count"], {}, ["size", "count"]),
        (None, {}, COLUMNS),
        (["id"], {"columns": ["colour"]}, ["colour"]),
    ],
)
def test_reasons_name_only_what_the_job_publishes_or_lists(
    columns: list[str] | None,
    explain: dict[str, Any],
    named: list[str],
    tmp_path: Path,
    xgboost_models: Path,
) -> None:
    """A column that is left out of the output appears in no reason."""
    output = {"path": "out", **({} if columns is None else {"columns": columns})}
    job = job_of(
        tmp_path, xgboost_models / "binary.ubj", explain={"top": 5, **explain}, output=output
    )
    factory.run_json("run", job)
    assert reasons(tmp_path) == expected(of_best_class(xgboost_models, "binary"), 5, named)


def test_reasons_follow_a_function_and_rejected_rows(tmp_path: Path, xgboost_models: Path) -> None:
    """Columns that a function makes are named by the model's names, and each row has its own."""
    features = Features(
        {
            "features": (
                Plain(column="size"),
                Coded(column="colour", vocabulary=tuple(COLOURS), unseen="reject"),
                Coded(column="code", vocabulary=tuple(CODES)),
                Plain(column="count"),
                Plain(column="is_new"),
            )
        }
    )
    folder_of(tmp_path / "model", xgboost_models / "binary.ubj", features)
    facts: dict[str, Any] = {"explain": ALL, "rejects": {"max_ratio": 1.0}}
    factory.run_json("run", function_job(tmp_path, tmp_path / "model", "arrow", **facts))
    pink = pq.read_table(tmp_path / "in/rows.parquet")["paint"].to_numpy() == "pink"
    wanted = of_best_class(xgboost_models, "binary")[~pink]
    assert reasons(tmp_path) == expected(wanted, 5)


def test_drift_of_reasons_is_not_asked_for(tmp_path: Path, xgboost_models: Path) -> None:
    """A model's reference has no reasons, and a run does not name them as left out."""
    bs.save_model(tmp_path / "model", xgboost_models / "binary.ubj", sample=make_frame()[:TRAINED])
    job = job_of(tmp_path, tmp_path / "model", explain=ALL, drift={"on_fail": "warn"})
    factory.run_json("run", job)
    (comparison,) = factory.run_json("show", job)["drift"]["comparisons"]
    assert comparison["unjudged"] == {}
    assert {each["column"] for each in comparison["aspects"] if each["judged"]} > {"score"}


def test_a_change_of_reasons_is_held(tmp_path: Path, xgboost_models: Path) -> None:
    """More of them, none of them, and new ones: until a person lets every row be scored again."""
    model = xgboost_models / "binary.ubj"
    job = job_of(tmp_path, model, explain=ALL)
    factory.run_json("run", job)
    again = ("--set", "on_change.explain=rescore")
    for change, why in (
        ("explain.top=2", "explain top 5 to top 2"),
        ("explain=null", "explain top 2 to off"),
        ("explain={columns: [size]}", "explain off to top 3"),
    ):
        done = factory.run_cli("run", job, "--set", change)
        assert done.exit_code == 3
        said = " ".join(done.output.split())
        assert f"on_change.explain: {why}, so every row would be scored again" in said
        assert "to allow it once: --set on_change.explain=rescore" in said
        done = factory.run_cli("run", job, "--set", change, *again)
        assert done.exit_code == 0, done.output
    assert factory.published(tmp_path / "out").schema.names == [
        "id",
        "score",
        "reasons",
        "model_version",
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"explain": {}}, "output.columns has none that the model reads (size, colour, code"),
        ({"explain": {"columns": ["sizes"]}}, "no column 'sizes'; nearest: 'size'"),
        ({"explain": {"top": 0}}, "explain.top"),
        ({"explain": {"about": 0.8}}, "unknown key; nearest: 'above'"),
        ({"explain": {**ALL, "above": 0.5, "score": "scor"}}, "named 'scor'; nearest: 'score'"),
        (
            {"explain": {**ALL, "above": 0.5}, "postprocess": [{"threshold": {"at": 0.5}}]},
            None,
        ),
    ],
)
def test_what_cannot_be_explained_is_refused_before_any_work(
    changes: dict[str, Any], message: str | None, tmp_path: Path, xgboost_models: Path
) -> None:
    """One message says what to write instead; a score next to its class needs no name."""
    done = factory.run_cli("check", job_of(tmp_path, xgboost_models / "binary.ubj", **changes))
    said = " ".join(done.output.split())
    assert done.exit_code == (0 if message is None else 2), said
    assert message is None or message in said


def test_scores_of_a_function_are_looked_for_before_any_work(
    tmp_path: Path, xgboost_models: Path
) -> None:
    """A sample shows what a function calls its scores, and which of them hold numbers."""
    (tmp_path / "f.py").write_text(
        "import pyarrow as pa\n\n\ndef two(batch):\n"
        "    return pa.record_batch({'p': batch['score'], 'q': batch['score']})\n"
    )
    job = job_of(
        tmp_path,
        xgboost_models / "binary.ubj",
        explain={**ALL, "above": 0.8},
        postprocess=[{"function": "f.py:two"}],
    )
    done = factory.run_cli("run", job)
    assert done.exit_code == 2
    said = " ".join(done.output.split())
    assert "the scores that hold numbers are p, q; name the one" in said
    done = factory.run_cli("run", job, "--set", "explain.score=q")
    assert done.exit_code == 0, done.output


def test_new_shards_are_explained_as_the_others(tmp_path: Path, lightgbm_models: Path) -> None:
    """A slice that grows keeps its reasons, and its new rows get theirs."""
    job = job_of(tmp_path, lightgbm_models / "binary.txt", explain=ALL)
    rows = pq.read_table(tmp_path / "in/rows.parquet")
    pq.write_table(rows.slice(0, 5_000), tmp_path / "in/rows.parquet")
    factory.run_json("run", job)
    pq.write_table(rows.slice(5_000), tmp_path / "in/late.parquet")
    done = factory.run_json("run", job)
    assert (done["status"], done["rows"]["reused"]) == ("published", 5_000)
    assert reasons(tmp_path) == expected(of_best_class(lightgbm_models, "binary"), 5)


def test_a_network_is_not_explained(tmp_path: Path) -> None:
    """The message says which models are, and what to leave out."""
    done = factory.run_cli("check", factory.write_job(tmp_path, {"explain": {"top": 3}}))
    assert done.exit_code == 2
    said = " ".join(done.output.split())
    assert "explain: models of format 'safetensors' do not tell what each column" in said
    assert "leave explain out" in said


def test_an_input_column_of_that_name_is_refused(tmp_path: Path, xgboost_models: Path) -> None:
    """Nothing is overwritten."""
    job = job_of(tmp_path, xgboost_models / "binary.ubj", explain=ALL, output={"path": "out"})
    rows = pq.read_table(tmp_path / "in/rows.parquet")
    rows = rows.append_column("reasons", rows["id"])
    pq.write_table(rows, tmp_path / "in/rows.parquet")
    done = factory.run_cli("check", job)
    assert done.exit_code == 2
    assert "named 'reasons', and so is a column of the input" in " ".join(done.output.split())


def test_contributions_that_do_not_add_up_fail_the_run(
    tmp_path: Path, lightgbm_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is published, and the message names the row."""
    from batchscore.models.backends.lightgbm import predictor

    def wrong(found: Array, raw: Array, call: TreeCall) -> dict[str, Array]:
        return {**explained(found, raw, call), "raw": raw[:, 0] + 0.001}

    monkeypatch.setattr(predictor, "explained", wrong)
    job = job_of(tmp_path, lightgbm_models / "binary.txt", explain=ALL)
    done = factory.run_cli("run", job)
    assert done.exit_code == 1
    assert "explain: row 0 of shard" in " ".join(done.output.split())
    assert not (tmp_path / "out/data").exists()


def test_other_programs_read_reasons(tmp_path: Path, lightgbm_models: Path) -> None:
    """DuckDB, Polars and `trace` have the same column and number for a row."""
    job = job_of(tmp_path, lightgbm_models / "binary.txt", explain={**ALL, "above": 0.8})
    factory.run_json("run", job)
    files = str(tmp_path / "out/data/*.parquet")
    place = next(n for n, row in enumerate(reasons(tmp_path)) if row)
    (column, number), *_ = reasons(tmp_path)[place] or []
    query = f"select reasons[1].column, reasons[1].contribution from '{files}' where id = {place}"
    with duckdb.connect() as connection:
        assert connection.execute(query).fetchall() == [(column, number)]
    row = pl.read_parquet(files).filter(pl.col("id") == place)["reasons"][0][0]
    assert row == {"column": column, "contribution": number}
    said = factory.run_cli("trace", tmp_path / "out", f"id={place}").output
    assert f"reasons={column} {number:+.4g}, " in said
    assert factory.run_cli("verify", tmp_path / "out").exit_code == 0
    assert "explain   top 5, above 0.8" in factory.run_cli("show", tmp_path / "out").output


def test_reasons_come_in_other_pipelines(tmp_path: Path, xgboost_models: Path) -> None:
    """Of batches and of dictionaries, those of a run."""
    job = job_of(tmp_path, xgboost_models / "binary.ubj", explain={**ALL, "above": 0.8})
    factory.run_json("run", job)
    table = pq.read_table(tmp_path / "in/rows.parquet").slice(0, 300)
    wanted = reasons(tmp_path)[:300]

    def require_own(found: list[Any], batched: bool = True) -> None:
        rows = [row for each in found for row in (each.to_pylist() if batched else [each])]
        made = [row["reasons"] for row in sorted(rows, key=lambda row: row["id"])]
        assert [m and [(e["column"], e["contribution"]) for e in m] for m in made] == wanted

    with beam.Pipeline() as pipeline:
        batches = pipeline | "Batches" >> beam.Create(table.to_batches(max_chunksize=100))
        assert_that((batches | bs.Score(job)).scored, require_own, "batches")
        rows = pipeline | "Rows" >> beam.Create(table.to_pylist()).with_output_types(dict[str, Any])
        made = rows | "Rows scored" >> bs.Score(job, schema=table.schema)
        assert_that(made.scored, partial(require_own, batched=False), "rows")
