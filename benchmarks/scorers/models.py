"""The model of a work as a peer calls it: by torch, or by onnxruntime if it is an ONNX file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from benchmarks.scorers.harness import Task

Score = Callable[[Sequence[Any]], Any]
"""Takes f feature columns, each (b,) float32, to scores (b,) float32."""


def load_model(task: Task, threads: int) -> Score:
    """Returns what scores columns with so many threads; a first call is behind it."""
    load = _load_onnx if task.weights.endswith(".onnx") else _load_torch
    score = load(task, threads)
    score([np.zeros(1, np.float32)] * len(task.features))
    return score


def _load_torch(task: Task, threads: int) -> Score:
    import torch

    from benchmarks.scorers.network import load_network, predict_columns

    torch.set_num_threads(threads)
    return partial(predict_columns, load_network(task.weights, task.network))


def _load_onnx(task: Task, threads: int) -> Score:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(task.weights, options, providers)

    def score(columns: Sequence[Any]) -> Any:
        (logits_b1,) = session.run(None, {"x": np.stack(columns, axis=1)})
        return 1 / (1 + np.exp(-logits_b1[:, 0]))

    return score
