from __future__ import annotations

import dataclasses
import hashlib
import os
import pickle
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import yaml

from batchscore.errors import ModelError
from batchscore.models.features import Categorical, Features, Numeric, dump_features
from batchscore.models.folder import (
    map_inputs,
    read_model_folder,
    single_file_model,
    write_model_folder,
)
from batchscore.models.inputs import ModelInput
from batchscore.models.loadable import ModelOutput, localize

FEATURES = Features(
    inputs={
        "numeric": (Numeric(column="x", impute=0, mean=0, std=1),),
        "codes": (Categorical(column="c", vocabulary=("a",)),),
    }
)
CARD: dict[str, Any] = {
    "name": "m",
    "version": "1.2",
    "format": "safetensors",
    "weights": "w.safetensors",
    "architecture": "net.py:Net",
    "architecture_args": {"sizes": [3, 4]},
    "preprocessing": "pre.json",
    "inputs": {
        "numeric": {"type": "float32", "shape": [1]},
        "codes": {"type": "int64", "shape": [1]},
    },
    "outputs": {"logit": {"type": "float32", "shape": []}},
    "golden": "golden.parquet",
}
FILES = {
    "w.safetensors": b"weights",
    "net.py": b"class Net: ...\n",
    "pre.json": dump_features(FEATURES).encode(),
    "golden.parquet": b"golden",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_model_folder(str(tmp_path / "model"), CARD, FILES)
    return tmp_path / "model"


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))


@pytest.fixture
def remote(folder: Path) -> Iterator[str]:
    store = fsspec.filesystem("memory")
    store.put(str(folder), "/bucket/model", recursive=True)
    yield "memory://bucket/model"
    store.rm("/bucket", recursive=True)


def change_card(folder: Path, **changes: Any) -> None:
    card = yaml.safe_load((folder / "model.yaml").read_text())
    (folder / "model.yaml").write_text(yaml.safe_dump({**card, **changes}))


def test_a_folder_is_read_as_written(folder: Path) -> None:
    """A written folder comes back with its inputs, columns, hashes and features."""
    model = read_model_folder(str(folder))
    assert (model.name, model.version, model.format) == ("m", "1.2", "safetensors")
    assert model.inputs == (
        ModelInput("numeric", "float32", (1,), ("x",)),
        ModelInput("codes", "int64", (1,), ("c",)),
    )
    assert model.outputs == (ModelOutput("logit", "float32", ()),)
    assert model.sha256 == {k: hashlib.sha256(v).hexdigest() for k, v in sorted(FILES.items())}
    assert model.features == FEATURES
    assert model.golden == "golden.parquet"
    assert localize(model) == folder
    assert pickle.loads(pickle.dumps(model)) == model


def test_writing_is_deterministic_and_readable(folder: Path, tmp_path: Path) -> None:
    """The same content gives the same card, with shapes in one line and a hash a line."""
    write_model_folder(str(tmp_path / "again"), CARD, dict(reversed(FILES.items())))
    text = (folder / "model.yaml").read_text()
    assert (tmp_path / "again/model.yaml").read_text() == text
    assert "shape: [1]" in text
    assert f"\n  net.py: {hashlib.sha256(FILES['net.py']).hexdigest()}\n" in text


def test_a_changed_file_is_refused(folder: Path) -> None:
    """A file whose hash differs is named with both hashes, on reading and again before use."""
    model = read_model_folder(str(folder))
    (folder / "w.safetensors").write_bytes(b"other")
    for use in (lambda: read_model_folder(str(folder)), lambda: localize(model)):
        with pytest.raises(ModelError, match=r"w\.safetensors has SHA-256") as caught:
            use()
        for content in (b"other", b"weights"):
            assert hashlib.sha256(content).hexdigest() in str(caught.value)


