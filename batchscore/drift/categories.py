"""The accumulator of texts, binaries, booleans and class indices: counts by value, then by fold.

Suffixes: `_d` distinct values of an array, `_v` values that are counted, `_f` folds, `_s` a sample
of the values, `_l` labels, `_r` rows of a stored part.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchscore.columnar.arrays import binary_array, to_arrow, to_numpy
from batchscore.columnar.hashing import hash_bytes
from batchscore.drift.accumulator import Part
from batchscore.drift.categorical import EXACT
from batchscore.drift.frequent import Counts, Frequent, Hashes, sum_by_hash
from batchscore.drift.ordering import run_starts

FOLDS = 4096
SAMPLE = 1000
LABELS = 256
LABEL_BYTES = 64
TOP = 10

_ALL_HASHES = 2**64
_MOST_VALUES = 2**53  # far beyond any table, and merging a thousand such stays within int64
_BLOCK = 65_536  # values taken at a time
_INTEGERS = frozenset(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))
_NUMERIC = _INTEGERS | {"bool"}

Rows = np.ndarray[Any, np.dtype[np.int64]]


class Categories:
    """Counts values of one Arrow type by the 64-bit hash of their bytes.

    Up to `EXACT` distinct values each has its count. Beyond, there are counts of `FOLDS` folds, by
    the hash's low bits, and of the `SAMPLE` values with the smallest hash. Both depend on the
    values alone: folds add up, and a value among the smallest hashes of all is among the smallest
    of every part that has it, so none of its occurrences was ever dropped.

    Texts and binaries hash alike whatever the width of their type, integers as their decimal text,
    booleans as `true` and `false`. Two values with one hash are taken for one; that any two of 10⁷
    distinct values have one happens with a chance of 3 in a million.

    The most frequent values have labels: their bytes, cut to `LABEL_BYTES`. Beyond `EXACT` distinct
    values it depends on the split which values have one, and their counts are lower bounds.

    Attributes:
        type: the Arrow type's name.
        low: the smallest value: integers by number, as text; all else by bytes, cut to
            `LABEL_BYTES`. None without any value.
        high: the largest one.
    """

    kind: ClassVar[str] = "categories"
    extra: ClassVar[frozenset[str]] = frozenset({"labels"})

    def __init__(self, type_: str) -> None:
        self.type = type_
        self.low: bytes | None = None
        self.high: bytes | None = None
        # All values while there are no folds, the sample afterwards.
        self._hashes_v: Hashes = np.empty(0, np.uint64)
        self._counts_v: Counts = np.empty(0, np.int64)
        self._folds_f: Counts | None = None
        self._frequent = Frequent()
        # Whether values repeated when last seen. It decides how they are counted, not the counts.
        self._repeating = True

    @property
    def n(self) -> int:
        """How many values were taken."""
        return int((self._counts_v if self._folds_f is None else self._folds_f).sum())

    @property
    def folded(self) -> bool:
        """Whether there are more than `EXACT` distinct values."""
        return self._folds_f is not None

    def update(self, array: pa.Array) -> None:
        """Takes the values of `array`, of this type or a dictionary of it; nulls are left out."""
        for values, counts_n in self.split(array):
            self.update_counted(values, counts_n)

    def split(self, array: pa.Array) -> Iterator[tuple[pa.Array, Counts | None]]:
        """Yields the values (n,) of `array` for `update_counted`, a bounded number at a time.

        Values that repeat come once each, with their counts: to count them costs less than to
        hash all. Values that seldom do come as they are, without counts.
        """
        if isinstance(array, pa.DictionaryArray):
            yield from _used(array)
            return
        for start in range(0, len(array), _BLOCK):
            block = array.slice(start, _BLOCK)
            if "view" in self.type:
                block = block.cast(pa.large_binary())
            if self._repeating:
                values, counts_n = _value_counts(block)
                self._note_repeats(len(values), len(block))
                yield values, counts_n
            else:
                yield block.drop_null() if block.null_count else block, None

    def update_counted(self, values: pa.Array, counts_n: Counts | None) -> None:
        """Takes each of the values (n,), none of them null, as often as its count says, or once."""
        if not len(values):
            return
        bytes_n = _as_bytes(values)
        hashes_n = hash_bytes(bytes_n)
        self._widen(*_ends(values, bytes_n))
        if counts_n is None:
            hashes_d, counts_d, rows_d = _count_hashes(hashes_n)
            self._note_repeats(hashes_d.size, len(values))
        else:
            hashes_d, counts_d, rows_d = hashes_n, counts_n, None
        self._count(hashes_d, counts_d)
        self._frequent.add(hashes_d, counts_d, partial(_labels_of, bytes_n, rows_d))

    def merge(self, other: Categories) -> None:
        """Adds what `other`, of the same type, has taken."""
        if other._folds_f is None:
            self._count(other._hashes_v, other._counts_v)
        else:
            folds_f = self._fold()
            folds_f += other._folds_f
            self._keep(other._hashes_v, other._counts_v)
        self._widen(other.low, other.high)
        self._frequent.merge(other._frequent)

    def counts(self) -> tuple[Hashes, Counts]:
        """Returns the hash of each value (v,), ascending, and its count.

        Raises:
            ValueError: There are more than `EXACT` distinct values.
        """
        if self.folded:
            raise ValueError(f"beyond {EXACT} distinct values use folds() and sample()")
        return self._hashes_v, self._counts_v

    def folds(self) -> Counts:
        """Returns how many values fall into each fold (FOLDS,), by the low bits of their hash."""
        if self._folds_f is not None:
            return self._folds_f.copy()
        return _folded(self._hashes_v, self._counts_v)

    def sample(self) -> tuple[Hashes, Counts, int]:
        """Returns the values (s,) with a hash below the limit: hashes, ascending, counts, limit.

        Two samples tell the same of values below the smaller of their limits.
        """
        limit = int(self._hashes_v[-1]) + 1 if self.folded else _ALL_HASHES
        return self._hashes_v, self._counts_v, limit

    def label(self, hash_: int) -> str | None:
        """Returns a value for people, binaries in hexadecimal; None where it is not known."""
        label = self._frequent.label(int(hash_))
        return None if label is None else self._readable(label)

    def top(self, k: int) -> list[tuple[str, int, int]]:
        """Returns the k most frequent values: label, count and hash.

        A value without a label has its hash in hexadecimal. Counts of folded values that are not
        in the sample are lower bounds.
        """
        hashes_r, counts_r = (each.tolist() for each in self._ranked())
        pairs = zip(hashes_r[:k], counts_r[:k], strict=True)
        return [(self._name(hash_), count, hash_) for hash_, count in pairs]

    def scalars(self) -> dict[str, Any]:
        """Returns the smallest and the largest value in hexadecimal; none without any value."""
        if self.low is None or self.high is None:
            return {}
        return {"low": self.low.hex(), "high": self.high.hex()}

    def parts(self) -> dict[str, Part]:
        """Returns `values`, or `folds` and `sample`, by hash or fold; and `labels` by hash."""
        labels = {"labels": self._labels()}
        if self._folds_f is None:
            return {"values": Part(self._hashes_v, self._counts_v), **labels}
        used_f = np.flatnonzero(self._folds_f)
        folds = Part(used_f.astype(np.uint64), self._folds_f[used_f])
        return {"folds": folds, "sample": Part(self._hashes_v, self._counts_v), **labels}

    def summary(self) -> dict[str, Any]:
        """Returns the number of values, of distinct ones, the ends, and the most frequent values.

        `distinct` is None beyond `EXACT`, where the estimate has a standard error of 3 %, and
        counts and shares in `top` may be lower bounds.
        """
        n, distinct = self.n, None if self.folded else self._hashes_v.size
        low, high = (None if end is None else self._readable(end) for end in (self.low, self.high))
        top = [
            {"value": name, "count": count, "share": count / n} for name, count, _ in self.top(TOP)
        ]
        estimate = self._estimate() if distinct is None else distinct
        head = {"n": n, "distinct": distinct, "distinct_estimate": estimate}
        return {**head, "min": low, "max": high, "top": top}

    @classmethod
    def restore(
        cls, type_: str, scalars: Mapping[str, Any], parts: Mapping[str, Part]
    ) -> Categories:
        """Reverses `scalars` and `parts`; `labels` may be missing.

        Raises:
            ValueError: They do not fit each other or the type.
        """
        categories, folded = cls(type_), _is_folded(parts)
        kept = _rows(parts, "sample" if folded else "values", SAMPLE if folded else EXACT)
        categories._hashes_v, categories._counts_v = kept
        if folded:
            categories._folds_f = _restored_folds(*_rows(parts, "folds", FOLDS), *kept)
        categories._widen(*_restored_ends(type_, scalars, categories.n > 0))
        categories._frequent = _restored_labels(categories, parts)
        return categories

    def _note_repeats(self, distinct: int, values: int) -> None:
        # Numbers would become texts one by one.
        self._repeating = 2 * distinct <= values or self.type in _NUMERIC

    def _count(self, hashes_d: Hashes, counts_d: Counts) -> None:
        if self._folds_f is not None:
            np.add.at(self._folds_f, _fold_of(hashes_d), counts_d)
            small_d = hashes_d <= self._hashes_v[-1]
            hashes_d, counts_d = hashes_d[small_d], counts_d[small_d]
        self._keep(hashes_d, counts_d)
        if self._hashes_v.size > EXACT:
            self._fold()

    def _keep(self, hashes_d: Hashes, counts_d: Counts) -> None:
        """Adds to the counts by value, and of a sample keeps what belongs to it."""
        if hashes_d.size:
            hashes_n = np.concatenate([self._hashes_v, hashes_d])
            counts_n = np.concatenate([self._counts_v, counts_d])
            hashes_v, counts_v = sum_by_hash(hashes_n, counts_n)
            most = SAMPLE if self.folded else None
            self._hashes_v, self._counts_v = hashes_v[:most], counts_v[:most]

    def _fold(self) -> Counts:
        """Goes over from counts by value to folds and a sample, once; returns the folds."""
        if self._folds_f is None:
            self._folds_f = _folded(self._hashes_v, self._counts_v)
            self._hashes_v, self._counts_v = self._hashes_v[:SAMPLE], self._counts_v[:SAMPLE]
        return self._folds_f

    def _widen(self, low: bytes | None, high: bytes | None) -> None:
        if low is not None and high is not None:
            order = _order(self.type)
            self.low = low if self.low is None else min(self.low, low, key=order)
            self.high = high if self.high is None else max(self.high, high, key=order)

    def _ranked(self) -> tuple[Hashes, Counts]:
        """Returns the values that can be among the most frequent, those first."""
        hashes_r, counts_r = self._hashes_v, self._counts_v
        if self.folded:
            hashes_r, counts_r = self._frequent.hashes_t, self._frequent.counts_t.copy()
            _, held_r, held_s = np.intersect1d(
                hashes_r, self._hashes_v, assume_unique=True, return_indices=True
            )
            counts_r[held_r] = self._counts_v[held_s]
        order_r = np.lexsort((hashes_r, -counts_r))
        return hashes_r[order_r], counts_r[order_r]

    def _labels(self) -> Part:
        hashes_r, counts_r = self._ranked()
        held_r = np.flatnonzero(np.isin(hashes_r, self._frequent.hashes_t))[:LABELS]
        held_r = held_r[np.argsort(hashes_r[held_r])]
        hashes_l = hashes_r[held_r]
        labels_l = self._frequent.labels_t.take(
            to_arrow(np.searchsorted(self._frequent.hashes_t, hashes_l))
        )
        values_l = tuple(_whole(self.type, label) for label in labels_l.to_pylist())
        return Part(hashes_l, counts_r[held_r], value_r=values_l)

    def _name(self, hash_: int) -> str:
        label = self.label(hash_)
        return f"{hash_:016x}" if label is None else label

    def _readable(self, value: bytes) -> str:
        # The last character may have been cut.
        return value.hex() if "binary" in self.type else value.decode(errors="ignore")

    def _estimate(self) -> int:
        """Returns about how many distinct values lead to the sample's largest hash."""
        return (SAMPLE - 1) * _ALL_HASHES // (int(self._hashes_v[-1]) + 1)


