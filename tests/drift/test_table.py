"""Test that profiles are canonical, count what they should, and read Arrow as it is."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import date, datetime, timezone
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscore.drift.column import Hint
from batchscore.drift.numbers import key_space
from batchscore.drift.table import TableProfile
from batchscore.errors import InputError
from tests.drift.laws import assert_canonical, profile_of

ODD_FLOATS = [0.0, -0.0, 5e-324, -5e-324, 1e-310, float("nan"), float("inf"), float("-inf")]
FLOATS = st.one_of(st.none(), st.sampled_from(ODD_FLOATS), st.floats())
COLUMNS: dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "float64": (pa.float64(), FLOATS),
    "float32": (pa.float32(), st.one_of(st.none(), st.floats(width=32))),
    "int64": (pa.int64(), st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1))),
    "uint64": (pa.uint64(), st.one_of(st.none(), st.integers(0, 2**64 - 1))),
    "bool": (pa.bool_(), st.one_of(st.none(), st.booleans())),
    "time": (pa.timestamp("us"), st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1))),
    "text": (pa.string(), st.one_of(st.none(), st.text(max_size=70))),
    "empty": (pa.float64(), st.none()),
    "binary": (pa.binary(), st.one_of(st.none(), st.binary(max_size=3))),
    "decimal": (pa.decimal128(9, 2), st.one_of(st.none(), st.decimals(-1000, 1000, places=2))),
    "list": (pa.list_(pa.int8()), st.one_of(st.none(), st.just([1, None]), st.just([]))),
    "texts": (pa.list_(pa.string()), st.one_of(st.none(), st.lists(st.sampled_from("ab")))),
    "vector": (
        pa.list_(pa.float32(), 2),
        st.one_of(
            st.none(), st.lists(st.one_of(st.none(), st.floats(width=32)), min_size=2, max_size=2)
        ),
    ),
    "score": (pa.float64(), FLOATS),
    "classes": (
        pa.list_(pa.float32(), 3),
        st.one_of(st.none(), st.lists(st.floats(-1, 2, width=32), min_size=3, max_size=3)),
    ),
    "labels": (
        pa.list_(pa.float64(), 1),
        st.one_of(st.none(), st.lists(FLOATS, min_size=1, max_size=1)),
    ),
}
HINTS: dict[str, Hint] = {"score": "probability", "classes": "classes", "labels": "probability"}
ROWS = st.lists(st.tuples(*(values for _, values in COLUMNS.values())), max_size=12)


def batch_of(rows: list[tuple[Any, ...]]) -> pa.RecordBatch:
    """Return rows as a batch with all of COLUMNS."""
    columns = zip(*rows, strict=True) if rows else [()] * len(COLUMNS)
    arrays = [
        pa.array(list(values), type_)
        for values, (type_, _) in zip(columns, COLUMNS.values(), strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, names=list(COLUMNS))


def column_of(array: pa.Array) -> dict[str, Any]:
    """Return the summary of one array."""
    return profile_of([pa.RecordBatch.from_arrays([array], ["x"])]).summary()["x"]


@pytest.mark.slow
@settings(deadline=None, max_examples=30)
@given(st.lists(ROWS, max_size=6), st.integers(0, 1000))
def test_small_parts_are_canonical(parts: list[list[tuple[Any, ...]]], seed: int) -> None:
    """Empty, one-row and all-null parts of every type give one profile in any way."""
    assert_canonical([batch_of(rows) for rows in parts], seed, HINTS)


@settings(deadline=None, max_examples=8)
@given(st.integers(0, 2**32 - 1))
def test_large_parts_are_canonical(seed: int) -> None:
    """Far more distinct values than buckets give one profile in any way."""
    chance = np.random.default_rng(seed)
    wide_n = np.exp(chance.uniform(-300, 300, 40_000))
    wide_n[chance.random(wide_n.size) < 0.01] = chance.choice(ODD_FLOATS)
    narrow_n = (1e9 + chance.normal(size=wide_n.size)).astype(np.float32)
    times_n = (chance.normal(size=wide_n.size) * 10.0 ** chance.integers(2, 18)).astype(np.int64)
    table = pa.RecordBatch.from_pydict({"a": wide_n, "b": narrow_n, "c": times_n})
    cuts = [0, *sorted(chance.integers(0, wide_n.size, 5).tolist()), wide_n.size]
    parts = [table.slice(low, high - low) for low, high in pairwise(cuts)]
    assert_canonical(parts, seed)


def test_every_kind_of_number_is_counted_apart() -> None:
    """Nulls, NaN, both infinities and both zeros have their own counts."""
    summary = column_of(pa.array([None, float("nan"), float("inf"), float("-inf"), 0.0, -0.0, 2.0]))
    kinds = ["count", "nulls", "nan", "pos_inf", "neg_inf", "zeros", "min", "max"]
    assert [summary[kind] for kind in kinds] == [7, 1, 1, 1, 1, 2, 0.0, 2.0]


def test_few_distinct_values_are_exact() -> None:
    """With few distinct values quantiles, mean and sigma equal those of the rows."""
    values_n = np.random.default_rng(5).integers(-500, 500, 20_000)
    summary = column_of(pa.array(values_n))
    assert summary["mean"] == pytest.approx(values_n.mean(), rel=1e-12)
    assert summary["sigma"] == pytest.approx(values_n.std(), rel=1e-12)
    for percent in (1, 50, 99):
        expected = np.percentile(values_n, percent, method="inverted_cdf")
        assert summary[f"p{percent:02d}"] == expected


def test_mean_and_sigma_are_close_with_many_distinct_values() -> None:
    """Mean and sigma from bucket middles are within .5 % of those of the rows."""
    values_n = np.random.default_rng(6).normal(3, 2, 10**5)
    summary = column_of(pa.array(values_n))
    assert summary["mean"] == pytest.approx(values_n.mean(), abs=0.005)
    assert summary["sigma"] == pytest.approx(values_n.std(), rel=0.005)


def test_large_integers_keep_their_spread() -> None:
    """Nanoseconds within one microsecond have their own sigma, not that of float rounding."""
    start = 1_700_000_000_000_000_000
    summary = column_of(pa.array([start, start + 1, start + 2], pa.timestamp("ns")))
    assert summary["mean"] == "2023-11-14T22:13:20.000000001"
    assert summary["sigma"] == pytest.approx((2 / 3) ** 0.5)


def test_constant_columns_have_no_spread() -> None:
    """A constant has itself as mean and quantiles and exactly no sigma."""
    summary = column_of(pa.array([0.1] * 3000))
    assert summary["mean"] == summary["p50"] == summary["max"] == 0.1
    assert summary["sigma"] == 0.0


def test_extremes_do_not_overflow() -> None:
    """The largest floats of both signs give finite statistics."""
    largest = sys.float_info.max
    summary = column_of(pa.array([largest, -largest]))
    assert (summary["mean"], summary["sigma"]) == (0.0, largest)


def test_dates_are_iso() -> None:
    """Dates and timestamps appear in ISO 8601, with Z where the type has a zone."""
    noon = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
    assert column_of(pa.array([date(2026, 3, 1)]))["max"] == "2026-03-01"
    assert column_of(pa.array([date(2026, 3, 1)], pa.date64()))["max"] == "2026-03-01"
    assert column_of(pa.array([noon], pa.timestamp("s", "UTC")))["min"] == "2026-03-01T12:00:00Z"
    assert column_of(pa.array([-(2**63)], pa.timestamp("s")))["min"] == -(2**63)


@pytest.mark.parametrize(
    "type_", ["double", "float", "int8", "uint16", "int64", "uint64", "bool", "date32", "string"]
)
def test_slices_are_read_at_their_offset(type_: str) -> None:
    """A slice with nulls has the summary of the same values in an array of their own."""
    raw: list[Any] = [None if i % 5 == 0 else i % 2 for i in range(100)]
    if type_ == "string":
        raw = [None if value is None else f"text {value}" for value in raw]
    array = pa.array(raw, "int32" if type_ == "date32" else None).cast(type_)
    for start, size in [(0, 0), (3, 1), (7, 50), (13, 87)]:
        own = pa.array(array[start : start + size].to_pylist(), array.type)
        assert column_of(array.slice(start, size)) == column_of(own)


def test_dictionaries_are_profiled_like_their_values() -> None:
    """A dictionary column has the type and the summary of its values, and merges with them."""
    array = pa.array([1.5, None, 1.5, 2.0])
    encoded = array.dictionary_encode()
    assert column_of(encoded) == column_of(array)
    profile_of([pa.RecordBatch.from_arrays([part], ["x"]) for part in (array, encoded)])


def runs_of(ends: list[int], values: pa.Array) -> pa.Array:
    """Return values in runs that end at these rows."""
    return pa.RunEndEncodedArray.from_arrays(ends, values)


class Celsius(pa.ExtensionType):
    """A number with a meaning."""

    def __init__(self) -> None:
        super().__init__(pa.float64(), "tests.celsius")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""


TEXTS = pa.array(["a", None, "bb", "a"])
NUMBERS = pa.array([1.5, None, 2.5, 1.5])
BINARIES = TEXTS.cast(pa.binary())
DEGREES = pa.ExtensionArray.from_storage(Celsius(), NUMBERS)
IN_RUNS = pa.array(["a", None, "bb"])


@pytest.mark.parametrize(
    ("array", "plain"),
    [
        (TEXTS.cast(pa.string_view()), TEXTS),
        (BINARIES.cast(pa.binary_view()), BINARIES),
        (pa.DictionaryArray.from_arrays([0, None, 2, 0], TEXTS.cast(pa.string_view())), TEXTS),
        (pa.DictionaryArray.from_arrays([0, None, 2, 0], TEXTS.dictionary_encode()), TEXTS),
        (runs_of([1, 2, 3, 4], NUMBERS), NUMBERS),
        (runs_of([1, 2, 3, 4], TEXTS.cast(pa.string_view())), TEXTS),
        (runs_of([2, 3, 5], IN_RUNS).slice(1, 3), pa.array(["a", None, "bb"])),
        (DEGREES, NUMBERS),
        (pa.DictionaryArray.from_arrays([0, 1, 2, 0], DEGREES), NUMBERS),
    ],
    ids=lambda array: str(array.type)[:40],
)
def test_a_layout_is_profiled_like_its_values(array: pa.Array, plain: pa.Array) -> None:
    """Views, runs, nested dictionaries and extensions have the summary of what they hold."""
    expected = column_of(plain)
    for part, of in ((array, expected), (array.slice(1), column_of(plain.slice(1)))):
        assert {**column_of(part), "type": expected["type"]} == of
    assert column_of(array.slice(0, 0))["count"] == 0


def test_items_of_lists_may_be_in_any_layout() -> None:
    """Lists of views and of dictionaries with nulls are seen by their texts."""
    views = TEXTS.cast(pa.string_view())
    expected = column_of(pa.ListArray.from_arrays([0, 3, 4], TEXTS))["aspects"]
    for items in (views, TEXTS.dictionary_encode(), runs_of([1, 2, 3, 4], views)):
        assert column_of(pa.ListArray.from_arrays([0, 3, 4], items))["aspects"] == expected


def test_text_is_cut() -> None:
    """Smallest and largest strings are kept up to 64 bytes, without half a character."""
    summary = column_of(pa.array(["b", "é" * 40, "x" + "é" * 40, None]))
    assert (summary["min"], summary["max"]) == ("b", "é" * 32)
    assert column_of(pa.array(["x" + "é" * 40]))["max"] == "x" + "é" * 31
    assert column_of(pa.array([b"\xff\x00"], pa.binary(2)))["min"] == "ff00"
    assert column_of(pa.array(["a"], pa.string_view()))["max"] == "a"


@pytest.mark.parametrize(
    "array",
    [
        pa.array([{"a": 1}, None]),
        pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int64())),
        pa.array([None, None]),
        pa.array([["a"], None], pa.list_view(pa.string())),
        pa.array([pa.MonthDayNano([1, 2, 3]), None]),
        pa.array([[], None], pa.list_(pa.float32(), 0)),
        pa.DictionaryArray.from_arrays([0, None], pa.array([{"a": 1}])),
        runs_of([1, 2], pa.array([{"a": 1}, None])),
    ],
    ids=lambda array: str(array.type),
)
def test_other_types_have_counts_only(array: pa.Array) -> None:
    """What has no statistics, such as structs and maps, is counted, with its nulls."""
    summary = column_of(array)
    nulls = sum(value is None for value in array.to_pylist())
    assert summary.pop("type") in str(array.type)
    assert summary == {"kind": "other", "count": 2, "nulls": nulls}


def test_a_changed_type_is_refused_and_nothing_is_added() -> None:
    """A column of another type raises an error that names column and types, before any change."""
    profile = profile_of([pa.RecordBatch.from_pydict({"a": [1], "b": [1.0]})])
    batch = pa.RecordBatch.from_pydict({"a": [2], "b": pa.array([1.0], pa.float32())})
    before = profile.summary()
    with pytest.raises(InputError, match="column 'b' is float, but was double"):
        profile.update(batch)
    with pytest.raises(InputError, match="column 'b' is float, but was double"):
        profile.merge(profile_of([batch]))
    assert profile.summary() == before


def test_two_columns_of_one_name_are_refused() -> None:
    """A batch with a repeated name raises an error that names it."""
    batch = pa.RecordBatch.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    with pytest.raises(InputError, match="'a' appears twice"):
        TableProfile.empty().update(batch)


@pytest.mark.slow
@given(ROWS)
@settings(deadline=None)
def test_summaries_are_json(rows: list[tuple[Any, ...]]) -> None:
    """Every summary is JSON without NaN or infinities."""
    json.dumps(profile_of([batch_of(rows)], HINTS).summary(), allow_nan=False)


def test_pandas_is_not_imported() -> None:
    """Profiling, storing and reading leave pandas alone, whose import takes a second."""
    code = """
