"""Tests of the accumulator of categories: canonical in any split, exact where it says so."""

from __future__ import annotations

import json
import random
import tracemalloc
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscore.columnar.hashing import hash_bytes
from batchscore.drift.categorical import EXACT
from batchscore.drift.categories import FOLDS, LABELS, SAMPLE, Categories
from batchscore.drift.frequent import TABLE

SEEDS = st.integers(0, 2**32 - 1)


def taken(type_: str, *arrays: pa.Array) -> Categories:
    categories = Categories(type_)
    for array in arrays:
        categories.update(array)
    return categories


def content(categories: Categories) -> tuple[Any, ...]:
    """What the law is about, to the byte."""
    parts = {
        name: (part.key_r.dtype.str, part.key_r.tobytes(), part.count_r.tobytes())
        for name, part in sorted(categories.parts().items())
        if name not in categories.extra
    }
    return json.dumps(categories.scalars(), sort_keys=True), parts, categories.folded


def merged_in_a_random_tree(nodes: list[Categories], chance: random.Random) -> Categories:
    while len(nodes) > 1:
        chance.shuffle(nodes)
        nodes[-2].merge(nodes.pop())
    return nodes[0]


def texts(numbers: Any) -> pa.Array:
    return pa.array([f"value {number}" for number in np.asarray(numbers).tolist()], pa.string())


def hash_of(value: bytes) -> int:
    return int(hash_bytes(pa.array([value], pa.large_binary()))[0])


def cut_anywhere(array: pa.Array, chance: random.Random, pieces: int) -> list[pa.Array]:
    ends = sorted(chance.randint(0, len(array)) for _ in range(pieces))
    return [
        array.slice(start, end - start)
        for start, end in zip([0, *ends], [*ends, len(array)], strict=True)
    ]


def taken_labels(text: str) -> tuple[bytes, ...]:
    return taken("string", pa.array([text])).parts()["labels"].value_r


def assert_canonical(type_: str, array: pa.Array, seed: int) -> None:
    chance = random.Random(seed)
    pieces = cut_anywhere(array, chance, 7)
    expected = content(taken(type_, array))
    assert content(taken(type_, *pieces)) == expected
    chance.shuffle(pieces)
    assert content(taken(type_, *pieces)) == expected
    nodes = [Categories(type_), *(taken(type_, piece) for piece in pieces)]
    assert content(merged_in_a_random_tree(nodes, chance)) == expected


@pytest.mark.slow
@settings(deadline=None, max_examples=40)
@given(SEEDS, st.sampled_from([1, 3, 900, 2500, 4096, 4097, 9000]))
def test_any_split_order_and_merge_tree_give_the_same_bytes(seed: int, distinct: int) -> None:
    """In sequence, shuffled, and merged in a random tree the content is the same to the byte."""
    chance = np.random.default_rng(seed)
    tail_n = chance.zipf(1.5, 3000) % distinct
    array = texts(chance.permutation(np.concatenate([np.arange(distinct), tail_n])))
    assert_canonical("string", array, seed)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.none() | st.binary(max_size=70), max_size=40), SEEDS)
def test_any_bytes_are_counted_the_same_in_any_split(values: list[bytes | None], seed: int) -> None:
    """Nulls are left out; empty values and bytes that are no text count like all others."""
    assert_canonical("binary", pa.array(values, pa.binary()), seed)
    present = [value for value in values if value is not None]
    categories = taken("binary", pa.array(values, pa.binary()))
    hashes_v, counts_v = categories.counts()
    expected = {hash_of(value): count for value, count in Counter(present).items()}
    assert dict(zip(hashes_v.tolist(), counts_v.tolist(), strict=True)) == expected
    assert categories.n == len(present)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(st.none() | st.text("aé\U0001f600", max_size=4), max_size=30), max_size=6))
def test_blocks_that_repeat_and_blocks_that_do_not_are_counted_alike(
    blocks: list[list[str | None]],
) -> None:
    """Counts, labels and ends do not depend on how much the values of a block repeat."""
    present = [value for block in blocks for value in block if value is not None]
    categories = taken("string", *(pa.array(block, pa.string()) for block in blocks))
    assert content(categories) == content(taken("string", pa.array(sorted(present), pa.string())))
    assert Counter({name: count for name, count, _ in categories.top(999)}) == Counter(present)


