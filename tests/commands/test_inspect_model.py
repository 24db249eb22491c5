"""`batchscore model inspect`: what it says of files of all kinds, and that it runs none of them."""

from __future__ import annotations

import io
import json
import pickle
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
import yaml

from batchscore.commands.inspect_model import inspect_model
from tests import boosters, factory


def said_of(path: Path, *more: str) -> str:
    """Returns what the command prints of a model, on one line."""
    done = factory.run_cli("model", "inspect", path, *more)
    assert done.exit_code == 0, done.output
    return " ".join(done.output.split())


def refusal_of(path: Path | str) -> str:
    """Returns the one message that the command ends with."""
    done = factory.run_cli("model", "inspect", path)
    assert done.exit_code == 2, done.output
    assert "Traceback" not in done.output
    assert done.output.count("INVALID") == 1
    return " ".join(done.output.split())


def test_a_model_of_trees_is_shown_with_its_columns(xgboost_models: Path) -> None:
    """Columns are those of training, in order, with the categories of the file."""
    found = inspect_model(str(xgboost_models / "binary.ubj"))
    assert [each.name for each in found.columns] == boosters.COLUMNS
    known = {each.name: each.categories for each in found.columns if each.categories}
    assert known == {"colour": tuple(boosters.COLOURS), "code": tuple(boosters.CODES)}
    assert found.facts.counts["trees"] > 1
    assert found.missing == ()
    text = said_of(xgboost_models / "binary.ubj")
    assert "colour category 3 categories: 'blue', 'green', 'red'" in text
    assert "none: scoring runs no code of the file" in text


def test_the_section_is_ready_to_paste(xgboost_models: Path, tmp_path: Path) -> None:
    """A job with the printed section passes the check, and its hash is the file's own."""
    lines = factory.run_cli("model", "inspect", xgboost_models / "counts.ubj").output
    section = yaml.safe_load(lines.partition("In the job file:")[2])
    boosters.write_table(tmp_path / "rows" / "a.parquet")
    job = {"name": "j", "input": {"path": "rows"}, "output": {"path": "out"}, **section}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    done = factory.run_cli("check", tmp_path / "job.yaml")
    assert done.exit_code == 0, done.output
    assert "as pinned" in done.output


def test_a_file_without_names_says_what_is_missing(xgboost_models: Path) -> None:
    """A model that was trained on an array needs model.inputs, in the order of training."""
    text = said_of(xgboost_models / "unnamed.ubj")
    assert "missing the file does not name its 2 columns" in text
    assert "inputs: features: [COLUMN, COLUMN]" in text


def test_json_holds_all_categories_and_hashes(lightgbm_models: Path) -> None:
    """What a program reads is complete, and has the file's SHA-256."""
    done = factory.run_cli("model", "inspect", lightgbm_models / "many.txt", "--json")
    found = json.loads(done.output)
    assert found["format"] == "lightgbm"
    assert found["files"][0]["sha256"] == factory.sha256(lightgbm_models / "many.txt")
    assert found["outputs"] == [{"name": "score", "type": "float64", "shape": [3]}]
    assert [each["name"] for each in found["columns"]] == boosters.COLUMNS
    assert found["job"]["model"]["sha256"] == found["files"][0]["sha256"]


def test_a_model_folder_is_shown_with_its_files(tmp_path: Path) -> None:
    """A folder says its inputs, weights, and the code that a job runs."""
    text = said_of(factory.write_model(tmp_path / "model"))
    assert "3 parameters; 2 tensors" in text
    assert "net.py:Net builds the network" in text
    assert "weights.safetensors" in text


def test_weights_alone_say_that_code_is_missing(tmp_path: Path) -> None:
    """Weights are counted; what builds the network is missing, and shown as a place to fill."""
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file(factory.STATE, path)
    text = said_of(path)
    assert "3 parameters; 2 tensors" in text
    assert "missing model.architecture" in text
    assert "architecture: net.py:Net" in text


def test_a_file_under_another_ending_is_shown_with_its_format(
    xgboost_models: Path, tmp_path: Path
) -> None:
    """The content decides; the section sets the format that the ending does not say."""
    content = (xgboost_models / "binary.ubj").read_bytes()
    (tmp_path / "model.bin").write_bytes(content)
    assert "format: xgboost" in said_of(tmp_path / "model.bin")
    (tmp_path / "model.txt").write_bytes(content)
    assert "format: xgboost" in said_of(tmp_path / "model.txt")


