"""Tests of whole jobs of CatBoost: each score is the framework's own, to the bit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import catboost
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchscore as bs
from batchscore.models.backends import tree_calls, tree_saving
from tests import factory
from tests.boosters import COLUMNS, ROWS, TRAINED, for_catboost, make_frame
from tests.models.backends.test_reasons import expected, of_best_class, reasons
from tests.models.backends.xgboost.test_jobs import (
    LAUNCHER,
    job_of,
    own_scores,
    require_same,
    scores,
)

pytestmark = pytest.mark.slow

FILLED = {"colour": {"missing": "none"}}


def filled_job(folder: Path, model: Path, **changes: Any) -> Path:
    """Writes a job whose rows have a text in the place of a null, as training had."""
    job = job_of(folder, model, **changes)
    rows = pq.read_table(folder / "in/rows.parquet")
    colour = pa.array([each or "none" for each in rows["colour"].to_pylist()])
    place = rows.schema.get_field_index("colour")
    pq.write_table(rows.set_column(place, "colour", colour), folder / "in/rows.parquet")
    return job


@pytest.mark.parametrize(
    "name",
    [
        "binary_probability",
        "many_probability",
        "counts_value",
        "ctr_value",
        "early_value",
        "focal_probability",
        "cosh_value",
    ],
)
def test_scores_are_the_frameworks_own(name: str, tmp_path: Path, catboost_models: Path) -> None:
    """A path alone is enough; gaps, infinities and unseen categories score as in CatBoost."""
    job = filled_job(tmp_path, catboost_models / f"{name.partition('_')[0]}.cbm")
    assert factory.run_json("run", job)["rows"]["scored"] == ROWS
    require_same(scores(tmp_path), own_scores(catboost_models, name))
    assert factory.run_json("run", job)["status"] == "unchanged"


def test_a_null_in_a_category_is_rejected_with_its_column(
    tmp_path: Path, catboost_models: Path
) -> None:
    """CatBoost itself takes none; all other rows have their scores."""
    job = job_of(tmp_path, catboost_models / "binary.cbm", rejects={"max_ratio": 0.2})
    done = factory.run_json("run", job)
    known = ~make_frame()["colour"].isna().to_numpy()
    assert done["rows"]["rejected"] == (~known).sum()
    (why,) = done["rejects"]["reasons"]
    assert why == "preprocess: InvalidInput: column 'colour' is null"
    require_same(scores(tmp_path), own_scores(catboost_models, "binary_probability")[known])


def test_a_job_says_what_training_had_in_the_place_of_null(
    tmp_path: Path, catboost_models: Path
) -> None:
    """No row is rejected then; a column that is no category is refused, with the nearest."""
    inputs = {"colour": {"columns": "colour", "type": "text", "missing": "none"}}
    job = job_of(tmp_path, catboost_models / "binary.cbm")
    factory.change_job(tmp_path, {"model.inputs": inputs})
    factory.run_json("run", job)
    require_same(scores(tmp_path), own_scores(catboost_models, "binary_probability"))
    factory.change_job(tmp_path, {"model.inputs.colour.columns": "size"})
    said = " ".join(factory.run_cli("check", job).output.split())
    assert "column 'size', which the model does not take as texts" in said


def test_a_file_without_names_takes_them_from_the_job(
    tmp_path: Path, catboost_models: Path
) -> None:
    """A model that was trained on an array says how many columns it reads."""
    job = job_of(tmp_path, catboost_models / "unnamed.cbm")
    said = " ".join(factory.run_cli("check", job).output.split())
    assert "the file does not name its 2 columns" in said
    factory.change_job(tmp_path, {"model.inputs": {"features": ["size", "count"]}})
    factory.run_json("run", job)
    require_same(scores(tmp_path), own_scores(catboost_models, "unnamed_value"))


def test_a_missing_column_is_named_with_the_nearest(tmp_path: Path, catboost_models: Path) -> None:
    """So is one of another type, before any row is scored."""
    job = filled_job(tmp_path, catboost_models / "binary.cbm")
    rows = pq.read_table(tmp_path / "in/rows.parquet")
    names = [{"colour": "color"}.get(each, each) for each in rows.schema.names]
    pq.write_table(rows.rename_columns(names), tmp_path / "in/rows.parquet")
    said = " ".join(factory.run_cli("check", job).output.split())
    assert "column 'colour' is not in" in said
    assert "nearest: 'color'" in said
    place = rows.schema.get_field_index("code")
    floats = rows.set_column(place, "code", rows["code"].cast(pa.float64()))
    pq.write_table(floats, tmp_path / "in/rows.parquet")
    said = " ".join(factory.run_cli("check", job).output.split())
    assert "column 'code' has type double, expected text or integer for a text feature" in said


@pytest.mark.parametrize("name", ["binary_class", "many_class", "hot_class"])
def test_a_model_in_memory_becomes_a_folder(
    name: str, tmp_path: Path, catboost_models: Path
) -> None:
    """Classes are labels that are whole numbers, or else places among the labels; nulls as said."""
    import catboost

    model = catboost.CatBoost().load_model(str(catboost_models / f"{name.partition('_')[0]}.cbm"))
    rows = for_catboost(make_frame()[:TRAINED])
    saved = bs.save_model(tmp_path / "model", model, rows, call={"returns": "class"}, inputs=FILLED)
    assert saved.outputs == {"score": "int64 []"}
    assert saved.inputs == {"features": "float32 [3]", "colour": "text []", "code": "text []"}
    done = factory.run_json("run", job_of(tmp_path, tmp_path / "model", drift={"on_fail": "warn"}))
    assert done["rows"]["rejected"] == 0
    assert "golden_rows" in {each["name"] for each in done["checks"]}
    require_same(scores(tmp_path), own_scores(catboost_models, name))
    table = pq.read_table(tmp_path / "in/rows.parquet")
    found = {each["column"]: each for each in done["column_checks"]}
    for column in ("colour", "code"):
        known = {*table[column][:TRAINED].to_pylist(), None}
        unseen = [value not in known for value in table[column].to_pylist()]
        assert (found[column]["rows"], found[column]["failed"]) == (ROWS, sum(unseen))
        assert found[column]["examples"][0]["row"] == unseen.index(True)
    (said,) = (each["detail"] for each in done["checks"] if each["name"] == "unseen")
    assert "colour has a category that the model's sample lacks" in said


def test_the_shell_saves_a_file_with_categories(
    tmp_path: Path, catboost_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its loading is tried with texts, too, and an option says what stands for a null."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pq.write_table(pa.Table.from_pandas(make_frame()[:TRAINED]), tmp_path / "rows.parquet")
    paths = (catboost_models / "binary.cbm", "-o", tmp_path / "model")
    words = ("model", "save", *paths, "--sample", tmp_path / "rows.parquet")
    done = factory.run_cli(*words)
    assert done.exit_code == 2
    assert "or --missing colour=nan" in " ".join(done.output.split())
    done = factory.run_cli(*words, "--missing", "colour=none")
    assert done.exit_code == 0, done.output
    factory.run_json("run", job_of(tmp_path, tmp_path / "model", drift={"on_fail": "warn"}))
    require_same(scores(tmp_path), own_scores(catboost_models, "binary_probability"))


def test_categories_of_a_file_alone_are_not_counted(tmp_path: Path, catboost_models: Path) -> None:
    """The check says so, and how they would be."""
    job = filled_job(tmp_path, catboost_models / "binary.cbm")
    said = " ".join(factory.run_cli("check", job).output.split())
    assert "unseen not counted for colour, code, since the model's file does not list" in said
    assert "a folder of bs.save_model, or batchscore model save, has those of its sample" in said


def test_a_column_of_another_type_than_the_samples_is_refused(
    tmp_path: Path, catboost_models: Path
) -> None:
    """Texts are no whole numbers, though CatBoost hashes both alike."""
    path, rows = str(catboost_models / "binary.cbm"), for_catboost(make_frame()[:TRAINED])
    bs.save_model(tmp_path / "model", path, rows, inputs=FILLED)
    job = job_of(tmp_path, tmp_path / "model")
    table = pq.read_table(tmp_path / "in/rows.parquet")
    place = table.schema.get_field_index("code")
    texts = table.set_column(place, "code", table["code"].cast(pa.string()))
    pq.write_table(texts, tmp_path / "in/rows.parquet")
    said = " ".join(factory.run_cli("check", job).output.split())
    assert "column 'code' has type string, expected integer for a text feature" in said


def test_names_of_customers_are_no_categories(
    tmp_path: Path, catboost_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A column of more categories than are recorded is not counted, and the check says so."""
    monkeypatch.setattr(tree_saving, "MOST_CATEGORIES", 3)
    path, rows = str(catboost_models / "binary.cbm"), for_catboost(make_frame()[:TRAINED])
    bs.save_model(tmp_path / "model", path, rows, inputs=FILLED)
    job = job_of(tmp_path, tmp_path / "model")
    said = " ".join(factory.run_cli("check", job).output.split())
    assert "unseen not counted for colour" in said


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rows": "nulls"}, "column 'colour' has a null, and CatBoost takes none as a category"),
        ({"inputs": {"size": {"missing": "x"}}}, "takes no column 'size' as texts"),
        ({"inputs": {"colour": {"type": "x"}}}, "expected no more than the text that training had"),
        ({"call": {"returns": "value"}}, "of objective Logloss returns probability or class"),
        ({"call": {"returns": "raw", "iterations": [0, 99]}}, "and the file has 20 rounds"),
        ({"model": "unfitted"}, "model is not fitted; call its fit before saving it"),
    ],
)
def test_what_does_not_fit_a_model_is_refused(
    given: dict[str, Any], message: str, tmp_path: Path, catboost_models: Path
) -> None:
    """The message says what was expected, and nothing is written."""
    import catboost

    model: Any = catboost.CatBoost().load_model(str(catboost_models / "binary.cbm"))
    if given.pop("model", None):
        model = catboost.CatBoostClassifier()
    rows = make_frame()[:TRAINED] if given.pop("rows", None) else for_catboost(make_frame())
    with pytest.raises(bs.BatchscoreError) as caught:
        bs.save_model(tmp_path / "model", model, rows, **given)
    assert message in str(caught.value)
    assert not (tmp_path / "model").exists()


