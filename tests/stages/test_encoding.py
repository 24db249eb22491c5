"""How scored columns are encoded: as small as a sample says, and never at the rows' cost."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.stages.encoding import choose_encoding

ROWS = 20_000
CHANCE = np.random.default_rng(0)
COLUMNS: dict[str, Any] = {
    "measured": CHANCE.standard_normal(ROWS).astype(np.float32),
    "flag": CHANCE.integers(0, 2, ROWS).astype(np.float32),
    "hash": CHANCE.integers(0, 2**60, ROWS),
    "code": CHANCE.integers(0, 50, ROWS),
    "label": [f"label {number}" for number in CHANCE.integers(0, 9, ROWS)],
    "text": [f"{number:020d} of many" for number in CHANCE.integers(0, 2**60, ROWS)],
}


def _written(table: pa.Table, **options: Any) -> tuple[pa.Table, Any]:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **options)
    file = pq.ParquetFile(pa.BufferReader(sink.getvalue()))
    return file.read(), file.metadata.row_group(0)


@pytest.mark.parametrize(
    ("column", "dictionary", "codec"),
    [
        ("measured", False, "UNCOMPRESSED"),
        ("flag", True, "UNCOMPRESSED"),
        ("hash", False, "UNCOMPRESSED"),
        ("code", True, "UNCOMPRESSED"),
        ("text", False, "ZSTD"),
    ],
)
def test_each_column_is_encoded_as_its_values_repay(
    column: str, dictionary: bool, codec: str
) -> None:
    """Dictionaries go to values that come again, compression to bytes that do."""
    table = pa.table({column: COLUMNS[column]})
    _, group = _written(table, **choose_encoding(table))
    assert group.column(0).has_dictionary_page == dictionary
    assert group.column(0).compression == codec


@pytest.mark.parametrize("kind", [pa.float32(), pa.int64(), pa.string(), pa.binary(5)])
@pytest.mark.parametrize("share", [0.001, 0.3, 0.6, 0.8, 0.95, 1])
def test_a_dictionary_is_for_what_it_makes_a_tenth_smaller(kind: pa.DataType, share: float) -> None:
    """Values of any share of distinct ones, nulls among them, are encoded in the smaller way."""
    values = CHANCE.integers(10_000, 10_000 + int(8000 * share), 8000).tolist()
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        values = [str(value).encode() for value in values]
    column = pa.array([None if row % 50 == 0 else each for row, each in enumerate(values)], kind)
    table = pa.table({"value": column})
    plain, repeated = (
        _written(table, use_dictionary=used, compression="zstd", compression_level=1)[1].column(0)
        for used in (False, True)
    )
    is_worth = repeated.total_compressed_size < 0.9 * plain.total_compressed_size
    assert (choose_encoding(table)["use_dictionary"] == ["value"]) == is_worth


@pytest.mark.parametrize("codec", ["zstd", "snappy", "none"])
def test_the_codec_is_used_where_it_saves_a_tenth(codec: str) -> None:
    """Texts get the codec that is asked for, and hashes none."""
    table = pa.table({name: COLUMNS[name] for name in ("text", "hash")})
    _, group = _written(table, **choose_encoding(table, codec))
    name = "UNCOMPRESSED" if codec == "none" else codec.upper()
    assert [group.column(i).compression for i in range(2)] == [name, "UNCOMPRESSED"]


WORDS = np.array([f"w{number * 7919 % 100_003}x" for number in range(1_000)])
TEXTS = {
    "SNAPPY": [" ".join(row) for row in WORDS[CHANCE.integers(0, 1_000, (ROWS, 24))]],
    "ZSTD": [f'{{"id": {n}, "name": "{WORDS[n % 997]}", "active": true}}' for n in range(ROWS)],
    "UNCOMPRESSED": [*map(bytes, CHANCE.integers(0, 256, (ROWS, 24), np.uint8))],
}


@pytest.mark.parametrize("codec", TEXTS)
def test_auto_takes_zstd_where_it_is_two_fifths_smaller_than_snappy(codec: str) -> None:
    """JSON gets zstd, sentences get Snappy, and noise gets neither."""
    table = pa.table({"text": TEXTS[codec]})
    _, group = _written(table, **choose_encoding(table))
    assert group.column(0).compression == codec
    sizes = [
        _written(table, compression=name, use_dictionary=False)[1].column(0).total_compressed_size
        for name in ("snappy", "zstd")
    ]
    assert (sizes[1] <= 0.6 * sizes[0]) == (codec == "ZSTD")


def test_files_are_smaller_than_with_parquets_defaults() -> None:
    """Of a table of many kinds, and of each kind for itself within a twentieth."""
    table = pa.table(COLUMNS)
    _, chosen = _written(table, **choose_encoding(table))
    _, default = _written(table)
    sizes = [
        [group.column(i).total_compressed_size for i in range(len(COLUMNS))]
        for group in (chosen, default)
    ]
    assert sum(sizes[0]) < 0.8 * sum(sizes[1])
    assert all(ours < 1.05 * theirs for ours, theirs in zip(*sizes, strict=True))


def test_the_choice_is_the_same_every_time() -> None:
    """It goes by the rows alone, and by the first of them."""
    table = pa.table(COLUMNS)
    assert choose_encoding(table) == choose_encoding(table)


CODES = pa.array([f"text {number}" for number in CHANCE.integers(0, 50, 131_072)])
ZEROS = np.zeros(131_072)
HEADS = {
    "nulls, then texts": pa.concat_arrays([pa.nulls(8_192, pa.string()), CODES[8_192:]]),
    "one text, then others": pa.concat_arrays([pa.repeat("text 1", 8_192), CODES[8_192:]]),
    "noise, then zeros": pa.array(np.r_[CHANCE.random(8_192), ZEROS[8_192:]]),
    "zeros, then noise": pa.array(np.r_[ZEROS[:8_192], CHANCE.random(122_880)]),
}


@pytest.mark.parametrize("head", HEADS)
def test_the_first_rows_of_a_table_do_not_decide_alone(head: str) -> None:
    """Columns that begin otherwise than they go on are no larger than by Parquet's defaults."""
    table = pa.table({"x": HEADS[head]})
    sizes = [
        _written(table, **options)[1].column(0).total_compressed_size
        for options in (
            choose_encoding(table),
            {},
            {"compression": "zstd", "compression_level": 1, "use_dictionary": False},
        )
    ]
    assert sizes[0] < 1.2 * min(sizes[1:]) + 1_000


