"""Tests of files that are no skops files, damaged, or made to do harm: none runs code."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn

from batchscore.errors import ModelError
from batchscore.models.backends.registry import backend_of
from batchscore.models.backends.sklearn.described import read_skops_file
from batchscore.models.backends.sklearn.predictor import built
from tests.boosters import damaged
from tests.models.backends.sklearn.test_pipelines import model_of
from tests.pipelines import TRAINED

ROOT = Path(__file__).parents[4]


class Harm:
    """What would make a file, if anybody unpickled it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def packed(members: dict[str, bytes]) -> bytes:
    """Returns a ZIP archive."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in members.items():
            made.writestr(name, content)
    return target.getvalue()


def members_of(path: Path) -> dict[str, bytes]:
    """Returns the members of a file."""
    with zipfile.ZipFile(path) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def changed(path: Path, change: Callable[[Any], Any]) -> bytes:
    """Returns a file whose schema was changed."""
    members = members_of(path)
    schema = json.loads(members["schema.json"])
    found = change(schema) or schema
    return packed({**members, "schema.json": json.dumps(found).encode()})


def attributes(schema: Any, step: int) -> Any:
    """Returns the attributes of a pipeline's step in a schema."""
    steps = schema["content"]["content"]["steps"]["content"]
    return steps[step]["content"][1]["content"]["content"]


def refused(content: bytes, tmp_path: Path) -> str:
    """Returns the message with which a file is refused before or while it is loaded."""
    path = tmp_path / "changed.skops"
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        backend_of("sklearn").load(model_of(path), "cpu")
    return str(caught.value)


def test_pickles_are_refused_in_each_disguise(tmp_path: Path) -> None:
    """Plain, compressed as joblib does, in an archive, and as an array: no code runs."""
    import gzip
    import zlib

    mark = tmp_path / "harm"
    harm = pickle.dumps(Harm(mark))
    array = io.BytesIO()
    np.save(array, np.array([Harm(mark)], object), allow_pickle=True)
    node = {"__class__": "ndarray", "__module__": "numpy", "__loader__": "NdArrayNode"}
    schema = {**node, "type": "numpy", "file": "0.npy", "protocol": 2}
    texts = [
        refused(each, tmp_path)
        for each in (
            harm,
            pickle.dumps(Harm(mark), 0),
            zlib.compress(harm),
            gzip.compress(harm),
            packed({"schema.json": b"{}", "data.pkl": harm}),
            packed({"schema.json": json.dumps(schema).encode(), "0.npy": array.getvalue()}),
            packed({"schema.json": harm}),
        )
    ]
    assert not mark.exists()
    assert all("changed.skops" in each for each in texts)
    assert all("bs.save_model" in each for each in texts[:5])
    assert all("pickle" in each for each in texts[:5])
    assert "it holds 'data.pkl'" in texts[4]


CALLED = {"__class__": "system", "__module__": "os", "__loader__": "FunctionNode"}
OBJECT = {"__class__": "Popen", "__module__": "subprocess", "__loader__": "ObjectNode"}
METHOD = {
    "__class__": "methodcaller",
    "__module__": "operator",
    "__loader__": "OperatorFuncNode",
    "attrs": {"__class__": "tuple", "__module__": "builtins", "__loader__": "TupleNode"},
}
REDUCED = {**OBJECT, "__loader__": "ConstructorFromReduceNode"}
PARTIAL = {
    "__class__": "partial",
    "__module__": "functools",
    "__loader__": "PartialNode",
    "content": {"func": CALLED, "args": {}, "kwds": {}},
}
TYPE = {**OBJECT, "__loader__": "TypeNode"}
SPARSE = {"__class__": "csr_matrix", "__module__": "scipy.sparse", "__loader__": "SparseMatrixNode"}
UNKNOWN = {**OBJECT, "__loader__": "NewNode"}