import sys
import pyarrow as pa
from batchscore.drift.table import TableProfile
from batchscore.drift.profile_file import read_table, write_table
data = pa.py_buffer(bytes(range(80)))
valid = pa.py_buffer(bytes([0b1010101]))
types = [pa.float64(), pa.int32(), pa.bool_(), pa.timestamp("s")]
arrays = [pa.Array.from_buffers(type_, 8, [valid, data]) for type_ in types]
arrays.append(pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(bytes(8)), data]))
profile = TableProfile.empty()
profile.update(pa.RecordBatch.from_arrays([array.slice(0, 1) for array in arrays], list("abcde")))
read_table(write_table(profile, {}))[0].summary()
assert "pandas" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_columns_may_come_later() -> None:
    """A column that only some batches have is profiled over those."""
    batches = [pa.RecordBatch.from_pydict({"a": [1]}), pa.RecordBatch.from_pydict({"b": [1]})]
    assert_canonical(batches, 0)
    assert profile_of(batches).columns["b"].count == 1


def test_types_that_only_look_like_times_are_not_numbers() -> None:
    """A type name that is no Arrow type is neither a time nor a number."""
    assert key_space("timestamp[fortnight]") is None


def test_decimals_and_half_floats_are_numbers() -> None:
    """They are counted as floats."""
    for type_ in (pa.decimal128(9, 2), pa.float16()):
        summary = column_of(pa.array([1.5, None, 2.5]).cast(type_))
        assert (summary["min"], summary["max"], summary["kind"]) == (1.5, 2.5, "number")


