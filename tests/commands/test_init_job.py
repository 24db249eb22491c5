"""`batchscore init`: a first job for data and a model, which passes the check and can be run."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import lightgbm
import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

import batchscore as bs
from batchscore.commands.first_guess import date_folders, guess_key
from batchscore.commands.inspect_model import inspect_model
from batchscore.commands.job_text import FirstJob, flow, job_text
from batchscore.job import load_job
from batchscore.job.text import parse_yaml
from tests import boosters, factory
from tests.onnx_models import COLUMNS, model_of, network, numbers

pytestmark = pytest.mark.slow


def init(*words: object) -> str:
    """Runs the command, and returns what it printed."""
    done = factory.run_cli("init", *words)
    assert done.exit_code == 0, done.output
    return str(done.stdout)


def refusal(folder: Path, *words: object) -> str:
    """Returns the one message of a command that writes nothing."""
    done = factory.run_cli("init", *words, "-o", folder)
    assert done.exit_code in (1, 2), done.output
    assert done.output.count("INVALID") + done.output.count("FAILED") == 1
    assert not (folder / "job.yaml").exists()
    return " ".join(done.output.split())


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows as a person has them."""
    folder = tmp_path_factory.mktemp("rows")
    boosters.write_table(folder / "rows.parquet")
    return folder


@pytest.mark.parametrize("kind", ["folder", "file", "glob"])
def test_the_job_can_be_run_as_printed(
    kind: str, xgboost_models: Path, rows: Path, tmp_path: Path
) -> None:
    """The printed commands work from another folder, and publish each row with its key."""
    data = {"folder": rows, "file": rows / "rows.parquet", "glob": rows / "*.parquet"}[kind]
    printed = init(data, xgboost_models / "binary.ubj", "-o", tmp_path / "a job")
    commands = [line.split(" ", 1)[1].strip() for line in printed.splitlines()[-2:]]
    commands = [each.removeprefix("next").strip() for each in commands]
    assert [shlex.split(each)[1] for each in commands] == ["check", "run"]
    for each in commands if kind == "folder" else ():
        words = [sys.executable, "-m", "batchscore", *shlex.split(each)[1:]]
        done = subprocess.run(words, cwd="/", capture_output=True, text=True, env=os.environ)
        assert done.returncode == 0, done.stderr
    if kind == "folder":
        found = pq.read_table(tmp_path / "a job/out/data")
        assert {*found.column_names} == {"id", "score", "model_version"}
        assert sorted(found["id"].to_pylist()) == [*range(boosters.ROWS)]


def test_what_was_assumed_is_said(xgboost_models: Path, rows: Path, tmp_path: Path) -> None:
    """Key, hash, range and reference are in the file, and each is said on the terminal."""
    printed = init(rows, xgboost_models / "binary.ubj", "-o", tmp_path, "--name", "mine")
    job = yaml.safe_load((tmp_path / "job.yaml").read_text())
    assert job["name"] == "mine"
    assert job["model"]["sha256"] == factory.sha256(xgboost_models / "binary.ubj")
    assert job["checks"] == {"unique": ["id"], "score_range": [0, 1]}
    assert job["drift"] == {"reference": "previous"}
    assert not os.path.isabs(job["input"]["path"])
    for words in ("'id' identifies a row", "scores are probabilities", "no drift reference"):
        assert words in printed


def test_json_has_the_commands(xgboost_models: Path, rows: Path, tmp_path: Path) -> None:
    """A program gets the file, what was assumed, and the next commands."""
    found = json.loads(init(rows, xgboost_models / "counts.ubj", "-o", tmp_path, "--json"))
    assert found["status"] == "created"
    assert found["job"] == str(tmp_path / "job.yaml")
    assert found["next"][0].endswith(f"check {tmp_path / 'job.yaml'}")
    assert found["check"]["status"] == "ok"


def test_folders_of_dates_become_a_parameter(xgboost_models: Path, tmp_path: Path) -> None:
    """A run scores one date, and the printed commands name the newest."""
    table = boosters.write_table(tmp_path / "few.parquet")
    for day in ("2026-11-28", "2026-11-29"):
        factory.write_shard(tmp_path / f"data/day={day}/part.parquet", table)
    printed = init(tmp_path / "data", xgboost_models / "counts.ubj", "-o", tmp_path)
    job = yaml.safe_load((tmp_path / "job.yaml").read_text())
    assert job["params"] == {"day": {"type": "date"}}
    assert job["input"]["path"] == "data/day=${day}"
    assert job["output"]["partition_by"] == ["day"]
    assert job["checks"] == {"unique": ["id"]}
    assert printed.count("--param day=2026-11-29") == 3
    assert bs.run(tmp_path / "job.yaml", {"day": "2026-11-28"}).status == "published"