def test_a_model_of_a_newer_catboost_is_refused_with_both_versions(
    tmp_path: Path, catboost_models: Path
) -> None:
    """An older library may read the file, and score otherwise."""
    import catboost

    content = (catboost_models / "counts.cbm").read_bytes()
    own = catboost.__version__.encode()
    newer = b"9" + own[1:]
    (tmp_path / "newer.cbm").write_bytes(content.replace(own, newer))
    job = filled_job(tmp_path, tmp_path / "newer.cbm")
    said = " ".join(factory.run_cli("check", job).output.split())
    assert f"written by CatBoost {newer.decode()}, and {own.decode()} is installed" in said


def test_a_job_of_catboost_imports_no_torch(tmp_path: Path, catboost_models: Path) -> None:
    """Nor plotting libraries."""
    job = filled_job(tmp_path, catboost_models / "binary.cbm")
    launcher = LAUNCHER + "assert not {'matplotlib', 'plotly'} & {*sys.modules}\n"
    done = subprocess.run(
        [sys.executable, "-c", launcher, str(job)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[4])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_trees_that_catboost_explains_wrongly_are_refused(
    tmp_path: Path, catboost_models: Path
) -> None:
    """Its own contributions of trees that are not symmetric do not come to the raw score."""
    asked = {"columns": COLUMNS, "top": 5}
    done = factory.run_cli("run", job_of(tmp_path, catboost_models / "many.cbm", explain=asked))
    assert done.exit_code == 2
    assert "train with SymmetricTree, or leave explain out" in " ".join(done.output.split())


@pytest.mark.parametrize("name", ["binary", "ctr"])
def test_reasons_are_the_frameworks_own_contributions(
    name: str, tmp_path: Path, catboost_models: Path
) -> None:
    """Of numbers and of texts, whatever the order in which the inputs hold them."""
    asked = {"columns": COLUMNS, "top": 5}
    factory.run_json("run", filled_job(tmp_path, catboost_models / f"{name}.cbm", explain=asked))
    wanted = expected(of_best_class(catboost_models, name), 5)
    for found, own in zip(reasons(tmp_path), wanted, strict=True):
        assert found is not None
        assert dict(found) == pytest.approx(dict(own), abs=1e-9)


def test_rows_are_explained_some_at_a_time(
    tmp_path: Path, catboost_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory does not grow with classes and batch, and each row keeps its own reasons."""
    rows: list[int] = []
    own = catboost.CatBoost.get_feature_importance

    def counted(model: Any, data: Any, **options: Any) -> Any:
        rows.append(data.num_row())
        return own(model, data, **options)

    monkeypatch.setattr(tree_calls, "_PART_NUMBERS", 700 * (len(COLUMNS) + 1))
    monkeypatch.setattr(catboost.CatBoost, "get_feature_importance", counted)
    asked = {"columns": COLUMNS, "top": 5}
    model = catboost_models / "ctr.cbm"
    # Calls are counted, so the model is in this process.
    runtime = {"model_process": "off"}
    factory.run_json("run", filled_job(tmp_path, model, explain=asked, runtime=runtime))
    assert max(rows) == 700
    wanted = expected(of_best_class(catboost_models, "ctr"), 5)
    made = [dict(each or ()) for each in reasons(tmp_path)]
    for found, known in zip(made, wanted, strict=True):
        assert found == pytest.approx(dict(known), abs=1e-9)
