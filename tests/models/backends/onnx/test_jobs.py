"""Tests of whole jobs of ONNX models: each score is onnxruntime's own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from onnx import TensorProto, helper

from batchscore.columnar.arrays import Array
from tests import factory
from tests.models.backends.onnx.test_model_file import of_nodes
from tests.onnx_models import COLUMNS, ROWS, model_of, network, two_inputs, write_table

pytestmark = pytest.mark.slow

LAUNCHER = """
import sys
from batchscore.cli import cli

cli(["run", sys.argv[1]], standalone_mode=False)
assert "torch" not in sys.modules
assert "onnx" not in sys.modules
"""


def job_of(folder: Path, model: Any, **changes: Any) -> Path:
    """Writes a job that scores all rows with a model."""
    if not (folder / "in").exists():
        write_table(folder / "in/rows.parquet")
    job = {
        "batchscore": 1,
        "name": "onnx",
        "input": {"path": "in"},
        "model": model,
        "output": {"path": "out", "columns": ["id"]},
        **changes,
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(job))
    return folder / "job.yaml"


def scores(folder: Path, name: str) -> Array:
    """Returns the published scores by the number of their row."""
    column = factory.published(folder / "out").sort_by("id")[name].combine_chunks()
    if pa.types.is_fixed_size_list(column.type) or pa.types.is_list(column.type):
        return np.array(column.to_pylist(), np.float32)
    return np.asarray(column.to_numpy())


def own_scores(models: Path, name: str) -> Array:
    return np.asarray(np.load(models / "scores.npz")[name])


def require_same(found: Array, expected: Array) -> None:
    """Compares bits."""
    assert found.dtype == expected.dtype
    assert found.tobytes() == expected.reshape(found.shape).tobytes()


def said_by(*command: Any) -> str:
    done = factory.run_cli(*command)
    assert done.exit_code == 2, done.output
    return " ".join(done.output.split())


@pytest.mark.parametrize("name", ["network", "exported"])
def test_a_networks_scores_are_the_frameworks_own(
    name: str, tmp_path: Path, onnx_models: Path
) -> None:
    """A path, and the columns of its one input in the order of training, are enough."""
    job = job_of(tmp_path, {"path": str(onnx_models / f"{name}.onnx"), "inputs": {"x": COLUMNS}})
    assert factory.run_json("run", job)["rows"]["scored"] == ROWS
    require_same(scores(tmp_path, "logit"), own_scores(onnx_models, f"{name}_logit"))
    assert factory.run_json("run", job)["status"] == "unchanged"


def test_a_model_that_names_its_columns_needs_its_path_alone(
    tmp_path: Path, onnx_models: Path
) -> None:
    """Inputs of one number are columns by name, of any type that fits, in any order."""
    table = write_table(tmp_path / "in/rows.parquet")
    place = table.schema.get_field_index("f01")
    table = table.set_column(place, "f01", table["f01"].cast(pa.float64()))
    pq.write_table(table, tmp_path / "in/rows.parquet")
    factory.run_json("run", job_of(tmp_path, str(onnx_models / "named.onnx")))
    for name in ("label", "probabilities"):
        require_same(scores(tmp_path, name), own_scores(onnx_models, f"named_{name}"))
    pq.write_table(table.rename_columns({"f01": "f10"}), tmp_path / "in/rows.parquet")
    said = said_by("check", tmp_path / "job.yaml")
    assert "'f01'" in said
    assert "f10" in said


@pytest.mark.parametrize(
    "changes",
    [
        {"batch_rows": 7},
        {"batch_rows": 1000, "workers": 3},
        {"model_process": "on", "workers": 1},
    ],
    ids=str,
)
def test_no_way_of_running_changes_a_bit(
    changes: dict[str, Any], tmp_path: Path, onnx_models: Path
) -> None:
    """Small batches, several workers, shuffled rows, gaps, and a process of the model's own."""
    rows = write_table(tmp_path / "in/rows.parquet")
    places = np.arange(ROWS)
    gaps = pa.array(rows["f01"].to_numpy(), mask=places % 9 == 0)
    rows = rows.set_column(rows.schema.get_field_index("f01"), "f01", gaps)
    shuffled = rows.take(pa.array(np.random.default_rng(2).permutation(ROWS)))
    pq.write_table(shuffled, tmp_path / "in/rows.parquet", row_group_size=3_000)
    model = {"path": str(onnx_models / "forest.onnx"), "inputs": {"X": COLUMNS[:3]}}
    done = factory.run_json("run", job_of(tmp_path, model, runtime=changes))
    assert done["rows"]["scored"] == ROWS
    for name in ("label", "probabilities"):
        require_same(scores(tmp_path, name), own_scores(onnx_models, f"forest_{name}"))


