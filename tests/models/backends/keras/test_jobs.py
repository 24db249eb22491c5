"""Tests of whole jobs of Keras: its scores within what the docs say, the same bits each time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from batchscore.columnar.arrays import Array
from tests import factory
from tests.keras_models import BATCHES, ROWS, write_table

pytestmark = pytest.mark.slow

FILES = Path(__file__).parent / "files"
NUMBERS = [f"n{place}" for place in range(6)]
# What docs/model-folder.md says of the difference to `predict`.
CLOSE = 1e-5


def job_of(folder: Path, model: Path, inputs: dict[str, Any] | None = None, **changes: Any) -> Path:
    """Writes a job that scores all rows with a model of its path."""
    write_table(folder / "in/rows.parquet")
    job = {
        "batchscore": 1,
        "name": "network",
        "input": {"path": "in"},
        "model": {"path": str(model), **({"inputs": inputs} if inputs else {})},
        "output": {"path": "out", "columns": ["id"]},
        **changes,
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(job))
    return folder / "job.yaml"


def scores(folder: Path, name: str = "score") -> Array:
    """Returns the published scores by the number of their row."""
    return np.array([*factory.published(folder / "out")[name].to_numpy()])


def require_close(found: Array, models: Path, name: str, place: int = 0) -> None:
    """Compares scores with what `predict` makes in batches of several sizes."""
    known = np.load(models / "scores.npz")
    for size in BATCHES:
        own = known[f"{name}-{size}-{place}"]
        own = own[:, 0] if own.shape[-1] == 1 else own
        np.testing.assert_allclose(found[: len(own)], own, rtol=0, atol=CLOSE)


@pytest.mark.parametrize(
    ("file", "inputs", "outputs"),
    [
        ("mixed.h5", {"numbers": NUMBERS}, ("amount", "classes")),
        ("attended.keras", None, ("score",)),
        ("image.keras", None, ("score",)),
        ("lengths.keras", {"ids": {"columns": "ids", "max_length": 16}}, ("score",)),
    ],
)
def test_scores_are_those_of_predict(
    file: str,
    inputs: dict[str, Any] | None,
    outputs: tuple[str, ...],
    tmp_path: Path,
    keras_models: Path,
) -> None:
    """A path and the columns are enough, for every kind of layers and in any size of batches."""
    job = job_of(tmp_path, keras_models / file, inputs)
    assert factory.run_json("run", job)["rows"]["scored"] == ROWS
    for place, name in enumerate(outputs):
        require_close(scores(tmp_path, name), keras_models, file.partition(".")[0], place)
    assert factory.run_json("run", job)["status"] == "unchanged"


def test_no_way_of_running_changes_a_bit(tmp_path: Path, keras_models: Path) -> None:
    """Small batches, several workers, shuffled rows, and a process of the model's own."""
    job = job_of(tmp_path, keras_models / "image.keras")
    factory.run_json("run", job)
    known = scores(tmp_path)
    rows = pq.read_table(tmp_path / "in/rows.parquet")
    shuffled = rows.take(pa.array(np.random.default_rng(2).permutation(ROWS)))
    pq.write_table(shuffled, tmp_path / "in/rows.parquet", row_group_size=500)
    for changes in (
        {"batch_rows": 7},
        {"batch_rows": 300, "workers": 3},
        {"model_process": "on", "workers": 1},
    ):
        text = yaml.safe_load(job.read_text()) | {"runtime": changes}
        job.write_text(yaml.safe_dump(text))
        factory.run_json("run", job, "--rescore")
        assert scores(tmp_path).tobytes() == known.tobytes(), changes


def test_a_model_of_keras_2_has_its_scores(tmp_path: Path) -> None:
    """The run says which versions wrote and computed it."""
    known = np.load(FILES / "keras2.npz")
    count = len(known["ids"])
    ids = pa.FixedSizeListArray.from_arrays(pa.array(known["ids"].ravel()), 5)
    columns = {name: known["numbers"][:, place] for place, name in enumerate(NUMBERS)}
    job = job_of(tmp_path, FILES / "keras2.h5", {"numbers": NUMBERS})
    table = pa.table({"id": np.arange(count), "ids": ids, **columns})
    pq.write_table(table, tmp_path / "in/rows.parquet")
    done = factory.run_json("run", job)
    assert done["inference"]["model file"].startswith(
        "written by Keras 2.15.0, computed by Keras 3"
    )
    np.testing.assert_allclose(scores(tmp_path), known["classes"], rtol=0, atol=CLOSE)