def _value_counts(block: pa.Array) -> tuple[pa.Array, Counts]:
    """Returns the distinct values (d,) of an array but null, and how often each is there."""
    values, counts = block.value_counts().flatten()
    counts_d = to_numpy(counts)
    if values.null_count:
        counts_d, values = counts_d[to_numpy(values.is_valid())], values.drop_null()
    return values, counts_d


def _count_hashes(hashes_n: Hashes) -> tuple[Hashes, Counts, Rows | None]:
    """Returns the distinct hashes (d,), their counts, and a row of each; None where all differ."""
    sorted_n = np.sort(hashes_n)  # takes a third of the time that to sort their rows takes
    if (sorted_n[1:] != sorted_n[:-1]).all():
        return hashes_n, np.ones(hashes_n.size, np.int64), None
    starts_d, rows_n = run_starts(sorted_n), np.argsort(hashes_n)
    counts_d = np.diff(starts_d, append=hashes_n.size)
    return sorted_n[starts_d], counts_d, rows_n[starts_d]


def _used(array: pa.DictionaryArray) -> Iterator[tuple[pa.Array, Counts]]:
    """Yields the entries of a dictionary that occur, and how often, at most `_BLOCK` at a time."""
    values = array.dictionary
    indices_n = to_numpy(array.indices.drop_null()).astype(np.intp, copy=False)
    if len(values) > indices_n.size:
        used_d, counts_d = np.unique(indices_n, return_counts=True)
    else:
        counts_d = np.bincount(indices_n, minlength=len(values))
        used_d = np.flatnonzero(counts_d)
        counts_d = counts_d[used_d]
    if used_d.size < len(values):
        values = values.take(to_arrow(used_d))
    if values.null_count:
        counts_d, values = counts_d[to_numpy(values.is_valid())], values.drop_null()
    for start in range(0, len(values), _BLOCK):
        yield values.slice(start, _BLOCK), counts_d[start : start + _BLOCK]


