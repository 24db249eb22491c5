"""Whether the trees of a `.cbm` file lead from each split to a leaf that is there.

Suffixes: `_s` splits of all trees, `_t` trees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from batchscore.columnar.array_type import Array
from batchscore.models.backends.catboost.flatbuffer import FlatTable

_DIMENSION, _SPLITS, _SIZES, _STARTS = range(4)
_LEAVES, _WEIGHTS, _STEPS, _LEAF_OF_NODE = 8, 9, 10, 11
_SCALE, _BIAS, _BIASES, _PACKED = 14, 15, 16, 17

_DEEPEST = 16
_MOST_DIMENSIONS = 1 << 20
# A byte holds where a value lies among the borders of a feature; more borders take further bytes.
_BORDERS_OF_A_BYTE = 254
_NO_LEAF = 0xFFFFFFFF
_PACKED_SPLIT = np.dtype([("byte", "<u2"), ("mask", "u1"), ("rank", "u1")])


@dataclass(frozen=True)
class Splits:
    """How many splits each feature has, in the order in which the file numbers them.

    Args:
        numbers: Borders of each number.
        hot: Values of each category that is compared with single values.
        ctrs: Borders of each statistic of categories.
    """

    numbers: Sequence[int]
    hot: Sequence[int]
    ctrs: Sequence[int]

    def packed(self) -> Array:
        """Returns each split as the library computes it: a byte of the row, a mask, a rank."""
        parts, byte = [np.empty(0, _PACKED_SPLIT)], 0
        for counts, is_hot in ((self.numbers, False), (self.hot, True), (self.ctrs, False)):
            for count in counts:
                part = _packed(count, byte, is_hot)
                parts.append(part)
                byte += -(-count // _BORDERS_OF_A_BYTE)
        return np.concatenate(parts)


def _packed(count: int, byte: int, is_hot: bool) -> Array:
    part = np.empty(count, _PACKED_SPLIT)
    more, place = np.divmod(np.arange(count), _BORDERS_OF_A_BYTE)
    part["byte"] = byte + more
    part["mask"] = 255 - (place + 1) if is_hot else 0
    part["rank"] = 255 if is_hot else place + 1
    return part


def check_trees(trees: FlatTable, splits: Splits) -> tuple[int, int]:
    """Returns the numbers of a raw value, and how many trees there are.

    Raises:
        ValueError: The library would follow a tree out of its memory.
    """
    dimension = int(trees.number(_DIMENSION, "i"))
    split_s, size_t, start_t = (trees.array(f, "<i4") for f in (_SPLITS, _SIZES, _STARTS))
    known, leaves = splits.packed(), trees.array(_LEAVES, "<f8")
    if not 1 <= dimension <= _MOST_DIMENSIONS or len(trees.array(_BIASES, "<f8")) not in (
        0,
        dimension,
    ):
        raise ValueError(f"a value has {dimension} numbers")
    if (size_t < 0).any() or int(size_t.sum(dtype=np.int64)) != len(split_s):
        raise ValueError(f"its trees have not {len(split_s)} splits")
    if not np.array_equal(start_t, np.cumsum(size_t) - size_t):
        raise ValueError("its trees do not begin where they are said to")
    if ((split_s < 0) | (split_s >= len(known))).any():
        raise ValueError(f"a split is none of {len(known)}")
    packed_s = trees.array(_PACKED, _PACKED_SPLIT)
    if len(packed_s) and not np.array_equal(packed_s, known[split_s]):
        raise ValueError("its splits are written twice, and differ")
    if not np.isfinite(leaves).all():
        raise ValueError("a leaf has no number")
    step_s = trees.array(_STEPS, "<u4").view("<u2").reshape(-1, 2)
    if len(step_s):
        _check_nodes(step_s, trees.array(_LEAF_OF_NODE, "<u4"), size_t, len(leaves), dimension)
    else:
        _check_levels(size_t, len(leaves), dimension)
    if len(trees.array(_WEIGHTS, "<f8")) not in (0, len(leaves) // dimension):
        raise ValueError("its leaves have not as many weights")
    return dimension, len(size_t)


def _check_levels(size_t: Array, leaves: int, dimension: int) -> None:
    """Checks trees that have one split a level."""
    if size_t.max(initial=0) > _DEEPEST:
        raise ValueError("a tree is too deep")
    if int((1 << size_t.astype(np.int64)).sum()) * dimension != leaves:
        raise ValueError(f"its trees have not {leaves} leaves")


def _check_nodes(step_s: Array, leaf_s: Array, size_t: Array, leaves: int, dimension: int) -> None:
    """Checks trees whose nodes step to their children; a step of 0 ends at the leaf of the node."""
    if len(step_s) != size_t.sum() or len(leaf_s) != len(step_s) or (size_t < 1).any():
        raise ValueError("its trees have not as many steps as splits")
    place_s = np.arange(len(step_s), dtype=np.int64)
    end_s = np.repeat(np.cumsum(size_t.astype(np.int64)), size_t)
    child_s = place_s[:, None] + step_s
    if (child_s >= end_s[:, None]).any():
        raise ValueError("a step leads out of its tree")
    # Steps go forward, so that no path is endless, and each node but the first has one parent.
    parents_s = np.bincount(child_s[step_s > 0], minlength=len(step_s))
    is_root_s = np.isin(place_s, np.cumsum(size_t) - size_t)
    if not np.array_equal(parents_s, ~is_root_s):
        raise ValueError("a node has no parent, or two")
    ends_s = (step_s == 0).any(axis=1)
    if (leaf_s[ends_s] > leaves - dimension).any() or (leaf_s[ends_s] % dimension).any():
        raise ValueError("a leaf is none of the file's")
