"""Test that a job's model section becomes a verified model, and its inputs the schema's columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pytest

from batchscore.columnar.ragged import Varying
from batchscore.errors import InputError, JobFileError, ModelError
from batchscore.job import Job, load_job
from batchscore.models.features import Features, Numeric, dump_features
from batchscore.models.folder import write_model_folder
from batchscore.models.inputs import ModelInput
from batchscore.models.loadable import Model
from batchscore.plan.columns import read_schema
from batchscore.plan.footers import Footer, read_footers
from batchscore.plan.listing import find_shards
from batchscore.plan.model import model_inputs, resolve_model
from batchscore.stages.preprocess import InputColumns
from tests.factory import NET, sha256, write_job, write_model, write_weights

FILE = {
    "model.path": "w.safetensors",
    "model.format": "safetensors",
    "model.architecture": "net.py:Net",
}


def _job(folder: Path, changes: dict[str, Any] | None = None) -> Job:
    """Writes a job with a weights file of each format; its hash is pinned where none is given."""
    (folder / "net.py").write_text(NET)
    hashes = {name: write_weights(folder / name) for name in ("w.safetensors", "w.pt")}
    given = dict(changes or {})
    if "model.format" in given:
        given.setdefault("model.sha256", hashes.get(given["model.path"], "0" * 64))
    return load_job(str(write_job(folder, given))).job


def _model(folder: Path, changes: dict[str, Any] | None = None) -> Model:
    return resolve_model(_job(folder, changes).model, str(folder))


def test_a_folder_is_resolved_with_the_jobs_columns(tmp_path: Path) -> None:
    """The card gives name, version and type; the job which columns an input comes from."""
    model = _model(tmp_path)
    assert (model.name, model.version, model.format) == ("small", "1.0", "safetensors")
    assert [(i.name, i.dtype, i.shape, i.columns) for i in model.inputs] == [
        ("x", "float32", (2,), ("a", "b"))
    ]


def test_a_weights_file_is_described_by_the_job(tmp_path: Path) -> None:
    """A file with format, architecture and inputs is a model; its version starts its hash."""
    columns = {"x": {"columns": ["a", "b"], "type": "float64"}, "y": "id", "z": ["id"]}
    model = _model(tmp_path, {**FILE, "model.inputs": columns})
    found = sha256(tmp_path / "w.safetensors")
    assert (model.version, dict(model.sha256)) == (found[:12], {"w.safetensors": found})
    assert [(i.name, i.dtype, i.shape, i.columns) for i in model.inputs] == [
        ("x", "float64", (2,), ("a", "b")),
        ("y", "float32", (), ("id",)),
        ("z", "float32", (1,), ("id",)),
    ]


def test_a_weights_files_inputs_may_vary_in_length(tmp_path: Path) -> None:
    """The job says the longest, the pad and whether longer rows are cut off."""
    ids = {"columns": "t", "type": "int64", "max_length": 9, "pad": 1, "truncate": True}
    mask = {"columns": ["m"], "max_length": 9, "truncate": True}
    model = _model(tmp_path, {**FILE, "model.inputs": {"ids": ids, "mask": mask}})
    assert model.inputs == (
        ModelInput("ids", "int64", (), ("t",), Varying(9, 1, True)),
        ModelInput("mask", "float32", (), ("m",), Varying(9, 0, True)),
    )


@pytest.mark.parametrize("given", [{"pad": 1}, {"truncate": True}], ids=str)
def test_a_pad_without_a_longest_is_refused(tmp_path: Path, given: dict[str, Any]) -> None:
    """What does nothing to rows of one length is an error of the job file."""
    inputs = {"ids": {"columns": "t", **given}}
    with pytest.raises(JobFileError, match="rows of varying length; add max_length"):
        _model(tmp_path, {**FILE, "model.inputs": inputs})


LONG = {"columns": "t", "max_length": 9}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model.path": "none"}, "no such model folder"),
        ({"model.inputs": {"x": LONG}}, "inputs.x: sets more than its columns"),
        ({**FILE, "model.inputs": {"x": {**LONG, "columns": ["a", "b"]}}}, "found 2 columns"),
        ({**FILE, "model.inputs": {"x": {**LONG, "type": "int32", "pad": 0.5}}}, "pad 0.5 is no"),
        ({**FILE, "model.inputs": {"x": LONG, "y": {**LONG, "max_length": 8}}}, "make them agree"),
        (
            {"model.path": "w.safetensors"},
            r"w\.safetensors: is a safetensors file; next to the path give model\.format: safe",
        ),
        ({**FILE, "model.path": "none.safetensors"}, "none.safetensors is missing"),
        ({**FILE, "model.sha256": "0" * 64}, r"has SHA-256 [0-9a-f]{64}, expected 0{64}"),
        ({"model.inputs": {"x": ["a", "b", "id"]}}, "takes 2 values per row, found 3 columns"),
        ({"model.inputs": {"y": ["a", "b"]}}, "has no input 'y': nearest: 'x'|has no input 'y'"),
    ],
)
def test_a_model_that_cannot_be_used_is_reported(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    """What is missing, not the pinned file, or fed otherwise than it says is named."""
    with pytest.raises(ModelError, match=words):
        _model(tmp_path, changes)


def test_a_pt_file_with_its_hash_is_a_model(tmp_path: Path) -> None:
    """Weights in torch's own format are resolved once their hash is the pinned one."""
    changes = {**FILE, "model.path": "w.pt", "model.format": "pt"}
    assert _model(tmp_path, changes).format == "pt"


