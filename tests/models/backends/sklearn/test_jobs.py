"""Tests of whole jobs of scikit-learn: each score is its own call's, to the bit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

import batchscore as bs
from tests import factory
from tests.models.backends.xgboost.test_jobs import LAUNCHER, require_same, scores
from tests.pipelines import NUMBERS, ROWS, TRAINED, fit, make_frame, of_frames, rows_for

pytestmark = pytest.mark.slow


def job_of(folder: Path, model: Path, rows: Any = None, **changes: Any) -> Path:
    """Writes a job that scores all rows, with texts where training had categories."""
    frame = make_frame() if rows is None else rows
    table = pa.Table.from_pandas(frame.assign(id=np.arange(len(frame))), preserve_index=False)
    (folder / "in").mkdir(exist_ok=True)
    place = table.schema.get_field_index("plan")
    if place >= 0:
        table = table.set_column(place, "plan", table["plan"].cast(pa.string()))
    pq.write_table(table, folder / "in/rows.parquet", row_group_size=500)
    job = {
        "batchscore": 1,
        "name": "pipeline",
        "input": {"path": "in"},
        "model": {"path": str(model)},
        "output": {"path": "out", "columns": ["id"]},
        **changes,
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(job))
    return folder / "job.yaml"


def test_from_a_data_frame_to_a_run(tmp_path: Path) -> None:
    """A pipeline and rows are all that a person brings; scores are those of predict_proba."""
    frame = make_frame()
    model = fit("filled", of_frames()["filled"], frame)
    bs.save_model(tmp_path / "model", model, frame[:TRAINED])
    job = job_of(tmp_path, tmp_path / "model", drift={"on_fail": "warn"})
    done = factory.run_json("run", job)
    assert done["rows"]["scored"] == ROWS
    require_same(scores(tmp_path), model.predict_proba(frame)[:, 1])
    found = {each["column"]: each["failed"] for each in done["column_checks"]}
    assert found == {"city": int((frame["city"] == "Oslo").sum()), "plan": 0}
    assert factory.run_json("run", job)["status"] == "unchanged"


@pytest.mark.parametrize(
    "changes",
    [
        {"batch_rows": 70},
        {"batch_rows": 300, "workers": 3},
        {"model_process": "on", "workers": 1},
    ],
    ids=str,
)
def test_no_way_of_running_changes_a_bit(
    changes: dict[str, Any], tmp_path: Path, pipelines: Path
) -> None:
    """A path alone is enough; small batches, several workers, and a process of the model's own."""
    job = job_of(tmp_path, pipelines / "usual.skops", runtime=changes)
    factory.run_json("run", job)
    found = np.stack([*factory.published(tmp_path / "out")["score"].to_numpy()])
    require_same(found, np.load(pipelines / "scores.npz")["usual"])


def test_what_scikit_learn_refuses_is_rejected_by_name(tmp_path: Path, pipelines: Path) -> None:
    """Unseen texts of a strict encoder, and gaps where it takes none; others have their scores."""
    frame = make_frame()
    frame["code"] = frame["code"].astype("Int64")
    frame.loc[frame.index[3::50], "code"] = None
    job = job_of(tmp_path, pipelines / "strict.skops", frame, rejects={"max_ratio": 1.0})
    done = factory.run_json("run", job)
    is_unseen, is_gap = (frame["city"] == "Oslo").to_numpy(), frame["code"].isna().to_numpy()
    assert done["rejects"]["reasons"] == {
        "preprocess: UnseenCategory: column 'city' has a value that training lacks": int(
            is_unseen.sum()
        ),
        "preprocess: InvalidInput: column 'code' is null": int((is_gap & ~is_unseen).sum()),
    }
    expected = np.load(pipelines / "scores.npz")["strict"]
    require_same(scores(tmp_path), expected[~is_unseen & ~is_gap])


@pytest.mark.parametrize("is_frame", [True, False])
def test_free_texts_reach_vectorizers(is_frame: bool, tmp_path: Path) -> None:
    """Alone or next to numbers, with words that training lacks; nulls are rejected."""
    frame = reviews()
    labels = np.arange(len(frame)) % 2
    known, rows = frame[:200], frame if is_frame else frame["text"]
    model = fitted_on_texts(is_frame).fit(rows[:200], labels[:200])
    bs.save_model(tmp_path / "model", model, known if is_frame else known[["text"]])
    given = frame.copy()
    given.loc[5::50, "text"] = None
    changes: dict[str, Any] = {"rejects": {"max_ratio": 1.0}, "drift": {"on_fail": "warn"}}
    done = factory.run_json("run", job_of(tmp_path, tmp_path / "model", given, **changes))
    is_null = given["text"].isna().to_numpy()
    reasons = {"preprocess: InvalidInput: column 'text' is null": int(is_null.sum())}
    assert done["rejects"]["reasons"] == reasons
    expected = model.predict_proba(rows)[:, 1][~is_null]
    np.testing.assert_allclose(scores(tmp_path), expected, rtol=0, atol=1e-14)