@pytest.mark.parametrize(
    ("node", "name"),
    [
        (CALLED, "os.system"),
        (OBJECT, "subprocess.Popen"),
        (METHOD, "operator.methodcaller"),
        (REDUCED, "subprocess.Popen"),
        (PARTIAL, "os.system"),
        (TYPE, "subprocess.Popen"),
        (SPARSE, "scipy.sparse.csr_matrix"),
        (UNKNOWN, "subprocess.Popen"),
    ],
)
def test_other_types_are_refused_by_name(
    node: dict[str, Any], name: str, pipelines: Path, tmp_path: Path
) -> None:
    """Wherever such an object is in the file, and however it would be made."""

    def change(schema: Any) -> None:
        attributes(schema, 0)["extra"] = node

    found = refused(changed(pipelines / "logistic.skops", change), tmp_path)
    assert f"it holds {name}" in found
    assert "not among the types that are loaded" in found


def test_a_vectorizer_that_opens_files_is_refused(tmp_path: Path) -> None:
    """With input="filename" scikit-learn would open whatever a text names."""
    import skops.io
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(CountVectorizer(), LogisticRegression()).fit(["a b c d", "bb cc"], [0, 1])
    model[0].input = "filename"
    found = read_skops_file(skops.io.dumps(model))
    with pytest.raises(ModelError, match="CountVectorizer reads files"):
        built(found)


def test_a_hidden_attribute_is_refused(pipelines: Path, tmp_path: Path) -> None:
    """A file sets no attribute that Python itself looks at."""

    def change(schema: Any) -> None:
        found = schema["content"]
        found["content"]["__class__"] = found["content"]["verbose"]
        found["key_types"]["content"].append(found["key_types"]["content"][0])

    found = refused(changed(pipelines / "logistic.skops", change), tmp_path)
    assert "has no plain attributes" in found


@pytest.mark.parametrize("written", ["0.24.2", "1.0.1", "99.1"])
def test_another_version_is_refused(written: str, pipelines: Path, tmp_path: Path) -> None:
    """The message names both versions, and what to install."""
    members = members_of(pipelines / "usual.skops")
    here = sklearn.__version__
    schema = members["schema.json"].replace(f'\\"{here}\\"'.encode(), f'\\"{written}\\"'.encode())
    found = refused(packed({**members, "schema.json": schema}), tmp_path)
    assert f"was written by scikit-learn {written}, and {here} is installed" in found
    assert f"install 'scikit-learn=={'.'.join(written.split('.')[:2])}.*'" in found


def test_a_zip_bomb_is_refused_unread(pipelines: Path) -> None:
    """A member that would take a thousand times the file's bytes is not unpacked."""
    members = members_of(pipelines / "ridge.skops")
    bomb = packed({**members, "bomb.npy": bytes(80 << 20)})
    assert len(bomb) < 200_000
    with pytest.raises(ModelError, match=r"would take 83,8.* when unpacked"):
        read_skops_file(bomb)


def test_a_header_of_more_than_the_file_is_refused(pipelines: Path, tmp_path: Path) -> None:
    """An array of a shape beyond its bytes takes no memory."""
    members = members_of(pipelines / "ridge.skops")
    name = next(name for name in members if name.endswith(".npy"))
    members[name] = members[name].replace(b"(3,)", b"(9999999999,)")
    found = refused(packed(members), tmp_path)
    assert "an array has another length than its shape" in found


def test_a_damaged_place_or_header_of_an_array_is_refused(pipelines: Path, tmp_path: Path) -> None:
    """Whatever readers of archives, and of Python's words in a header, raise."""
    members = members_of(pipelines / "ridge.skops")
    name = next(name for name in members if name.endswith(".npy"))
    content = packed({"schema.json": members.pop("schema.json"), **members})
    place = content.index(name.encode()) - 30
    assert "magic number" in refused(content[:place] + b"X" + content[place + 1 :], tmp_path)
    for spoilt in (b"(3,[", b"(3:)", b"'3,)"):
        changed = {**members_of(pipelines / "ridge.skops")}
        changed[name] = changed[name].replace(b"(3,)", spoilt)
        assert "damaged" in refused(packed(changed), tmp_path)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (b"[" * 90_000, "nested too deeply|no skops file"),
        (b'{"a": 1, "a": 2}', "has a key twice"),
        (b"[]", "holds no object"),
        (b'{"protocol": 99}', "skops file of protocol 99, and 2 is read"),
        (b"{", "no skops file, or damaged"),
    ],
)
def test_schemas_that_mean_nothing_are_refused(schema: bytes, message: str) -> None:
    """One message, whatever the JSON holds."""
    with pytest.raises(ModelError, match=message):
        read_skops_file(packed({"schema.json": schema}))


