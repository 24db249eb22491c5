"""Test what decides under which name scores are kept: every key of the job file, in one of two."""

from __future__ import annotations

import shutil
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from pydantic import BaseModel

from batchscore.job import Job, load_job
from batchscore.job.steps.all_steps import STEPS
from batchscore.plan import Plan, make_plan
from batchscore.plan.fingerprint import needed_packages, score_hash
from batchscore.plan.format2_facts import respell_code
from batchscore.plan.reference import References
from tests import factory
from tests.backends import installed

Changes = Mapping[str, Any]

VERSIONS = {"torch": "2.1", "numpy": "2.2", "pyarrow": "2.3", "pandas": "2.4", "lightgbm": "4.7"}
DEMO = Path(__file__).parents[2] / "jobs/flight_delays/job.yaml"

LOGITS = {"model.outputs": {"logits": {"type": "float32", "shape": [3]}}}
WEIGHTS: Changes = {
    "model": {
        "path": "w.safetensors",
        "format": "safetensors",
        "architecture": "net.py:Net",
        "inputs": {"x": {"columns": ["a", "b"]}},
        "sha256": "",
    }
}
SEQUENCES: Changes = {
    **WEIGHTS,
    "model.inputs": {"x": {"columns": "steps", "max_length": 4, "pad": 0, "truncate": False}},
}
TREES: Changes = {
    "model": {"path": "trees.txt", "sha256": ""},
    "explain": {"top": 2, "above": 0.5, "score": "score", "columns": ["a", "b"]},
}
# A tree of one leaf.
LEAF = "Tree=0\nnum_leaves=1\nnum_cat=0\nleaf_value=0.5\n\n\n"
FOREST = f"""tree
version=v4
num_class=1
num_tree_per_iteration=1
max_feature_idx=1
objective=binary sigmoid:1
feature_names=a b
tree_sizes={len(LEAF)}

{LEAF}end of trees

pandas_categorical:null
"""
TEXTS: Changes = {
    "model": {
        "path": "letters.json",
        "format": "letters",
        "inputs": {"letters": {"columns": "part", "type": "text"}, "number": "a"},
        "sha256": "",
    }
}
FUNCTION: Changes = {"preprocess": {"function": "f.py:f", "batch": "arrow"}}


def _step(step: str, /, **body: Any) -> Changes:
    return {"postprocess": {step: body}}


def _classes(step: str, /, **body: Any) -> Changes:
    return {**_step(step, **body), "model.path": "classes"}


