"""How long a network's calls take with each of its kernels, measured in about a second."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from batchscore.columnar.array_type import Array
from batchscore.columnar.ragged import Ragged
from batchscore.models.backends.facts import (
    DEFAULT_KERNELS,
    Call,
    Inputs,
    KernelTrial,
    NumberInputs,
)
from batchscore.models.backends.remembered import recall, remember
from batchscore.models.backends.torch.forward import Forward
from batchscore.models.backends.torch.load import describe_device, torch_version
from batchscore.models.loadable import Model

FILE = "kernels.json"
_MOST_SECONDS = 0.9
_LEAST_ROUNDS, _MOST_ROUNDS = 3, 15


def time_kernels(calls: Mapping[str, Forward], inputs: Inputs, rows: int) -> KernelTrial:
    """Returns the CPU seconds of a call with each of several kernels.

    They are called in turn, and the quickest round of each counts: whatever else the machine does
    makes a round slower, never quicker. Calls have fewer rows than a run's if these take long.

    Args:
        calls: By kernels, `default` among them, each on one thread.
        inputs: Arrays (rows, …) by name.
        rows: How many there are.

    Raises:
        StepError: The network failed.
    """
    end = time.perf_counter() + _MOST_SECONDS
    size = _affordable_rows(calls[DEFAULT_KERNELS], inputs, rows, len(calls))
    sized = {name: replace(forward, rows=size) for name, forward in calls.items()}
    for forward in sized.values():  # The first call of a shape builds kernels.
        _seconds(forward, inputs, rows)
    rounds = list[dict[str, float]]()
    while len(rounds) < _LEAST_ROUNDS or (len(rounds) < _MOST_ROUNDS and time.perf_counter() < end):
        rounds.append({name: _seconds(each, inputs, rows) for name, each in sized.items()})
    return KernelTrial({name: min(each[name] for each in rounds) for name in calls}, size)


def _affordable_rows(forward: Forward, inputs: Inputs, rows: int, kernels: int) -> int:
    """Returns the rows of a call that may be made often enough, at most those of a run's."""
    share = _MOST_SECONDS / ((_LEAST_ROUNDS + 1) * kernels + 2)
    size = 1
    _seconds(replace(forward, rows=size), inputs, rows)
    while size < forward.rows and 2 * _seconds(replace(forward, rows=size), inputs, rows) < share:
        size = min(2 * size, forward.rows)
    return size


def _seconds(forward: Forward, inputs: NumberInputs, rows: int) -> float:
    """Returns the CPU seconds of this thread for one call; of varying rows, one a bucket."""
    count = min(forward.rows, rows)
    given = {name: _first(values, count) for name, values in inputs.items()}
    start = time.thread_time()
    forward.predict(given, count)()
    return time.thread_time() - start


def _first(values: Array | Ragged, rows: int) -> Array | Ragged:
    if isinstance(values, Ragged):
        return Ragged(values.steps_n[: values.offsets[rows]], values.offsets[: rows + 1])
    return values[:rows]


def recall_trial(model: Model, call: Call, kernels: tuple[str, ...]) -> KernelTrial | None:
    """Returns what an earlier trial of the same kernels found on this machine, or None."""
    return _decoded(recall(FILE, trial_key(model, call, kernels)))


def remember_trial(model: Model, call: Call, kernels: tuple[str, ...], trial: KernelTrial) -> None:
    """Remembers what a trial found."""
    remember(FILE, trial_key(model, call, kernels), vars(trial))


def trial_key(model: Model, call: Call, kernels: tuple[str, ...]) -> str:
    """Names all that decides how long a model's calls take with some kernels."""
    return " | ".join(
        [
            model.identity,
            cpu_name(),
            describe_device(call.device),
            f"torch {torch_version()}",
            f"calls of {call.rows}",
            " or ".join(kernels),
        ]
    )


def cpu_name() -> str:
    """Returns the name that this machine's processor gives itself, as far as it is known."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split("\n"):
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _decoded(found: Any) -> KernelTrial | None:
    """Returns a trial as it was written; None if a file of the cache holds something else."""
    if not isinstance(found, dict) or found.keys() != vars(KernelTrial()).keys():
        return None
    seconds, rows, why = found["seconds"], found["rows"], found["why"]
    if not isinstance(seconds, dict) or type(rows) is not int or not isinstance(why, str):
        return None
    if not all(type(each) is float and each > 0 for each in seconds.values()):
        return None
    return KernelTrial(seconds, rows, why)
