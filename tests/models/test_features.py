from __future__ import annotations

import base64
import datetime as dt
import json
import math
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscore.columnar.arrays import to_numpy
from batchscore.errors import InputError, ModelError, StepError
from batchscore.models.features import (
    Calendar,
    Categorical,
    Features,
    Numeric,
    check_schema,
    dump_features,
    encode,
    input_shapes,
    load_features,
    required_columns,
)
from batchscore.models.fitting import fit_categorical, fit_numeric

FEATURES = Features(
    inputs={
        "numeric": (
            Numeric(column="x", impute=1.5, mean=0.3, std=0.7, clip=(-3.0, 1e6)),
            Numeric(column="n", impute=0.0, mean=7.0, std=3.0),
            Calendar(column="at", part="weekday"),
            Calendar(column="hour", part="hour", encoding="scaled"),
        ),
        "categories": (
            Categorical(column="carrier", vocabulary=("UA", "AA", "ö")),
            Categorical(column="n", vocabulary=(3, -1)),
        ),
    }
)
ZONED = pa.timestamp("us", "UTC")
ROW = st.fixed_dictionaries(
    {
        "x": st.none() | st.floats(width=32),
        "n": st.none() | st.integers(-10, 10),
        "at": st.none() | st.datetimes(dt.datetime(1900, 1, 1), timezones=st.just(dt.timezone.utc)),
        "hour": st.none() | st.integers(-5, 30),
        "carrier": st.none() | st.sampled_from(["UA", "AA", "ö", "", "nobody"]),
    }
)


def batch_of(rows: list[dict[str, Any]], small: bool = False, coded: bool = False) -> Any:
    def column(name: str, dtype: Any) -> Any:
        array = pa.array([row[name] for row in rows], dtype)
        return array.dictionary_encode() if coded else array

    return pa.record_batch(
        {
            "x": column("x", pa.float32() if small else pa.float64()),
            "n": column("n", pa.int8() if small else pa.int64()),
            "at": column("at", ZONED),
            "hour": column("hour", pa.int32() if small else pa.int64()),
            "carrier": column("carrier", pa.large_string() if small else pa.string()),
        }
    )


def bits(encoded: dict[str, Any]) -> dict[str, bytes]:
    return {name: to_numpy(column).tobytes() for name, column in encoded.items()}


def one(feature: Numeric | Categorical | Calendar, array: Any) -> list[list[float]]:
    batch = pa.record_batch({feature.column: array})
    rows: list[list[float]] = encode(Features(inputs={"i": (feature,)}), batch)["i"].to_pylist()
    return rows


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(rows=st.lists(ROW, max_size=12), cut=st.integers(0, 12), data=st.data())
def test_rows_do_not_depend_on_their_batch(
    rows: list[dict[str, Any]], cut: int, data: st.DataObject
) -> None:
    """A row becomes the same bits in the whole, in any slice, and under any storage type."""
    whole = batch_of(rows)
    expected = bits(encode(FEATURES, whole))
    small, coded = data.draw(st.booleans()), data.draw(st.booleans())
    other = batch_of(rows, small, coded)
    parts = [bits(encode(FEATURES, part)) for part in (other.slice(0, cut), other.slice(cut))]
    assert {name: parts[0][name] + parts[1][name] for name in expected} == expected


def test_blocks_leave_rows_as_they_are() -> None:
    """A batch of several internal blocks equals its parts cut elsewhere."""
    x = np.random.default_rng(1).normal(size=10_001)
    rows = pa.record_batch({"x": pa.array(x), "y": pa.array(x[::-1].copy())})
    features = Features(
        inputs={
            "i": (
                Numeric(column="x", impute=0, mean=0.1, std=3),
                Numeric(column="y", impute=0, mean=0, std=7),
            )
        }
    )
    parts = [encode(features, rows.slice(s, 777))["i"] for s in range(0, 10_001, 777)]
    assert b"".join(to_numpy(part).tobytes() for part in parts) == bits(encode(features, rows))["i"]
    assert to_numpy(encode(features, rows)["i"])[5000, 0] == np.float32((x[5000] - 0.1) / 3)