def test_a_file_chooses_no_number_of_threads(pipelines: Path) -> None:
    """KMeans keeps that of the machine that trained it; a made-up one would end the process."""

    def many(schema: Any) -> None:
        attributes(schema, 1)["_n_threads"]["content"] = "1000000"

    estimator = built(read_skops_file(changed(pipelines / "kmeans.skops", many)))
    assert estimator[-1]._n_threads == 1


def test_a_kernel_that_trusts_places_in_a_row_is_refused(pipelines: Path, tmp_path: Path) -> None:
    """libsvm reads a precomputed kernel at places of the file, beyond the row's end."""

    def precomputed(schema: Any) -> None:
        attributes(schema, 1)["kernel"]["content"] = '"precomputed"'

    content = changed(pipelines / "svc.skops", precomputed)
    assert "the support vectors have other sizes" in refused(content, tmp_path)


def _spoilt_nodes(path: Path, field: str, value: int, dtype: str) -> bytes:
    """Returns a file in which the first node of the first tree has another number."""
    members = members_of(path)
    for name, content in members.items():
        if name.endswith(".npy"):
            array = np.load(io.BytesIO(content))
            if field in (array.dtype.names or ()) and len(array) > 1:
                array = array.copy()
                array[field][0] = value
                made = io.BytesIO()
                np.save(made, array)
                return packed({**members, name: made.getvalue()})
    raise AssertionError(dtype)


@pytest.mark.parametrize(
    ("name", "field", "value", "message"),
    [
        ("tree", "left_child", 1 << 40, "a child is no node"),
        ("tree", "left_child", 0, "comes before its parent"),
        ("tree", "feature", 99, "a split is by a feature beyond 3"),
        ("tree", "feature", -7, "a split is by a feature beyond 3"),
        ("forest", "right_child", -5, "a child is no node"),
        ("boosting", "feature", 3, "a split is by a feature beyond 3"),
        ("histogram", "left", 1 << 30, "a child is no node"),
        ("histogram", "feature_idx", 1 << 40, "a split is by a feature beyond 3"),
        ("categories", "bitset_idx", 0, ""),
    ],
)
def test_trees_that_lead_out_of_memory_are_refused(
    name: str, field: str, value: int, message: str, pipelines: Path, tmp_path: Path
) -> None:
    """scikit-learn would follow such nodes without a look."""
    content = _spoilt_nodes(pipelines / f"{name}.skops", field, value, field)
    if message:
        assert message in refused(content, tmp_path)
    else:
        read_skops_file(content)


def test_a_neighbour_of_no_class_is_refused(pipelines: Path, tmp_path: Path) -> None:
    """scikit-learn would count it at another place of its memory."""
    members = members_of(pipelines / "knn.skops")
    for name, content in members.items():
        if name.endswith(".npy") and (array := np.load(io.BytesIO(content))).shape == (TRAINED,):
            for value in (-1, 2):
                changed, made = array.copy(), io.BytesIO()
                changed[5] = value
                np.save(made, changed)
                found = refused(packed({**members, name: made.getvalue()}), tmp_path)
                assert "a point of a class beyond 2" in found
            return
    raise AssertionError(sorted(members))