def reviews() -> pd.DataFrame:
    """Returns texts, of words that some rows alone have, and numbers."""
    words = ["good", "bad", "dull", "Größe", "seen", "again"]
    rng = np.random.default_rng(4)
    texts = [" ".join(rng.choice(words, 4)) + f" word{n // 3}" for n in range(300)]
    return pd.DataFrame({"text": pd.Series(texts, dtype=object), "stars": rng.integers(1, 6, 300)})


def fitted_on_texts(is_frame: bool) -> Any:
    """Returns a pipeline that reads texts, alone or next to numbers."""
    from sklearn.compose import make_column_transformer
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    if not is_frame:
        return make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression())
    hashed = HashingVectorizer(n_features=64)
    first = make_column_transformer((hashed, "text"), remainder="passthrough")
    return make_pipeline(first, LogisticRegression())


def test_a_job_of_a_pipeline_imports_no_torch(tmp_path: Path, pipelines: Path) -> None:
    """Neither does it import skops, which only writes files."""
    job = job_of(tmp_path, pipelines / "forest.skops", rows_for("forest", make_frame()))
    guard = LAUNCHER + 'assert "skops" not in sys.modules\nassert "sklearn" in sys.modules\n'
    done = subprocess.run(
        [sys.executable, "-c", guard, str(job)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[4])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"scored {ROWS:,}" in done.stdout


def test_a_file_of_skops_itself_scores_numbers(tmp_path: Path) -> None:
    """skops.io.dump names the columns of a frame, and no types: numbers need none."""
    import skops.io

    frame = make_frame()
    model = fit("ridge", _ridge(), frame)
    skops.io.dump(model, tmp_path / "ridge.skops")
    rows = rows_for("ridge", frame)
    factory.run_json("run", job_of(tmp_path, tmp_path / "ridge.skops", rows[NUMBERS[::-1]]))
    require_same(scores(tmp_path), model.predict(rows))


def _ridge() -> Any:
    from sklearn.linear_model import Ridge

    return Ridge()


def test_a_file_of_skops_itself_with_texts_says_what_to_do(tmp_path: Path) -> None:
    """Such a file does not say what becomes of texts; a sample of training does."""
    import skops.io

    frame = make_frame()
    skops.io.dump(fit("usual", of_frames()["usual"], frame), tmp_path / "usual.skops")
    done = factory.run_cli("check", job_of(tmp_path, tmp_path / "usual.skops"))
    assert done.exit_code == 2
    said = " ".join(done.output.split())
    assert "usual.skops: column 'city' holds categories, and the file does not list them" in said
    assert "bs.save_model" in said


def test_reasons_of_a_linear_model(tmp_path: Path) -> None:
    """Against means of the sample; to the bit in batches of any size and with several workers."""
    frame = make_frame().assign(code=lambda rows: rows["code"].astype(float))
    rows = frame[["age", "visits", "code"]].fillna(0.0)
    model = fitted_on_numbers(rows[:TRAINED], frame["is_new"][:TRAINED])
    bs.save_model(tmp_path / "model", model, rows[:TRAINED])
    made = []
    for name, runtime in (("a", {"batch_rows": 70}), ("b", {"batch_rows": 300, "workers": 3})):
        (tmp_path / name).mkdir()
        changes = {"explain": {"top": 5, "above": 0.5, "columns": [*rows]}, "runtime": runtime}
        facts: dict[str, Any] = {**changes, "drift": {"on_fail": "warn"}}
        factory.run_json("run", job_of(tmp_path / name, tmp_path / "model", rows, **facts))
        made.append(factory.published(tmp_path / name / "out")["reasons"].to_pylist())
    assert made[0] == made[1]
    own = ((rows - rows[:TRAINED].mean()) * (model[-1].coef_[0] / model[0].scale_)).to_numpy()
    is_above = model.predict_proba(rows)[:, 1] > 0.5
    assert [found is not None for found in made[0]] == is_above.tolist()
    for found, row in zip(made[0], own, strict=True):
        order = np.argsort(-np.abs(row))
        if found is not None:
            assert [each["column"] for each in found] == [[*rows][place] for place in order]
            np.testing.assert_allclose([e["contribution"] for e in found], row[order], atol=1e-12)


def fitted_on_numbers(rows: pd.DataFrame, labels: Any) -> Any:
    """Returns a scaled logistic regression."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, labels)


def test_a_file_without_means_says_how_to_save_them(tmp_path: Path) -> None:
    """What skops wrote is scored, and the message's command makes a model that is explained."""
    import skops.io

    rows = make_frame()[["age", "visits"]].fillna(0.0)
    skops.io.dump(fitted_on_numbers(rows, make_frame()["is_new"]), tmp_path / "plain.skops")
    age = {"columns": ["age"]}
    job = job_of(tmp_path, tmp_path / "plain.skops", rows, explain=age)
    done = factory.run_cli("run", job)
    assert done.exit_code == 2
    said = " ".join(done.output.split())
    assert "save it again with rows of its training: batchscore model save FILE -o DIR" in said
    given = ("--sample", tmp_path / "in/rows.parquet")
    done = factory.run_cli("model", "save", tmp_path / "plain.skops", "-o", tmp_path / "m", *given)
    assert done.exit_code == 0, done.output
    done = factory.run_cli("run", job_of(tmp_path, tmp_path / "m", rows, explain=age))
    assert done.exit_code == 0, done.output
