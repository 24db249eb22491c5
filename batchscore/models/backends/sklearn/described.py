"""What a skops file says of itself, without scikit-learn and without building an object.

Suffixes: `_gc` raw scores by columns.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batchscore.columnar.array_type import Array
from batchscore.errors import ModelError
from batchscore.models.backends.sklearn.allowed_types import (
    BUILT_AGAIN,
    ESTIMATORS,
    FUNCTIONS,
    LOSSES,
    MAPPINGS,
    OBJECTS,
    TUPLES,
    TYPES,
    Role,
    role_of,
)
from batchscore.models.backends.sklearn.frames import (
    MEMBER,
    TrainingFrame,
    load_frame,
    load_means,
    of_numbers,
)
from batchscore.models.backends.sklearn.node_checks import VECTORIZERS
from batchscore.models.backends.sklearn.pipeline_results import Results, usual_results
from batchscore.models.backends.sklearn.skops_archive import SkopsArchive, open_archive
from batchscore.models.backends.sklearn.skops_objects import build_part, refuse_type

_MOST_FEATURES = 1 << 20
_VERSION = re.compile(r"\d{1,4}\.\d{1,4}[0-9A-Za-z.+-]{0,40}")
_ALLOWED: Mapping[str, Any] = {
    "ObjectNode": {*OBJECTS, *BUILT_AGAIN},
    "DictNode": MAPPINGS,
    "TupleNode": TUPLES,
    "TypeNode": TYPES,
    "FunctionNode": FUNCTIONS,
    "LossNode": LOSSES,
}
_PLAIN = (
    *("JsonNode", "ListNode", "SetNode", "SliceNode", "DefaultDictNode", "PartialNode"),
    *("BytesNode", "BytearrayNode", "NdArrayNode", "DTypeNode", "TreeNode"),
    *("RandomStateNode", "RandomGeneratorNode"),
)
_ENCODERS = ("OneHotEncoder", "OrdinalEncoder", "TargetEncoder")


@dataclass(frozen=True)
class DescribedFile:
    """What a file says.

    Args:
        archive: Its content.
        version: Of the scikit-learn that wrote it.
        estimators: Names of the estimators' types, each once, the outermost first.
        role: What the last estimator is for.
        names: Columns of training, in order; none if it was trained on an array.
        features: How many there are.
        labels: The classes, if it has some.
        frame: Types of the columns.
        results: What it returns.
        has_frame: Whether the file says the types and the results itself.
        mean_gc: Of a linear model, the mean part of each column in each raw score, if it says that.
    """

    archive: SkopsArchive
    version: str
    estimators: tuple[str, ...]
    role: Role
    names: tuple[str, ...]
    features: int
    labels: tuple[Any, ...]
    frame: TrainingFrame
    results: Results
    has_frame: bool
    mean_gc: Array | None


def read_skops_file(content: bytes) -> DescribedFile:
    """Returns what the bytes of a `.skops` file say.

    Raises:
        ModelError: It is no skops file, damaged, or holds what is not loaded.
    """
    try:
        return _described(open_archive(content))
    except (
        KeyError,
        TypeError,
        ValueError,
        IndexError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        raise ModelError(
            f"no skops file, or damaged ({type(error).__name__}: {str(error)[:80]}); restore the "
            "file, or save the model again"
        ) from error


def _described(archive: SkopsArchive) -> DescribedFile:
    found = [*_nodes(archive.schema)]
    for loader, full, _ in found:
        _require_allowed(loader, full)
    last = _last(archive.schema)
    role = role_of(_full(last))
    first = _first(archive.schema)
    names = tuple(str(each) for each in _part(archive, first, "feature_names_in_", ()))
    # What reads one column of texts alone does not say how many there are.
    features = int(_part(archive, first, "n_features_in_", len(names) or 1))
    labels = _labels(_part(archive, last, "classes_", ()))
    if not 0 < features <= _MOST_FEATURES or (names and len(names) != features):
        raise ValueError(f"{len(names)} names of {features} features")
    member = archive.document(MEMBER)
    results = usual_results(role, len(labels))
    own = names or tuple(f"x{n}" for n in range(features))
    texts = {name for _, full, state in found for name in _texts(archive, full, state)}
    if texts and not texts & {*own}:
        texts = {own[0]}  # of which column they are is not known
    frame = of_numbers(own, not names, texts)
    if member is not None:
        frame, results = load_frame(member)
        if len(frame.columns) != features or not frame.read or not results:
            raise ValueError(f"{MEMBER} is of another estimator")
    return DescribedFile(
        archive,
        _version(archive, found),
        tuple(dict.fromkeys(ESTIMATORS[full] for _, full, _ in found if full in ESTIMATORS)),
        role,
        names,
        features,
        labels,
        frame,
        results,
        member is not None,
        None if member is None else load_means(member),
    )


def _labels(found: Any) -> tuple[Any, ...]:
    if isinstance(found, list):
        raise ModelError(
            "a classifier of several targets is not scored; save one model for each target"
        )
    return tuple(each.item() if hasattr(each, "item") else each for each in found)


def _texts(archive: SkopsArchive, full: str, state: Mapping[str, Any]) -> list[str]:
    """Returns the columns whose texts an encoder tells apart, by whatever name it knows."""
    if full.rpartition(".")[2] in VECTORIZERS:
        return [""]
    if full.rpartition(".")[2] not in _ENCODERS:
        return []
    known = _attributes(state).get("categories_", {}).get("content", ())
    places = [place for place, each in enumerate(known) if each.get("type") == "json"]
    names = _part(archive, state, "feature_names_in_", ())
    return [str(names[place]) if place < len(names) else "" for place in places]


def _version(archive: SkopsArchive, found: Sequence[tuple[str, str, Any]]) -> str:
    """Returns the version that all estimators of a file were saved with."""
    versions = {
        str(_part(archive, state, "_sklearn_version", ""))
        for _, full, state in found
        if full in ESTIMATORS
    }
    if len(versions) != 1 or not all(map(_VERSION.fullmatch, versions)):
        raise ValueError(f"its estimators are of versions {sorted(versions)}")
    return versions.pop()


def _nodes(state: Any) -> Iterator[tuple[str, str, Any]]:
    """Returns each object of a schema: how it is loaded, its type, and its state."""
    waiting = [state]
    while waiting:
        each = waiting.pop()
        if isinstance(each, list):
            waiting += reversed(each)
        elif isinstance(each, dict):
            if "__loader__" in each:
                yield str(each["__loader__"]), _full(each), each
                if _full(each) in BUILT_AGAIN:
                    continue
            waiting += reversed(each.values())


def _full(state: Mapping[str, Any]) -> str:
    return f"{state['__module__']}.{state['__class__']}"


def _require_allowed(loader: str, full: str) -> None:
    if full not in _ALLOWED[loader] if loader in _ALLOWED else loader not in _PLAIN:
        raise refuse_type(full)


def _attributes(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the states of an object's attributes."""
    if state.get("__loader__") != "ObjectNode":
        return {}
    found = (state.get("content") or {}).get("content")
    return found if isinstance(found, dict) else {}


def _part(archive: SkopsArchive, state: Mapping[str, Any], name: str, otherwise: Any) -> Any:
    found = _attributes(state).get(name)
    return otherwise if found is None else build_part(archive, found)


def _steps(state: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Returns the states of a pipeline's steps, or of what a union does to the same columns."""
    found = _attributes(state).get("steps", _attributes(state).get("transformer_list"))
    return [] if found is None else [each["content"][1] for each in found["content"]]


def _last(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the state of the estimator that makes the scores."""
    name = _full(state)
    if name == "sklearn.pipeline.Pipeline":
        return _last(_steps(state)[-1])
    if name == "sklearn.frozen._frozen.FrozenEstimator":
        return _last(_attributes(state)["estimator"])
    return state


def _first(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the state of the estimator that reads the columns."""
    if "n_features_in_" in _attributes(state):
        return state
    inner = _attributes(state).get("estimator")
    steps = _steps(state)
    if steps:
        return _first(next(each for each in steps if _attributes(each)))
    return state if inner is None else _first(inner)