def _as_bytes(values: pa.Array) -> pa.Array:
    if pa.types.is_integer(values.type) or pa.types.is_boolean(values.type):
        values = values.cast(pa.large_string())
    return values.cast(pa.large_binary())


def _ends(values: pa.Array, bytes_d: pa.Array) -> tuple[bytes, bytes]:
    """Returns the smallest and the largest of the values, of which there is at least one."""
    if pa.types.is_integer(values.type):
        numbers = pc.min_max(values)
        return str(numbers["min"].as_py()).encode(), str(numbers["max"].as_py()).encode()
    texts = pc.min_max(bytes_d)
    return _cut(texts["min"]), _cut(texts["max"])


def _labels_of(bytes_n: pa.Array, rows_d: Rows | None, places: Rows) -> pa.Array:
    """Returns the labels of values at places (d,), that are rows of `bytes_n` or point to them."""
    rows = places if rows_d is None else rows_d[places]
    return pc.binary_slice(bytes_n.take(to_arrow(rows)), 0, LABEL_BYTES)


def _whole(type_: str, label: bytes) -> bytes:
    """Returns a text's label without a last character that was cut."""
    return label.decode(errors="ignore").encode() if "string" in type_ else label


def _cut(value: pa.Scalar) -> bytes:
    assert isinstance(value, pa.BinaryScalar)
    data = value.as_buffer()
    assert data is not None
    return data[:LABEL_BYTES].to_pybytes()


