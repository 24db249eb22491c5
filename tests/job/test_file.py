"""Tests of job files: what a right one means, and what a wrong one's message says."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import pickle
from collections.abc import Callable, Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any

import fsspec
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchscore.errors import JobFileError
from batchscore.job import (
    Job,
    Labels,
    LoadedJob,
    Sigmoid,
    Softmax,
    Threshold,
    TopK,
    UserFunction,
    load_job,
)
from batchscore.job.problems import location_of

MINIMAL: dict[str, Any] = {
    "name": "flights",
    "input": {"path": "in"},
    "model": "model",
    "output": {"path": "out"},
}
FULL: dict[str, Any] = {
    "batchscore": 1,
    "name": "flights",
    "params": {"date": {"type": "date"}, "region": {"type": "string"}},
    "input": {
        "path": ["in/${date}", "s3://bucket/x/*.parquet"],
        "filters": [["day", "==", "${date}"], ["carrier", "in", ["AA", "NO"]]],
        "allow_empty": True,
        "ready": "_SUCCESS",
    },
    "model": {
        "path": "weights.safetensors",
        "format": "safetensors",
        "architecture": "net.py:Net",
        "architecture_args": {"widths": [32, 8]},
        "sha256": "0" * 64,
        "inputs": {"x": ["a", "b"], "y": "c"},
        "outputs": {"logits": {"type": "float32", "shape": [3]}},
        "version": "1.0",
    },
    "preprocess": {"function": "features.py:encode", "batch": "pandas", "columns": ["a"]},
    "postprocess": [
        "softmax",
        {"sigmoid": {"output": "x", "name": "y"}},
        {"sigmoid": None},
        {"top_k": {"k": 2, "labels": ["a", "b", "c"]}},
        {"threshold": {"at": 1}},
        {"labels": ["on_time", "late"]},
        {"function": "post.py:shape"},
        {"function": {"function": "post.py:shape", "batch": "arrow"}},
    ],
    "output": {"path": "out/${region}", "columns": ["a"], "partition_by": ["month"]},
    "rejects": {"max_ratio": 0},
    "checks": {"score_range": {"x": [0, 1]}},
    "drift": {"thresholds": {"psi": [0.1, 0.2], "ks": None}, "column_thresholds": {}},
    "runtime": {"engine": "direct", "device": "cuda:1", "workers": 2, "batch_rows": "auto"},
}
PARAMS = ["date=2026-11-20", "region=eu"]
Write = Callable[..., LoadedJob]


@pytest.fixture
def load(tmp_path: Path) -> Write:
    """Returns a function that writes a job, or a text, to jobs/job.yaml and loads it."""

    def write_and_load(job: Any, *sets: str, params: list[str] | None = None) -> LoadedJob:
        path = tmp_path / "jobs" / "job.yaml"
        path.parent.mkdir(exist_ok=True)
        text = job if isinstance(job, str) else yaml.safe_dump(job, sort_keys=False)
        path.write_text(text, encoding="utf-8")
        return load_job(str(path), params or [], sets)

    return write_and_load


@pytest.fixture
def errors(load: Write, tmp_path: Path) -> Callable[..., list[str]]:
    """Returns a function that loads a wrong job and returns the error's lines."""

    def lines(job: Any, *sets: str, params: list[str] | None = None) -> list[str]:
        with pytest.raises(JobFileError) as caught:
            load(job, *sets, params=params)
        assert caught.value.__cause__ is None
        return str(caught.value).replace(f"{tmp_path}/jobs/", "").splitlines()

    return lines


def changed(**sections: Any) -> dict[str, Any]:
    return {**MINIMAL, **sections}