def test_a_column_that_is_null_in_the_sample_may_hold_texts_later() -> None:
    """What is not known is compressed, with a dictionary: it costs nothing."""
    options = choose_encoding(pa.table({"x": pa.nulls(100, pa.string())}))
    _, group = _written(pa.table({"x": CODES}), **options)
    assert group.column(0).has_dictionary_page
    assert group.column(0).compression == "ZSTD"


@pytest.mark.slow
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "a.b": st.none() | st.integers(-5, 5),
                "list": st.none() | st.lists(st.none() | st.floats(allow_nan=False)),
                "struct": st.none() | st.fixed_dictionaries({"x": st.none() | st.text()}),
                "empty": st.none(),
                "flag": st.none() | st.booleans(),
            }
        ),
        min_size=1,
    ),
    st.sampled_from(["auto", "zstd", "snappy", "none"]),
)
def test_whatever_is_chosen_reads_back(rows: list[dict[str, Any]], codec: str) -> None:
    """Nulls, lists, structs and names with dots come back as they were written."""
    schema = pa.schema(
        {
            "a.b": pa.int32(),
            "list": pa.list_(pa.float64()),
            "struct": pa.struct({"x": pa.string()}),
            "empty": pa.null(),
            "flag": pa.bool_(),
        }
    )
    table = pa.Table.from_pylist(rows, schema=schema)
    read, _ = _written(table, **choose_encoding(table, codec))
    assert read.equals(table)
