"""Guesses from a job file, unchecked, whether a run needs a model's process; starts it then.

Importing what reads and checks a job takes half a second, in which the process can import the
model's framework. A wrong guess costs time and nothing else: the plan decides.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from batchscore.models.backends.built_in import FORMATS
from batchscore.models.process import early
from batchscore.system.resources import count_cores, shows_gpu

_FILE_BYTES = 1 << 20


def start_early(
    path: str, params: Sequence[str], overrides: Sequence[str], loads: bool = False
) -> None:
    """Starts the process of a job's model, if a run will probably load the model there.

    Args:
        path: Of the job file.
        params: As `NAME=VALUE`.
        overrides: As `KEY=VALUE`.
        loads: Whether the model is loaded whatever was published before.
    """
    # What is wrong with the job is found, and reported, when it is read.
    with suppress(Exception):
        job = _read(path)
        for each in overrides:
            key, _, value = each.partition("=")
            # A path that was typed starts from where it was typed.
            is_path = key in ("model", "model.path", "output.path") and "://" not in value
            _set(job, key.split("."), os.path.abspath(value) if is_path else value)
        form = _format(job, os.path.dirname(path))
        if _has_use(job.get("runtime") or {}, form) and (loads or _is_new(path, job, params)):
            early.start(form)


def _read(path: str) -> dict[str, Any]:
    import yaml

    if not os.path.isfile(path):  # a pipe would wait for a writer
        raise FileNotFoundError(path)
    with open(path, "rb") as file:
        found: dict[str, Any] = yaml.load(
            file.read(_FILE_BYTES), getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        )
    return found


def _set(tree: dict[str, Any], keys: Sequence[str], value: str) -> None:
    for key in keys[:-1]:
        tree = tree.setdefault(key, {})
    tree[keys[-1]] = value


def _format(job: dict[str, Any], base: str) -> str:
    model = job["model"] if isinstance(job["model"], dict) else {"path": job["model"]}
    if model.get("format") is None:
        model = _read(os.path.join(base, model["path"], "model.yaml"))
    return str(model["format"])


def _has_use(runtime: dict[str, Any], form: str) -> bool:
    """Tells whether the plan may choose a process; it has the reasons."""
    return (
        runtime.get("model_process", "auto") in ("auto", "on")
        and runtime.get("engine", "direct") == "direct"
        and not str(runtime.get("device", "auto")).startswith("cuda")
        and FORMATS[form].framework not in sys.modules
        and hasattr(socket, "send_fds")
        and count_cores() > 1
        and not shows_gpu()
    )


def _is_new(path: str, job: dict[str, Any], params: Sequence[str]) -> bool:
    """Tells whether no slice that is published has these parameters."""
    output = os.path.join(os.path.dirname(path), job["output"]["path"])
    # What a store holds takes a request to know, and a parameter in a path takes the whole parser.
    if "://" in output or "{" in output:
        return False
    values = [each.partition("=")[2] for each in params]
    slices = os.path.join(output, "_batchscore", "slices")
    names = os.listdir(slices) if os.path.isdir(slices) else []
    return not any(all(value in name for value in values) for name in names)
