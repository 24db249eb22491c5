"""Tests of jobs whose model takes texts: from the table to each process that scores."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchscore as bs
from batchscore.errors import ModelError
from batchscore.models.features import Feature, dump_features
from batchscore.models.folder import read_model_folder, write_model_folder
from batchscore.models.text_features import Verbatim
from batchscore.models.tree_features import Plain
from tests import factory
from tests.backends import installed

pytestmark = pytest.mark.slow

WEIGHTS = {letter: letter / 8 for letter in range(256)}
ROWS = 400


@pytest.fixture
def letters_format(tmp_path_factory: pytest.TempPathFactory, monkeypatch: Any) -> Path:
    """Installs the backend whose models take texts."""
    points = {"letters": "tests.backends.letters:BACKEND"}
    folder = installed.install(tmp_path_factory.mktemp("site"), **points)
    monkeypatch.syspath_prepend(str(folder))
    return folder


def texts(rows: int = ROWS) -> list[str | None]:
    """A text for each row, with letters beyond ASCII, and none for each seventh row."""
    return [None if n % 7 == 3 else f"{'aüz'[n % 3] * (n % 5)}{n % 50}" for n in range(rows)]


def scores(given: list[str | None]) -> list[float]:
    """The scores of the rows that have a text."""
    found = enumerate(given)
    return [sum(each / 8 for each in text.encode()) + n for n, text in found if text is not None]


def job_of(folder: Path, missing: str | None = None, features: bool = True) -> Path:
    """Writes a job of texts in a dictionary, a plain column and one of views."""
    folder.mkdir()
    factory.write_job(folder, {"model.inputs": None, "postprocess": []})
    filled = {"missing": missing} if missing else {}
    card: dict[str, Any] = {
        "name": "letters",
        "version": "1",
        "format": "letters",
        "weights": "letters.json",
        "inputs": {
            "letters": {"type": "text", "shape": [], **({} if features else filled)},
            "number": {"type": "float64", "shape": [1] if features else []},
        },
        "outputs": {"score": {"type": "float64", "shape": []}},
        "golden": "golden.parquet",
    }
    sink = pa.BufferOutputStream()
    column = {"word": ["ab", "ü"], "id": [0, 1]}
    if not features:
        column = {"letters": ["ab", "ü"], "number": [0.0, 1.0]}
    known = scores(["ab", "ü"])
    pq.write_table(pa.table({**column, "score": known}), sink)
    files = {"letters.json": json.dumps(WEIGHTS).encode(), "golden.parquet": bytes(sink.getvalue())}
    if features:
        members: dict[str, tuple[Feature, ...]] = {
            "letters": (Verbatim(column="word", missing=missing),),
            "number": (Plain(column="id", type="float64"),),
        }
        files["preprocessing.json"] = dump_features(bs.Features(members)).encode()
        card["preprocessing"] = "preprocessing.json"
    write_model_folder(str(folder / "letters"), card, files)
    for name in os.listdir(folder / "in"):
        (folder / "in" / name).unlink()
    for start in range(0, ROWS, 100):
        given = pa.array(texts()[start : start + 100])
        given = given.dictionary_encode() if start == 100 else given
        given = given.cast(pa.large_string()) if start == 200 else given
        rows = pa.table({"id": np.arange(start, start + 100), "word": given})
        pq.write_table(rows, folder / f"in/{start}.parquet")
    changes: dict[str, Any] = {"model": {"path": "letters"}, "output.columns": ["id", "word"]}
    if not features:
        changes["model.inputs"] = {"letters": "word", "number": "id"}
    return factory.change_job(folder, {**changes, "rejects": {"max_ratio": 1.0}})


@pytest.mark.parametrize("features", [True, False])
def test_texts_reach_the_model_as_they_are(
    features: bool, letters_format: Path, tmp_path: Path
) -> None:
    """By a folder's features, or by the job's inputs; a row without a text is rejected."""
    job = job_of(tmp_path / "job", features=features)
    done = factory.run_json("run", job, "--set", "runtime.batch_rows=64")
    assert done["status"] == "published", done
    (why,) = done["rejects"]["reasons"]
    assert why == "preprocess: InvalidInput: column 'word' is null"
    found = factory.published(tmp_path / "job/out")
    assert found["score"].to_pylist() == scores(texts())
    assert factory.run_json("run", job)["status"] == "unchanged"


@pytest.mark.parametrize("features", [True, False])
def test_a_missing_text_becomes_that_of_training(
    features: bool, letters_format: Path, tmp_path: Path
) -> None:
    """No row is rejected where a feature, or the card, says what training had in its place."""
    job = job_of(tmp_path / "job", missing="nan", features=features)
    assert factory.run_json("run", job)["rows"]["rejected"] == 0
    found = factory.published(tmp_path / "job/out")
    assert found["score"].to_pylist() == scores(["nan" if t is None else t for t in texts()])


@pytest.mark.parametrize("workers", [1, 3])
def test_texts_reach_each_worker(workers: int, letters_format: Path, tmp_path: Path) -> None:
    """Workers, and a process of the model's own, get the same texts."""
    job = job_of(tmp_path / "job")
    path = os.pathsep.join([str(letters_format), str(Path(__file__).parents[3])])
    options = ["--set", f"runtime.workers={workers}", "--set", "runtime.batch_rows=32"]
    done = subprocess.run(
        [sys.executable, "-m", "batchscore", "run", str(job), *options],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = factory.published(tmp_path / "job/out")
    assert found["score"].to_pylist() == scores(texts())


def test_a_fraction_is_no_text(letters_format: Path, tmp_path: Path) -> None:
    """A column of floats has several spellings; the message names it before any work."""
    job = job_of(tmp_path / "job")
    for path in (tmp_path / "job/in").iterdir():
        rows = pa.table({"id": np.arange(3), "word": [0.5, 1.5, 2.0]})
        pq.write_table(rows, path)
    done = factory.run_cli("check", job)
    assert done.exit_code == 2
    reported = " ".join(done.output.split())
    assert "column 'word' has type double, expected text or integer for a text feature" in reported


def test_a_format_of_numbers_refuses_texts(tmp_path: Path) -> None:
    """A card of a network cannot declare a text."""
    folder = factory.write_model(tmp_path / "model", inputs={"x": {"type": "text", "shape": []}})
    with pytest.raises(ModelError, match="input 'x' is a text, and models of format 'safetensors'"):
        read_model_folder(str(folder))
