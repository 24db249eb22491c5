"""Tests of whole jobs of XGBoost: each score is the framework's own, to the bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from apache_beam.testing.util import assert_that

import batchscore as bs
from batchscore.columnar.arrays import Array
from batchscore.job import load_embedded
from batchscore.models.features import Features, dump_features
from batchscore.models.folder import write_model_folder
from batchscore.models.tree_features import Coded, Plain
from batchscore.score.elementwise import element_spec, plan_elements
from batchscore.score.scorer import scorer_of
from tests import factory
from tests.boosters import CODES, COLOURS, COLUMNS, ROWS, write_table

pytestmark = pytest.mark.slow

LAUNCHER = """
import sys
from batchscore.cli import cli

cli(["run", sys.argv[1]], standalone_mode=False)
assert "torch" not in sys.modules
"""


def job_of(folder: Path, model: Path, sha256: str | None = None, **changes: Any) -> Path:
    """Writes a job that scores all rows with a model of its path alone."""
    write_table(folder / "in/rows.parquet")
    job = {
        "batchscore": 1,
        "name": "trees",
        "input": {"path": "in"},
        "model": {"path": str(model), "sha256": sha256},
        "output": {"path": "out", "columns": ["id"]},
        **changes,
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(job))
    return folder / "job.yaml"


def scores(folder: Path) -> Array:
    """Returns the published scores by the number of their row."""
    return np.array([*factory.published(folder / "out")["score"].to_numpy()])


def own_scores(models: Path, name: str) -> Array:
    return np.asarray(np.load(models / "scores.npz")[name])


def require_same(found: Array, expected: Array) -> None:
    """Compares bits."""
    assert found.dtype == expected.dtype
    assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("ending", ["ubj", "json"])
@pytest.mark.parametrize("name", ["binary_probability", "many_probability", "counts_value"])
def test_scores_are_the_frameworks_own(
    name: str, ending: str, tmp_path: Path, xgboost_models: Path
) -> None:
    """A path alone is enough; nulls, infinities and unseen categories score as in XGBoost."""
    model = xgboost_models / f"{name.partition('_')[0]}.{ending}"
    job = job_of(tmp_path, model)
    assert factory.run_json("run", job)["rows"]["scored"] == ROWS
    require_same(scores(tmp_path), own_scores(xgboost_models, name))
    assert factory.run_json("run", job)["status"] == "unchanged"


def test_unseen_categories_are_counted(tmp_path: Path, xgboost_models: Path) -> None:
    """A check that always passes says how many rows of which column, and shows examples."""
    job = job_of(tmp_path, xgboost_models / "binary.ubj")
    done = factory.run_json("run", job)
    rows = pq.read_table(tmp_path / "in/rows.parquet")
    expected = {
        "colour": int((rows["colour"].to_numpy() == "pink").sum()),
        "code": int((rows["code"].to_numpy() == 4).sum()),
    }
    found = {each["column"]: each["failed"] for each in done["column_checks"]}
    assert found == expected
    said = " ".join(factory.run_cli("show", job).output.split())
    assert (
        "colour has a category that training lacks, which counts as null or as unknown, in "
        f"{found['colour']}"
    ) in said
    assert "'pink' in row" in said


def folder_of(folder: Path, weights: Path, features: Features | None, **card: Any) -> Path:
    """Writes a model folder around a file."""
    width = len(next(iter(features.inputs.values()))) if features else len(COLUMNS)
    facts: dict[str, Any] = {
        "name": "trees",
        "version": "1",
        "format": "xgboost",
        "weights": weights.name,
        "inputs": {"features": {"type": "float32", "shape": [width]}},
        "outputs": {"score": {"type": "float32", "shape": []}},
        **card,
    }
    files = {weights.name: weights.read_bytes()}
    if features:
        facts["preprocessing"] = "preprocessing.json"
        files["preprocessing.json"] = dump_features(features).encode()
    write_model_folder(str(folder), facts, files)
    return folder


@pytest.mark.parametrize(
    ("name", "card"),
    [
        ("binary_raw", {"call": {"returns": "raw"}}),
        (
            "binary_class",
            {
                "call": {"returns": "class"},
                "outputs": {"score": {"type": "int64", "shape": []}},
            },
        ),
    ],
)
def test_a_card_says_what_is_called(
    name: str, card: dict[str, Any], tmp_path: Path, xgboost_models: Path
) -> None:
    """Raw scores and classes are those of the wrapper's own calls."""
    folder_of(tmp_path / "model", xgboost_models / "binary.ubj", None, **card)
    factory.run_json("run", job_of(tmp_path, tmp_path / "model"))
    expected = own_scores(xgboost_models, name)
    require_same(scores(tmp_path), expected.astype(np.int64) if "class" in name else expected)