def test_the_users_settings_of_keras_do_not_matter(tmp_path: Path, keras_models: Path) -> None:
    """Nothing of the home folder is read or written, and no variable of Keras has an effect."""
    job = job_of(tmp_path, keras_models / "image.keras")
    home = tmp_path / "home/.keras"
    home.mkdir(parents=True)
    settings = {
        "floatx": "float16",
        "epsilon": 0.5,
        "backend": "tensorflow",
        "image_data_format": "channels_first",
    }
    (home / "keras.json").write_text(json.dumps(settings))
    before = (home / "keras.json").read_bytes()
    cache = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "HOME": str(home.parent)}
    command = [sys.executable, "-m", "batchscore", "run", str(job)]
    subprocess.run(command, env={**os.environ, **cache, "KERAS_BACKEND": "jax"}, check=True)
    require_close(scores(tmp_path), keras_models, "image")
    assert [each.name for each in home.iterdir()] == ["keras.json"]
    assert (home / "keras.json").read_bytes() == before


def _rewritten(source: Path, target: Path, **members: bytes) -> Path:
    """Copies an archive with other members."""
    with zipfile.ZipFile(source) as own, zipfile.ZipFile(target, "w") as made:
        for name in own.namelist():
            made.writestr(name, members.get(name.partition(".")[0], own.read(name)))
    return target


def test_a_newer_keras_is_named(tmp_path: Path, keras_models: Path) -> None:
    """A model of a newer Keras is refused, with both versions and a remedy."""
    said = json.dumps({"keras_version": "3.99.0"}).encode()
    file = _rewritten(keras_models / "image.keras", tmp_path / "new.keras", metadata=said)
    done = factory.run_cli("check", job_of(tmp_path, file))
    assert done.exit_code == 2
    words = " ".join(done.output.split())
    assert "was written by Keras 3.99.0, and 3." in words
    assert "install 'keras>=3.99.0'" in words


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("cut.keras", None, "cut.keras: "),
        ("pickle.keras", b"\x80\x04\x95", "is a pickle, and was to be read as keras"),
        ("other.h5", b"tree\nversion=v4", "is a LightGBM model, and was to be read as keras"),
        ("noise.h5", b"\x01\x02\x03\x04", "noise.h5: no model of Keras: it begins with b'"),
        ("gone.keras", b"", "gone.keras: no such model file; correct the path"),
    ],
)
def test_other_files_are_refused(
    name: str, content: bytes | None, message: str, tmp_path: Path, keras_models: Path
) -> None:
    """A cut file, a pickle, and a file under a wrong ending each end in one message."""
    cut = (keras_models / "image.keras").read_bytes()[:3000]
    if content != b"":
        (tmp_path / name).write_bytes(cut if content is None else content)
    done = factory.run_cli("check", job_of(tmp_path, tmp_path / name))
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())


@pytest.mark.parametrize(
    ("file", "inputs", "message"),
    [
        ("mixed.keras", {"number": NUMBERS}, "has no input 'number'; nearest: 'numbers'"),
        ("mixed.keras", {"numbers": NUMBERS[:5]}, "takes 6 values per row in the file, and 5 val"),
        ("mixed.keras", None, "model.inputs: column 'numbers' is not in shard"),
        ("lengths.keras", None, "give max_length if rows differ in length, or name the columns"),
        ("image.keras", {"pixels": {"columns": "pixels", "max_length": 3}}, "leave max_length out"),
        (
            "mixed.keras",
            {"numbers": {"columns": NUMBERS, "type": "float64"}},
            "takes float32 in the file, and float64 is declared",
        ),
    ],
)
def test_columns_that_do_not_fit_are_refused(
    file: str, inputs: dict[str, Any] | None, message: str, tmp_path: Path, keras_models: Path
) -> None:
    """Names, numbers and types of inputs are those of the file, or the message names one."""
    done = factory.run_cli("check", job_of(tmp_path, keras_models / file, inputs))
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())


def test_sizes_that_are_only_declared_take_no_memory(tmp_path: Path, keras_models: Path) -> None:
    """A layer of a billion units, whose weights are not in the file, ends in one message."""
    model = keras_models / "image.keras"
    with zipfile.ZipFile(model) as archive:
        text = archive.read("config.json").replace(b'"units": 10', b'"units": 1000000000')
    file = _rewritten(model, tmp_path / "huge.keras", config=text)
    done = factory.run_cli("check", job_of(tmp_path, file))
    assert done.exit_code == 2
    words = " ".join(done.output.split())
    assert "huge.keras: Keras 3." in words
    assert "cannot load it" in words
    assert "\x1b" not in words


def test_a_change_of_a_weight_is_another_model(tmp_path: Path, keras_models: Path) -> None:
    """A pinned file that was changed since is not loaded."""
    model = keras_models / "image.keras"
    job = job_of(tmp_path, model)
    text = yaml.safe_load(job.read_text())
    text["model"]["sha256"] = "0" * 64
    job.write_text(yaml.safe_dump(text))
    done = factory.run_cli("check", job)
    assert done.exit_code == 2
    assert factory.sha256(model) in done.output.replace("\n", "")