@pytest.mark.parametrize("encoded", [False, True])
def test_texts_have_lengths_in_characters(encoded: bool) -> None:
    """Each row's characters count, not its bytes; a dictionary's null and idle entries do not."""
    texts = pa.array(["ü", "日本語", None, "ü", ""])
    if encoded:
        words = pa.array(["ü", "日本語", None, "", "never there"])
        texts = pa.DictionaryArray.from_arrays(pa.array([0, 1, 2, 0, 3], pa.int8()), words)
    profile = profile_of([pa.record_batch({"t": texts})] * 2)
    buckets = profile.columns["t"].aspects["length"].histogram.buckets()
    lengths = (buckets.first_keys_b ^ np.uint64(1 << 63)).tolist()
    assert dict(zip(lengths, buckets.counts_b.tolist(), strict=True)) == {0: 2, 1: 4, 3: 2}
    assert profile.columns["t"].aspects["length"].zeros == 2


def test_lists_are_seen_by_length_and_items() -> None:
    """Items are counted over all lists, without nulls; a list of none has length 0."""
    summary = column_of(pa.array([[1, 2], [], None, [None, 7]]))
    assert (summary["kind"], summary["count"], summary["nulls"]) == ("list", 4, 1)
    length, items = summary["aspects"]["length"], summary["aspects"]["items"]
    assert (length["min"], length["max"], length["zeros"]) == (0, 2, 1)
    assert (items["min"], items["max"]) == (1, 7)