def _order(type_: str) -> Any:
    """Returns the function that gives a value's place in the order of its type."""
    return int if type_ in _INTEGERS else bytes


def _fold_of(hashes_d: Hashes) -> np.ndarray[Any, np.dtype[np.intp]]:
    return (hashes_d & np.uint64(FOLDS - 1)).astype(np.intp)


def _folded(hashes_d: Hashes, counts_d: Counts) -> Counts:
    folds_f = np.zeros(FOLDS, np.int64)
    np.add.at(folds_f, _fold_of(hashes_d), counts_d)
    return folds_f


def _is_folded(parts: Mapping[str, Part]) -> bool:
    names = {name for name, part in parts.items() if part.key_r.size or part.count_r.size}
    names -= Categories.extra
    if names and names not in ({"values"}, {"folds", "sample"}):
        raise ValueError(f"categories have no such parts: {', '.join(sorted(names))}")
    return "folds" in names


def _rows(parts: Mapping[str, Part], name: str, most: int) -> tuple[Hashes, Counts]:
    """Returns keys and counts of a part, an empty one where it is missing."""
    part = parts.get(name)
    if part is None:
        return np.empty(0, np.uint64), np.empty(0, np.int64)
    keys_r, counts_r = part.key_r, part.count_r
    if keys_r.size != counts_r.size or keys_r.size > most:
        raise ValueError(
            f"{name} has {keys_r.size} keys and {counts_r.size} counts, not one each up to {most}"
        )
    texts = counts_r.size if name in Categories.extra else 0
    if len(part.value_r) != texts or (part.shift_r is not None and part.shift_r.any()):
        raise ValueError(f"{name} has shifts, or not {texts} texts")
    if np.any(keys_r[1:] <= keys_r[:-1]) or np.any(counts_r <= 0):
        raise ValueError(f"{name} must ascend and count at least one each")
    if sum(counts_r.tolist()) > _MOST_VALUES:
        raise ValueError(f"{name} counts more values than any table has")
    return keys_r, counts_r