def test_a_card_may_name_the_columns_and_a_number_for_gaps(
    tmp_path: Path, xgboost_models: Path
) -> None:
    """A model of arrays reads the card's columns; its `missing` is the sentinel of training."""
    plain = [Plain(column=name, missing=-999.0) for name in ("size", "count")]
    features = Features({"features": tuple(plain)})
    folder_of(tmp_path / "model", xgboost_models / "unnamed.ubj", features)
    job = job_of(tmp_path, tmp_path / "model")
    rows = pq.read_table(tmp_path / "in/rows.parquet")
    sizes = rows["size"].fill_null(-999.0)
    place = rows.schema.get_field_index("size")
    pq.write_table(rows.set_column(place, "size", sizes), tmp_path / "in/rows.parquet")
    factory.run_json("run", job)
    require_same(scores(tmp_path), own_scores(xgboost_models, "unnamed_value"))


def test_unseen_categories_can_be_rejected(tmp_path: Path, xgboost_models: Path) -> None:
    """Each row with one is rejected by name and value; nulls and the others have their scores."""
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
    job = job_of(tmp_path, tmp_path / "model", rejects={"max_ratio": 1.0})
    done = factory.run_json("run", job)
    (reason,) = done["rejects"]["reasons"]
    assert reason == "preprocess: UnseenCategory: column 'colour' has a value that training lacks"
    pink = pq.read_table(tmp_path / "in/rows.parquet")["colour"].to_numpy() == "pink"
    assert done["rejects"]["reasons"][reason] == pink.sum() > 0
    require_same(scores(tmp_path), own_scores(xgboost_models, "binary_probability")[~pink])


def _without(rows: pa.Table, name: str) -> pa.Table:
    return rows.drop_columns([name])


def _as(rows: pa.Table, name: str, column: Any) -> pa.Table:
    return rows.set_column(rows.schema.get_field_index(name), name, column)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.rename_columns([*t.schema.names[:-1], "color"]), "nearest: 'color'"),
        (lambda t: _as(t, "size", pa.array(["1"] * ROWS)), "column 'size' has type string"),
        (lambda t: _as(t, "code", t["code"].cast(pa.string())), "column 'code' has type string"),
    ],
)
def test_columns_that_do_not_fit_are_refused(
    change: Any, message: str, tmp_path: Path, xgboost_models: Path
) -> None:
    """A missing column, and one of another type, are named with the nearest, before any row."""
    job = job_of(tmp_path, xgboost_models / "binary.ubj")
    rows = pq.read_table(tmp_path / "in/rows.parquet")
    pq.write_table(change(rows), tmp_path / "in/rows.parquet")
    done = factory.run_cli("run", job)
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())


@pytest.mark.parametrize(
    ("order", "colours", "message"),
    [
        ((1, 0, 2, 3, 4), COLOURS, "feature 0 is column 'colour', and column 'size' in"),
        (
            (0, 1, 2, 3, 4),
            ["green", "blue", "red"],
            "column 'colour' has other categories than binary.ubj: code 0 is 'green', and 'blue'",
        ),
    ],
)
def test_a_card_that_contradicts_its_file_is_refused(
    order: tuple[int, ...], colours: list[str], message: str, tmp_path: Path, xgboost_models: Path
) -> None:
    """Another order, or another category table, is refused by name."""
    members: list[Plain | Coded] = [
        Plain(column="size"),
        Coded(column="colour", vocabulary=tuple(colours)),
        Coded(column="code", vocabulary=tuple(CODES)),
        Plain(column="count"),
        Plain(column="is_new"),
    ]
    features = Features({"features": tuple(members[place] for place in order)})
    folder_of(tmp_path / "model", xgboost_models / "binary.ubj", features)
    done = factory.run_cli("check", job_of(tmp_path, tmp_path / "model"))
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("cut.ubj", None, "no XGBoost model, or damaged: it ends too early"),
        (
            "pickle.ubj",
            b"\x80\x04\x95",
            "is a pickle, and was to be read as xgboost. Loading a pickle runs",
        ),
        (
            "other.json",
            b"tree\nversion=v4",
            "Set model.format: lightgbm, or give it the ending .txt",
        ),
        ("notes.txt", b"hello", "no LightGBM model: it begins with b'hello'"),
        ("gone.ubj", b"", "gone.ubj: no such model file; correct the path"),
        (
            "model.pkl",
            b"\x80\x04\x95",
            "is a pickle, which is not scored. Loading a pickle runs whatever code",
        ),
    ],
)
def test_other_files_are_refused(
    name: str, content: bytes | None, message: str, tmp_path: Path, xgboost_models: Path
) -> None:
    """A cut file, a pickle, and a file under a wrong ending each end in one message."""
    cut = (xgboost_models / "binary.ubj").read_bytes()[:3000]
    if content != b"":
        (tmp_path / name).write_bytes(cut if content is None else content)
    done = factory.run_cli("check", job_of(tmp_path, tmp_path / name))
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())


