"""Whether what scikit-learn follows without a look is in order: trees, vectors, and their widths.

Suffixes: `_n` nodes of a tree or points, `_c` children, `_f` features.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from batchscore.columnar.array_type import Array

VECTORIZERS = ("CountVectorizer", "HashingVectorizer", "TfidfVectorizer")
"""What reads free texts."""


def check_tree_state(given: Any, attributes: Mapping[str, Any]) -> None:
    """Raises ValueError for nodes that scikit-learn would follow out of its memory."""
    features, classes, outputs = given
    if len(classes) != outputs or outputs < 1 or features < 0 or min(classes) < 1:
        raise ValueError("a tree has another number of outputs than it declares")
    nodes = attributes["nodes"]
    if len(nodes) != attributes["node_count"] or len(nodes) < 1:
        raise ValueError("a tree has another number of nodes than it declares")
    if attributes["values"].shape != (len(nodes), outputs, max(classes)):
        raise ValueError("a tree has another number of values than of nodes")
    left_n, right_n = nodes["left_child"], nodes["right_child"]
    inner_n = left_n != -1
    if (inner_n != (right_n != -1)).any():
        raise ValueError("a node has one child")
    _check_links(left_n[inner_n], right_n[inner_n], np.flatnonzero(inner_n), len(nodes))
    _check_range(nodes["feature"][inner_n], features, "feature")


def _check_links(left_n: Array, right_n: Array, own_n: Array, nodes: int) -> None:
    """Requires each child to come after its parent, and to have one: then no path is endless."""
    child_c = np.concatenate([left_n, right_n]).astype(np.int64)
    if (child_c <= np.concatenate([own_n, own_n])).any() or (child_c >= nodes).any():
        raise ValueError("a child is no node, or comes before its parent")
    if len(np.unique(child_c)) < len(child_c):
        raise ValueError("a node has two parents")


def _check_range(place_n: Array, end: int, what: str) -> None:
    if len(place_n) and (place_n.min() < 0 or place_n.max() >= end):
        raise ValueError(f"a split is by a {what} beyond {end}")


def check_spline(knots: Array, coefficients: Array, degree: int) -> None:
    """Raises ValueError for a spline whose arrays do not fit each other."""
    fits = (
        knots.ndim == 1
        and knots.dtype == coefficients.dtype == np.float64
        and 0 <= degree < 64
        and coefficients.shape[:1] == (len(knots) - degree - 1,)
        and (np.diff(knots) >= 0).all()
    )
    if not fits:
        raise ValueError("a spline has other sizes than are declared")


def check_objects(estimator: Any) -> None:
    """Raises ValueError where parts of an estimator do not fit each other."""
    for each in parts_of(estimator):
        name = type(each).__name__
        if hasattr(each, "tree_") and each.tree_.n_features != each.n_features_in_:
            raise ValueError("a tree reads another number of features than it declares")
        if hasattr(each, "estimators_"):
            _check_members(each, name)
        if name.startswith("HistGradientBoosting"):
            _check_boosting(each)
        if name in VECTORIZERS:
            _check_vectorizer(each, name)
        if name in ("SVC", "NuSVC", "SVR", "NuSVR", "OneClassSVM"):
            _check_vectors(each)
        if name in ("KNeighborsClassifier", "RadiusNeighborsClassifier"):
            _check_neighbours(each, name)
        for key in ("_fit_X", "cluster_centers_"):
            points = getattr(each, key, None)
            if points is not None and points.shape[1:] not in ((each.n_features_in_,), ()):
                raise ValueError(f"{name} has points of another number of features")


def parts_of(found: Any) -> Iterator[Any]:
    """Returns an object of scikit-learn, and those that it holds at any depth, each once."""
    seen: set[int] = set()
    waiting = [found]
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, dict):
            waiting += each.values()
        elif isinstance(each, list | tuple | set) or (
            isinstance(each, np.ndarray) and each.dtype == object
        ):
            waiting += [*(each.ravel() if isinstance(each, np.ndarray) else each)]
        elif type(each).__module__.startswith("sklearn.") and hasattr(each, "__dict__"):
            yield each
            waiting += vars(each).values()


def _check_members(each: Any, name: str) -> None:
    members = [*np.asarray(each.estimators_, object).ravel()]
    chosen = getattr(each, "estimators_features_", None)
    widths = [each.n_features_in_] * len(members) if chosen is None else [len(c) for c in chosen]
    if len(widths) != len(members):
        raise ValueError(f"{name} has another number of members than it declares")
    for member, width in zip(members, widths, strict=True):
        if hasattr(member, "tree_") and member.n_features_in_ != width:
            raise ValueError(f"{name} has a tree of another number of features")
    if name.startswith("GradientBoosting"):
        if each.estimators_.ndim != 2 or each.estimators_.shape[1] != each.n_trees_per_iteration_:
            raise ValueError(f"{name} has another number of trees than it declares")
        if any(member.tree_.value.shape[1:] != (1, 1) for member in members):
            raise ValueError(f"{name} has trees of several values")


def _check_boosting(each: Any) -> None:
    width = each._n_features if hasattr(each, "_n_features") else each.n_features_in_
    is_categorical_f = np.zeros(width, bool)
    known = each._bin_mapper.is_categorical_
    if len(known) != width or len(each._bin_mapper.bin_thresholds_) != width:
        raise ValueError("the bins are of another number of features")
    is_categorical_f[:] = np.asarray(known) != 0
    for trees in each._predictors:
        if len(trees) != each.n_trees_per_iteration_:
            raise ValueError("a round has another number of trees")
        for tree in trees:
            _check_binned(tree, is_categorical_f)


def _check_binned(tree: Any, is_categorical_f: Array) -> None:
    from sklearn.ensemble._hist_gradient_boosting.common import PREDICTOR_RECORD_DTYPE

    nodes = tree.nodes
    if nodes.dtype != PREDICTOR_RECORD_DTYPE or nodes.ndim != 1 or not len(nodes):
        raise ValueError("the nodes of a tree are of another kind")
    inner_n = nodes["is_leaf"] == 0
    own_n = np.flatnonzero(inner_n)
    _check_links(nodes["left"][inner_n], nodes["right"][inner_n], own_n, len(nodes))
    _check_range(nodes["feature_idx"][inner_n], len(is_categorical_f), "feature")
    by_set_n = inner_n & (nodes["is_categorical"] != 0)
    sets = tree.raw_left_cat_bitsets
    if sets.dtype != np.uint32 or sets.ndim != 2 or sets.shape[1] != 8:
        raise ValueError("the sets of categories are of another kind")
    _check_range(nodes["bitset_idx"][by_set_n], len(sets), "set of categories")
    if not is_categorical_f[nodes["feature_idx"][by_set_n]].all():
        raise ValueError("a split by categories is on a feature of numbers")


def _check_vectorizer(each: Any, name: str) -> None:
    """Requires texts to be texts, and not names of files, and words to have places of their own."""
    words = getattr(each, "vocabulary_", {})
    if each.input != "content" or sorted(words.values()) != [*range(len(words))]:
        raise ValueError(f"{name} reads files, or its words have other places than are declared")


def _check_neighbours(each: Any, name: str) -> None:
    """Requires each point to be of a class, which scikit-learn takes for a place in memory."""
    places = np.atleast_2d(np.asarray(each._y).T).T
    classes = each.classes_ if isinstance(each.classes_, list) else [each.classes_]
    if places.dtype.kind not in "iu" or places.shape != (each._fit_X.shape[0], len(classes)):
        raise ValueError(f"{name} has other numbers of classes than of points")
    for place_n, known in zip(places.T, classes, strict=True):
        if len(place_n) and (place_n.min() < 0 or place_n.max() >= len(known)):
            raise ValueError(f"{name} has a point of a class beyond {len(known)}")


def _check_vectors(each: Any) -> None:
    """Requires the arrays of a support vector machine to have the sizes that libsvm reads."""
    count, width = each.support_vectors_.shape
    own = each._n_support
    is_classifier = type(each).__name__ in ("SVC", "NuSVC")
    classes = len(own) if is_classifier else 2
    fits = (
        (own.sum() if is_classifier else own[0]) == count
        and len(own) >= 2
        and (own >= 0).all()
        and each.support_.shape == (count,)
        and each._dual_coef_.shape == (classes - 1, count)
        and each._intercept_.shape == (classes * (classes - 1) // 2,)
        and each._probA.shape == each._probB.shape
        and each._probA.size in (0, classes * (classes - 1) // 2, 1)
        and (each._sparse or width == each.n_features_in_)
        and not each._sparse
        # libsvm would take support_ for places in a row, without a look at its length.
        and each.kernel != "precomputed"
    )
    if not fits:
        raise ValueError("the support vectors have other sizes than are declared")