def test_fills_in_the_defaults(load: Write, tmp_path: Path) -> None:
    """Name, input, model and output are enough, and relative paths start from the job file."""
    loaded = load(MINIMAL)
    base = str(tmp_path / "jobs")
    assert loaded.base == base
    assert loaded.source == f"{base}/job.yaml"
    assert loaded.text_sha256 == hashlib.sha256(Path(loaded.source).read_bytes()).hexdigest()
    assert loaded.job == Job.model_validate(
        {
            "name": "flights",
            "input": {"path": f"{base}/in"},
            "model": f"{base}/model",
            "output": {"path": f"{base}/out"},
        }
    )
    assert loaded.job.input.path == (f"{base}/in",)
    assert loaded.job.postprocess == ()
    assert loaded.job.rejects.max_ratio == 0.001


def test_reads_every_key(load: Write, tmp_path: Path) -> None:
    """A job that uses every key is read with placeholders filled and short forms written out."""
    loaded = load(FULL, params=PARAMS)
    job = loaded.job
    assert loaded.params == {"date": date(2026, 11, 20), "region": "eu"}
    assert job.input.path == (f"{tmp_path}/jobs/in/2026-11-20", "s3://bucket/x/*.parquet")
    assert job.input.filters == (
        (("day", "==", date(2026, 11, 20)), ("carrier", "in", ("AA", "NO"))),
    )
    assert job.output.path == f"{tmp_path}/jobs/out/eu"
    assert job.model.inputs == {"x": ("a", "b"), "y": "c"}
    assert job.model.outputs["logits"].shape == (3,)
    assert job.postprocess == (
        Softmax(),
        Sigmoid(output="x", name="y"),
        Sigmoid(),
        TopK(k=2, labels=("a", "b", "c")),
        Threshold(at=1),
        Labels(labels=("on_time", "late")),
        UserFunction(function="post.py:shape"),
        UserFunction(function="post.py:shape", batch="arrow"),
    )


def test_a_job_survives_its_dump_and_a_pickle(load: Write) -> None:
    """A job's dump is a job again, with steps distinguished by name, and it travels to workers."""
    job = load(FULL, params=PARAMS).job
    assert Job.model_validate(job.model_dump()) == job
    assert pickle.loads(pickle.dumps(job)) == job
    assert job.model_dump(mode="json")["postprocess"][0] == {
        "softmax": {"output": None, "name": None}
    }


@pytest.mark.parametrize(
    "filters",
    [
        [["a", "==", 1]],
        [["a", "==", 1], ["b", "not in", [1.5, 2]]],
        [[["a", "<", 1]], [["b", "=", True], ["c", "!=", "x"]]],
        [["a", ">=", date(2026, 1, 1)], ["b", "<", datetime(2026, 1, 1, 12, 30)]],
    ],
)
def test_filters_are_what_pyarrow_takes(load: Write, filters: list[Any]) -> None:
    """Filters get a form from which pyarrow makes the same expression."""
    read = load(changed(input={"path": "in", "filters": filters})).job.input.filters
    assert pq.filters_to_expression(read).equals(pq.filters_to_expression(filters))


def test_yaml_keeps_codes_as_texts(load: Write) -> None:
    """Country NO, code 007 and time 12:30 are texts, 1e-3 is a number, a bare = an operator."""
    loaded = load(
        "name: x\nmodel: m\noutput: {path: o}\nrejects: {max_ratio: 1e-3}\n"
        "input: {path: i, filters: [[a, in, [NO, off, 007, 12:30, 0x1]], [b, =, 7]]}\n"
    )
    assert loaded.job.input.filters == (
        (("a", "in", ("NO", "off", "007", "12:30", "0x1")), ("b", "=", 7)),
    )
    assert loaded.job.rejects.max_ratio == 0.001