def test_the_message_about_another_version_names_both(tmp_path: Path, xgboost_models: Path) -> None:
    """A model of a newer XGBoost is refused, with both versions and a remedy."""
    document = json.loads((xgboost_models / "binary.json").read_bytes())
    document["version"] = [99, 1, 0]
    (tmp_path / "new.json").write_text(json.dumps(document))
    done = factory.run_cli("check", job_of(tmp_path, tmp_path / "new.json"))
    assert done.exit_code == 2
    said = " ".join(done.output.split())
    assert "written by XGBoost 99.1.0, and 3." in said
    assert "install xgboost-cpu>=99.1.0" in said


def test_check_says_which_rounds_are_called(tmp_path: Path, xgboost_models: Path) -> None:
    """Training that goes on keeps the best round of before; a file without trees is refused."""
    document = json.loads((xgboost_models / "binary.json").read_bytes())
    rounds = len(document["learner"]["gradient_booster"]["model"]["trees"])
    document["learner"]["attributes"]["best_iteration"] = "2"
    (tmp_path / "more.json").write_text(json.dumps(document))
    said = " ".join(
        factory.run_cli("check", job_of(tmp_path, tmp_path / "more.json")).output.split()
    )
    assert f"call probability of class 1, rounds 0 to 2 of {rounds}" in said
    model = document["learner"]["gradient_booster"]["model"]
    model["gbtree_model_param"]["num_trees"] = "0"
    model |= {"trees": [], "tree_info": [], "iteration_indptr": [0]}
    (tmp_path / "none.json").write_text(json.dumps(document))
    done = factory.run_cli("check", job_of(tmp_path, tmp_path / "none.json"))
    assert done.exit_code == 2
    said = " ".join(done.output.split())
    assert "none.json: the file has no trees; train the model for at least one round" in said


def test_check_prints_the_hash_to_pin(tmp_path: Path, xgboost_models: Path) -> None:
    """What is printed pins the file once it is pasted; another hash is refused."""
    job = job_of(tmp_path, xgboost_models / "binary.ubj")
    said = " ".join(factory.run_cli("check", job).output.split())
    sha256 = factory.sha256(xgboost_models / "binary.ubj")
    assert f"not pinned; to pin it, add to model: sha256: {sha256}" in said
    job_of(tmp_path, xgboost_models / "binary.ubj", sha256)
    assert "SHA-256 as pinned" in factory.run_cli("check", job).output
    job_of(tmp_path, xgboost_models / "binary.ubj", "0" * 64)
    assert factory.run_cli("check", job).exit_code == 2


def test_elements_of_another_pipeline_have_the_same_scores(
    tmp_path: Path, xgboost_models: Path
) -> None:
    """The path of a model's file is a whole job; gaps and unseen categories come as they are."""
    table = write_table(tmp_path / "rows.parquet")
    loaded = load_embedded({"model": xgboost_models / "binary.ubj"})
    planned = plan_elements(loaded, pa.schema([]), table.to_batches()[0], "", 1)
    scorer = scorer_of(element_spec(planned, pa.schema([])))
    batches = table.combine_chunks().to_batches(max_chunksize=1_500)
    found = [each.scored for batch in batches for each in scorer.outcomes(batch)]
    made = pa.Table.from_batches([each for each in found if each is not None])
    assert len(made) == ROWS
    require_same(made["score"].to_numpy(), own_scores(xgboost_models, "binary_probability"))


def test_trees_score_within_a_pipeline_of_their_own(tmp_path: Path, xgboost_models: Path) -> None:
    """bs.Score takes a model of its path alone, and its scores are the framework's own."""
    job = job_of(tmp_path, xgboost_models / "binary.ubj", runtime={"batch_rows": 500})
    table = pq.read_table(tmp_path / "in/rows.parquet")

    def require_own(found: list[pa.RecordBatch]) -> None:
        made = pa.Table.from_batches(found).sort_by("id")["score"].to_numpy()
        require_same(made, own_scores(xgboost_models, "binary_probability"))

    with beam.Pipeline() as pipeline:
        batches = pipeline | beam.Create(table.to_batches(max_chunksize=1000))
        assert_that((batches | bs.Score(job)).scored, require_own)