def test_missing_and_odd_files_are_refused(folder: Path, tmp_path: Path) -> None:
    """A missing file, a pipe, a missing card and an unknown file system are ModelErrors."""
    (folder / "golden.parquet").unlink()
    with pytest.raises(ModelError, match=r"golden\.parquet is missing"):
        read_model_folder(str(folder))
    os.mkfifo(folder / "golden.parquet")
    with pytest.raises(ModelError, match="expected a file"):
        read_model_folder(str(folder))
    with pytest.raises(ModelError, match=r"has no model\.yaml"):
        read_model_folder(str(tmp_path))
    with pytest.raises(ModelError, match="cannot be opened"):
        read_model_folder("nosuch://bucket/model")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"weights": "../w.safetensors"}, "not a plain file name"),
        ({"weights": "/etc/passwd"}, "not a plain file name"),
        ({"weights": "w.safetensors\n"}, "not a plain file name"),
        ({"golden": "model.yaml"}, "not a plain file name"),
        ({"weights": "unlisted.bin"}, "does not list it"),
        ({"architecture": "other.py:Net"}, "does not list it"),
        ({"architecture": "a/b.py:Net"}, "architecture"),
        ({"architectur": "x"}, "nearest: 'architecture'"),
        ({"inputs": {"x": {"type": "float32", "shap": [1]}}}, "nearest: 'shape'"),
        ({"inputs": {"x": {"type": "float31"}}}, "float32"),
        ({"outputs": {}}, "outputs"),
        ({"batchscore_model": 2}, "batchscore_model"),
        ({"tolerance": float("nan")}, "finite"),
        ({"inputs": {"numeric": {"type": "float32", "shape": [2]}}}, "make them agree"),
        ({"files": {"w.safetensors": "ABC"}}, "files"),
        (
            {"inputs": {"codes": {"type": "int64", "shape": [3], "columns": ["a", "b"]}}},
            r"found 2 columns for shape \[3\]; expected 1 or 3",
        ),
        (
            {"inputs": {"x": {"type": "int64", "columns": ["a"], "types": ["int8", "int8"]}}},
            "expected the type of each of columns",
        ),
        (
            {
                "inputs": {
                    "numeric": {"type": "float32", "shape": [1], "columns": ["x"]},
                    "codes": {"type": "int64", "shape": [1]},
                }
            },
            r"inputs.numeric.columns: pre.json names the columns; leave columns and types out",
        ),
    ],
)
def test_a_wrong_card_is_explained(folder: Path, changes: dict[str, Any], says: str) -> None:
    """What is wrong with a card is named, with the nearest right key."""
    change_card(folder, **changes)
    with pytest.raises(ModelError, match=says):
        read_model_folder(str(folder))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"a: &a [1]\nb: *a\n", "alias"),
        (b"name: a\nversion: '1'\n'name': b\n", "line 3: key 'name' appears twice"),
        (b"inputs: {x: {type: float32, type: int64}}\n", "line 1: key 'type' appears twice"),
        (b"a:\n- files:\n    w: 1\n    w: 2\n", "line 4: key 'w' appears twice"),
        (b"[1, 2]", "keys and values"),
        (b"a: [", "not YAML"),
        (b"\x00", "not YAML"),
        (b"[" * 5000, "not YAML"),
        (b"!!python/object/apply:os.system [x]", "not YAML"),
        (b"a: " + b"x" * (1 << 20), "too large"),
    ],
)
def test_a_hostile_card_is_refused(folder: Path, text: bytes, says: str) -> None:
    """Aliases, duplicate keys, tags, depth, size and broken YAML end as a ModelError."""
    (folder / "model.yaml").write_bytes(text)
    with pytest.raises(ModelError, match=says):
        read_model_folder(str(folder))


@pytest.mark.parametrize(
    ("file", "content", "same"),
    [
        ("golden.parquet", b"new", True),
        ("w.safetensors", b"new", False),
        ("net.py", b"new", False),
        ("pre.json", FILES["pre.json"] + b"\n", False),
    ],
)
def test_identity_follows_what_changes_scores(
    folder: Path, tmp_path: Path, file: str, content: bytes, same: bool
) -> None:
    """The golden rows leave the identity alone; weights, code and preprocessing change it."""
    other = str(tmp_path / "other")
    write_model_folder(other, CARD, {**FILES, file: content})
    first = read_model_folder(str(folder)).identity
    assert (read_model_folder(other).identity == first) is same


def test_identity_follows_version_and_arguments(folder: Path) -> None:
    """A new version or another architecture argument is another model."""
    model = read_model_folder(str(folder))
    others = [
        dataclasses.replace(model, version="2"),
        dataclasses.replace(model, architecture_args={"sizes": [4, 3]}),
    ]
    assert len({each.identity for each in [model, *others]}) == 3


