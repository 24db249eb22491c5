"""Tests of saving models of Keras that lie in memory, in a process that builds them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from tests import factory
from tests.models.backends.keras.test_jobs import CLOSE, job_of, require_close, scores

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[4]
PROGRAM = """
import json, sys
from pathlib import Path
import keras
import numpy as np
import pyarrow.parquet as pq
import batchscore as bs
from batchscore.errors import BatchscoreError
from tests.keras_models import make_rows, write_table

models, folder = map(Path, sys.argv[1:])
write_table(folder / "rows.parquet")
rows = pq.read_table(folder / "rows.parquet").slice(0, 300)
mixed = keras.saving.load_model(models / "mixed.keras")
numbers = {"numbers": [f"n{place}" for place in range(6)]}
for name in ("mixed", "again"):
    bs.save_model(folder / name, mixed, rows, name="mixed", columns=numbers)
lengths = keras.saving.load_model(models / "lengths.keras")
saved = bs.save_model(folder / "lengths", lengths, rows, inputs={"ids": {"max_length": 16}})

# The columns of a frame in the order of training are a single input.
small = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
frame = pq.read_table(folder / "rows.parquet", columns=["n0", "n1", "n2"]).to_pandas()
bs.save_model(folder / "small", small, frame[:50], outputs=["logit"])
np.save(folder / "small.npy", small.predict(frame[:50].to_numpy(), verbose=0))

# A model that `fit` builds has the rows of a batch in its shapes.
built = keras.Sequential([keras.layers.Dense(4), keras.layers.Dense(1, dtype="bfloat16")])
built.compile("adam", "mse")
built.fit(frame[:40].to_numpy(), frame["n0"][:40].to_numpy(), verbose=0)
bs.save_model(folder / "built", built, frame[:50])
np.save(folder / "built.npy", built.predict(frame[:50].to_numpy(), verbose=0).astype("float32"))
# Keras notes of this layer that it is called as in training, and does not call it so.
image = keras.Input((4, 4, 1), name="image")
turned = keras.Model(image, keras.layers.Flatten()(keras.layers.RandomFlip()(image)))
pixels = np.random.default_rng(1).random((20, 16), np.float32)
bs.save_model(folder / "turned", turned, {"image": pixels})


class Mine(keras.layers.Layer):
    def call(self, x):
        return x * 2


def refused(model, **given):
    try:
        bs.save_model(folder / "refused", model, frame[:50], **given)
    except BatchscoreError as error:
        return f"{type(error).__name__}: {error}"


first = keras.Input((3,))
errors = [
    refused(keras.Model(first, Mine()(first))),
    refused(keras.Model(first, keras.layers.Lambda(lambda x: x * 2)(first))),
    refused(keras.Sequential([keras.layers.Dense(1)])),
    refused(small, args={"a": 1}),
    refused(small, columns={"y": ["n0"]}),
    refused(small, outputs=["a", "b"]),
    refused(keras.layers.Dense(1)),
]
print(json.dumps(errors))
"""


@pytest.fixture(scope="module")
def saved(keras_models: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Returns folders that a process saved, and what it could not save."""
    folder = tmp_path_factory.mktemp("saved")
    environment = {**os.environ, "KERAS_BACKEND": "torch", "KERAS_HOME": str(folder / "home")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(keras_models), str(folder)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout.splitlines()[-1])