def _inputs(
    folder: Path, kinds: dict[str, pa.DataType], changes: dict[str, Any] | None = None
) -> tuple[InputColumns, ...]:
    job = _job(folder, changes)
    return model_inputs(
        job, resolve_model(job.model, str(folder)), pa.schema(kinds), _footers(folder)
    )


def _footers(folder: Path) -> list[Footer]:
    return read_footers(find_shards([str(folder / "in")])).good


AB = {"a": pa.float32(), "b": pa.float64()}


@pytest.mark.parametrize(
    "kind",
    [pa.int8(), pa.uint64(), pa.float16(), pa.bool_(), pa.decimal128(9, 2)],
    ids=str,
)
def test_any_numbers_feed_an_input(tmp_path: Path, kind: pa.DataType) -> None:
    """Integers, floats, booleans and decimals are stacked to the declared type and shape."""
    found = _inputs(tmp_path, {"a": kind, "b": pa.float64()})
    assert found == (InputColumns("x", "float32", (2,), ("a", "b")),)


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.float32()), pa.list_(pa.float64(), 2), pa.large_list(pa.int8())], ids=str
)
def test_one_list_column_feeds_an_input(tmp_path: Path, kind: pa.DataType) -> None:
    """A list of numbers a row fills the shape that the model folder states."""
    found = _inputs(tmp_path, {"v": kind}, {"model.inputs": {"x": "v"}})
    assert found == (InputColumns("x", "float32", (2,), ("v",)),)


def test_a_fixed_list_says_its_own_length(tmp_path: Path) -> None:
    """Where the job describes the model, a fixed-size list column gives the input its shape."""
    changes = {**FILE, "model.inputs": {"x": "v"}}
    found = _inputs(tmp_path, {"v": pa.list_(pa.float32(), 2)}, changes)
    assert found == (InputColumns("x", "float32", (2,), ("v",)),)


@pytest.mark.parametrize(
    ("kinds", "changes", "words"),
    [
        ({"a": pa.string(), "b": pa.float64()}, {}, "'a' is string, expected numbers"),
        ({"a": pa.float32(), "b": pa.timestamp("s")}, {}, r"'b' is timestamp\[s\]"),
        ({"v": pa.list_(pa.string())}, {"model.inputs": {"x": "v"}}, "expected numbers"),
        ({"a": pa.list_(pa.float32()), "b": pa.float64()}, {}, "must be the input's only column"),
        ({"v": pa.list_(pa.float32())}, {**FILE, "model.inputs": {"x": "v"}}, "how long it is"),
        ({"a": pa.float32(), "bb": pa.float64()}, {}, "'bb'"),
        ({"a": pa.float32()}, {"model.inputs": {"x": "a"}}, "takes 2 values per row.*'a' has one"),
    ],
    ids=["text", "time", "texts", "list with another", "length unknown", "missing", "too few"],
)
def test_columns_that_do_not_fit_are_named(
    tmp_path: Path, kinds: dict[str, pa.DataType], changes: dict[str, Any], words: str
) -> None:
    """The error says which input and column, the type found, and what would fit."""
    with pytest.raises(InputError, match=words):
        _inputs(tmp_path, kinds, changes)


TOKENS: dict[str, Any] = {
    "ids": {"type": "int64", "shape": [None], "max_length": 9},
    "x": {"type": "float32", "shape": [None, 2], "max_length": 9},
}