def test_a_remote_file_is_shown_as_a_local_one(xgboost_models: Path) -> None:
    """Any fsspec address will do."""
    content = (xgboost_models / "binary.ubj").read_bytes()
    fsspec.filesystem("memory").pipe_file("/inspected/model.ubj", content)
    found = inspect_model("memory://inspected/model.ubj")
    assert [each.name for each in found.columns] == boosters.COLUMNS
    assert found.job["path"] == "memory://inspected/model.ubj"


def test_no_framework_is_imported(xgboost_models: Path, tmp_path: Path) -> None:
    """Inspecting trees and weights imports neither their framework nor torch."""
    safetensors.torch.save_file(factory.STATE, tmp_path / "w.safetensors")
    program = (
        "import sys\nfrom batchscore.commands.inspect_model import inspect_model\n"
        f"for path in {[str(xgboost_models / 'binary.ubj'), str(tmp_path / 'w.safetensors')]!r}:\n"
        "    inspect_model(path)\n"
        "print(sorted({'torch', 'xgboost', 'lightgbm', 'sklearn'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


class _Harm:
    """An object whose unpickling writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def _scripted(path: Path) -> None:
    network = torch.nn.Linear(2, 1).eval()
    torch.jit.trace(network, torch.zeros(1, 2)).save(str(path))


def _zip_bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("notes.txt", bytes(200_000_000))


def _compressed_weights(path: Path) -> None:
    torch.save(factory.STATE, path)
    with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content + bytes(1_000_000))


SKLEARN = b"\x80\x02csklearn.linear_model\nLogisticRegression\nq\x00."
HOSTILE: dict[str, tuple[str, Callable[[Path], Any], tuple[str, ...]]] = {
    "a pickle of sklearn": (
        "model.pkl",
        lambda p: p.write_bytes(SKLEARN),
        ("is a pickle of objects of sklearn", "Loading a pickle runs whatever code is in it"),
    ),
    "a pickle of XGBoost": (
        "model.pkl",
        lambda p: p.write_bytes(SKLEARN.replace(b"sklearn.linear_model", b"xgboost.sklearn")),
        ("is a pickle of objects of xgboost", "model.save_model('model.ubj')"),
    ),
    "a pickle as .ubj": (
        "model.ubj",
        lambda p: p.write_bytes(SKLEARN),
        ("is a pickle of objects of sklearn", "Loading a pickle runs"),
    ),
    "a pickle of protocol 0 as .txt": (
        "model.txt",
        lambda p: p.write_bytes(pickle.dumps(_Harm(p.with_name("harm")), 0)),
        ("is a pickle of objects of", "Loading a pickle runs"),
    ),
    "joblib, plain": (
        "model.joblib",
        lambda p: p.write_bytes(b"\x80\x02cjoblib.numpy_pickle\nA\ncsklearn.svm\nSVC\nq\x00."),
        ("is a pickle of objects of sklearn", "bs.save_model"),
    ),
    "joblib": (
        "model.joblib",
        lambda p: p.write_bytes(zlib.compress(SKLEARN)),
        ("compressed with zlib, as joblib writes", "bs.save_model"),
    ),
    "TorchScript": (
        "model.pt",
        _scripted,
        ("is a TorchScript archive, which holds code", "Loading it runs its code"),
    ),
    "a zip bomb": ("model.zip", _zip_bomb, ("is a zip archive that torch.save did not write",)),
    "compressed weights": ("w.pt", _compressed_weights, ("is compressed, from",)),
    "an index of gigabytes": (
        "w.safetensors",
        lambda p: p.write_bytes((5 << 30).to_bytes(8, "little") + b'{"a":'),
        ("declares an index of more than 100 MB", "damaged, or made to do harm"),
    ),
    "cut weights": (
        "w.safetensors",
        lambda p: p.write_bytes(safetensors.torch.save(factory.STATE)[:-3]),
        ("the file was cut off",),
    ),
    "an index of nonsense": (
        "w.safetensors",
        lambda p: p.write_bytes((9).to_bytes(8, "little") + b'{"a": 1} '),
        ("their index cannot be read",),
    ),
    "an empty file": ("model.ubj", lambda p: p.write_bytes(b""), ("the file is empty",)),
    "noise": (
        "model.bin",
        lambda p: p.write_bytes(bytes(range(200, 256)) * 9),
        ("is no model of a known kind; it begins with b'", "a model folder"),
    ),
    "a table": (
        "rows.parquet",
        lambda p: pq.write_table(pa.table({"a": [1]}), p),
        ("is a Parquet file", "batchscore init PARQUET MODEL"),
    ),
    "cut trees": (
        "model.json",
        lambda p: p.write_bytes(b'{"learner": {"attributes": {'),
        ("no XGBoost model, or damaged",),
    ),
    "another JSON": (
        "model.json",
        lambda p: p.write_bytes(b'{"class_name": "Sequential"}'),
        ("no XGBoost model, or damaged",),
    ),
    "a text": ("notes.txt", lambda p: p.write_bytes(b"hello"), ("no LightGBM model",)),
    "a file of MLflow": (
        "mlflow/model.pkl",
        lambda p: p.write_bytes(SKLEARN),
        ("is a pickle of objects of sklearn",),
    ),
}


@pytest.mark.parametrize(("name", "write", "says"), HOSTILE.values(), ids=HOSTILE)
def test_other_files_are_one_message(
    tmp_path: Path, name: str, write: Callable[[Path], Any], says: tuple[str, ...]
) -> None:
    """The message names the file, says what it is and what to do, and nothing of it is run."""
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    write(path)
    message = refusal_of(path)
    assert path.name in message
    assert [words for words in says if words not in message] == []
    job = factory.write_job(tmp_path / "job", {"model": str(path)})
    for words in (
        ("check", job),
        ("model", "save", path, "-o", tmp_path / "saved", "--sample", tmp_path / "job"),
        ("init", tmp_path / "job", path, "-o", tmp_path / "made"),
    ):
        done = factory.run_cli(*words)
        assert done.exit_code == 2, done.output
        assert done.output.count("INVALID") == 1
        assert path.name in done.output
    assert not any((tmp_path / name).exists() for name in ("harm", "saved", "made"))


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["MLmodel", "model.pkl"], "is a model of MLflow"),
        (["saved_model.pb"], "is a SavedModel of TensorFlow"),
        (["config.json", "model.safetensors"], "is a model of Hugging Face"),
        (["churn.ubj"], "name the file in it: churn.ubj"),
        (["notes.md"], "has no model.yaml; expected a model folder"),
    ],
)
def test_other_folders_are_named(tmp_path: Path, names: list[str], says: str) -> None:
    """A folder of another tool is named, with what to give in its place; `check` says it too."""
    for name in names:
        (tmp_path / "model").mkdir(exist_ok=True)
        (tmp_path / "model" / name).write_bytes(b"x")
    assert says in refusal_of(tmp_path / "model")
    job = factory.write_job(tmp_path / "job", {"model": str(tmp_path / "model")})
    done = factory.run_cli("check", job)
    assert done.exit_code == 2
    assert says in " ".join(done.output.split())


def test_addresses_that_lead_nowhere(tmp_path: Path) -> None:
    """A path that is not there, and an address with a secret, are each one message."""
    assert "no such file or folder; correct the path" in refusal_of(tmp_path / "gone.ubj")
    assert "may hold a credential" in refusal_of("s3://key:secret@bucket/model.ubj")
    assert "secret@" not in refusal_of("s3://key:secret@bucket/model.ubj")


def test_a_changed_file_of_a_folder_is_refused(tmp_path: Path) -> None:
    """A file whose SHA-256 is not the card's is named with both."""
    folder = factory.write_model(tmp_path / "model")
    (folder / "net.py").write_text("import os")
    assert "net.py has SHA-256" in refusal_of(folder)


def test_a_missing_package_is_named(xgboost_models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the framework all is shown, and what to install."""
    import batchscore.models.backends.tree_files as files

    monkeypatch.setattr(files, "find_spec", lambda name: None)
    text = said_of(xgboost_models / "binary.ubj")
    assert "missing models of format 'xgboost' need the package xgboost" in text
    assert "pip install 'batchscore[xgboost]'" in text
    assert "colour category" in text


def test_an_older_package_is_named(xgboost_models: Path, tmp_path: Path) -> None:
    """A model of a newer framework than the installed one is said to be missing that one."""
    document = json.loads((xgboost_models / "binary.json").read_bytes())
    document["version"] = [99, 1, 0]
    (tmp_path / "new.json").write_text(json.dumps(document))
    text = said_of(tmp_path / "new.json")
    assert "xgboost 99.1.0 wrote the model" in text
    assert "install a newer xgboost" in text
