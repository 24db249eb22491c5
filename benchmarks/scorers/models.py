"""The model of a work as a peer calls it, by the framework that its file is of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.scorers.harness import Task

Score = Callable[[Sequence[Any]], Any]
"""Takes f feature columns, each (b,) float32, to scores (b,) float32."""
ScoreRows = Callable[[Any], Any]
"""Takes feature values (b, f) float32 to scores (b,) float32."""


def load_model(task: Task, threads: int) -> Score:
    """Returns what scores columns with so many threads; a first call is behind it."""
    score = load_rows_model(task, threads)
    score(np.zeros((1, len(task.features)), np.float32))
    return lambda columns: score(np.stack(columns, axis=1))


def load_rows_model(task: Task, threads: int) -> ScoreRows:
    """Returns what scores rows with so many threads."""
    return _LOADERS.get(Path(task.weights).suffix, _load_torch)(task, threads)


def _load_torch(task: Task, threads: int) -> ScoreRows:
    import torch

    from benchmarks.scorers.network import load_network, predict

    torch.set_num_threads(threads)
    return partial(predict, load_network(task.weights, task.network))


def _load_onnx(task: Task, threads: int) -> ScoreRows:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(task.weights, options, providers)

    def score(values_bf: Any) -> Any:
        (logits_b1,) = session.run(None, {"x": values_bf})
        return 1 / (1 + np.exp(-logits_b1[:, 0]))

    return score


def _load_xgboost(task: Task, threads: int) -> ScoreRows:
    import xgboost

    booster = xgboost.Booster({"nthread": threads}, model_file=task.weights)
    booster.set_param({"nthread": threads})
    return partial(booster.inplace_predict, validate_features=False)


def _load_lightgbm(task: Task, threads: int) -> ScoreRows:
    import lightgbm

    booster = lightgbm.Booster(model_file=task.weights)
    return lambda values_bf: np.asarray(booster.predict(values_bf, num_threads=threads), np.float32)


_LOADERS = {".onnx": _load_onnx, ".ubj": _load_xgboost, ".txt": _load_lightgbm}
