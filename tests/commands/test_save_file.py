"""`batchscore model save`, and `bs.save_model` of a path: a model file to a model folder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import yaml

import batchscore as bs
from batchscore.commands.sampled_rows import read_spread_rows
from batchscore.errors import InputError
from tests import boosters, factory
from tests.onnx_models import COLUMNS, network, numbers

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows as training had them, in Parquet."""
    folder = tmp_path_factory.mktemp("rows")
    boosters.write_table(folder / "rows.parquet")
    return folder


def save(path: Path, folder: Path, rows: Path, *more: object) -> str:
    """Saves a model file, and returns what is printed."""
    done = factory.run_cli("model", "save", path, "-o", folder, "--sample", rows, *more)
    assert done.exit_code == 0, done.output
    return str(done.stdout)


def refusal(path: Path, folder: Path, rows: Path, *more: object) -> str:
    """Returns the one message of a command that saves nothing."""
    done = factory.run_cli("model", "save", path, "-o", folder, "--sample", rows, *more)
    assert done.exit_code == 2, done.output
    assert done.output.count("INVALID") == 1
    return " ".join(done.output.split())


@pytest.mark.parametrize("name", ["binary", "many", "counts"])
@pytest.mark.parametrize("framework", ["xgboost", "lightgbm"])
def test_golden_rows_have_the_scores_of_the_framework(
    framework: str, name: str, request: pytest.FixtureRequest, rows: Path, tmp_path: Path
) -> None:
    """They are to the bit what the framework's own call made of these rows in training."""
    models: Path = request.getfixturevalue(f"{framework}_models")
    ending = {"xgboost": "ubj", "lightgbm": "txt"}[framework]
    save(models / f"{name}.{ending}", tmp_path / "m", rows)
    golden = pq.read_table(tmp_path / "m/golden.parquet")
    known = np.load(models / "scores.npz")[
        {"binary": "binary_probability", "many": "many_probability", "counts": "counts_value"}[name]
    ]
    own = np.asarray(golden["score"].to_pylist())
    # A golden row has the values of some row of the sample.
    assert {each.tobytes() for each in own.astype(known.dtype)} <= {e.tobytes() for e in known}
    card = yaml.safe_load((tmp_path / "m/model.yaml").read_text())
    assert card["format"] == framework
    assert {"golden", "profile", "preprocessing"} <= {*card}


def test_the_folder_is_the_one_that_python_writes(
    xgboost_models: Path, rows: Path, tmp_path: Path
) -> None:
    """The shell and bs.save_model of the path write the same bytes, but for the order of rows."""
    save(xgboost_models / "binary.ubj", tmp_path / "a", rows, "--name", "n", "--version", "2")
    sample = pq.read_table(rows / "rows.parquet").select(boosters.COLUMNS)
    bs.save_model(tmp_path / "b", xgboost_models / "binary.ubj", sample, name="n", version="2")
    for name in ("model.yaml", "golden.parquet", "profile.parquet", "preprocessing.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_what_is_asked_for_is_in_the_card(
    lightgbm_models: Path, rows: Path, tmp_path: Path
) -> None:
    """Call, outputs and tolerance come from the options."""
    more = ["--call", "returns=class", "--outputs", "kind", "--tolerance", "0.5"]
    save(lightgbm_models / "many.txt", tmp_path / "m", rows, *more)
    card = yaml.safe_load((tmp_path / "m/model.yaml").read_text())
    assert card["call"]["returns"] == "class"
    assert card["outputs"] == {"kind": {"type": "int64", "shape": []}}
    assert card["tolerance"] == 0.5


def test_a_file_that_nobody_has_loaded_is_saved(
    xgboost_models: Path, rows: Path, tmp_path: Path
) -> None:
    """Its loading is tried with inputs of its own; no earlier trial is remembered."""
    document = json.loads((xgboost_models / "counts.json").read_bytes())
    document["learner"]["attributes"]["place"] = str(tmp_path)
    (tmp_path / "new.json").write_text(json.dumps(document))
    save(tmp_path / "new.json", tmp_path / "m", rows)


def test_json_names_the_folder(xgboost_models: Path, rows: Path, tmp_path: Path) -> None:
    """What a program reads has the card."""
    found = json.loads(save(xgboost_models / "counts.ubj", tmp_path / "m", rows, "--json"))
    assert found["status"] == "saved"
    assert found["folder"] == str(tmp_path / "m")
    assert found["card"]["files"].keys() >= {"model.ubj", "golden.parquet"}


def test_a_folder_that_is_there_stays(xgboost_models: Path, rows: Path, tmp_path: Path) -> None:
    """It is replaced only where the option says so, and never if it is no model folder."""
    save(xgboost_models / "counts.ubj", tmp_path / "m", rows)
    before = (tmp_path / "m/model.yaml").read_bytes()
    message = refusal(xgboost_models / "binary.ubj", tmp_path / "m", rows)
    assert "exists already; choose another name, or replace it with --overwrite" in message
    assert (tmp_path / "m/model.yaml").read_bytes() == before
    save(xgboost_models / "binary.ubj", tmp_path / "m", rows, "--overwrite")
    assert (tmp_path / "m/model.yaml").read_bytes() != before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes").write_text("keep")
    message = refusal(xgboost_models / "binary.ubj", tmp_path / "mine", rows, "--overwrite")
    assert "is not a model folder, so it is never replaced" in message