def test_batches_of_one_row_have_the_same_bits(tmp_path: Path, onnx_models: Path) -> None:
    """A row's call has as many rows as any other, whatever the batch has."""
    write_table(tmp_path / "in/rows.parquet", rows=2_000)
    model = {"path": str(onnx_models / "network.onnx"), "inputs": {"x": COLUMNS}}
    factory.run_json("run", job_of(tmp_path, model, runtime={"batch_rows": 1}))
    require_same(scores(tmp_path, "logit"), own_scores(onnx_models, "network_logit")[:2000])


def test_a_fixed_batch_is_filled_up(tmp_path: Path, onnx_models: Path) -> None:
    """Calls have exactly the rows that the file fixes; the last repeats its last row."""
    write_table(tmp_path / "in/rows.parquet", rows=2_001)
    model = {"path": str(onnx_models / "fixed.onnx"), "inputs": {"x": COLUMNS}}
    done = factory.run_json("run", job_of(tmp_path, model))
    assert done["inference"]["call_rows"] == 8
    expected = own_scores(onnx_models, "network_logit")[:2001, 0]
    np.testing.assert_allclose(scores(tmp_path, "logit"), expected, rtol=0, atol=1e-6)


def test_several_inputs_of_several_types(tmp_path: Path) -> None:
    """Numbers and whole numbers come by name; the columns given for a vector say its size."""
    onnx.save(two_inputs(), tmp_path / "sum.onnx")
    rows = write_table(tmp_path / "in/rows.parquet")
    rows = rows.append_column("k", pa.array(np.arange(ROWS) % 5, pa.int32()))
    pq.write_table(rows, tmp_path / "in/rows.parquet")
    said = said_by("check", job_of(tmp_path, "sum.onnx"))
    assert "does not say how many numbers a row has (shape [N, ?])" in said
    factory.run_json("run", job_of(tmp_path, {"path": "sum.onnx", "inputs": {"v": COLUMNS[3:5]}}))
    columns = {name: rows[name].to_numpy() for name in ("f00", "f03", "f04", "k")}
    expected = columns["k"].astype(np.float32) + (columns["f03"] + columns["f04"])
    np.testing.assert_allclose(scores(tmp_path, "total"), expected + columns["f00"], atol=1e-6)


def test_texts_reach_a_pipeline_as_they_are(tmp_path: Path, onnx_models: Path) -> None:
    """A pipeline that encodes texts itself gets the column's; unseen ones are its own affair."""
    factory.run_json("run", job_of(tmp_path, str(onnx_models / "texts.onnx")))
    for name in ("label", "probabilities"):
        require_same(scores(tmp_path, name), own_scores(onnx_models, f"texts_{name}"))


def test_metadata_may_name_the_columns(tmp_path: Path, onnx_models: Path) -> None:
    """A list of names under the key `columns` is the order of training."""
    model = onnx.load(onnx_models / "network.onnx")
    model.metadata_props.add(key="columns", value=str(COLUMNS).replace("'", '"'))
    onnx.save(model, tmp_path / "model.onnx")
    factory.run_json("run", job_of(tmp_path, "model.onnx"))
    require_same(scores(tmp_path, "logit"), own_scores(onnx_models, "network_logit"))