def test_missing_numbers_are_imputed_and_extremes_clipped() -> None:
    """Null and NaN become the imputed value; what lies outside the clip becomes its bound."""
    feature = Numeric(column="x", impute=2.0, mean=1.0, std=2.0, clip=(-1.0, 5.0))
    array = pa.array([None, math.nan, 3.0, math.inf, -math.inf])
    assert one(feature, array) == [[0.5], [0.5], [1.0], [2.0], [-1.0]]


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (pa.array(["b", None, "a", "?"]), [[3], [0], [2], [1]]),
        (pa.array(["b", None], pa.string_view()), [[3], [0]]),
        (pa.nulls(2), [[0], [0]]),
        (pa.DictionaryArray.from_arrays(pa.array([1, None, 0]), ["?", None]), [[0], [0], [1]]),
    ],
)
def test_text_categories(array: Any, expected: list[list[int]]) -> None:
    """Missing is 0, unseen is 1, and the vocabulary follows in its order."""
    assert one(Categorical(column="c", vocabulary=("a", "b")), array) == expected


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (pa.array([7, -1, None, 5], pa.int16()), [[2], [3], [0], [1]]),
        (pa.array([2**64 - 1, 7], pa.uint64()), [[1], [2]]),
        (pa.array([True, False]), [[1], [1]]),
    ],
)
def test_integer_categories(array: Any, expected: list[list[int]]) -> None:
    """Integers of any width find their category, and large unsigned ones alias no negative one."""
    assert one(Categorical(column="c", vocabulary=(7, -1)), array) == expected


def test_calendar_parts() -> None:
    """Parts are read in the zone asked for; missing and impossible ones are neutral."""
    late_sunday = dt.datetime(2013, 1, 7, 3, tzinfo=dt.timezone.utc)
    at = pa.array([late_sunday, None], ZONED)
    own = Calendar(column="at", part="weekday", encoding="scaled")
    assert one(own, at) == [[0.0], [0.5]]
    assert one(own.model_copy(update={"timezone": "America/New_York"}), at) == [[1.0], [0.5]]
    hours = pa.array([0, 6, 24, -1, None], pa.int8())
    rows = np.array(one(Calendar(column="h", part="hour"), hours))
    assert rows == pytest.approx(np.array([[0, 1], [1, 0], [0, 0], [0, 0], [0, 0]]), abs=1e-7)
    day = pa.array([dt.date(2012, 12, 31)])
    assert one(Calendar(column="d", part="day_of_year", encoding="scaled"), day) == [[1.0]]


@pytest.mark.parametrize(
    ("feature", "dtype", "says"),
    [
        (FEATURES.inputs["numeric"][0], pa.string(), "a number or boolean"),
        (Categorical(column="x", vocabulary=("a",)), pa.int64(), "expected string"),
        (Categorical(column="x", vocabulary=(1,)), pa.float64(), "expected integer"),
        (Calendar(column="x", part="hour"), pa.date32(), "timestamp, time or integer"),
        (Calendar(column="x", part="day"), pa.time32("s"), "timestamp, date or integer"),
        (Calendar(column="x", part="day", timezone="UTC"), pa.timestamp("s"), "with a time zone"),
    ],
)
def test_a_type_that_does_not_fit_is_refused(feature: Any, dtype: Any, says: str) -> None:
    """The message names the column, the type found and the kinds expected."""
    with pytest.raises(InputError, match=says) as caught:
        check_schema(Features(inputs={"i": (feature,)}), pa.schema({"x": dtype}))
    assert "'x'" in str(caught.value)
    assert str(dtype) in str(caught.value)


def test_missing_and_doubled_columns_are_refused() -> None:
    """A column must be there exactly once."""
    features = Features(inputs={"i": (Numeric(column="x", impute=0, mean=0, std=1),)})
    for schema in (pa.schema({"y": pa.int8()}), pa.schema([("x", pa.int8()), ("x", pa.int8())])):
        with pytest.raises(InputError, match="expected once"):
            check_schema(features, schema)


def test_values_that_arrow_cannot_read_are_a_step_error() -> None:
    """A failing kernel becomes an error that names the column."""
    unknown_zone = pa.array([1], pa.timestamp("s", "Nowhere/City"))
    with pytest.raises(StepError, match="'at'"):
        one(Calendar(column="at", part="hour"), unknown_zone)


def test_features_survive_their_json() -> None:
    """Dumped and loaded features are equal, and their text is one feature a line."""
    text = dump_features(FEATURES)
    assert load_features(text) == FEATURES
    assert dump_features(load_features(text)) == text
    assert sum(line.strip().startswith('{"kind"') for line in text.splitlines()) == 6
    assert required_columns(FEATURES) == ("x", "n", "at", "hour", "carrier")
    assert input_shapes(FEATURES) == {"numeric": ("float32", (5,)), "categories": ("int64", (2,))}


def numeric_json(**changes: object) -> str:
    plain = {"kind": "numeric", "column": "x", "impute": 0, "mean": 0, "std": 1}
    return json.dumps({"inputs": {"i": [{**plain, **changes}]}})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (numeric_json(clipp=[0, 1]), "nearest: 'clip'"),
        (numeric_json(std=0), "expected above 0"),
        (numeric_json(mean=math.nan), "finite"),
        (numeric_json(clip=[2, 1]), "above the upper"),
        (numeric_json(kind="numerical"), "'numeric'"),
        ('{"inputs": {}, "input": 1}', "nearest: 'inputs'"),
        ('{"inputs": {}}', "at least one model input"),
        ('{"inputs": {"i": [], "i": []}}', "the key 'i' twice"),
        ('{"inputs": {"i": []}}', "one or more features"),
        ("[" * 100_000, "not JSON"),
        ("[]", "JSON object"),
        ("\0", "not JSON"),
    ],
)
def test_wrong_json_is_explained(text: str, says: str) -> None:
    """What is wrong with a preprocessing file is named, with the nearest right key."""
    with pytest.raises(ModelError, match=says):
        load_features(text)