def test_overrides_are_typed_where_they_are_given(
    load: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--set` replaces one key, relative paths in it starting from the current directory."""
    monkeypatch.chdir(tmp_path)
    job = load(
        FULL,
        "output.path=here",
        "input.path.0=day/${date}",
        "model.path=other",
        "runtime={workers: 5}",
        "postprocess.4.threshold.at=0.5",
        params=PARAMS,
    ).job
    assert job.output.path == str(tmp_path / "here")
    assert job.input.path == (str(tmp_path / "day/2026-11-20"), "s3://bucket/x/*.parquet")
    assert job.model.path == str(tmp_path / "other")
    assert job.runtime.workers == 5
    assert job.postprocess[4] == Threshold(at=0.5)
    assert load(MINIMAL, "model=new").job.model.path == str(tmp_path / "new")
    assert load(MINIMAL, "model.inputs.x=a").job.model.path == str(tmp_path / "jobs/model")


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("output.pth=x", "--set output.pth: unknown key; nearest: 'path'"),
        ("runtime.workers='3'", "--set runtime.workers: expected 'auto' or an integer, found '3'"),
        ("rejects", "--set rejects: expected dotted.key=value"),
        ("name.x=1", "--set name.x: 'x' would be a key of a value that is not a mapping"),
        ("name=[", "--set name:1:2: not YAML: expected the node content, but found '<stream end>'"),
        (
            "input.path.2=x",
            "--set input.path.2: expected a position in a list of 2, found 2; "
            "set the whole list to lengthen it",
        ),
        ("a" + ".a" * 5000 + "=1", "over 20 parts"),
    ],
)
def test_names_a_wrong_override(errors: Callable[..., list[str]], override: str, line: str) -> None:
    """An error in an override says so, and not that the job file is wrong."""
    (found,) = errors(FULL, override, params=PARAMS)
    assert line in found


def test_remote_job_files(tmp_path: Path) -> None:
    """A job file at an fsspec address is read, and its relative paths stay within its bucket."""
    with fsspec.open("memory://bucket/jobs/a/job.yaml", "wb") as file:
        file.write(yaml.safe_dump(changed(output={"path": "../out"})).encode())
    loaded = load_job("memory://bucket/jobs/a/job.yaml")
    assert loaded.base == "memory://bucket/jobs/a"
    assert loaded.job.output.path == "memory://bucket/jobs/out"
    assert loaded.job.input.path == ("memory://bucket/jobs/a/in",)
    with fsspec.open("memory://bucket/jobs/a/job.yaml", "wb") as file:
        file.write(yaml.safe_dump(changed(output={"path": "../../../other/out"})).encode())
    with pytest.raises(JobFileError, match=r"output\.path: .* leaves memory://bucket"):
        load_job("memory://bucket/jobs/a/job.yaml")


@pytest.mark.parametrize(
    ("sections", "line"),
    [
        ({"input": {"pth": "x", "path": "x"}}, "input.pth: unknown key; nearest: 'path'"),
        ({"modle": 1}, "modle: unknown key; nearest: 'model'"),
        ({"input": {}}, "input.path: missing; a job needs it"),
        ({"batchscore": 2}, "batchscore: expected 1, the format that this batchscore reads, found"),
        ({"batchscore": True}, "batchscore: expected 1"),
        ({"name": "a b"}, "name: expected a name of letters, digits, '_', '.' and '-', found"),
        ({"name": 5}, "name: expected a text, found 5"),
        ({"name": None}, "name: expected a text, found null"),
        ({"name": "x" * 65}, "name: expected at most 64 characters"),
        ({"input": "in"}, "input: expected a mapping with keys such as path, found 'in'"),
        ({"input": {"path": []}}, "input.path: expected a list that is not empty, found []"),
        ({"input": {"path": ["a", 5]}}, "input.path.1: expected a text, found 5"),
        ({"input": {"path": ""}}, "input.path: expected a path or address"),
        ({"output": {"path": "a\0b"}}, "output.path: expected a path or address"),
        ({"input": {"path": "x", "allow_empty": 1}}, "allow_empty: expected true or false"),
        ({"rejects": {"max_ratio": 2}}, "rejects.max_ratio: expected at most 1.0, found 2"),
        ({"rejects": {"max_ratio": "1"}}, "rejects.max_ratio: expected a number, found '1'"),
        ({"rejects": {"max_ratio": True}}, "rejects.max_ratio: expected a number, found true"),
        ({"runtime": {"workers": 0}}, "runtime.workers: expected 'auto' or at least 1, found 0"),
        ({"runtime": {"workers": True}}, "runtime.workers: expected 'auto' or an integer"),
        ({"runtime": {"device": "gpu"}}, "expected 'auto', 'cpu', 'cuda' or 'cuda:N', found 'gpu'"),
        ({"model": {"path": "m", "inputs": {"x": [1]}}}, "model.inputs.x.0: expected a text"),
        ({"model": {"path": "m", "version": "1"}}, "model: version: only for one weights file"),
        ({"model": {"path": "m", "format": "pt"}}, "also needs sha256, inputs"),
        ({"params": {"a-b": {"type": "date"}}}, "params.a-b: expected a name of letters"),
        ({"params": {"d": {"type": "day"}}}, "params.d.type: expected 'date', 'string'"),
        (
            {"params": {"d": {"type": "date", "typ": 1}}},
            "params.d.typ: unknown key; nearest: 'type'",
        ),
        ({"preprocess": {"function": "../f.py:g"}}, "preprocess.function: expected 'file.py:name'"),
        ({"preprocess": {"function": "a/../../f.py:g"}}, "in the job file's folder or below"),
        ({"preprocess": {"function": "f.py"}}, "preprocess.function: expected 'file.py:name'"),
        ({"postprocess": ["sigmod"]}, "postprocess.0: no such step sigmod; nearest: 'sigmoid'"),
        ({"postprocess": [5]}, "postprocess.0: expected a step's name, or a mapping"),
        ({"postprocess": "top_k"}, "postprocess.k: missing; {top_k: {k: …}} needs it"),
        ({"preprocess": {"columns": ["a"]}}, "preprocess.function: missing; preprocess needs it"),
        (
            {"on_change": "hold"},
            "mapping with keys such as model, removed_shards, rewritten_shards",
        ),
        ({"runtime": {"model_timeout": 5}}, "expected minutes, hours or days, such as 90m, 26h or"),
        ({"params": {"d": "date"}}, "params.d: expected a mapping with keys such as type, found"),
        ({"postprocess": {"top_k": {"k": 0}}}, "postprocess.top_k.k: expected at least 1, found 0"),
        ({"postprocess": [{"top_k": {"kk": 1, "k": 1}}]}, "top_k.kk: unknown key; nearest: 'k'"),
        (
            {"postprocess": [{"threshold": 0.4}]},
            "postprocess.0.threshold: expected a mapping with keys such as at,",
        ),
        ({"postprocess": [{"labels": ["a", "a"]}]}, "'a' appears more than once; keep one"),
        ({"postprocess": [{"top_k": {"k": 2, "labels": ["a"]}}]}, "there are labels for 1"),
        ({"output": {"path": "x", "partition_by": ["a", "a"]}}, "output.partition_by: 'a' appears"),
        ({"drift": {"thresholds": {"psi": [0.1]}}}, "psi: expected [warn, fail], found [0.1]"),
        ({"drift": {"thresholds": {"psi": [1, 2, 3]}}}, "psi: expected [warn, fail], found [1, 2"),
        ({"drift": {"thresholds": {"psi": 0.1}}}, "psi: expected [warn, fail], found 0.1"),
        ({"drift": {"thresholds": {"psi": [0, 1]}}}, "psi.0: expected above 0.0, found 0"),
        (
            {"drift": {"column_thresholds": {"a": {"ks": [1]}}}},
            "a.ks: expected [warn, fail], found",
        ),
        ({"checks": {"score_range": [0.1]}}, "score_range: expected [smallest, largest] or a map"),
        ({"checks": {"score_range": [0, 1, 2]}}, "score_range: expected [smallest, largest] or a"),
        ({"checks": {"score_range": {"a": [0]}}}, "score_range.a: expected [smallest, largest], f"),
    ],
)
def test_names_what_is_wrong(
    errors: Callable[..., list[str]], sections: dict[str, Any], line: str
) -> None:
    """A wrong key or value is one line with its place, what was expected, and what was found."""
    params = ["d=2026-01-01"] if "params" in sections else None
    (found,) = errors(changed(**sections), params=params)
    assert found.startswith("job.yaml: ")
    assert line in found


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        (["a", "==", 1], "needs two pairs of brackets"),
        ("a == 1", "needs two pairs of brackets"),
        ([["a", "==="]], "expected [column, operator, value]"),
        ([["a", "===", 1]], "no such operator '==='; nearest: '=='"),
        ([["a", "in", 1]], "'in' needs a list"),
        ([["a", "in", []]], "'in' needs a list"),
        ([["a", "==", [1]]], "found [1]"),
        ([["a", "==", None]], "found null"),
        ([[]], "empty"),
        ([[1, "==", 1]], "expected a column's name, found 1"),
        ([["a", ["=="], 1]], "no such operator"),
        ([[["a", "==", 1]], []], "empty"),
    ],
)
def test_names_a_wrong_filter(errors: Callable[..., list[str]], filters: Any, message: str) -> None:
    """A filter that pyarrow would not understand is refused with the part that is wrong."""
    (found,) = errors(changed(input={"path": "in", "filters": filters}))
    assert found.startswith("job.yaml: input.filters: ")
    assert message in found


def test_an_item_that_a_list_lacks_is_placed_at_the_list() -> None:
    """A complaint about a position beyond a list's end names the list."""
    detail = {"loc": ("checks", "score_range", 1), "type": "float_type"}
    assert location_of(detail, {"checks": {"score_range": [0.1]}}) == ("checks", "score_range")


def test_thresholds_may_be_null_for_never(load: Write) -> None:
    """A measure without thresholds is written as null, of one effect or of both."""
    thresholds = {"psi": None, "ks": [None, None], "tail": [0.01, None]}
    drift = load(changed(drift={"thresholds": thresholds, "column_thresholds": {"a": thresholds}}))
    found = {"psi": (None, None), "ks": (None, None), "tail": (0.01, None)}
    assert drift.job.drift.thresholds == found
    assert drift.job.drift.column_thresholds == {"a": found}


def test_lists_every_problem(errors: Callable[..., list[str]]) -> None:
    """Parameters, placeholders, overrides and keys that are wrong are all reported at once."""
    job = changed(
        params={"date": {"type": "date"}},
        input={"path": "in/${dat}", "filters": [["day", "==", "${date}"]]},
        output={"path": "out/${date}", "colums": []},
        runtime={"workers": "${date}"},
    )
    assert errors(job, "rejects.max_ratio=a", params=["dat=1"]) == [
        "--param dat: the job declares no such parameter; nearest: 'date'",
        "--param date: missing; give --param date=2026-11-20 (date)",
        "job.yaml: input.path: '${dat}': the job declares no such parameter; nearest: 'date': "
        "declare it under params, or correct the name",
        "job.yaml: output.colums: unknown key; nearest: 'columns'",
        "--set rejects.max_ratio: expected a number, found 'a'",
    ]


@pytest.mark.parametrize(("text", "found"), [("- 1", "[1]"), ("", "null"), ("x", "'x'")])
def test_needs_a_mapping(errors: Callable[..., list[str]], text: str, found: str) -> None:
    """The message about a file that is not a mapping says what it is."""
    assert errors(text) == [
        f"job.yaml: expected a mapping of job file keys, such as name: nightly, found {found}"
    ]


def test_many_problems_are_cut_short(errors: Callable[..., list[str]]) -> None:
    """An error stays readable however much is wrong."""
    lines = errors(changed(**{f"unknown_{i}": 1 for i in range(500)}))
    assert len(lines) == 51
    assert lines[-1] == "and 450 more"


def test_no_secret_reaches_an_error(errors: Callable[..., list[str]]) -> None:
    """A value under a secret's name, or a password in an address, is in no message."""
    job = changed(
        params={"api_token": {"type": "string"}},
        model={
            "path": "m",
            "secret_key": "hunter2",
            "format": "pt",
            "architecture_args": {"password": date(2011, 11, 11)},
            "sha256": "x${api_token}",
        },
        output={"path": "s3://me:hunter2@bucket/\x07"},
        storage={"token": "hunter2"},
    )
    overrides = ("runtime.password=*hunter2", "runtime.token=!hunter2 x")
    text = "\n".join(errors(job, *overrides, params=["api_token=hunter2"]))
    assert "sha256" in text
    assert "hunter2" not in text
    assert "2011" not in text


SCALARS = [None, True, 0, -1, 1.5, float("nan"), date(2026, 1, 1)]
TEXTS = ["", "${date}", "${", "a/../b", "sigmoid", "\x07", "x" * 300]
TREES = [[], {}, ["a"], [["a", "==", 1]], {"path": "x"}, {"top_k": {"k": 1}}]
PIECES = st.sampled_from([*SCALARS, *TEXTS, *TREES])
DIRT = st.text(st.characters(codec="utf-8"), max_size=8) | st.text(
    alphabet="{}[]:,!&*%@|>-? \n'\"#<=~$", max_size=12
)


def places(tree: Any) -> Iterator[tuple[Any, Any]]:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in items:
        yield tree, key
        if isinstance(value, dict | list):
            yield from places(value)


@st.composite
def mutated_jobs(draw: st.DrawFn) -> Any:
    """A valid job of which some values are replaced, removed, or set under another key."""
    job = copy.deepcopy(FULL)
    for _ in range(draw(st.integers(1, 4))):
        tree, key = draw(st.sampled_from(list(places(job)) or [(job, "name")]))
        action = draw(st.sampled_from(["replace", "remove", "rename"]))
        if action == "replace" or (action == "rename" and isinstance(tree, list)):
            tree[key] = copy.deepcopy(draw(PIECES))
        elif action == "remove":
            del tree[key]
        else:
            tree[draw(st.text(max_size=5))] = tree.pop(key)
    return job


def test_a_name_that_cannot_be_printed_is_escaped(load: Write) -> None:
    """Also in the part of a message that says what needs a missing key."""
    with pytest.raises(JobFileError) as caught:
        load({**FULL, "params": {"\x1f": {}}})
    assert str(caught.value).isprintable()
    assert r"'\x1f' needs it" in str(caught.value)


@pytest.mark.slow
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(job=mutated_jobs(), param=st.sampled_from(["date=2026-11-20", "date=x", "x=1", "date"]))
def test_a_mutated_job_is_a_job_or_an_error(load: Write, job: Any, param: str) -> None:
    """Whatever is changed in a job file, it loads or is a JobFileError that names the file."""
    lines = []
    try:
        loaded = load(job, params=[param, "region=eu"]).job
        assert Job.model_validate(loaded.model_dump()) == loaded
    except JobFileError as error:
        lines = str(error).split("\n")
    assert all(line and line.isprintable() for line in lines)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_damaged_text_is_a_job_or_an_error(load: Write, data: st.DataObject) -> None:
    """Whatever characters are put into the text, it loads or is a JobFileError."""
    text = yaml.safe_dump(MINIMAL)
    place = data.draw(st.integers(0, len(text)))
    dirt = data.draw(DIRT)
    cut = data.draw(st.integers(0, 5))
    with contextlib.suppress(JobFileError):
        load(text[:place] + dirt + text[place + cut :])


@pytest.mark.slow
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(override=st.text(max_size=30) | st.from_regex(r"\A[a-z.0-9]{1,12}=[^\n]{0,10}\Z"))
def test_any_override_is_a_job_or_an_error(load: Write, override: str) -> None:
    """Whatever is typed after --set, the job loads or it is a JobFileError."""
    with contextlib.suppress(JobFileError):
        load(MINIMAL, override)