@pytest.mark.parametrize("one_row_parts", [EXACT - 1, EXACT, EXACT + 1])
def test_one_row_and_empty_parts_give_the_same_bytes_around_the_limit(one_row_parts: int) -> None:
    """Merging one row at a time, with empty parts between, folds where taking all at once does."""
    array = texts(range(one_row_parts))
    merged = Categories("string")
    for start in range(0, one_row_parts, 64):
        merged.merge(taken("string", array.slice(start, 64)))
    for row in range(5):
        merged.merge(taken("string", array.slice(row, 1)))
        merged.merge(Categories("string"))
    whole = taken("string", array, array.slice(0, 5), array.slice(0, 0))
    assert content(merged) == content(whole)
    assert whole.folded == (one_row_parts > EXACT)


def test_folding_stays_after_a_merge_with_few_values() -> None:
    """What was folded stays folded whichever side of a merge it is on."""
    many, few = texts(range(EXACT + 1)), texts([1, 2, 2])
    expected = content(taken("string", many, few))
    one, other = taken("string", few), taken("string", many)
    one.merge(other)
    other.merge(taken("string", few))
    assert content(one) == content(other) == expected


def test_merging_leaves_the_other_as_it_was() -> None:
    """A merge copies: later updates of one do not reach the other."""
    other = taken("string", texts(range(EXACT + 1)))
    before = content(other)
    one = Categories("string")
    one.merge(other)
    one.update(texts(range(20_000)))
    assert content(other) == before


def test_folds_and_sample_are_exact_by_their_definition() -> None:
    """Folds count the hash's low bits, and the sample the smallest hashes, over all values."""
    numbers_n = np.random.default_rng(1).zipf(1.2, 60_000) % 20_000
    array = texts(numbers_n)
    categories = taken("string", array)
    hashes_n = hash_bytes(array.cast(pa.large_binary()))
    folds_f = np.bincount((hashes_n % FOLDS).astype(np.intp), minlength=FOLDS)
    np.testing.assert_array_equal(categories.folds(), folds_f)
    distinct_d, counts_d = np.unique(hashes_n, return_counts=True)
    hashes_s, counts_s, limit = categories.sample()
    np.testing.assert_array_equal(hashes_s, distinct_d[:SAMPLE])
    np.testing.assert_array_equal(counts_s, counts_d[:SAMPLE])
    assert limit == int(distinct_d[SAMPLE - 1]) + 1
    with pytest.raises(ValueError, match=r"4096 distinct values use folds"):
        categories.counts()


def test_no_occurrence_of_a_sampled_value_is_missed() -> None:
    """Values of the sample, its last one too, are counted again when they come again."""
    array = texts(range(5000))
    _, counts_s, _ = taken("string", array, array, array).sample()
    assert counts_s.tolist() == [3] * SAMPLE


def test_folds_and_sample_are_there_for_exact_values_too() -> None:
    """Of few values the sample holds all, and the folds are those of their hashes."""
    categories = taken("string", pa.array(["a", "b", "a"]))
    hashes_s, counts_s, limit = categories.sample()
    assert limit == 2**64
    assert dict(zip(hashes_s.tolist(), counts_s.tolist(), strict=True)) == {
        hash_of(b"a"): 2,
        hash_of(b"b"): 1,
    }
    assert categories.folds()[hash_of(b"a") % FOLDS] == 2
    assert categories.folds().sum() == categories.n == 3


TEXT_TYPES = [pa.string(), pa.large_string(), pa.string_view()]
BINARY_TYPES = [pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(2)]


@pytest.mark.parametrize("kind", [*TEXT_TYPES, *BINARY_TYPES], ids=str)
@pytest.mark.parametrize("encoded", [False, True])
def test_the_width_of_a_type_and_dictionaries_do_not_matter(
    kind: pa.DataType, encoded: bool
) -> None:
    """Every text and binary type, plain or as a dictionary, is counted as plain strings are."""
    values: list[Any] = ["xy", "ab", None, "xy", "ab", "xy"]
    if "binary" in str(kind):
        values = [value and value.encode() for value in values]
    array = pa.array(values, kind)
    array = array.dictionary_encode() if encoded else array
    expected = content(taken("string", pa.array(["ab", "ab", "xy", "xy", "xy"])))
    assert content(taken(str(kind), array)) == expected
    assert content(taken(str(kind), array.slice(0, 2), array.slice(2))) == expected


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (pa.array([True, False, None, True]), {"false": 1, "true": 2}),
        (pa.array([10, 9, 10, -3], pa.int8()), {"-3": 1, "9": 1, "10": 2}),
        (pa.array([2**64 - 1], pa.uint64()), {"18446744073709551615": 1}),
        (pa.array([10, 9, 10, -3], pa.int64()).dictionary_encode(), {"-3": 1, "9": 1, "10": 2}),
    ],
)
def test_booleans_and_integers_are_their_texts(array: pa.Array, expected: dict[str, int]) -> None:
    """Booleans hash as false and true, integers as decimal text; integers are ordered by number."""
    kind = array.type.value_type if pa.types.is_dictionary(array.type) else array.type
    categories = taken(str(kind), array)
    assert dict(pair[:2] for pair in categories.top(10)) == expected
    assert {hash_ for _, _, hash_ in categories.top(10)} == {
        hash_of(text.encode()) for text in expected
    }
    summary = categories.summary()
    assert (summary["min"], summary["max"]) == (next(iter(expected)), list(expected)[-1])