def test_an_input_has_one_dtype() -> None:
    """Categories and numbers cannot share a model input."""
    both = (
        Categorical(column="c", vocabulary=("a",)),
        Numeric(column="x", impute=0, mean=0, std=1),
    )
    with pytest.raises(ModelError, match="input of their own"):
        Features(inputs={"i": both})


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        (None, "inputs: expected a mapping, found None"),
        ({"i": 1}, "inputs.i: expected a list, found 1"),
        ({"i": ["age"]}, "inputs.i.0: expected a mapping, found 'age'"),
        ({"i": [{"column": "x"}]}, "inputs.i.0: expected a mapping with the key 'kind', found a d"),
        ({"i": [{"kind": "zz"}]}, "expected 'kind' to be one of 'numeric', 'categorical', 'calen"),
        (
            {"i": [{"kind": "numeric", "column": "x", "impute": "a", "mean": 0, "std": 0}]},
            "impute: expected a number, found 'a'; inputs.i.0.numeric.std: expected above 0",
        ),
    ],
)
def test_wrong_features_are_explained(inputs: Any, says: str) -> None:
    """Features that a caller makes are refused in words, with what makes valid ones."""
    with pytest.raises(ModelError) as caught:
        Features(inputs)
    assert says in str(caught.value)
    assert str(caught.value).endswith(". fit_features makes valid ones")


def test_fitting_is_deterministic_and_robust() -> None:
    """Fitting ignores gaps, clips outliers, keeps frequent values and breaks ties by value."""
    table = pa.table(
        {"x": [1.0, None, math.nan, 3.0, math.inf], "c": ["b", "a", "c", "c", None], "k": [5] * 5}
    )
    fitted = fit_numeric(table, "x", (0.0, 1.0))
    assert (fitted.impute, fitted.clip) == (2.0, (1.0, 3.0))
    assert fitted.mean == pytest.approx(2.0)
    assert fit_numeric(table, "k").std == 1.0
    assert fit_categorical(table, "c").vocabulary == ("c", "a", "b")
    assert fit_categorical(table, "c", max_size=2).vocabulary == ("c", "a")
    assert fit_categorical(table, "c", min_count=2).vocabulary == ("c",)
    with pytest.raises(InputError, match="min_count"):
        fit_categorical(table, "c", min_count=9)
    with pytest.raises(InputError, match="string or integer"):
        fit_categorical(table, "x")
    with pytest.raises(InputError, match="no finite value"):
        fit_numeric(pa.table({"x": pa.nulls(2)}), "x")


@pytest.mark.parametrize("chunks", [1, 2])
@pytest.mark.parametrize("coded", [False, True], ids=["plain", "dictionary"])
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()], ids=str)
def test_every_kind_of_string_is_fitted_and_encoded_alike(
    kind: pa.DataType, coded: bool, chunks: int
) -> None:
    """pandas 3 makes large strings, other libraries views, each with or without a dictionary."""
    texts = ["b", "a", None, "c", "c"]
    column = pa.array(texts, kind)
    if coded:
        column = pa.DictionaryArray.from_arrays([0, 1, None, 2, 2], pa.array(["b", "a", "c"], kind))
    table = pa.table({"c": pa.chunked_array([column] * chunks)})
    fitted = fit_categorical(table, "c")
    assert fitted.vocabulary == ("c", "a", "b")
    features = Features(inputs={"i": (fitted,)})
    batch = pa.RecordBatch.from_arrays([column], ["c"])
    assert encode(features, batch)["i"].to_pylist() == [[4], [3], [0], [2], [2]]


@pytest.mark.parametrize("kind", [pa.uint64(), pa.dictionary(pa.int32(), pa.uint64())], ids=str)
def test_integers_beyond_int64_are_categories(kind: pa.DataType) -> None:
    """Hashes of 64 bits without a sign are fitted, stored, and found again exactly."""
    ids = [2**64 - 1, 2**63, None, 2**64 - 1, 2**63 - 1, 5]
    plain = pa.array(ids, pa.uint64())
    column = plain.dictionary_encode() if pa.types.is_dictionary(kind) else plain
    fitted = fit_categorical(pa.table({"c": column}), "c", max_size=3)
    assert fitted.vocabulary == (2**64 - 1, 5, 2**63 - 1)
    features = load_features(dump_features(Features(inputs={"i": (fitted,)})))
    batch = pa.RecordBatch.from_arrays([column], ["c"])
    assert encode(features, batch)["i"].to_pylist() == [[2], [1], [0], [2], [4], [3]]
    small = pa.RecordBatch.from_arrays([pa.array([5, -1, None], pa.int8())], ["c"])
    assert encode(features, small)["i"].to_pylist() == [[3], [1], [0]]


