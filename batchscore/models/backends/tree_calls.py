"""What a run calls of a model of trees: what it returns, of which class, of which rounds.

Suffixes: `_bg` rows by raw scores, `_bge` these by contributions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from batchscore.columnar.array_type import Array
from batchscore.errors import ModelError
from batchscore.models.backends.facts import CONTRIBUTIONS, RAW

Explain = Callable[[int, int], Mapping[str, Array]]

_PART_NUMBERS = 1 << 21
_RETURNS = {
    "binary": ("probability", "class", "raw"),
    "classes": ("probability", "class", "raw"),
    "class": ("class", "raw"),
    "labels": ("probability", "raw"),
    "value": ("value", "raw"),
}
"""By kind of objective, what it may return; the first by default."""


@dataclass(frozen=True)
class TreeCall:
    """What is called.

    Args:
        kind: Kind of the objective.
        returns: `raw` is the sum of the trees, `value` what the objective makes of it,
            `probability` that of a class, or of each, and `class` the most probable one.
        positive: The class of a binary model whose probability is returned.
        start: First round.
        stop: The round after the last.
        every: Rounds of the file.
    """

    kind: str
    returns: str
    positive: int
    start: int
    stop: int
    every: int

    @property
    def said(self) -> str:
        """What is called, in words."""
        of_class = f" of class {self.positive}" if self.is_of_class else ""
        return f"{self.returns}{of_class}, rounds {self.start} to {self.stop - 1} of {self.every}"

    @property
    def is_of_class(self) -> bool:
        """Whether it is the probability of one of two classes."""
        return self.kind == "binary" and self.returns == "probability"


def settle_call(
    given: Mapping[str, Any], kind: str, objective: str, rounds: int, every: int
) -> TreeCall:
    """Returns what a card's `call` comes to.

    Args:
        given: What the card says; what is left out has a default.
        kind: `binary`, `classes`, `class`, `labels` or `value`.
        objective: For a message.
        rounds: Those that are used by default.
        every: Those that the file has.

    Raises:
        ModelError: The objective has no such result, or the file no such rounds.
    """
    if not every:
        raise ModelError("the file has no trees; train the model for at least one round")
    returns = given.get("returns", _RETURNS[kind][0])
    if returns not in _RETURNS[kind]:
        raise ModelError(
            f"call.returns: {returns!r}, and a model of objective {objective} returns "
            f"{' or '.join(_RETURNS[kind])}; correct the card's call"
        )
    start, stop = given.get("iterations", (0, rounds))
    if not 0 <= start < stop <= every:
        raise ModelError(
            f"call.iterations: [{start}, {stop}], and the file has {every} rounds; expected "
            f"0 <= first < end <= {every}"
        )
    call = TreeCall(kind, returns, given.get("positive", 1), start, stop, every)
    if "positive" in given and not call.is_of_class:
        raise ModelError(
            f"call.positive: only for the probability of a binary model, and this one returns "
            f"{returns} of {objective}; leave it out"
        )
    return call


def returned(value_b: Array, call: TreeCall) -> Array:
    """Returns what a call returns of the objective's own values, as the sklearn wrapper does."""
    if call.returns == "class":
        if call.kind == "binary":
            return np.asarray(value_b > 0.5).astype(np.int64)
        chosen_b = value_b if call.kind == "class" else value_b.argmax(axis=1)
        return np.asarray(chosen_b).astype(np.int64)
    if call.returns == "probability" and call.kind == "binary" and call.positive == 0:
        return np.asarray(1.0 - value_b, value_b.dtype)
    return value_b


def require_explained(call: TreeCall, groups: int) -> None:
    """Refuses what has several results that are no classes.

    Args:
        groups: Raw scores of a row.

    Raises:
        ModelError: It is so.
    """
    if groups > 1 and call.kind == "value":
        raise ModelError(
            f"explain: the model has {groups} targets, and reasons are of one score; score each "
            "with a model of its own, or leave explain out"
        )


def explained(found_bge: Array, raw_bg: Array, call: TreeCall) -> dict[str, Array]:
    """Returns contributions and raw score of the class that a row most probably has.

    Args:
        found_bge: Contributions of rows by raw scores by entries, the base last.
        raw_bg: The raw scores.
        call: What is called. Of the probability of class 0 of 2, all has the other sign.
    """
    best_b = raw_bg.argmax(axis=1)
    rows_b = np.arange(len(raw_bg))
    sign = -1.0 if call.is_of_class and call.positive == 0 else 1.0
    return {
        CONTRIBUTIONS: sign * found_bge[rows_b, best_b].astype(np.float64),
        RAW: sign * raw_bg[rows_b, best_b].astype(np.float64),
    }


def in_parts(explain: Explain, rows: int, entries: int) -> dict[str, Array]:
    """Explains rows some at a time, so that memory does not grow with the number of classes.

    Args:
        explain: Explains the rows from one on to before another one.
        rows: Rows.
        entries: Contributions of a row, of all its raw scores.
    """
    size = max(1, _PART_NUMBERS // entries)
    parts = [explain(start, min(start + size, rows)) for start in range(0, rows, size)]
    return {name: np.concatenate([part[name] for part in parts]) for name in (CONTRIBUTIONS, RAW)}


def require_version(
    library: str, written: tuple[int, ...], installed: str, package: str, has_golden: bool
) -> dict[str, str]:
    """Refuses a library that may score otherwise than the one that wrote the model.

    Returns what a person should know next to what golden rows show, as `notes` of a predictor.

    Args:
        library: Its name.
        written: Version that wrote the file.
        installed: Version that is here.
        package: What is installed to have another version.
        has_golden: Whether golden rows will tell whether another major version scores the same.

    Raises:
        ModelError: The one here is older, or of another major version without golden rows.
    """
    here = tuple(int(part) for part in installed.split(".")[:2] if part.isdigit())
    text = ".".join(map(str, written))
    if here < written[:2]:
        raise ModelError(
            f"the model was written by {library} {text}, and {installed} is installed, which is "
            f"older and may score otherwise; install {package}>={text}"
        )
    if here[:1] == written[:1]:
        return {}
    if not has_golden:
        raise ModelError(
            f"the model was written by {library} {text}, and {installed} is installed, which may "
            f"score otherwise; install '{package}>={text},<{written[0] + 1}', or save the model "
            "with golden rows (bs.save_model), which show whether the scores are the same"
        )
    return {"versions": f"written by {library} {text}, computed by {installed}"}