def _restored_folds(keys_f: Hashes, counts_f: Counts, hashes_s: Hashes, counts_s: Counts) -> Counts:
    if keys_f.size and int(keys_f[-1]) >= FOLDS:
        raise ValueError(f"there is no fold {keys_f[-1]}")
    if hashes_s.size != SAMPLE:
        raise ValueError(f"the sample has {hashes_s.size} values, not {SAMPLE}")
    folds_f = np.zeros(FOLDS, np.int64)
    folds_f[keys_f.astype(np.intp)] = counts_f
    rest_f = folds_f - _folded(hashes_s, counts_s)
    if rest_f.min() < 0 or int(rest_f.sum()) <= EXACT - SAMPLE:
        raise ValueError("the folds hold less than the sample and the values beyond it")
    return folds_f


def _restored_ends(
    type_: str, scalars: Mapping[str, Any], filled: bool
) -> tuple[bytes | None, bytes | None]:
    if set(scalars) != ({"low", "high"} if filled else set()):
        raise ValueError(f"{'some' if filled else 'no'} values, but scalars {sorted(scalars)}")
    if not filled:
        return None, None
    if not all(isinstance(end, str) for end in scalars.values()):
        raise ValueError("the smallest and the largest value must be hexadecimal digits")
    low, high = bytes.fromhex(scalars["low"]), bytes.fromhex(scalars["high"])
    order = _order(type_)
    if not order(low) <= order(high) or max(len(low), len(high)) > LABEL_BYTES:
        raise ValueError("the smallest and the largest value are not in order or too long")
    return low, high


def _restored_labels(categories: Categories, parts: Mapping[str, Part]) -> Frequent:
    frequent = Frequent()
    hashes_l, counts_l = _rows(parts, "labels", LABELS)
    values = parts["labels"].value_r if hashes_l.size else ()
    if any(len(value) > LABEL_BYTES for value in values):
        raise ValueError(f"a label is longer than {LABEL_BYTES} bytes")
    if int(counts_l.sum()) > categories.n:
        raise ValueError("labels count more than there is")
    if not categories.folded and not np.isin(hashes_l, categories.counts()[0]).all():
        raise ValueError("a label belongs to a value that is missing")
    labels_l = binary_array(values, pa.large_binary())
    frequent.add(hashes_l, counts_l, lambda rows: labels_l.take(to_arrow(rows)))
    return frequent
