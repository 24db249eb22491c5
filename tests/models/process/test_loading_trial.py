"""Tests of loading a model in a process of its own first."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline

import batchscore as bs
from batchscore.errors import ModelError
from batchscore.models.folder import read_model_folder, single_file_model
from batchscore.models.inputs import ModelInput
from batchscore.models.loadable import Model
from batchscore.models.process import loading_trial
from batchscore.models.process.loading_trial import try_loading
from tests.backends.installed import install
from tests.boosters import damaged
from tests.onnx_models import network

SECRET = "do-not-tell"
SPY = f"""
import os, resource, time
from batchscore.models.backends.facts import Promises
from batchscore.models.backends.protocol import Backend, Predictor

class Spy(Predictor):
    promises = Promises(None, True, "nan", "cpu", 1, "1")
    words = ""
    def __call__(self, inputs):
        while self.words == "loops":
            pass
        return {{}}

class SpyBackend(Backend):
    unpinned = ("spy",)
    is_fragile = True
    def load(self, model, device, threads=1, prove=False):
        words = open(os.path.join(model.folder, model.weights)).read()
        if words == "dies":
            os.abort()
        if words == "large":
            bytearray(1 << 40)
        if words == "tells":
            assert {SECRET!r} not in str(os.environ)
        if words == "counts":
            open(os.environ["PATH"].split(":")[0] + "/count", "a").write("x")
        spy = Spy()
        spy.words = words
        return spy

BACKEND = SpyBackend()
"""

FORKS = """
import hashlib, json, os, sys
from batchscore.models.backends.registry import backend_of
from batchscore.models.folder import single_file_model
from batchscore.models.process.loading_trial import outcome_of

backend_of(sys.argv[1]).prepare()  # once for all children
for path in sys.argv[2:]:
    sys.stdout.flush()
    child = os.fork()
    if not child:
        try:
            model = single_file_model(
                path, format=sys.argv[1], architecture=None, inputs=(), outputs=(), base=".",
                sha256=hashlib.sha256(open(path, "rb").read()).hexdigest(),
            )
            found = outcome_of(model)
        except Exception as error:
            found = {"refused": f"{type(error).__name__}: {error}"}
        print(json.dumps(found), flush=True)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if status:
        print(json.dumps({"died": status}), flush=True)
"""


def model_of(folder: Path, words: str) -> Model:
    (folder / "model.spy").write_text(words)
    return single_file_model(
        str(folder / "model.spy"),
        format="spy",
        architecture=None,
        inputs=(),
        outputs=(),
        base=str(folder),
    )


@pytest.fixture
def spy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Installs a backend that does what its file says, and empties the memory of trials."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code/spying.py").write_text(SPY)
    install(tmp_path / "code", spy="spying:BACKEND")
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    return tmp_path


def test_a_file_that_ends_its_process_is_one_message(spy: Path) -> None:
    """The message names the file and how the process ended; this process goes on."""
    with pytest.raises(ModelError, match=r"model\.spy: a process that only .*SIGABRT.*restore it"):
        try_loading(model_of(spy, "dies"))


def test_a_model_that_never_ends_is_ended(spy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls have a limit of CPU time by the rows that they are for; it is much below loading's."""
    monkeypatch.setattr(loading_trial, "_CALL_SECONDS", 1)
    monkeypatch.setattr(loading_trial, "_ROW_SECONDS", 0)
    with pytest.raises(
        ModelError, match=r"model\.spy: calls for 10 rows took more than 1 s of CPU"
    ):
        try_loading(model_of(spy, "loops"))


def test_an_expression_that_never_ends_is_ended(spy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A vectorizer's token_pattern may take twice as long for each further letter of a text."""
    monkeypatch.setattr(loading_trial, "_CALL_SECONDS", 2)
    monkeypatch.setattr(loading_trial, "_ROW_SECONDS", 0)
    words = CountVectorizer(token_pattern=r"(?:[a-z]+)+ ")
    model = make_pipeline(words, Ridge()).fit(["a dog ", "a cat "], [0, 1])
    bs.save_model(spy / "model", model, {"text": ["a dog "]})
    loaded = read_model_folder(str(spy / "model"))
    with pytest.raises(ModelError, match=r"more than 2 s of CPU .* such as another token_pattern"):
        try_loading(loaded)


@pytest.mark.parametrize(("batch", "rows"), [(None, 1), (8, 8)])
def test_a_call_of_the_trial_has_no_more_rows_than_it_must(
    batch: int | None, rows: int, tmp_path: Path
) -> None:
    """A tile is not filled up, so a slow model is not called for 1,024 rows; a fixed batch is."""
    onnx.save(network(batch or "n"), tmp_path / "net.onnx")
    model = single_file_model(
        str(tmp_path / "net.onnx"),
        format="onnx",
        architecture=None,
        inputs=[ModelInput("x", "float32", (8,), ("x",))],
        outputs=(),
        base=".",
    )
    asked = list[int]()
    assert loading_trial.outcome_of(model, asked.append) == {"loaded": True}
    assert asked == [rows]


def test_the_process_has_a_limit_of_memory_and_no_credentials(spy: Path) -> None:
    """A terabyte is an error of loading; variables that may hold a secret do not reach it."""
    with pytest.raises(ModelError, match=r"model\.spy: cannot be loaded: MemoryError"):
        try_loading(model_of(spy, "large"))
    try_loading(model_of(spy, "tells"))


def test_a_model_is_tried_once_for_its_content(spy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second trial of the same bytes starts no process; one of other bytes does."""
    monkeypatch.setenv("PATH", f"{spy}:{os.environ['PATH']}")
    model = model_of(spy, "counts")
    try_loading(model)
    try_loading(model)
    assert (spy / "count").read_text() == "x"


def _outcomes(form: str, paths: list[Path]) -> list[Mapping[str, Any]]:
    command = [sys.executable, "-c", FORKS, form, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@pytest.mark.parametrize(
    ("form", "name", "endings"),
    [
        ("xgboost", "counts", ("ubj", "json")),
        ("lightgbm", "counts", ("txt",)),
        ("catboost", "counts", ("cbm",)),
        ("onnx", "network", ("onnx",)),
        ("onnx", "forest", ("onnx",)),
        ("keras", "mixed", ("keras", "h5")),
        ("pt2", "net", ("pt2",)),
    ],
)
def test_damaged_models_end_in_a_message(
    form: str,
    name: str,
    endings: tuple[str, ...],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    """Of 50 damaged files each is refused, loads, or ends its own process; none stops the rest."""
    paths, models = list[Path](), request.getfixturevalue(f"{form}_models")
    for ending in endings:
        for each in damaged((models / f"{name}.{ending}").read_bytes(), 50 // len(endings)):
            paths.append(tmp_path / f"{len(paths)}.{ending}")
            paths[-1].write_bytes(each)
    found = _outcomes(form, paths)
    assert len(found) == 50
    kinds = Counter(next(iter(each)) for each in found)
    assert kinds["refused"] + kinds["error"] >= 16, kinds
    texts = [str(each.get("refused", "ModelError")) for each in found]
    assert all(text.startswith("ModelError") for text in texts), texts