# For each key that decides scores, a job and how it is changed.
DECIDES: dict[str, tuple[Changes, Changes]] = {
    "input.filters": ({}, {"input.filters": [["a", "<", 0.5]]}),
    "input.hive_types": (
        {"input.path": "hive"},
        {"input.hive_types": {"day": "string"}},
    ),
    "model.inputs.columns": ({}, {"model.inputs": {"x": ["b", "a"]}}),
    "model.inputs.type": (WEIGHTS, {"model.inputs.x.type": "float64"}),
    "model.inputs.max_length": (SEQUENCES, {"model.inputs.x.max_length": 5}),
    "model.inputs.pad": (SEQUENCES, {"model.inputs.x.pad": 1}),
    "model.inputs.missing": (TEXTS, {"model.inputs.letters.missing": "none"}),
    "model.inputs.truncate": (SEQUENCES, {"model.inputs.x.truncate": True}),
    "model.format": (WEIGHTS, {"model.path": "w.pt", "model.format": "pt"}),
    "model.architecture": (WEIGHTS, {"model.architecture": "net.py:Other"}),
    "model.architecture_args": (WEIGHTS, {"model.architecture_args": {"width": 2}}),
    "model.sha256": (WEIGHTS, {"model.path": "other.safetensors"}),
    "model.outputs.type": (
        {**WEIGHTS, **LOGITS},
        {"model.outputs": {"logits": {"type": "float64", "shape": [3]}}},
    ),
    "model.outputs.shape": (
        {**WEIGHTS, **LOGITS},
        {"model.outputs": {"logits": {"type": "float32", "shape": [4]}}},
    ),
    "model.version": (WEIGHTS, {"model.version": "2"}),
    "preprocess.function": (FUNCTION, {"preprocess.function": "f.py:g"}),
    "preprocess.batch": (FUNCTION, {"preprocess.batch": "pandas"}),
    "preprocess.columns": (FUNCTION, {"preprocess.columns": ["a", "b"]}),
    "postprocess.sigmoid.output": (_step("sigmoid"), _step("sigmoid", output="logit")),
    "postprocess.sigmoid.name": (_step("sigmoid"), _step("sigmoid", name="p")),
    "postprocess.softmax.output": (_classes("softmax"), _classes("softmax", output="logit")),
    "postprocess.softmax.name": (_classes("softmax"), _classes("softmax", name="p")),
    "postprocess.top_k.output": (
        _classes("top_k", k=2),
        _classes("top_k", k=2, output="logit"),
    ),
    "postprocess.top_k.k": (_classes("top_k", k=2), _classes("top_k", k=1)),
    "postprocess.top_k.labels": (
        _classes("top_k", k=2),
        _classes("top_k", k=2, labels=["a", "b"]),
    ),
    "postprocess.top_k.name": (_classes("top_k", k=2), _classes("top_k", k=2, name="best")),
    "postprocess.threshold.output": (
        _step("threshold", at=0.5),
        _step("threshold", at=0.5, output="logit"),
    ),
    "postprocess.threshold.at": (_step("threshold", at=0.5), _step("threshold", at=0.25)),
    "postprocess.threshold.name": (
        _step("threshold", at=0.5),
        _step("threshold", at=0.5, name="late"),
    ),
    "postprocess.labels.output": (
        _classes("labels", labels=["a", "b"]),
        _classes("labels", labels=["a", "b"], output="logit"),
    ),
    "postprocess.labels.labels": (
        _classes("labels", labels=["a", "b"]),
        _classes("labels", labels=["b", "a"]),
    ),
    "postprocess.labels.name": (
        _classes("labels", labels=["a", "b"]),
        _classes("labels", labels=["a", "b"], name="text"),
    ),
    "postprocess.function.function": (
        _step("function", function="f.py:f"),
        _step("function", function="f.py:g"),
    ),
    "postprocess.function.batch": (
        _step("function", function="f.py:f", batch="arrow"),
        _step("function", function="f.py:f", batch="pandas"),
    ),
    "code": (FUNCTION, {"code": ["words.txt"]}),
    "explain.top": (TREES, {"explain.top": 1}),
    "explain.above": (TREES, {"explain.above": None}),
    "explain.score": (TREES, {"explain.score": None}),
    "explain.columns": (TREES, {"explain.columns": ["a"]}),
    "output.columns": ({}, {"output.columns": ["id"]}),
    "output.partition_by": ({}, {"output.partition_by": ["part"]}),
    "runtime.precision": ({}, {"runtime.precision": "bf16"}),
    "runtime.compile": ({}, {"runtime.compile": True}),
    "runtime.kernels": ({}, {"runtime.kernels": "fastest"}),
    "runtime.micro_batch": ({}, {"runtime.micro_batch": 64}),
}