@pytest.mark.parametrize("kind", [TensorProto.UINT16, TensorProto.UINT32])
def test_outputs_of_unsigned_numbers_are_whole_numbers(tmp_path: Path, kind: int) -> None:
    """A type that a table of scores does not have becomes a wider one."""
    nodes = [helper.make_node("Cast", ["f00"], ["score"], to=kind)]
    given = {"f00": (TensorProto.FLOAT, ["n", 1])}
    onnx.save(model_of(nodes, given, {"score": (kind, ["n", 1])}), tmp_path / "m.onnx")
    rows = {"id": np.arange(9), "f00": np.arange(9, dtype=np.float32)}
    factory.write_shard(tmp_path / "in/rows.parquet", pa.table(rows))
    factory.run_json("run", job_of(tmp_path, "m.onnx"))
    assert scores(tmp_path, "score").tolist() == [*range(9)]


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ({"type": "int64", "shape": []}, "is int64 as declared, which cannot hold float32"),
        ({"type": "float32", "shape": [3]}, "has shape [3] as declared, and [1] in network.onnx"),
    ],
)
def test_other_outputs_than_the_files_are_refused_before_any_work(
    tmp_path: Path, onnx_models: Path, output: dict[str, Any], words: str
) -> None:
    """No batch is scored to find out."""
    path = str(onnx_models / "network.onnx")
    model = {"path": path, "inputs": {"x": COLUMNS}, "outputs": {"logit": output}}
    done = factory.run_cli("run", job_of(tmp_path, model))
    assert done.exit_code == 2
    assert f"output 'logit' {words}" in " ".join(done.output.split())


def test_outputs_can_be_chosen(tmp_path: Path, onnx_models: Path) -> None:
    """A sequence of maps is refused with the remedy; one output of several may be named."""
    path = str(onnx_models / "zipmap.onnx")
    model: dict[str, Any] = {"path": path, "inputs": {"X": COLUMNS[:3]}}
    said = said_by("check", job_of(tmp_path, model))
    assert "output 'output_probability' is a sequence" in said
    assert "options={id(model): {'zipmap': False}}" in said
    model["outputs"] = {"output_label": {"type": "int64"}}
    factory.run_json("run", job_of(tmp_path, model))
    forest = own_scores(onnx_models, "forest_label")
    keep = np.arange(ROWS) % 9 != 0  # those without a gap in the known scores
    require_same(scores(tmp_path, "output_label")[keep], forest[keep])
    model["outputs"] = {"label": {"type": "int64"}}
    assert "the file has no output 'label'" in said_by("check", job_of(tmp_path, model))


def test_dynamic_int8_is_refused_by_its_neighbours(tmp_path: Path, onnx_models: Path) -> None:
    """It takes its scale from all rows of a call, so that a row's score goes by the others."""
    model = {"path": str(onnx_models / "dynamic_int8.onnx"), "inputs": {"x": COLUMNS}}
    said = said_by("check", job_of(tmp_path, model))
    assert "returns other values for a row at another place, next to other rows" in said


def test_rows_that_score_nan_are_rejected(tmp_path: Path, onnx_models: Path) -> None:
    """A network without a way for gaps gets no null, and what it makes of NaN is no score."""
    rows = write_table(tmp_path / "in/rows.parquet")
    x = rows["f00"].to_numpy().copy()
    x[5] = np.nan
    place = rows.schema.get_field_index("f00")
    gaps = pa.array(x, mask=np.arange(ROWS) == 7)
    rows = rows.set_column(place, "f00", gaps)
    pq.write_table(rows, tmp_path / "in/rows.parquet")
    model = {"path": str(onnx_models / "network.onnx"), "inputs": {"x": COLUMNS}}
    done = factory.run_json("run", job_of(tmp_path, model))
    assert (done["rows"]["scored"], done["rows"]["rejected"]) == (ROWS - 2, 2)


def newer(**versions: int) -> Any:
    model = network()
    model.ir_version = versions.get("ir", model.ir_version)
    model.opset_import[0].version = versions.get("opset", 20)
    return model


