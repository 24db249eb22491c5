"""Tests of everything that can be wrong with a job: one clear message, and nothing published."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from tests.factory import NET, change_job, run_cli, write_weights
from tests.spoils import (
    GO_ON,
    NULL,
    ROWS,
    Case,
    after,
    arguments,
    change,
    damage_page,
    device,
    files,
    hide_code,
    network,
    one_file,
    postprocess,
    preprocess,
    published_bytes,
    shard,
    with_nan,
    with_part,
)

pytestmark = pytest.mark.slow

DATE = change(params={"date": {"type": "date"}})
as_root = pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
with_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
without_proc = pytest.mark.skipif(not Path("/proc/self").exists(), reason="there is no /proc")

JOB_FILE = [
    Case(
        "no-job-file",
        files(lambda f: (f / "job.yaml").rename(f / "jab.yaml")),
        ("no such job file", "nearest: 'jab.yaml'"),
    ),
    Case(
        "job-file-is-a-folder",
        files(lambda f: (f / "job.yaml").unlink(), lambda f: (f / "job.yaml").mkdir()),
        ("is a folder", "name the job file in it"),
    ),
    Case(
        "not-yaml",
        files(lambda f: (f / "job.yaml").write_text("name: [")),
        ("job.yaml:1:8", "not YAML"),
    ),
    Case(
        "unknown-key",
        change(output__partitoin_by=["part"]),
        ("output.partitoin_by: unknown key", "nearest: 'partition_by'"),
    ),
    Case("missing-key", change(input__path=None), ("input.path: missing",)),
    Case(
        "wrong-type",
        change(rejects__max_ratio="many"),
        ("rejects.max_ratio", "expected a number", "'many'"),
    ),
    Case("out-of-range", change(runtime__workers=0), ("runtime.workers", "at least 1", "found 0")),
    Case("unknown-step", change(postprocess="sigmoud"), ("no such step", "nearest: 'sigmoid'")),
    Case(
        "wrong-override",
        arguments("--set", "output.partition=x"),
        ("--set output.partition", "unknown key", "partition_by"),
    ),
    Case(
        "unknown-engine",
        arguments("--engine", "flnk"),
        ("runtime.engine", "expected one of direct, flink", "'flnk'"),
    ),
    Case("parameter-missing", DATE, ("--param date", "missing", "--param date=2026-11-20")),
    Case(
        "parameter-undeclared",
        arguments("--param", "date=2026-11-20"),
        ("--param date", "declares no such parameter"),
    ),
    Case(
        "parameter-of-wrong-type",
        after(DATE, arguments("--param", "date=today")),
        ("--param date", "expected a date such as 2026-11-20", "'today'"),
    ),
    Case(
        "unknown-beam-option",
        arguments("--", "--no_such_option=1"),
        ("--no_such_option", "Beam has no such option"),
    ),
    Case(
        "wrong-beam-option",
        arguments("--", "--direct_runner_bundle_repeat=many"),
        ("--direct_runner_bundle_repeat", "'many'"),
    ),
    Case(
        "beam-option-of-ours",
        arguments("--", "--runner=FlinkRunner"),
        ("--runner", "runtime.engine"),
    ),
]
INPUT = [
    Case("no-shard", change(input__path="in/*.parq"), ("in/*.parq", "no shard", "allow_empty")),
    Case("no-input", change(input__path="inn"), ("inn", "no shard", "correct the path")),
    Case("input-of-no-kind", change(input__path="nosuch://x"), ("input.path nosuch://x", "nosuch")),
    Case(
        "not-ready",
        change(input__ready="_SUCCESS"),
        ("in/_SUCCESS", "does not exist yet", "run again"),
        run=4,
        check=4,
    ),
    Case(
        "not-ready-next-to-a-glob",
        change(input__path="in/[01].parquet", input__ready="_SUCCESS"),
        ("in/_SUCCESS", "does not exist yet"),
        run=4,
        check=4,
    ),
    Case(
        "shard-not-parquet",
        shard(b"id,a,b\n1,2,3\n"),
        ("in/1.parquet", "not a readable Parquet file", "take it out"),
    ),
    Case(
        "shard-truncated",
        files(lambda f: os.truncate(f / "in/1.parquet", 900)),
        ("in/1.parquet", "not a readable Parquet file", "write it again"),
    ),
    Case("shard-empty-of-bytes", shard(b""), ("in/1.parquet", "empty; expected", "write it again")),
    Case("shard-damaged", damage_page, ("in/0.parquet", "cannot be read to its end"), run=1),
    Case(
        "column-missing-in-a-shard",
        shard(ROWS.drop_columns(["b"])),
        ("in/1.parquet", "no column 'b'", "expected one of a, id, part", "write it again"),
    ),
    Case(
        "column-added-in-a-shard",
        shard(ROWS.append_column("c", ROWS["b"])),
        ("in/1.parquet", "'c'", "in/0.parquet lacks", "output.columns"),
    ),
    Case(
        "column-twice",
        shard(pa.Table.from_arrays([*ROWS.columns, ROWS["b"]], names=[*ROWS.column_names, "b"])),
        ("in/1.parquet", "'b' appears twice"),
    ),
    Case(
        "type-between-shards",
        shard(ROWS.set_column(1, "a", ROWS["part"])),
        ("in/1.parquet", "'a' is string", "expected float"),
    ),
    Case(
        "filter-column",
        change(input__filters=[["prt", "==", "p0"]]),
        ("input.filters", "'prt'", "nearest: 'part'"),
    ),
    Case(
        "filter-type",
        change(input__filters=[["part", ">", 3]]),
        ("input.filters", "'part' is string", "write a text, in quotes"),
    ),
    Case(
        "no-rows",
        change(input__filters=[["id", ">", 9999]]),
        ("0 rows to score", "input.allow_empty: true"),
        run=3,
        check=3,
    ),
    Case(
        "no-rows-in-any-shard",
        files(shard(ROWS[:0]), change(input__path="in/1.parquet")),
        ("0 rows to score", "input.allow_empty: true"),
        run=3,
        check=3,
    ),
    Case(
        "nan-in-too-many-rows",
        shard(with_nan(2)),
        ("2 of 500 rows", "0.4000%", "rejects.max_ratio allows 0.1000%", "NaN or infinity"),
        run=1,
        check=0,
    ),
]
MODEL = [
    Case("no-model", change(model__path="modle"), ("modle", "no such model folder")),
    Case("model-is-a-file", change(model__path="model/net.py"), ("net.py: is no model", "folder")),
    Case(
        "weights-missing",
        files(lambda f: (f / "model/weights.safetensors").unlink()),
        ("model/weights.safetensors", "missing", "restore it"),
    ),
    Case("weights-file-missing", one_file(path="x.safetensors"), ("x.safetensors", "missing")),
    Case(
        "card-missing", files(lambda f: (f / "model/model.yaml").unlink()), ("has no model.yaml",)
    ),
    Case(
        "card-not-yaml",
        files(lambda f: (f / "model/model.yaml").write_text("a: [")),
        ("model.yaml is not YAML", "line 1"),
    ),
    Case(
        "card-incomplete",
        files(lambda f: (f / "model/model.yaml").write_text("batchscore_model: 1\nname: m")),
        ("model.yaml is not valid", "version: missing"),
    ),
    Case(
        "sha256-differs",
        files(lambda f: (f / "model/net.py").write_text(NET + "\n")),
        ("model/net.py", "SHA-256", "expected", "restore it"),
    ),
    Case(
        "weights-file-sha256-differs",
        one_file(sha256="0" * 64),
        ("w.safetensors", "SHA-256", "0" * 64),
    ),
    Case("sha256-not-given", one_file(name="w.pt", sha256=None), ("model:", "needs sha256")),
    Case("weights-with-code", one_file(hide_code, "w.pt"), ("w.pt", "could run code", "safeten")),
    Case(
        "pt-damaged",
        one_file(lambda p: os.truncate(p, 200), "w.pt"),
        ("w.pt", "cut off"),
    ),
    Case("pt-empty", one_file(lambda p: os.truncate(p, 0), "w.pt"), ("w.pt", "empty")),
    Case("pt-garbage", one_file(lambda p: p.write_bytes(b"no"), "w.pt"), ("w.pt", "b'no'")),
    Case(
        "pt-of-one-tensor",
        one_file(lambda p: torch.save(torch.ones(2), p), "w.pt"),
        ("w.pt", "hold a Tensor", "expected a state_dict"),
    ),
    Case(
        "safetensors-garbage",
        one_file(lambda p: p.write_bytes(b"no")),
        ("w.safetensors", "not readable as safetensors"),
    ),
    Case(
        "weights-of-another-network",
        one_file(lambda p: write_weights(p, {"other": torch.ones(1)})),
        ("w.safetensors", "do not fit net.py:Net", "other"),
    ),
    Case(
        "model-column-missing",
        change(model__inputs={"x": ["a", "bb"]}),
        ("model.inputs", "'bb'", "nearest: 'b'"),
    ),
    Case(
        "model-column-count",
        change(model__inputs={"x": ["a", "b", "id"]}),
        ("'x'", "2 values", "3 columns"),
    ),
    Case("model-input-unknown", change(model__inputs={"y": ["a", "b"]}), ("no input 'y'", "x")),
    Case(
        "model-column-type",
        change(model__inputs={"x": ["a", "part"]}),
        ("'part' is string", "expected numbers", "preprocess.function"),
    ),
    Case(
        "model-returns-another-shape",
        network("self.linear(x).repeat(1, 3)"),
        ("'logit'", "[1024, 3]", "expected [1024]"),
        run=1,
    ),
    Case(
        "model-returns-one-number",
        network("self.linear(x).sum()"),
        ("'logit'", "expected [1024]"),
        run=1,
    ),
    Case(
        "model-returns-nan",
        network("self.linear(x).squeeze(1) * float('nan')"),
        ("NaN", "none of 500 rows", "check the weights"),
        run=1,
    ),
    Case("model-raises", network("x[:, 7]"), ("the model raised IndexError",), run=1),
    pytest.param(
        Case("no-gpu", device("cuda"), ("'cuda'", "0 usable GPUs", "auto or cpu")),
        marks=with_gpu,
        id="no-gpu",
    ),
    Case("no-such-gpu", device("cuda:99"), ("'cuda:99'", "usable GPUs")),
]
FUNCTIONS = [
    Case(
        "function-file-missing",
        change(preprocess__function="featurs.py:encode"),
        ("function featurs.py:encode", "cannot be read", "correct the reference"),
    ),
    Case(
        "function-name-missing",
        preprocess("def encod(batch): return batch"),
        ("function features.py:encode", "defines no 'encode'", "encod"),
    ),
    Case(
        "function-not-python",
        preprocess("\ndef encode(batch) return"),
        ("features.py", "not valid Python", "line 2"),
    ),
    Case(
        "function-import-fails",
        preprocess("import no_such_module"),
        ("features.py, line 1", "no_such_module", "install the module"),
    ),
    Case(
        "function-not-callable",
        preprocess("encode = 3"),
        ("features.py:encode", "of type int", "expected a function"),
    ),
    Case(
        "function-raises",
        preprocess("def encode(batch):\n    return batch['a'] / {}['rate']"),
        ("features.py:encode", "KeyError: 'rate'", "line 2"),
        run=1,
    ),
    Case(
        "function-exits",
        preprocess("import sys\ndef encode(batch): sys.exit(3)"),
        ("features.py:encode", "raised SystemExit: 3", "line 2"),
        run=1,
    ),
    Case(
        "function-drops-a-row",
        preprocess("def encode(batch): return batch.slice(1)"),
        ("features.py:encode", "returned 499 rows", "500", "one row for each"),
        run=1,
    ),
    Case(
        "function-returns-no-batch",
        preprocess("def encode(batch): return None"),
        ("features.py:encode", "returned a NoneType", "expected a pyarrow RecordBatch"),
        run=1,
    ),
    Case(
        "function-returns-no-frame",
        preprocess("import pandas as p\ndef encode(batch): return p.DataFrame({'a': [1, 'x']})"),
        ("features.py:encode", "returned a DataFrame", "expected a pyarrow RecordBatch"),
        run=1,
    ),
    Case(
        "function-drops-a-column",
        preprocess("def encode(batch): return batch.select(['a'])"),
        ("preprocess.function", "no column 'b'", "returned a", "model.inputs"),
        run=1,
    ),
    Case(
        "function-returns-texts",
        preprocess("def encode(batch): return batch.set_column(1, 'a', batch['part'])"),
        ("'a'", "type string", "expected numbers", "preprocess.function"),
        run=1,
    ),
    Case(
        "postprocess-drops-a-row",
        postprocess("def score(batch): return batch.slice(1)"),
        ("post.py:score", "returned 499 rows", "500"),
        run=1,
    ),
    Case(
        "postprocess-takes-a-column's-name",
        postprocess("def score(batch): return batch.rename_columns(['id'])"),
        ("'id'", "of a score", "in the function", "output.columns"),
    ),
    Case(
        "postprocess-takes-the-version's-name",
        postprocess("def score(batch): return batch.rename_columns(['model_version'])"),
        ("a score is named 'model_version'", "in the function"),
    ),
]
OUTPUT = [
    Case("output-column", change(output__columns=["idd"]), ("nearest: 'id'", "scores are written")),
    Case(
        "partition-column-missing",
        change(output__partition_by=["month"]),
        ("output.partition_by", "'month'", "expected one of a, b, id, part"),
    ),
    Case(
        "partition-column-type",
        change(output__partition_by=["b"]),
        ("output.partition_by", "'b' is double", "expected whole numbers"),
    ),
    Case(
        "score-takes-a-column's-name",
        files(shard(ROWS.append_column("score", ROWS["b"])), change(input__path="in/1.parquet")),
        ("output.columns", "'score'", "rename the score"),
    ),
    Case(
        "score-takes-a-filtered-column's-name",
        files(
            shard(ROWS.append_column("score", ROWS["b"])),
            change(input__path="in/1.parquet", output__columns=["id"]),
            change(input__filters=[["score", "<", 2]]),
        ),
        ("'score'", "rename the score", "input.filters"),
    ),
    Case(
        "partition-value-too-long",
        files(shard(with_part("x" * 300)), change(output__partition_by=["part"])),
        ("output.partition_by", "'part'", "300 characters", "255 bytes"),
        run=1,
    ),
    Case(
        "partition-value-that-means-null",
        files(shard(with_part(NULL)), change(output__partition_by=["part"])),
        ("output.partition_by", "'part'", "'__HIVE_DEFAULT_PARTITION__'", "make it null"),
        run=1,
    ),
    Case("output-of-no-kind", change(output__path="nosuch://x"), ("output.path", "nosuch://x")),
    Case("output-behind-dots", change(output__path="s3://b/a/../out"), ("a/../out: has an empty",)),
    Case("output-behind-slashes", change(output__path="s3://b//out"), ("b//out: has an empty",)),
    Case("output-in-input", change(output__path="in/out"), ("in/out: is inside", "another fol")),
    Case("output-is-input", change(output__path="in"), ("output.path", "is inside")),
    Case("input-in-output", change(input__path="out/data"), ("out: holds input.path", "out/data")),
    Case(
        "input-finds-output",
        change(input__path="o?t/data/*.parquet"),
        ("out: holds shard", "input.path"),
    ),
    Case(
        "output-of-somebody-else",
        files(
            lambda f: (f / "other").mkdir(),
            lambda f: (f / "other/thesis.txt").write_text("mine"),
            change(output__path="other"),
        ),
        ("other", "'thesis.txt'", "not an output of batchscore", "a new folder"),
    ),
    Case(
        "output-below-a-file",
        change(output__path="job.yaml/out"),
        ("job.yaml is a file", "another folder"),
    ),
    pytest.param(
        Case(
            "output-without-permission",
            files(lambda f: (f / "locked").mkdir(0o500), change(output__path="locked/out")),
            ("no permission to write in", "locked", "grant it"),
        ),
        marks=as_root,
        id="output-without-permission",
    ),
    pytest.param(
        Case(
            "output-refused",
            change(output__path="/proc/no-such-output"),
            ("/proc/no-such-output", "cannot be written", "another folder"),
            probe=True,
        ),
        marks=without_proc,
        id="output-refused",
    ),
]
CASES = [
    case if not isinstance(case, Case) else pytest.param(case, id=case.name)
    for case in [*JOB_FILE, *INPUT, *MODEL, *FUNCTIONS, *OUTPUT]
]


@pytest.fixture
def scored_job(scored_job: Path) -> Path:
    """A folder of a job that was run, and scores again whatever is spoiled in it."""
    change_job(scored_job, GO_ON)
    return scored_job


@pytest.mark.parametrize("case", CASES)
def test_a_wrong_job_gets_one_message_and_publishes_nothing(scored_job: Path, case: Case) -> None:
    """What is wrong is reported in words, by exit code and as JSON, and what is published stays."""
    before = published_bytes(scored_job)
    given = case.spoil(scored_job) or ()
    job, others = scored_job / "job.yaml", sorted(path.name for path in scored_job.iterdir())
    if case.check is not None:
        checked = run_cli("check", job, *["--probe"] * case.probe, *given)
        assert checked.exit_code == case.run, checked.output
        if case.check:
            assert_message(checked.output, case.words)
    ran = run_cli("run", job, *given)
    assert ran.exit_code == case.run, ran.output
    assert_message(ran.output, case.words)
    reported = run_cli("run", "--json", job, *given)
    document = json.loads(reported.stdout)
    assert reported.exit_code == document["exit_code"] == case.run
    assert document["status"] == {1: "failed", 2: "invalid", 3: "held", 4: "retry"}[case.run]
    assert_message(document["error"], case.words)
    assert published_bytes(scored_job) == before
    assert {path.name for path in scored_job.iterdir()} <= {*others, "__pycache__"}


def assert_message(text: str, words: Sequence[str]) -> None:
    assert [word for word in words if word not in text] == [], text
    assert "Traceback" not in text
    assert "unexpected" not in text
    assert "defect" not in text