def test_other_hive_folders_become_those_of_the_output(
    xgboost_models: Path, tmp_path: Path
) -> None:
    """Keys with a few values are the output's folders too, and are no key of a row."""
    table = boosters.write_table(tmp_path / "few.parquet")
    for place in (1, 2):
        factory.write_shard(
            tmp_path / f"data/region={place}/part.parquet", table.slice(place * 100, 100)
        )
    init(tmp_path / "data", xgboost_models / "counts.ubj", "-o", tmp_path)
    job = yaml.safe_load((tmp_path / "job.yaml").read_text())
    assert job["output"]["partition_by"] == ["region"]
    assert "params" not in job


def test_a_model_folder_brings_its_reference_and_steps(tmp_path: Path) -> None:
    """A network whose reference has probabilities gets the sigmoid that made them."""
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "first_net.py").write_text(factory.NET)
    factory.write_shard(tmp_path / "rows.parquet")
    program = (
        f"import sys; sys.path.insert(0, {str(folder)!r})\n"
        "import batchscore as bs, numpy as np\nfrom first_net import Net\n"
        "rows = {'a': np.arange(9, dtype='f4'), 'b': np.arange(9, dtype='f4')}\n"
        f"bs.save_model({str(tmp_path / 'model')!r}, Net().eval(), rows, "
        "columns={'x': ['a', 'b']}, outputs=['logit'], postprocess='sigmoid')\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env=os.environ)
    printed = init(
        *(tmp_path / "rows.parquet", tmp_path / "model", "-o", tmp_path, "--inputs", "x=a,b")
    )
    job = yaml.safe_load((tmp_path / "job.yaml").read_text())
    assert job["postprocess"] == "sigmoid"
    assert job["model"] == {"path": "model", "inputs": {"x": ["a", "b"]}}
    assert "drift" not in job
    assert "has 'score', not 'logit'" in printed


def test_a_folder_names_the_columns_of_its_sample(tmp_path: Path) -> None:
    """No option is needed: other orders and more columns change nothing, and a lack is named."""
    onnx.save(network(), tmp_path / "net.onnx")
    rows = pd.DataFrame(numbers(400), columns=COLUMNS)
    bs.save_model(tmp_path / "model", str(tmp_path / "net.onnx"), rows)
    rows.assign(id=range(400))[["id", *COLUMNS[::-1]]].to_parquet(tmp_path / "rows.parquet")
    printed = init(tmp_path / "rows.parquet", tmp_path / "model", "-o", tmp_path / "job")
    assert "check      OK, 400 of 400 rows scored" in printed
    assert bs.run(tmp_path / "job/job.yaml").status == "published"
    found = pq.read_table(tmp_path / "job/out/data").sort_by("id")["logit"].to_numpy()
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    own = session.run(["logit"], {"x": rows.to_numpy()})[0]
    np.testing.assert_allclose(found, own.reshape(-1), rtol=1e-5, atol=1e-6)
    target = tmp_path / "target"
    for changed, words in (
        (
            rows.rename(columns={"f03": "f3"}),
            "has no column 'f03', which the model reads; nearest: ",
        ),
        (rows.astype({"f03": str}), "column 'f03' is large_string, and float32 in training"),
    ):
        changed.to_parquet(tmp_path / "wrong.parquet")
        assert words in refusal(target, tmp_path / "wrong.parquet", tmp_path / "model")


def test_a_file_with_an_input_for_each_column_needs_no_option(tmp_path: Path) -> None:
    """An ONNX file names its columns by its inputs; a missing one and another type are named."""
    kinds = {"a": (TensorProto.FLOAT, ["n", 1]), "plan": (TensorProto.STRING, ["n", 1])}
    nodes = [
        helper.make_node("Identity", ["a"], ["score"]),
        helper.make_node("Identity", ["plan"], ["kept"]),
    ]
    onnx.save(model_of(nodes, kinds, {"score": kinds["a"]}), tmp_path / "m.onnx")
    rows = pd.DataFrame({"id": range(300), "plan": "x", "a": np.arange(300) / 7})
    rows.to_parquet(tmp_path / "rows.parquet")
    init(tmp_path / "rows.parquet", tmp_path / "m.onnx", "-o", tmp_path)
    assert "inputs" not in yaml.safe_load((tmp_path / "job.yaml").read_text())["model"]
    target = tmp_path / "target"
    for changed, words in (
        (rows.rename(columns={"plan": "tarif"}), "has no column 'plan', which the model reads"),
        (rows.assign(plan=7), "column 'plan' is int64, and text in training"),
    ):
        changed.to_parquet(tmp_path / "wrong.parquet")
        assert words in refusal(target, tmp_path / "wrong.parquet", tmp_path / "m.onnx")


def test_rows_that_a_model_cannot_take_are_rejected_if_a_person_says_so(tmp_path: Path) -> None:
    """The message names the option, which the job file then has."""
    onnx.save(network(), tmp_path / "net.onnx")
    rows = pd.DataFrame(numbers(400), columns=COLUMNS)
    rows.loc[::50, "f03"] = None
    pa_rows = pa.Table.from_pandas(rows)  # a null, not NaN
    factory.write_shard(tmp_path / "rows.parquet", pa_rows)
    words = (tmp_path / "rows.parquet", tmp_path / "net.onnx", "--inputs", f"x={','.join(COLUMNS)}")
    said = refusal(tmp_path / "target", *words)
    assert "8 of 400 rows were rejected" in said
    assert "or let the job reject such rows: --max-rejects 0.05" in said
    init(*words, "-o", tmp_path, "--max-rejects", "0.05")
    assert yaml.safe_load((tmp_path / "job.yaml").read_text())["rejects"] == {"max_ratio": 0.05}


def test_a_score_never_takes_the_name_of_a_column(xgboost_models: Path, tmp_path: Path) -> None:
    """A column named as the score is left out, since the output cannot have both."""
    table = boosters.write_table(tmp_path / "few.parquet").drop_columns(["id"])
    table = table.append_column("score", pa.array(np.zeros(len(table))))
    factory.write_shard(tmp_path / "data/a.parquet", table)
    init(tmp_path / "data", xgboost_models / "counts.ubj", "-o", tmp_path)
    job = yaml.safe_load((tmp_path / "job.yaml").read_text())
    assert job["output"]["columns"] == [n for n in table.column_names if n != "score"]


def test_a_score_gets_another_name_if_the_model_reads_a_column_of_its_name(tmp_path: Path) -> None:
    """A file that reads `score`, and columns with blanks, needs no option; what is left is said."""
    rng = np.random.default_rng(1)
    rows = pd.DataFrame({"score": rng.normal(size=300), "1st größe": rng.normal(size=300)})
    data = lightgbm.Dataset(rows, label=rows["score"] > 0)
    booster = lightgbm.train({"verbose": -1, "num_threads": 1}, data, 3)
    booster.save_model(tmp_path / "clash.txt")
    rows.assign(model_version="x").to_parquet(tmp_path / "rows.parquet")
    printed = " ".join(
        init(tmp_path / "rows.parquet", tmp_path / "clash.txt", "-o", tmp_path).split()
    )
    job = yaml.safe_load((tmp_path / "job.yaml").read_text())
    assert job["model"]["outputs"] == {"prediction": {"type": "float64", "shape": []}}
    assert job["model"]["inputs"] == {"features": ["score", "1st größe"]}
    assert job["output"]["columns"] == ["score", "1st größe"]
    assert "No column is known to identify a row, so no key is checked" in printed
    assert "All columns but 'model_version', which the output has of its own" in printed


def test_nothing_is_written_if_it_would_not_pass(
    xgboost_models: Path, rows: Path, tmp_path: Path
) -> None:
    """What is missing is one message: columns, a file, names of columns, another kind of file."""
    table = pq.read_table(rows / "rows.parquet")
    factory.write_shard(tmp_path / "few/a.parquet", table.drop_columns(["colour"]))
    texts = table.set_column(table.column_names.index("size"), "size", pa.array(["x"] * len(table)))
    factory.write_shard(tmp_path / "texts/a.parquet", texts)
    (tmp_path / "m.pkl").write_bytes(b"\x80\x02csklearn.svm\nSVC\n.")
    target = tmp_path / "target"
    binary, unnamed = xgboost_models / "binary.ubj", xgboost_models / "unnamed.ubj"
    assert "has no column 'colour'" in refusal(target, tmp_path / "few", binary)
    assert "column 'size' has type string" in refusal(target, tmp_path / "texts", binary)
    assert "no file found" in refusal(target, tmp_path / "gone", binary)
    assert "no such file or folder" in refusal(target, rows, tmp_path / "gone")
    assert "give --inputs features=A,B,C" in refusal(target, rows, unnamed)
    assert "no such input" in refusal(target, rows, unnamed, "--inputs", "x=size,count")
    assert "is a pickle of objects of sklearn" in refusal(target, rows, tmp_path / "m.pkl")
    network = factory.write_model(tmp_path / "network")
    assert "make input 'x': --inputs x=A,B,C" in refusal(target, rows, network)
    assert "--name no/name: expected letters" in refusal(target, rows, binary, "--name", "no/name")
    assert not target.exists()


def test_code_of_a_model_is_allowed_by_a_person_alone(tmp_path: Path) -> None:
    """A program of torch.export needs --allow-code, which the job then says."""
    program = torch.export.export(torch.nn.Linear(2, 1), (torch.zeros(4, 2),))
    torch.export.save(program, tmp_path / "net.pt2")
    factory.write_shard(tmp_path / "rows.parquet")
    name = inspect_model(str(tmp_path / "net.pt2")).model.inputs[0].name
    words = (tmp_path / "rows.parquet", tmp_path / "net.pt2", "--inputs", f"{name}=a,b")
    assert "give --allow-code" in refusal(tmp_path / "made", *words)
    init(*words, "-o", tmp_path, "--allow-code")
    assert yaml.safe_load((tmp_path / "job.yaml").read_text())["model"]["allow_code"] is True
    bs.save_model(tmp_path / "folder", program, factory.make_rows(), columns={name: ["a", "b"]})
    folder = (tmp_path / "rows.parquet", tmp_path / "folder")
    assert "give --allow-code" in refusal(tmp_path / "made", *folder)
    init(*folder, "-o", tmp_path / "other", "--allow-code")


def test_a_job_that_is_there_stays(xgboost_models: Path, rows: Path, tmp_path: Path) -> None:
    """A job file is never replaced."""
    (tmp_path / "job.yaml").write_text("mine")
    done = factory.run_cli("init", rows, xgboost_models / "binary.ubj", "-o", tmp_path)
    assert done.exit_code == 2
    assert "there is a job file already, which is never replaced" in " ".join(done.output.split())
    assert (tmp_path / "job.yaml").read_text() == "mine"


TEXTS = st.text(max_size=20) | st.sampled_from(["no", "1e-3", "12:30", "~", "-", "a: b", "${x}"])


@given(
    st.recursive(
        TEXTS | st.integers(-(10**17), 10**17) | st.booleans(), lambda v: st.lists(v, max_size=3)
    )
)
def test_values_are_read_as_they_were_written(value: object) -> None:
    """Any text or list is the same once the job file's reader reads it."""
    assert parse_yaml(f"key: {flow(value)}\n", "test") == {"key": value}


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1))
def test_a_name_of_a_column_is_kept(name: str) -> None:
    """A column of any name is the same column in the job."""
    job = FirstJob("j", "/data", {"path": "/m"}, "/out", columns=[name], unique=[name])
    found = parse_yaml(job_text(job), "test")
    assert found["output"]["columns"] == [name]
    assert found["checks"]["unique"] == [name]