TEXTS = model_of(
    [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.STRING)],
    {"x": (TensorProto.FLOAT, ["n", 8])},
    {"y": (TensorProto.STRING, ["n", 8])},
)
LISTS = model_of(
    [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)],
    {"x": (TensorProto.STRING, ["n", 8])},
    {"y": (TensorProto.FLOAT, ["n", 8])},
)
WIDEST = model_of(
    [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.UINT64)],
    {"x": (TensorProto.FLOAT, ["n", 8])},
    {"y": (TensorProto.UINT64, ["n", 8])},
)
# A terabyte for each call, which a small file asks for.
LARGE = model_of(
    [
        helper.make_node("ConstantOfShape", ["size"], ["zeros"]),
        helper.make_node("ReduceMax", ["zeros"], ["zero"], keepdims=0),
        helper.make_node("Add", ["x", "zero"], ["y"]),
    ],
    {"x": (TensorProto.FLOAT, ["n", 8])},
    {"y": (TensorProto.FLOAT, ["n", 8])},
    {"size": np.array([1 << 38])},
)
UNSHAPED = network()
del UNSHAPED.graph.output[0].type.tensor_type.shape.dim[1:]
UNSHAPED.graph.output[0].type.tensor_type.shape.dim.add()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (newer(opset=99), r"uses opset 99 of ai.onnx, and onnxruntime 1"),
        (newer(ir=99), "is of IR version 99, and onnxruntime 1"),
        (TEXTS, "output 'y' is of string, which is no score"),
        (WIDEST, "output 'y' is of uint64, which is no score"),
        (LARGE, "a call for a few rows takes more than 8 GiB of memory"),
        (LISTS, "input 'x' takes several texts per row"),
        (UNSHAPED, "add model.outputs: {logit: {type: float32, shape: []}}"),
        (network(width=9), "takes 9 values per row in the file, and 8 values are declared"),
        (of_nodes(helper.make_node("Nonsense", ["x"], ["y"])), "cannot load it"),
        (b"\x80\x04\x95\x10\0\0\0.", "is a pickle, and was to be read as onnx"),
        (b"", "no ONNX model, or damaged"),
    ],
    ids=[
        "opset",
        "ir",
        "text scores",
        "uint64",
        "memory",
        "texts",
        "shape",
        "width",
        "operator",
        "pickle",
        "empty",
    ],
)
def test_what_is_not_scored_is_one_message(model: Any, message: str, tmp_path: Path) -> None:
    """Newer files, texts, shapes that nobody says, and files of another kind."""
    content = model if isinstance(model, bytes) else model.SerializeToString()
    (tmp_path / "model.onnx").write_bytes(content)
    columns = COLUMNS[: 2 if b"Nonsense" in content else 8]
    job = job_of(tmp_path, {"path": "model.onnx", "inputs": {"x": columns}})
    assert message in said_by("check", job)


def test_a_wrong_ending_is_one_message(tmp_path: Path, onnx_models: Path) -> None:
    """An ONNX file under another ending, and another file under this one, are named."""
    content = (onnx_models / "network.onnx").read_bytes()
    (tmp_path / "model.ubj").write_bytes(content)
    assert "is an ONNX model, and was to be read as xgboost. Set model.format: onnx" in said_by(
        "check", job_of(tmp_path, "model.ubj")
    )
    (tmp_path / "model.onnx").write_bytes(b"PK\x03\x04 and so on")
    assert "is a damaged zip archive" in said_by("check", job_of(tmp_path, "model.onnx"))


def test_a_gpu_that_is_not_there_is_refused(tmp_path: Path, onnx_models: Path) -> None:
    """`check` says which provider computes; CUDA without a GPU is an error, never the CPU."""
    model = {"path": str(onnx_models / "network.onnx"), "inputs": {"x": COLUMNS}}
    assert "CPUExecutionProvider" in factory.run_cli("check", job_of(tmp_path, model)).output
    said = said_by("check", job_of(tmp_path, model, runtime={"device": "cuda"}))
    assert "runtime.device 'cuda': onnxruntime" in said
    assert "onnxruntime-gpu in place of onnxruntime" in said


def test_a_job_of_onnx_imports_no_torch(tmp_path: Path, onnx_models: Path) -> None:
    """Neither the launcher nor what it loads imports torch, or the package onnx."""
    model = {"path": str(onnx_models / "network.onnx"), "inputs": {"x": COLUMNS}}
    done = subprocess.run(
        [sys.executable, "-c", LAUNCHER, str(job_of(tmp_path, model))],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[4])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