@pytest.mark.slow
@settings(deadline=None)
@given(st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-20, 20), max_size=40), SEEDS)
def test_integers_are_ordered_by_number_in_any_split(numbers: list[int], seed: int) -> None:
    """The smallest and largest integer are those by number, whatever arrives first."""
    array = pa.array(numbers, pa.int64())
    assert_canonical("int64", array, seed)
    categories = taken("int64", *(array.slice(i, 1) for i in range(len(array))))
    if numbers:
        ends = (str(min(numbers)).encode(), str(max(numbers)).encode())
        assert (categories.low, categories.high) == ends


def _dictionary(indices: Sequence[int | None], values: Sequence[str | None]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(indices, pa.int8()), pa.array(values))


@pytest.mark.parametrize(
    "array",
    [
        _dictionary([0, 0, 2], ["a", "unused", "b"]),
        _dictionary([0, 1, 2], ["a", "a", "b"]),
        _dictionary([0, None, 0, 2, 3], ["a", "zzz", "b", None]),
        _dictionary([1, 0, 0, 2, 1], ["a", "x", "b"]).slice(1, 3),
        _dictionary([0, 0, 1], ["a", "b", *(f"unused {i}" for i in range(100))]),
    ],
    ids=["unused", "duplicate", "nulls", "sliced", "long"],
)
def test_entries_of_a_dictionary_count_by_what_refers_to_them(array: pa.Array) -> None:
    """Unused, repeated, missing and sliced entries of a dictionary do not change the content."""
    expected = taken("string", pa.array(["a", "a", "b"]))
    assert content(taken("string", array)) == content(expected)
    assert taken("string", array).top(9) == expected.top(9)


@settings(deadline=None, max_examples=25)
@given(SEEDS, st.sampled_from([5, 400, EXACT, 6000]))
def test_restoring_gives_the_original(seed: int, distinct: int) -> None:
    """What is restored has the same content, labels and summary, and goes on like the original."""
    chance = np.random.default_rng(seed)
    more = texts(chance.integers(0, 3 * distinct, 2000))
    original = taken("string", texts(chance.permutation(distinct)), more)
    restored = Categories.restore("string", original.scalars(), original.parts())
    assert content(restored) == content(original)
    assert restored.summary()["top"] == original.summary()["top"]
    assert restored.parts()["labels"].value_r == original.parts()["labels"].value_r
    bare = {name: part for name, part in original.parts().items() if name != "labels"}
    assert content(Categories.restore("string", original.scalars(), bare)) == content(original)
    restored.update(more)
    original.update(more)
    assert content(restored) == content(original)


def test_restoring_nothing_gives_an_empty_accumulator() -> None:
    """No values have no scalars and no rows, and their parts may be missing altogether."""
    empty = Categories("string")
    assert empty.scalars() == {}
    for parts in (empty.parts(), {}):
        restored = Categories.restore("string", {}, parts)
        assert content(restored) == content(empty)
        assert restored.summary() == empty.summary()
    assert empty.summary() == {
        "n": 0,
        "distinct": 0,
        "distinct_estimate": 0,
        "min": None,
        "max": None,
        "top": [],
    }


