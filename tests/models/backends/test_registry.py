"""Tests of the formats that a card may name, and of the messages where a backend is missing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from batchscore.errors import ModelError
from batchscore.models.backends import tree_files
from batchscore.models.backends.registry import backend_of, known_formats
from batchscore.models.backends.torch.backend import BACKEND
from tests.backends import installed
from tests.backends.linear import LinearBackend


def test_built_in_formats() -> None:
    """Both kinds of weights files are torch's."""
    assert backend_of("pt") is backend_of("safetensors") is BACKEND


def test_a_package_adds_a_format(linear_format: Path) -> None:
    """An entry point makes a format known under its name."""
    assert isinstance(backend_of("npz"), LinearBackend)
    assert set(known_formats()) >= {"npz", "pt", "safetensors"}


def test_an_unknown_format_says_which_are_known() -> None:
    """The message lists the formats, and says how others are installed."""
    with pytest.raises(
        ModelError, match=r"expected one of .*pt, pt2, safetensors.*'batchscore.models'"
    ):
        backend_of("tflite")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("tests.backends.nothing:BACKEND", "cannot be imported"),
        ("tests.backends.linear:Nothing", "cannot be imported"),
        ("tests.backends.linear:LinearBackend", "expected an instance of"),
    ],
)
def test_a_broken_backend_is_named(
    value: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backend that cannot be used is an error that names its entry point."""
    monkeypatch.syspath_prepend(str(installed.install(tmp_path, broken=value)))
    with pytest.raises(ModelError, match=f"{value}.*{message}"):
        backend_of("broken")


BROKEN = """
import sys
from batchscore.errors import ModelError
from batchscore.models.backends.registry import backend_of

for form in sys.argv[1:]:
    try:
        backend_of(form).prepare()
    except ModelError as error:
        print(error)
"""


def test_packages_that_cannot_be_imported_are_named(tmp_path: Path) -> None:
    """A library of the system that is missing is no file of the job; no disk is to be checked."""
    packages = ["catboost", "lightgbm", "onnxruntime", "sklearn", "torch", "xgboost"]
    for package in packages:
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("raise OSError('no libgomp.so.1')")
    forms = ["catboost", "lightgbm", "onnx", "sklearn", "keras", "pt2", "safetensors", "xgboost"]
    assert _said_of(forms, tmp_path) == [
        f"the package {package} is installed, and cannot be imported (no libgomp.so.1)"
        for package in ("catboost", "lightgbm", "onnxruntime", "scikit-learn")
        + ("torch",) * 3
        + ("xgboost",)
    ]


def test_keras_names_what_it_cannot_import_itself(tmp_path: Path) -> None:
    """Torch is there, and h5py is broken."""
    (tmp_path / "h5py.py").write_text("raise ImportError('no libhdf5.so')")
    assert _said_of(["keras"], tmp_path) == [
        "the package keras is installed, and cannot be imported (no libhdf5.so)"
    ]


def _said_of(forms: list[str], folder: Path) -> list[str]:
    """Returns the message about each format in a process that finds the packages of a folder."""
    done = subprocess.run(
        [sys.executable, "-c", BROKEN, *forms],
        env={**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{Path.cwd()}"},
        capture_output=True,
        text=True,
        check=True,
    )
    return [each.partition(";")[0] for each in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("form", "package"),
    [
        ("catboost", "catboost"),
        ("keras", "keras"),
        ("lightgbm", "lightgbm"),
        ("onnx", "onnxruntime"),
        ("sklearn", "scikit-learn"),
        ("xgboost", "xgboost"),
    ],
)
def test_what_is_not_installed_is_named_with_its_extra(
    form: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package has the name that pip knows, and the extra that of the format."""
    monkeypatch.setattr(tree_files, "find_spec", lambda name: None)
    with pytest.raises(ModelError) as caught:
        backend_of(form).require()
    assert str(caught.value) == (
        f"models of format '{form}' need the package {package}, which is not installed: "
        f"pip install 'batchscore[{form}]'"
    )