def test_vectors_are_seen_by_their_norm() -> None:
    """A vector with a null or an infinity is left out and counted."""
    rows = [[3.0, 4.0], [None, 1.0], [float("inf"), 0.0], None, [0.0, 1.0]]
    summary = column_of(pa.array(rows, pa.list_(pa.float64(), 2)))
    assert (summary["count"], summary["nulls"], summary["spoiled"]) == (5, 1, 2)
    norm = summary["aspects"]["norm"]
    assert (norm["min"], norm["max"]) == (1.0, 5.0)


def test_class_scores_are_seen_by_class_and_shape() -> None:
    """Each class, the best one, entropy in nats and the margin of the best two have an aspect."""
    rows = pa.array([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]], pa.list_(pa.float32(), 3))
    batch = pa.RecordBatch.from_arrays([rows], ["x"])
    aspects = profile_of([batch], {"x": "classes"}).summary()["x"]["aspects"]
    names = {"class 0", "class 1", "class 2", "argmax", "entropy", "margin"}
    assert set(aspects) == names
    assert aspects["entropy"]["max"] == pytest.approx(np.log(2))
    assert (aspects["margin"]["min"], aspects["margin"]["max"]) == (0.0, 1.0)
    assert {top["value"] for top in aspects["argmax"]["top"]} == {"0", "2"}