_DAY = {"params": {"day": {"type": "date"}}}
_MUTE = {"column": "a", "until": "2026-12-31", "why": "a new sensor"}
# For each key that decides no score, how the small job is changed. What the input's path names is
# compared shard by shard.
KEEPS: dict[str, Changes] = {
    "batchscore": {"batchscore": 1},
    "name": {"name": "other"},
    "params.type": _DAY,
    "input.path": {"input.path": "in/0.parquet"},
    "input.int96": {"input.int96": "us"},  # where a shard has such a column, its type differs
    "input.allow_empty": {"input.allow_empty": True},
    "input.ready": {"input.ready": "0.parquet"},
    "input.on_bad_shard": {"input.on_bad_shard": "quarantine"},
    "input.max_bad_shards": {"input.on_bad_shard": "quarantine", "input.max_bad_shards": 1},
    "model.path": {"model.path": "moved"},
    "model.allow_code": {"model.allow_code": True},
    "output.path": {"output.path": "elsewhere"},
    "output.compression": {"output.compression": "snappy"},
    "output.retention_days": {"output.retention_days": 1},
    "on_change.model": {"on_change.model": "hold"},
    "on_change.explain": {"on_change.explain": "rescore"},
    "on_change.removed_shards": {"on_change.removed_shards": "remove"},
    "on_change.rewritten_shards": {"on_change.rewritten_shards": "rescore"},
    "on_change.late_shards": {"on_change.late_shards": "hold"},
    "rejects.max_ratio": {"rejects.max_ratio": 0.5},
    "rejects.max_rows": {"rejects.max_rows": 5},
    "checks.rows.min_ratio": {"checks.rows.min_ratio": 0.1},
    "checks.rows.max_ratio": {"checks.rows.max_ratio": 2},
    "checks.unique": {"checks.unique": ["id"]},
    "checks.score_range": {"checks.score_range": [0, 1]},
    "checks.not_null": {"checks.not_null": ["part", "logit"]},
    "checks.accepted": {"checks.accepted": {"part": ["p0"]}},
    "checks.fresh": {"checks.fresh": {"at": "26h"}},
    "drift.reference.run": {"drift.reference": {"run": "20261120-7f3a"}},
    "drift.reference.last": {**_DAY, "drift.reference": {"last": 2}},
    "drift.reference.same_weekday": {
        **_DAY,
        "drift.reference": {"last": 2, "same_weekday": True},
    },
    "drift.reference.model": {"drift.reference": [{"model": True}]},
    "drift.reference.previous": {"drift.reference": [{"previous": True}]},
    "drift.reference.file": {"drift.reference": [{"file": "profile.parquet"}]},
    "drift.reference.on_fail": {"drift.reference": [{"model": True, "on_fail": "off"}]},
    "drift.on_fail": {"drift.on_fail": "warn"},
    "drift.alpha": {"drift.alpha": 0.01},
    "drift.columns": {"drift.columns": ["a"]},
    "drift.thresholds": {"drift.thresholds": {"psi": [0.1, 0.2]}},
    "drift.column_thresholds": {"drift.column_thresholds": {"a": {"psi": [0.1, 0.2]}}},
    "drift.mute.column": {"drift.mute": [{**_MUTE, "column": "b"}]},
    "drift.mute.until": {"drift.mute": [{**_MUTE, "until": "2027-01-01"}]},
    "drift.mute.why": {"drift.mute": [{**_MUTE, "why": "another"}]},
    "drift.learn": {"drift.learn": 7},
    "drift.repeated": {"drift.repeated": "hold"},
    "notify.command": {"notify.command": ["true"]},
    "notify.on": {"notify": {"command": ["true"], "on": ["published"]}},
    "runtime.engine": {"runtime.engine": "flink"},
    "runtime.options": {"runtime.options": {"flink_master": "flink:8081"}},
    "runtime.flink.job_service": {"runtime.flink": {"job_service": "flink-jobs:8099"}},
    "runtime.flink.rest": {"runtime.flink": {"rest": "flink:8081"}},
    "runtime.flink.parallelism": {"runtime.flink": {"parallelism": 4}},
    "runtime.flink.pool": {"runtime.flink": {"pool": "localhost:50000"}},
    "runtime.flink.container": {"runtime.flink": {"container": "scorer:1"}},
    "runtime.dataflow.project": {"runtime.dataflow": {"project": "nightly-scores"}},
    "runtime.dataflow.region": {"runtime.dataflow": {"region": "europe-west4"}},
    "runtime.dataflow.temp_location": {"runtime.dataflow": {"temp_location": "gs://scores/tmp"}},
    "runtime.dataflow.image": {"runtime.dataflow": {"image": "europe-docker.pkg.dev/a/b/c:1"}},
    "runtime.dataflow.service_account": {
        "runtime.dataflow": {"service_account": "score@nightly-scores.iam.gserviceaccount.com"}
    },
    "runtime.dataflow.subnetwork": {
        "runtime.dataflow": {"subnetwork": "regions/europe-west4/subnetworks/batch"}
    },
    "runtime.dataflow.public_ips": {"runtime.dataflow": {"public_ips": True}},
    "runtime.dataflow.labels": {"runtime.dataflow": {"labels": {"team": "risk"}}},
    "runtime.dataflow.machine_type": {"runtime.dataflow": {"machine_type": "n1-standard-8"}},
    "runtime.dataflow.accelerator": {"runtime.dataflow": {"accelerator": "nvidia-tesla-t4"}},
    "runtime.dataflow.min_ram": {"runtime.dataflow": {"min_ram": "8GB"}},
    "runtime.dataflow.processes": {"runtime.dataflow": {"processes": "vm"}},
    "runtime.dataflow.vms": {"runtime.dataflow": {"vms": 2}},
    "runtime.dataflow.max_vms": {"runtime.dataflow": {"max_vms": 2}},
    "runtime.device": {"runtime.device": "cpu"},
    "runtime.model_process": {"runtime.model_process": "on"},
    "runtime.model_timeout": {"runtime.model_timeout": "2h"},
    "runtime.workers": {"runtime.workers": 3},
    "runtime.batch_rows": {"runtime.batch_rows": 7},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small job's shards, models and functions, for jobs of all kinds."""
    made = tmp_path_factory.mktemp("score")
    factory.write_job(made, {"postprocess": None}).rename(made / "plain.yaml")
    steps = pa.array([[1.0, 2.0]] * 300, pa.list_(pa.float32()))
    for name in ("0", "1"):
        table = factory.make_rows(first=300 * int(name)).append_column("steps", steps)
        table = table.append_column("at", pa.array([0] * 300, pa.timestamp("us")))
        factory.write_shard(made / f"in/{name}.parquet", table)
    factory.write_shard(made / "hive/day=1/0.parquet")
    shutil.copytree(made / "model", made / "moved")
    two = {"logit": {"type": "float32", "shape": [2]}}
    factory.write_model(made / "classes", outputs=two)
    (made / "net.py").write_text(factory.NET)
    (made / "trees.txt").write_text(FOREST)
    (made / "words.txt").write_text("a word\n")
    (made / "letters.json").write_text("{}")
    installed.install(made / "site", letters="tests.backends.letters:BACKEND")
    (made / "f.py").write_text("def f(batch):\n    return batch\n\n\ng = f\n")
    for name in ("w.safetensors", "w.pt"):
        factory.write_weights(made / name)
    others = {name: tensor + 1 for name, tensor in factory.STATE.items()}
    factory.write_weights(made / "other.safetensors", others)
    return made


@pytest.fixture
def plan_of(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Plan]:
    """Plans the small job with changes, under fixed versions and without looking for references."""
    monkeypatch.setattr("batchscore.plan.fingerprint.version", VERSIONS.__getitem__)
    monkeypatch.setattr("batchscore.plan.plan.find_references", lambda *_: References((), ()))
    monkeypatch.syspath_prepend(str(folder / "site"))

    def plan(*changes: Changes) -> Plan:
        shutil.copy(folder / "plain.yaml", folder / "job.yaml")
        for each in changes:
            factory.change_job(folder, each)
        _pin_weights(folder)
        params = ["day=2026-01-01"] if any("params" in each for each in changes) else []
        return make_plan(load_job(str(folder / "job.yaml"), params))

    return plan


def _pin_weights(folder: Path) -> None:
    """Writes the hash of a weights file into the job that names one."""
    model = yaml.safe_load((folder / "job.yaml").read_text())["model"]
    if "sha256" in model:
        factory.change_job(folder, {"model.sha256": factory.sha256(folder / model["path"])})


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in typing.get_args(annotation):
        yield from _sections(part)


def _keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        inner = [*_sections(field.annotation)]
        if name == "postprocess":
            for step, kind in STEPS.items():
                yield from _keys(kind, f"postprocess.{step}.")
        elif inner:
            for section in inner:
                yield from _keys(section, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def test_every_key_of_the_job_file_is_in_one_of_two_lists() -> None:
    """A new key decides scores or it does not: add it to DECIDES and to the facts, or to KEEPS."""
    assert sorted({*_keys(Job)}) == sorted([*DECIDES, *KEEPS])


@pytest.mark.slow
@pytest.mark.parametrize("key", DECIDES)
def test_what_decides_scores_changes_their_name(plan_of: Callable[..., Plan], key: str) -> None:
    """Units that were scored in one way are not looked for under another."""
    job, changes = DECIDES[key]
    assert plan_of(job).score != plan_of(job, changes).score


@pytest.mark.slow
@pytest.mark.parametrize("key", KEEPS)
def test_what_decides_no_score_keeps_their_name(plan_of: Callable[..., Plan], key: str) -> None:
    """A check, a bound or the number of workers never scores a row again."""
    assert plan_of(KEEPS[key]).score == plan_of().score


@pytest.mark.parametrize(
    ("changes", "needed"),
    [
        ({}, "torch"),
        (_classes("top_k", k=1), "torch"),
        (_step("sigmoid"), "numpy torch"),
        (_classes("softmax"), "numpy torch"),
        (FUNCTION, "numpy pyarrow torch"),
        ({"preprocess": {"function": "f.py:f"}}, "numpy pyarrow torch"),
        ({"preprocess": {"function": "f.py:f", "batch": "pandas"}}, "numpy pandas pyarrow torch"),
        ({"preprocess": {"function": "framed.py:f"}}, "numpy pandas pyarrow torch"),
        ({"preprocess": {"function": "twice.py:f"}}, "numpy pandas pyarrow torch"),
        (_step("function", function="f.py:f", batch="pandas"), "numpy pandas pyarrow torch"),
    ],
)
def test_only_packages_that_scores_depend_on_count(
    folder: Path, plan_of: Callable[..., Plan], changes: Changes, needed: str
) -> None:
    """A job without pandas functions is not scored again for another pandas."""
    (folder / "framed.py").write_text("def f(rows: 'pd.DataFrame'):\n    return rows\n")
    (folder / "twice.py").write_text("from once import Rows\n\n\ndef f(rows: Rows): ...\n")
    (folder / "once").mkdir(exist_ok=True)
    (folder / "once/__init__.py").write_text("from .rows import Rows\n")
    (folder / "once/rows.py").write_text("import pandas\n\nRows = pandas.DataFrame\n")
    plan = plan_of(changes)
    assert " ".join(needed_packages(plan.loaded, plan.spec)) == needed


def test_decimals_that_become_floats_count_on_arrow(
    tmp_path: Path, plan_of: Callable[..., Plan]
) -> None:
    """Its cast of large decimals is not the same in all versions; of other numbers it is."""
    job = factory.write_job(tmp_path, {"postprocess": None})
    for name, first in (("0", 0), ("1", 300)):
        rows = factory.make_rows(first=first)
        column = rows["a"].cast(pa.float64()).cast(pa.decimal128(20, 6), safe=False)
        rows = rows.set_column(1, "a", column)
        factory.write_shard(tmp_path / f"in/{name}.parquet", rows)
    plan = make_plan(load_job(str(job)))
    assert needed_packages(plan.loaded, plan.spec) == ["pyarrow", "torch"]


def test_no_version_of_batchscore_or_of_its_files_is_a_fact(
    plan_of: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upgrade scores nothing again: what counts is this list."""
    monkeypatch.setattr("batchscore.plan.fingerprint.__version__", "9.9")
    assert {name: text for name, text in plan_of().score_facts.items() if len(text) < 64} == {
        "facts": "format 3",
        "scoring": "version 1",
        "runtime.precision": "float32",
        "runtime.compile": "False",
        "runtime.micro_batch": "auto",
        "version of torch": "2.1",
    }
    hashed = "model, model inputs, preprocess, postprocess, input.filters, columns that are read"
    others = {name for name, text in plan_of().score_facts.items() if len(text) == 64}
    assert others == {*hashed.split(", "), "columns that are written"}


def test_the_version_of_scoring_changes_the_name(
    plan_of: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is what is raised where the same job makes other scores."""
    before = plan_of().score
    monkeypatch.setattr("batchscore.plan.fingerprint.SCORING_VERSION", 2)
    assert plan_of().score != before


def test_the_name_of_the_demo_is_pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of it scores every published row of everybody again: it must not be by accident."""
    monkeypatch.setattr("batchscore.plan.fingerprint.version", VERSIONS.__getitem__)
    plan = make_plan(load_job(str(DEMO), (), [f"output.path={tmp_path / 'out'}"]))
    assert plan.score == "711f983adf22b3f65770bc7c56fb3152088750f3df7d0122306e9e3888ba564d"
    earlier = respell_code(plan.score_facts, plan.loaded, ())
    assert earlier is not None
    before = "497154c8ae4bb99af206c2a05ae3b275a7719bcd7b95b3d25639b39b01018c1d"
    assert score_hash(earlier) == before