def _sequences(folder: Path, kinds: dict[str, pa.DataType], **inputs: Any) -> Any:
    write_model(folder / "tokens", inputs=TOKENS)
    given = {"ids": "t", "x": "v", **inputs}
    return _inputs(folder, kinds, {"model.path": "tokens", "model.inputs": given})


T, V = pa.list_(pa.int32()), pa.list_(pa.list_(pa.float64(), 2))


@pytest.mark.parametrize("tokens", [T, pa.large_list(pa.int64()), pa.list_(pa.bool_(), 3)], ids=str)
@pytest.mark.parametrize("vectors", [V, pa.large_list(pa.list_(pa.int8()))], ids=str)
def test_list_columns_feed_inputs_of_varying_length(
    tmp_path: Path, tokens: pa.DataType, vectors: pa.DataType
) -> None:
    """Lists of numbers, and lists of vectors, keep what the card says of their length."""
    found = _sequences(tmp_path, {"t": tokens, "v": vectors})
    assert found == (
        InputColumns("ids", "int64", (), ("t",), Varying(9)),
        InputColumns("x", "float32", (2,), ("v",), Varying(9)),
    )


@pytest.mark.parametrize(
    ("kinds", "words"),
    [
        ({"t": pa.string(), "v": V}, "'t' is string, expected a list of numbers per row"),
        ({"t": pa.int64(), "v": V}, "'t' is int64, expected a list of numbers per row"),
        ({"t": V, "v": V}, "'t' is list.*, expected lists of numbers"),
        ({"t": T, "v": T}, "'v' is list.*, expected lists of lists of 2 numbers"),
        ({"t": pa.list_(pa.string()), "v": V}, "'t' is list.*string.*, expected numbers"),
        ({"t": pa.list_(pa.float32()), "v": V}, "'t' is list.*float.*takes int64"),
        ({"tt": T, "v": V}, "'tt'"),
    ],
    ids=["text", "number", "vectors", "no vectors", "texts", "fractions", "missing"],
)
def test_columns_that_do_not_fit_a_varying_length_are_named(
    tmp_path: Path, kinds: dict[str, pa.DataType], words: str
) -> None:
    """The error says which input and column, the type found, and what would fit."""
    with pytest.raises(InputError, match=words):
        _sequences(tmp_path, kinds)


def test_several_columns_make_no_varying_length(tmp_path: Path) -> None:
    """One list column feeds such an input; a number of columns would be one length."""
    with pytest.raises(ModelError, match="'ids' is of varying length, found 2 columns; give one"):
        _sequences(tmp_path, {"t": T, "v": V}, ids=["t", "u"])


def test_without_shards_there_is_nothing_to_check(tmp_path: Path) -> None:
    """No shard means no column: the inputs are left open."""
    job = _job(tmp_path)
    assert model_inputs(job, resolve_model(job.model, str(tmp_path)), pa.schema([]), []) == ()


def _with_features(folder: Path) -> None:
    features = Features(inputs={"x": (Numeric(column="a", impute=0, mean=0, std=1),)})
    card: dict[str, Any] = {
        "name": "m",
        "version": "1",
        "format": "safetensors",
        "weights": "w",
        "architecture": "net.py:Net",
        "preprocessing": "pre.json",
        "inputs": {"x": {"type": "float32", "shape": [1]}},
        "outputs": {"logit": {"type": "float32"}},
    }
    files = {"w": b"", "net.py": NET.encode(), "pre.json": dump_features(features).encode()}
    write_model_folder(str(folder), card, files)


def test_fitted_features_make_the_inputs_themselves(tmp_path: Path) -> None:
    """A folder with its own preprocessing takes no columns, but checks the schema's types."""
    job = _job(tmp_path, {"model.inputs": None, "model.path": "fitted"})
    _with_features(tmp_path / "fitted")
    model, footers = resolve_model(job.model, str(tmp_path)), _footers(tmp_path)
    assert model_inputs(job, model, pa.schema(AB), footers) == ()
    with pytest.raises(InputError, match="'a'"):
        model_inputs(job, model, pa.schema({"a": pa.string()}), footers)


def test_a_function_replaces_fitted_features(tmp_path: Path) -> None:
    """With preprocess.function the inputs are columns that it returns, named as the inputs are."""
    changes = {"model.inputs": None, "preprocess.function": "pre.py:encode"}
    _with_features(tmp_path / "fitted")
    job = _job(tmp_path, {**changes, "model.path": "fitted"})
    model = resolve_model(job.model, str(tmp_path))
    found = model_inputs(job, model, pa.schema({"t": pa.string()}), _footers(tmp_path))
    assert found == (InputColumns("x", "float32", (1,), ("x",)),)
    plain = _inputs(tmp_path, {"t": pa.string()}, {"preprocess.function": "pre.py:encode"})
    assert plain == (InputColumns("x", "float32", (2,), ("a", "b")),)