def test_probabilities_out_of_range_are_counted_apart() -> None:
    """What is below 0 or above 1 is in no bucket."""
    batch = pa.RecordBatch.from_pydict({"x": [0.0, 1.0, 0.25, -0.5, 1.5, 2.0]})
    summary = profile_of([batch], {"x": "probability"}).summary()["x"]
    assert (summary["below"], summary["above"]) == (1, 2)
    assert (summary["min"], summary["max"]) == (0.0, 1.0)


def test_profiles_of_two_kinds_are_not_merged() -> None:
    """A column profiled as a probability and as any number raises an error."""
    batch = pa.RecordBatch.from_pydict({"x": [0.5]})
    profile = profile_of([batch], {"x": "probability"})
    with pytest.raises(InputError, match="as number and as probability"):
        profile.merge(profile_of([batch]))


@pytest.mark.parametrize("letter", ["x", "é"])
def test_lengths_of_texts_are_in_characters(letter: str) -> None:
    """Texts that repeat and those that do not have the lengths that Python counts."""
    texts = [letter * (row % 90) + str(row) for row in range(3_000)]
    profile = TableProfile.empty()
    for batch in (texts, ["é", "xy"] * 2_000, texts):
        profile.update(pa.record_batch({"text": pa.array(batch, pa.string())}))
    found = profile.summary()["text"]["aspects"]["length"]
    lengths = [len(text) for text in [*texts, *texts, *["é", "xy"] * 2_000]]
    assert (found["min"], found["max"]) == (min(lengths), max(lengths))
    assert found["mean"] == pytest.approx(np.mean(lengths))