def test_a_remote_folder_is_copied_once_and_repaired(folder: Path, remote: str) -> None:
    """A remote model is verified, copied in one step, reused, and copied again when damaged."""
    model = read_model_folder(remote)
    assert model.folder.startswith("memory://")
    assert model.identity == read_model_folder(str(folder)).identity
    copy = localize(model)
    assert {p.name: p.read_bytes() for p in copy.iterdir()} == FILES
    before = copy.stat().st_ino
    assert localize(model).stat().st_ino == before
    (copy / "net.py").write_bytes(b"damaged")
    assert (localize(model) / "net.py").read_bytes() == FILES["net.py"]
    assert [p.name for p in copy.parent.iterdir()] == [copy.name]
    fsspec.filesystem("memory").pipe("/bucket/model/net.py", b"changed")
    (copy / "net.py").unlink()
    with pytest.raises(ModelError, match="has SHA-256"):
        localize(model)


def test_a_cache_open_to_others_is_refused(remote: str, tmp_path: Path) -> None:
    """A copy is never taken from a folder that somebody else can write to."""
    shared = tmp_path / f"tmp/batchscore-models-{os.getuid()}"
    shared.mkdir()
    shared.chmod(0o777)
    with pytest.raises(ModelError, match="open to others"):
        localize(read_model_folder(remote))


def single(tmp_path: Path, **changes: Any) -> Any:
    (tmp_path / "w.pt").write_bytes(b"weights")
    (tmp_path / "net.py").write_text("class Net: ...\n")
    given: dict[str, Any] = {
        "format": "safetensors",
        "architecture": "net.py:Net",
        "inputs": [ModelInput("features", "float32", (2,), ("a", "b"))],
        "outputs": [ModelOutput("score", "float32", ())],
        "base": str(tmp_path),
    }
    return single_file_model(str(tmp_path / "w.pt"), **{**given, **changes})


def test_a_single_file_is_a_model(tmp_path: Path) -> None:
    """A weights file is named by itself and versioned by its hash; its code decides as well."""
    found = hashlib.sha256(b"weights").hexdigest()
    model = single(tmp_path)
    assert (model.name, model.version) == ("w", found[:12])
    assert localize(model) / model.weights == tmp_path / "w.pt"
    assert single(tmp_path, format="pt", sha256=found).identity != model.identity
    (tmp_path / "net.py").write_text("class Net: pass\n")
    with pytest.raises(ModelError, match=r"net\.py:Net has SHA-256"):
        localize(model)
    found_later = dataclasses.replace(model, code_sha256="0" * 64)
    assert found_later.identity != model.identity


def test_a_single_file_is_pinned(tmp_path: Path) -> None:
    """A .pt needs its hash, and a wrong one is refused for every format."""
    with pytest.raises(ModelError, match="needs its sha256"):
        single(tmp_path, format="pt")
    with pytest.raises(ModelError, match="has SHA-256"):
        single(tmp_path, sha256="0" * 64)


def test_inputs_are_mapped_to_columns(tmp_path: Path, folder: Path) -> None:
    """Columns are taken per input: as many as values, or one list; never with preprocessing."""
    model = single(tmp_path)
    assert map_inputs(model, {"features": ["p", "q"]}).inputs[0].columns == ("p", "q")
    assert map_inputs(model, {"features": ["vector"]}).identity != model.identity
    with pytest.raises(ModelError, match="nearest: 'features'"):
        map_inputs(model, {"feature": ["p"]})
    with pytest.raises(ModelError, match="takes 2 values per row, found 3"):
        map_inputs(model, {"features": ["p", "q", "r"]})
    with pytest.raises(ModelError, match="own preprocessing"):
        map_inputs(read_model_folder(str(folder)), {"numeric": ["x"]})


def test_an_unlisted_use_is_refused_when_writing(tmp_path: Path) -> None:
    """A card that uses a file which is not given writes nothing."""
    with pytest.raises(ModelError, match="does not list it"):
        write_model_folder(str(tmp_path / "m"), {**CARD, "evaluation": "e.json"}, FILES)
    assert not (tmp_path / "m").exists()