def test_a_model_folder_needs_no_local_disk(tmp_path: Path) -> None:
    """An address of another file system is resolved as a local folder is."""
    write_model(tmp_path / "m")
    local = resolve_model(_job(tmp_path, {"model.path": "m"}).model, str(tmp_path))
    store = fsspec.filesystem("memory")
    store.put(str(tmp_path / "m"), "/plan-model-test", recursive=True)
    try:
        job = _job(tmp_path, {"model.path": "memory://plan-model-test"})
        assert resolve_model(job.model, str(tmp_path)).identity == local.identity
    finally:
        store.rm("/plan-model-test", recursive=True)


NO_INPUTS, SAVED = {"model.inputs": None}, {"model.path": "saved"}


def _recorded(folder: Path, **more: Any) -> None:
    """Writes a model folder whose card has the columns of its sample."""
    x = {"type": "float32", "shape": [2], "columns": ["a", "b"], "types": ["int64", "float64"]}
    write_model(folder, inputs={"x": {**x, **more}})


def test_a_card_names_the_columns_of_its_sample(tmp_path: Path) -> None:
    """The job says nothing; any numbers are of the types of training, in any order of the table."""
    _recorded(tmp_path / "saved")
    for kind in (pa.int64(), pa.float64(), pa.bool_()):
        found = _inputs(
            tmp_path, {"b": kind, "more": pa.string(), "a": kind}, {**NO_INPUTS, **SAVED}
        )
        assert found == (InputColumns("x", "float32", (2,), ("a", "b")),)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (pa.string(), "column 'b' is string, and float64 in training"),
        (pa.date32(), r"column 'b' is date32\[day\], and float64 in training"),
        (pa.list_(pa.float64()), "column 'b' is list<.*, and float64 in training"),
    ],
    ids=str,
)
def test_a_column_of_another_type_than_in_training_is_refused(
    tmp_path: Path, kind: pa.DataType, words: str
) -> None:
    """The message has the column, its type, and that of the card."""
    _recorded(tmp_path / "saved")
    with pytest.raises(InputError, match=words):
        _inputs(tmp_path, {"a": pa.int64(), "b": kind}, {**NO_INPUTS, **SAVED})


def test_a_job_may_name_other_columns_than_the_card_in_no_other_order(tmp_path: Path) -> None:
    """Other names are the job's own matter; the card's names at other places would score wrong."""
    _recorded(tmp_path / "saved")
    given = {**SAVED, "model.inputs": {"x": ["u", "v"]}}
    found = _inputs(tmp_path, {"u": pa.int64(), "v": pa.int64()}, given)
    assert found == (InputColumns("x", "float32", (2,), ("u", "v")),)
    for columns, place in ((["b", "a"], 1), (["u", "a"], 2), (["b", "v"], 1)):
        with pytest.raises(ModelError, match=f"is number {place} of those given, and number"):
            _model(tmp_path, {**SAVED, "model.inputs": {"x": columns}})


def test_a_column_that_a_card_names_is_missing_by_its_name(tmp_path: Path) -> None:
    """The message has the nearest column, and how the job names another for that input."""
    _recorded(tmp_path / "saved", columns=["a", "bb"])
    job = _job(tmp_path, {**NO_INPUTS, **SAVED})
    model = resolve_model(job.model, str(tmp_path))
    words = r"model small: column 'bb' is not in .*\{x: \[a, b\]\}"
    with pytest.raises(InputError, match=words):
        read_schema(job, _footers(tmp_path), model)


def test_a_function_returns_the_columns_of_the_card_or_the_input(tmp_path: Path) -> None:
    """Both are known to the step, which looks at what the function made."""
    _recorded(tmp_path / "saved")
    changes = {**NO_INPUTS, **SAVED, "preprocess.function": "pre.py:encode"}
    found = _inputs(tmp_path, {"t": pa.string()}, changes)
    assert found == (InputColumns("x", "float32", (2,), ("x",), made_of=("a", "b")),)
    named = {**changes, "model.inputs": {"x": ["a", "b"]}}
    found = _inputs(tmp_path, {"t": pa.string()}, named)
    assert found == (InputColumns("x", "float32", (2,), ("a", "b")),)