def test_text_in_braces_is_no_placeholder(tmp_path: Path) -> None:
    """A folder named like a placeholder stays what it is."""
    folder = tmp_path / "${x}"
    job = FirstJob("j", "$${x}/rows", {"path": "m.ubj"}, "out")
    folder.mkdir()
    (folder / "job.yaml").write_text(job_text(job))
    loaded = load_job(str(folder / "job.yaml")).job
    assert loaded.input.path == (str(folder / "${x}/rows"),)


def test_the_key_is_a_column_that_tells_rows_apart() -> None:
    """A column named as an identifier comes before the first one; a float is none."""
    table = pa.table({"row": [1, 2, 3], "customer_id": ["a", "b", "c"], "size": [0.1, 0.2, 0.3]})
    assert guess_key(table, [], []) == "customer_id"
    assert guess_key(table, ["customer_id"], []) == "row"
    assert guess_key(table.select(["size"]), [], []) is None
    same = pa.table({"id": [1, 1, 2]})
    assert guess_key(same, [], []) is None


@pytest.mark.parametrize(
    ("paths", "found"),
    [
        (["/d/date=2026-01-02/a", "/d/date=2026-01-03/b"], ("date", "date", "2026-01-03", 2)),
        (["/d/run-day=2026-01-02/a"], ("run-day", "date", "2026-01-02", 1)),
        (["/d/date=2026-13-02/a"], None),
        (["/d/date=2026-01-02/a", "/d/b"], None),
        (["/d/date=2026-01-02/a", "/d/day=2026-01-02/b"], None),
        (["/e/date=2026-01-02/a"], None),
        (["/d/month=1/a"], None),
    ],
)
def test_folders_of_dates_are_found(
    paths: list[str], found: tuple[str, str, str, int] | None
) -> None:
    """All shards lie in folders of one key of dates right below the data, or there are none."""
    made = date_folders("/d", [(path, {}) for path in paths])
    assert (made and (made.key, made.parameter, made.newest, made.count)) == found
