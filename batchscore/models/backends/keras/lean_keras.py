"""Keras on torch, without the user's own settings of Keras and what scoring does not need.

Keras reads its settings, and writes them, in the user's home folder: another backend, another type
of numbers, another order of an image's axes. Here it finds none.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

from batchscore.errors import ModelError
from batchscore.models.backends.torch.lean_import import import_torch
from batchscore.models.backends.tree_files import importing
from batchscore.system.imports import replaced
from batchscore.system.packages import version

TESTED = "3.15"
"""The minor version of Keras that leaving out was tested with; others are imported in full."""

_SETTINGS = ("KERAS_HOME", "KERAS_BACKEND", "KERAS_NNX_ENABLED", "TF_FORCE_GPU_ALLOW_GROWTH")
# What Keras has functions for that scoring does not call; it does without where it is missing.
_LEFT_OUT = (
    *("IPython", "PIL", "huggingface_hub", "jax", "matplotlib", "matplotlib.pyplot", "pandas"),
    *("pydot", "pydot_ng", "pydotplus", "sklearn", "tensorboard", "tensorflow", "torchvision"),
)
_COMPILER = "torch._dynamo"


def import_keras() -> None:
    """Imports Keras with torch as its backend; does nothing if this process has it.

    Raises:
        ModelError: This process has Keras with another backend.
    """
    if "keras" not in sys.modules:
        with importing("torch"):
            import_torch()
            import_module("torch")
        with _no_settings(), _left_out():
            import_module("keras")
        # Otherwise Keras adds the arguments of each layer to an error, in bold.
        sys.modules["keras"].config.disable_traceback_filtering()
    found = sys.modules["keras"].config.backend()
    if found != "torch":
        raise ModelError(
            f"Keras was imported before with the backend {found}, and models are scored with "
            "torch; set KERAS_BACKEND=torch where the process starts"
        )


@contextmanager
def _no_settings() -> Iterator[None]:
    """Keras finds and leaves nothing in the user's home inside, and computes with torch."""
    before = {name: os.environ.pop(name) for name in _SETTINGS if name in os.environ}
    with tempfile.TemporaryDirectory(prefix="batchscore-keras-") as home:
        os.environ.update(KERAS_HOME=home, KERAS_BACKEND="torch")
        try:
            yield
        finally:
            for name in _SETTINGS:
                os.environ.pop(name, None)
            os.environ.update(before)


@contextmanager
def _left_out() -> Iterator[None]:
    """Keras is imported inside without what only other uses of it need, a few seconds less."""
    if version("keras").split(".")[:2] != TESTED.split(".") or _COMPILER in sys.modules:
        yield
        return
    import torch

    compiler = ModuleType(_COMPILER)
    vars(compiler)["disable"] = _as_it_is
    modules: dict[str, ModuleType | None] = dict.fromkeys(_LEFT_OUT)
    own = vars(torch).get("_dynamo")
    with replaced({**modules, _COMPILER: compiler}):
        vars(torch)["_dynamo"] = compiler
        try:
            yield
        finally:
            del vars(torch)["_dynamo"]
            if own is not None:
                vars(torch)["_dynamo"] = own


def _as_it_is(function: Callable[..., Any] | None = None, **_: object) -> Any:
    """Stands for what keeps torch's compiler from a function, which is not compiled here."""
    return function or (lambda decorated: decorated)