@pytest.mark.parametrize("vocabulary", [(2**64,), (-(2**63) - 1,), (-1, 2**63)], ids=str)
def test_integers_of_no_type_are_refused(vocabulary: tuple[int, ...]) -> None:
    """No column has both a negative integer and one beyond int64."""
    with pytest.raises(ValueError, match="fit neither int64 nor uint64"):
        Categorical(column="c", vocabulary=vocabulary)


@pytest.mark.parametrize("fit", [fit_numeric, fit_categorical])
def test_a_column_that_is_not_there_cannot_be_fitted(fit: Any) -> None:
    """The message has the nearest name, and how often the column is there."""
    with pytest.raises(InputError, match=r"'carier' is in the table 0 times.*nearest: 'carrier'"):
        fit(pa.table({"carrier": ["a"]}), "carier")
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["c", "c"])
    with pytest.raises(InputError, match="'c' is in the table 2 times, expected once"):
        fit(twice, "c")


def test_a_frame_of_pandas_strings_is_fitted() -> None:
    """Whatever pandas keeps texts in, what Arrow makes of them is fitted."""
    texts = ["b", "a", None, "c", "c"]
    for dtype in ("object", "string", "string[pyarrow]", pd.ArrowDtype(pa.large_string())):
        frame = pd.DataFrame({"c": pd.Series(texts, dtype=dtype)})
        for series in (frame["c"], frame["c"].astype("category")):
            table = pa.Table.from_pandas(pd.DataFrame({"c": series}), preserve_index=False)
            assert fit_categorical(table, "c").vocabulary == ("c", "a", "b")


def test_a_text_cannot_be_fitted_as_a_number() -> None:
    """A column that could not be encoded afterwards is refused before it is fitted."""
    with pytest.raises(InputError, match="'x' is large_string, expected a number or boolean"):
        fit_numeric(pa.table({"x": pa.array(["1"], pa.large_string())}), "x")


def test_encoding_imports_neither_pandas_nor_torch() -> None:
    """Encoding stays on buffers: the slow imports never happen."""
    program = """
import sys, numpy as np, pyarrow as pa
from batchscore.columnar.arrays import to_arrow
from batchscore.models.features import *
x = to_arrow(np.array([1.0, np.nan]))
c = pa.DictionaryArray.from_arrays(to_arrow(np.array([0, 1])), to_arrow(np.array([7, 8])))
f = Features(inputs={"i": (Numeric(column="x", impute=0, mean=0, std=1),),
                     "c": (Categorical(column="c", vocabulary=(7,)),
                           Categorical(column="t", vocabulary=("7",)))})
encode(f, pa.RecordBatch.from_arrays([x, c, c.dictionary_decode().cast("string")], ["x", "c", "t"]))
sys.exit(bool({"pandas", "torch", "apache_beam"} & set(sys.modules)))
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


EARLIER = (
    # A pickle from when features were a class of pydantic's.
    b"gASVCAEAAAAAAACMGmJhdGNoc2NvcmUubW9kZWxzLmZlYXR1cmVzlIwIRmVhdHVyZXOUk5QpgZR9lCiM"
    b"CF9fZGljdF9flH2UjAZpbnB1dHOUfZSMAWOUaACMC0NhdGVnb3JpY2FslJOUKYGUfZQoaAV9lCiMBGtp"
    b"bmSUjAtjYXRlZ29yaWNhbJSMBmNvbHVtbpRoCYwKdm9jYWJ1bGFyeZSMAXiUjAF5lIaUdYwSX19weWRh"
    b"bnRpY19leHRyYV9flE6MF19fcHlkYW50aWNfZmllbGRzX3NldF9flI+UKGgSaBGQjBRfX3B5ZGFudGlj"
    b"X3ByaXZhdGVfX5ROdWKFlHNzaBZOaBePlChoB5BoGU51Yi4="
)


def test_features_that_an_earlier_version_pickled_load() -> None:
    """They are equal to those that are made now, and so are pickles of this version."""
    expected = Features(inputs={"c": (Categorical(column="c", vocabulary=("x", "y")),)})
    for pickled in (base64.b64decode(EARLIER), pickle.dumps(expected)):
        found = pickle.loads(pickled)
        assert found == expected
        assert found.vocabulary_sizes == expected.vocabulary_sizes