LOADER = """
import os, sys, warnings
from pathlib import Path
from batchscore.errors import BatchscoreError
from batchscore.models.backends.registry import backend_of
from batchscore.models.process.loading_trial import outcome_of
from tests.models.backends.sklearn.test_pipelines import model_of

warnings.simplefilter("ignore")
backend_of("sklearn").prepare()
ends = []
for path in sorted(Path(sys.argv[1]).iterdir()):
    child = os.fork()
    if not child:
        try:
            found = outcome_of(model_of(path))
        except BatchscoreError:
            os._exit(3)
        os._exit(0 if "loaded" in found else 3)
    ends.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(ends.count(0), ends.count(3), len(ends))
"""


def test_damaged_files_end_no_process(pipelines: Path, tmp_path: Path) -> None:
    """Fifty files with other bytes, in arrays and schema: each is refused, or loads and scores."""
    for name in ("coded", "svc", "knn", "categories", "boosting"):
        members = members_of(pipelines / f"{name}.skops")
        loose = max((n for n in members if n.endswith(".npy")), key=lambda n: len(members[n]))
        spoilt = damaged(members[loose], 4) + damaged(members["schema.json"], 3)
        for number, each in enumerate(spoilt):
            member = loose if number < 4 else "schema.json"
            content = packed({**members, member: each})
            (tmp_path / f"{name}{number}.skops").write_bytes(content)
        for number, each in enumerate(damaged((pipelines / f"{name}.skops").read_bytes(), 3)):
            (tmp_path / f"{name}-{number}.skops").write_bytes(each)
    done = subprocess.run(
        [sys.executable, "-c", LOADER, str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    loaded, refused_, count = map(int, done.stdout.split())
    assert loaded + refused_ == count == 50
    assert refused_ >= 25


@pytest.mark.parametrize(
    "values", [[1, 1 << 70], ["a", 1], [["a"]], [True], ["a", "a"], [1.5], [-1, 1 << 63]]
)
def test_what_is_no_table_of_categories_is_damage(
    values: list[Any], pipelines: Path, tmp_path: Path
) -> None:
    """A changed member ends in a message, as any other damage does."""

    def change(said: Any) -> None:
        said["columns"][0]["values"] = values

    found = refused(_with_frame(pipelines / "logistic.skops", change), tmp_path)
    assert "no skops file, or damaged" in found


@pytest.mark.parametrize("result", [["object", []], ["<U9", []], ["float64", [10**12]]])
def test_what_is_no_result_is_damage(result: Any, pipelines: Path, tmp_path: Path) -> None:
    """No score is a text or an object, and none has as many numbers as that."""
    content = _with_frame(
        pipelines / "logistic.skops", lambda said: said.update(results={"probability": result})
    )
    assert "says of the results what means nothing" in refused(content, tmp_path)


@pytest.mark.parametrize("version", [19, [1, 9], None, "1", "1.9\n", "one.two"])
def test_what_is_no_version_is_damage(version: Any, pipelines: Path, tmp_path: Path) -> None:
    """No message tells anybody to install such a version."""
    node = {"__class__": "str", "__module__": "builtins", "__loader__": "JsonNode"}

    def change(schema: Any) -> None:
        for each in _attributes_of_all(schema):
            if "_sklearn_version" in each:
                each["_sklearn_version"] = {**node, "content": json.dumps(version)}

    found = refused(changed(pipelines / "logistic.skops", change), tmp_path)
    assert "its estimators are of versions" in found


def _with_frame(path: Path, change: Callable[[Any], Any]) -> bytes:
    """Returns a file whose own member was changed."""
    members = members_of(path)
    said = json.loads(members["batchscore.json"])
    change(said)
    return packed({**members, "batchscore.json": json.dumps(said).encode()})


def _attributes_of_all(state: Any) -> list[Any]:
    """Returns each mapping of a schema, at any depth."""
    inner = state.values() if isinstance(state, dict) else state if isinstance(state, list) else ()
    found = [each for value in [*inner] for each in _attributes_of_all(value)]
    return [state, *found] if isinstance(state, dict) else found