def test_labels_are_the_most_frequent_and_cut_at_a_character() -> None:
    """At most 256 values have stored labels, of at most 64 bytes that are whole characters."""
    long = "é" * 40 + "tail"
    array = pa.array([*(f"v{i}" for i in range(1000)), *["v7"] * 5, *[long] * 3, ""])
    categories = taken("string", array, pa.array(["a" + long]))
    labels = categories.parts()["labels"]
    assert len(labels.value_r) == LABELS
    assert b"v7" in labels.value_r
    assert max(map(len, labels.value_r)) <= 64
    assert "a" + "é" * 31 in [value.decode() for value in taken_labels("a" + long)]
    assert categories.label(hash_of(long.encode())) == "é" * 32
    assert categories.label(hash_of(("a" + long).encode())) == "a" + "é" * 31
    assert categories.label(hash_of(b"")) == ""
    assert categories.label(1) is None
    assert categories.top(2) == [
        ("v7", 6, hash_of(b"v7")),
        ("é" * 32, 3, hash_of(long.encode())),
    ]


def test_labels_of_binaries_are_hexadecimal() -> None:
    """Bytes that are no text are shown as hexadecimal digits."""
    categories = taken("binary", pa.array([b"\xff\x00", b"\xff\x00", b""]))
    assert categories.label(hash_of(b"\xff\x00")) == "ff00"
    assert categories.summary()["max"] == "ff00"
    assert categories.top(1) == [("ff00", 2, hash_of(b"\xff\x00"))]


def test_values_without_a_label_go_by_their_hash() -> None:
    """Without stored labels the most frequent values have their hash as name."""
    original = taken("string", pa.array(["a", "a", "b"]))
    parts = {"values": original.parts()["values"]}
    restored = Categories.restore("string", original.scalars(), parts)
    assert restored.top(1) == [(f"{hash_of(b'a'):016x}", 2, hash_of(b"a"))]


def test_frequent_values_are_found_among_many_in_any_split() -> None:
    """Every value above a 4096th of all is in the labels, its count low by no more than that."""
    chance = np.random.default_rng(3)
    n = 400_000
    numbers_n = np.where(chance.random(n) < 0.01, chance.integers(0, 5, n), 10 + np.arange(n))
    array = texts(numbers_n)
    pieces = cut_anywhere(array, random.Random(3), 9)
    nodes = [taken("string", piece) for piece in pieces]
    for categories in (taken("string", array), merged_in_a_random_tree(nodes, random.Random(3))):
        top = {name: count for name, count, _ in categories.top(5)}
        assert set(top) == {f"value {i}" for i in range(5)}
        for i in range(5):
            exact = int((numbers_n == i).sum())
            assert exact - n // TABLE <= top[f"value {i}"] <= exact


def test_the_ends_are_cut_and_by_bytes() -> None:
    """Smallest and largest text are kept by byte order, the first 64 bytes of them."""
    categories = taken("string", pa.array(["Z" * 100, "a" * 10_000, "é"]))
    assert (categories.low, categories.high) == (b"Z" * 64, "é".encode())
    assert categories.scalars() == {"low": (b"Z" * 64).hex(), "high": "é".encode().hex()}


def test_distinct_values_are_counted_then_estimated() -> None:
    """The number of distinct values is exact up to the limit, then estimated within 10 %."""
    exact = taken("string", texts(range(EXACT))).summary()
    assert (exact["distinct"], exact["distinct_estimate"]) == (EXACT, EXACT)
    many = taken("string", texts(range(100_000))).summary()
    assert many["distinct"] is None
    assert many["distinct_estimate"] == pytest.approx(100_000, rel=0.1)


@pytest.mark.slow
def test_ten_million_distinct_texts_take_bounded_memory() -> None:
    """10⁷ distinct texts in one array are counted in less than 50 MB in addition to them."""
    array = pa.array(np.arange(10**7)).cast(pa.string())
    categories = Categories("string")
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    categories.update(array)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert categories.n == categories.folds().sum() == 10**7
    assert categories.summary()["distinct_estimate"] == pytest.approx(10**7, rel=0.1)
    assert peak < 50e6
    assert pa.total_allocated_bytes() - before < 1e6


def test_long_values_keep_no_memory() -> None:
    """Texts of a megabyte leave 64 bytes each behind."""
    categories = Categories("large_string")
    tracemalloc.start()
    before = pa.total_allocated_bytes()
    for i in range(20):
        categories.update(pa.array([f"{i:02}" + "x" * 1_000_000], pa.large_string()))
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 1e6
    assert pa.total_allocated_bytes() - before < 1e6
    assert len(categories.counts()[0]) == 20
    assert max(map(len, categories.parts()["labels"].value_r)) == 64