def test_nothing_is_left_of_what_cannot_be_saved(
    xgboost_models: Path, rows: Path, tmp_path: Path
) -> None:
    """Weights alone, unnamed columns, absent columns and other files each end in one message."""
    table = pq.read_table(rows / "rows.parquet").drop_columns(["colour"])
    (tmp_path / "few").mkdir()
    pq.write_table(table, tmp_path / "few/a.parquet")
    safetensors.torch.save_file(factory.STATE, tmp_path / "w.safetensors")
    (tmp_path / "m.pkl").write_bytes(b"\x80\x02csklearn.svm\nSVC\n.")
    (tmp_path / "cut.ubj").write_bytes((xgboost_models / "binary.ubj").read_bytes()[:3000])
    target = tmp_path / "out" / "m"
    cases = [
        (tmp_path / "w.safetensors", rows, "holds the weights of a network, and no code"),
        (xgboost_models / "unnamed.ubj", rows, "--inputs features=A,B,C"),
        (xgboost_models / "binary.ubj", tmp_path / "few", "has no column 'colour'"),
        (xgboost_models / "binary.ubj", tmp_path / "gone", "no file found"),
        (tmp_path / "m.pkl", rows, "is a pickle of objects of sklearn"),
        (tmp_path / "cut.ubj", rows, "no XGBoost model, or damaged"),
        (tmp_path / "gone.ubj", rows, "no such file or folder"),
        (tmp_path / "few", rows, "has no model.yaml"),
    ]
    for path, sample, says in cases:
        assert says in refusal(path, target, sample), path
    for wrong in ("features", "features=", "=a", "features=size,,count"):
        message = refusal(xgboost_models / "unnamed.ubj", target, rows, "--inputs", wrong)
        assert "expected NAME=COLUMN,COLUMN" in message
    assert not target.parent.exists()


def test_columns_come_from_the_option(xgboost_models: Path, rows: Path, tmp_path: Path) -> None:
    """A model that was trained on an array gets the columns that are named, in their order."""
    save(xgboost_models / "unnamed.ubj", tmp_path / "m", rows, "--inputs", "features=size,count")
    fitted = json.loads((tmp_path / "m/preprocessing.json").read_text())
    assert [each["column"] for each in fitted["inputs"]["features"]] == ["size", "count"]


def test_what_comes_next_needs_no_columns(tmp_path: Path) -> None:
    """A card names the columns that the option gave."""
    onnx.save(network(), tmp_path / "net.onnx")
    rows = pa.table(dict(zip(COLUMNS, numbers(300).T, strict=True)))
    pq.write_table(rows, tmp_path / "rows.parquet")
    printed = save(
        *(tmp_path / "net.onnx", tmp_path / "m", tmp_path / "rows.parquet"),
        *("--inputs", f"x={','.join(COLUMNS[::-1])}"),
    )
    assert printed.rstrip().endswith(f"init PARQUET {tmp_path / 'm'}")
    card = yaml.safe_load((tmp_path / "m/model.yaml").read_text())
    assert card["inputs"]["x"]["columns"] == COLUMNS[::-1]


def test_a_sample_is_spread_over_all_row_groups(tmp_path: Path) -> None:
    """Of sorted data that have more rows than are read, each part has its share."""
    table = pa.table({"n": np.arange(100_000)})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=1_000)
    found = read_spread_rows(str(tmp_path), "--sample", 1_000, lambda names: names)
    values = np.asarray(found["n"].to_pylist())
    assert 900 <= len(values) <= 1_000
    assert values.max() > 90_000
    assert len({*(values // 1_000)}) >= 40
    every = read_spread_rows(str(tmp_path), "--sample", 100_000, lambda names: names)
    assert every["n"].to_pylist() == table["n"].to_pylist()


def test_no_rows_are_one_message(tmp_path: Path) -> None:
    """Data without rows are named."""
    pq.write_table(pa.table({"n": pa.array([], pa.int64())}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="has no rows"):
        read_spread_rows(str(tmp_path), "--sample", 10, lambda names: names)


def test_the_sample_bounds_memory(tmp_path: Path) -> None:
    """Of two million rows in one row group, no more is decoded than the sample needs."""
    table = pa.table(
        {f"c{place}": np.random.default_rng(place).random(2_000_000) for place in (1, 2)}
    )
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=len(table))
    program = (
        "import pyarrow as pa\n"
        "from batchscore.commands.sampled_rows import read_spread_rows\n"
        f"found = read_spread_rows({str(tmp_path)!r}, '--sample', 5_000, lambda names: names)\n"
        "print(len(found), pa.default_memory_pool().max_memory())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    rows, most = map(int, done.stdout.split())
    assert rows == 5_000
    assert most < table.nbytes / 4
