"""Tests that texts reach a model as they are in the table, however the column holds them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.columnar.text_columns import (
    fill_missing,
    is_textual,
    missing_texts,
    texts_from_arrow,
    to_text_column,
)
from batchscore.columnar.texts import make_texts

ROWS = st.lists(st.none() | st.text(max_size=3), max_size=12)
FORMS = st.sampled_from(
    ["string", "large_string", "string_view", "dictionary", "dictionary of views", "repeated"]
)


def column_of(rows: list[str | None], form: str) -> pa.Array:
    """Rows as a column of one of the types that hold texts."""
    if form == "repeated":  # Arrow asks no dictionary to have each value once, nor no null
        places = pa.array(range(len(rows)), pa.int16())
        return pa.DictionaryArray.from_arrays(places, pa.array(rows, pa.string()))
    plain = pa.array(rows, pa.large_string())
    if form == "dictionary":
        return plain.dictionary_encode()
    if form == "dictionary of views":
        encoded = plain.dictionary_encode()
        views = encoded.dictionary.cast(pa.string_view())
        return pa.DictionaryArray.from_arrays(encoded.indices, views)
    return plain.cast(getattr(pa, form)())


@given(ROWS, FORMS, st.integers(0, 5), st.integers(0, 8))
def test_texts_come_back_from_each_type_and_slice(
    rows: list[str | None], form: str, skip: int, kept: int
) -> None:
    """Rows have their texts, distinct texts are listed once, and a null is none."""
    column = column_of(rows, form)
    assert is_textual(column.type)
    before, after = to_text_column(column[skip : skip + kept]), to_text_column(column)
    for found in (before, after[skip : skip + kept]):
        texts = texts_from_arrow(found)
        assert texts.spelled().tolist() == rows[skip : skip + kept]
        assert len(texts) == len(rows[skip : skip + kept])
        assert len({*texts.encoded_k}) == len(texts.encoded_k)
    assert missing_texts(column).tolist() == [row is None for row in rows]


@given(ROWS, ROWS, FORMS)
def test_texts_do_not_depend_on_how_rows_are_cut(
    first: list[str | None], second: list[str | None], form: str
) -> None:
    """Two parts that are joined, as a block that was halved, have the texts of the whole."""
    parts = [to_text_column(column_of(rows, form)) for rows in (first, second)]
    joined = pa.concat_arrays(parts)
    assert texts_from_arrow(joined).spelled().tolist() == [*first, *second]


@given(ROWS, st.randoms())
def test_rows_are_taken_in_any_order(rows: list[str | None], random: object) -> None:
    """Places may be repeated, and the rest of the texts stays what it is."""
    texts = make_texts([None if row is None else row.encode() for row in rows])
    assert texts.spelled().tolist() == rows
    places_n = np.arange(len(rows))[::-1].repeat(2)
    assert texts[places_n].spelled().tolist() == [row for row in rows[::-1] for _ in range(2)]


@given(ROWS, st.text(max_size=2))
def test_missing_texts_become_the_one_of_training(rows: list[str | None], text: str) -> None:
    """Whether the column has that text already or not."""
    filled = texts_from_arrow(fill_missing(to_text_column(column_of(rows, "string")), text))
    assert filled.spelled().tolist() == [text if row is None else row for row in rows]
    assert len({*filled.encoded_k}) == len(filled.encoded_k)


@pytest.mark.parametrize("kind", [pa.int8(), pa.int64(), pa.uint64()])
def test_whole_numbers_become_their_digits(kind: pa.DataType) -> None:
    """As Python spells them, which is what training had."""
    low, high = (-7, 127) if kind == pa.int8() else (0, 2**63 - 1)
    column = pa.array([low, None, high, low], kind)
    assert texts_from_arrow(to_text_column(column)).spelled().tolist() == [
        str(low),
        None,
        str(high),
        str(low),
    ]


def test_a_column_without_a_type_has_no_text() -> None:
    """Each of its rows is null."""
    assert texts_from_arrow(to_text_column(pa.nulls(2))).spelled().tolist() == [None, None]


@pytest.mark.parametrize("kind", [pa.float64(), pa.bool_(), pa.date32(), pa.list_(pa.string())])
def test_other_types_are_no_texts(kind: pa.DataType) -> None:
    """A fraction has several spellings, and so has a boolean."""
    assert not is_textual(kind)


def test_bytes_that_are_no_text_stay_as_they_are() -> None:
    """A model may hash them; nothing decodes them on the way."""
    column = pc.cast(pa.array([b"\xff", b"a"], pa.binary()), pa.string(), safe=False)
    assert texts_from_arrow(to_text_column(column)).encoded_k == [b"\xff", b"a"]