def test_a_model_becomes_a_folder_that_scores_as_it_does(
    saved: tuple[Path, list[str]], tmp_path: Path, keras_models: Path
) -> None:
    """Card, golden rows and reference come from the model and some rows alone."""
    folder = saved[0] / "mixed"
    card = yaml.safe_load((folder / "model.yaml").read_text())
    assert card["inputs"] == {
        "numbers": {
            "type": "float32",
            "shape": [6],
            "columns": [f"n{place}" for place in range(6)],
            "types": ["float32"] * 6,
        },
        "ids": {
            "type": "int32",
            "shape": [5],
            "columns": ["ids"],
            "types": ["list of int32"],
        },
    }
    assert card["outputs"] == {
        "amount": {"type": "float32", "shape": []},
        "classes": {"type": "float32", "shape": [3]},
    }
    golden = pq.read_table(folder / "golden.parquet")
    assert 200 < golden.num_rows <= 256
    job = job_of(tmp_path, folder, None, drift={"on_fail": "warn"})
    done = factory.run_json("run", job)
    assert "golden_rows" in {each["name"] for each in done["checks"]}
    for place, name in enumerate(("amount", "classes")):
        require_close(scores(tmp_path, name), keras_models, "mixed", place)


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ({"type": "int64", "shape": []}, "is int64 as declared, which cannot hold float32"),
        ({"type": "float32", "shape": [2]}, "has shape [2] as declared, and [1] in model.keras"),
    ],
)
def test_a_card_of_other_outputs_is_refused_before_any_work(
    output: dict[str, Any], words: str, saved: tuple[Path, list[str]], tmp_path: Path
) -> None:
    """Keras itself tells them once it has loaded the model; no batch is scored."""
    shutil.copytree(saved[0] / "mixed", tmp_path / "mixed")
    card = yaml.safe_load((tmp_path / "mixed/model.yaml").read_text())
    card["outputs"]["amount"] = output
    (tmp_path / "mixed/model.yaml").write_text(yaml.safe_dump(card))
    done = factory.run_cli("check", job_of(tmp_path, tmp_path / "mixed"))
    assert done.exit_code == 2
    assert f"output 'amount' {words}" in " ".join(done.output.split())


def test_a_model_that_is_saved_twice_has_the_same_bytes(saved: tuple[Path, list[str]]) -> None:
    """Neither the time nor a place in memory gets into the file."""
    ours, theirs = (saved[0] / name / "model.keras" for name in ("mixed", "again"))
    assert factory.sha256(ours) == factory.sha256(theirs)


def test_rows_of_varying_length_keep_what_the_caller_says(saved: tuple[Path, list[str]]) -> None:
    """The card has the most steps of a row."""
    card = yaml.safe_load((saved[0] / "lengths/model.yaml").read_text())
    assert card["inputs"]["ids"] == {
        "type": "int32",
        "shape": [None],
        "max_length": 16,
        "columns": ["ids"],
        "types": ["list of int32"],
    }


def test_a_frame_of_the_models_width_is_its_input(saved: tuple[Path, list[str]]) -> None:
    """Its golden rows have Keras's own scores of the columns in their order."""
    golden = pq.read_table(saved[0] / "small/golden.parquet")
    own = np.load(saved[0] / "small.npy")[:, 0]
    np.testing.assert_allclose(golden["logit"].to_numpy(), own, rtol=0, atol=CLOSE)


def test_a_model_that_fit_built_scores_any_number_of_rows(saved: tuple[Path, list[str]]) -> None:
    """Its file says how many rows its first batch had. Scores of bfloat16 are floats in a table."""
    golden = pq.read_table(saved[0] / "built/golden.parquet")
    own = np.load(saved[0] / "built.npy")[:, 0]
    np.testing.assert_array_equal(golden["score"].to_numpy(), own)


def test_augmentation_of_images_is_for_training_alone(saved: tuple[Path, list[str]]) -> None:
    """`predict` turns no image, so the scores are the pixels."""
    golden = pq.read_table(saved[0] / "turned/golden.parquet")
    assert golden["image"].to_pylist() == golden["score"].to_pylist()


def test_what_no_file_holds_is_refused(saved: tuple[Path, list[str]]) -> None:
    """Each message says what is wrong, and no folder is left."""
    folder, errors = saved
    expected = [
        "ModelError: its configuration names Mine.Mine in ",
        "ModelError: its configuration names keras.layers.Lambda in ",
        "ModelError: model has no weights yet",
        "ArgumentError: args: means nothing for a model of this kind",
        "InputError: columns: the model has no input 'y'",
        "ModelError: outputs: the model returns dense",
        "ModelError: model is a Dense; expected a Keras model",
    ]
    assert len(errors) == len(expected)
    for found, start in zip(errors, expected, strict=True):
        assert found.startswith(start), found
    assert not (folder / "refused").exists()
