"""JSON that was read back has bounds, and what breaks them is one kind of error."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.storage.documents import MOST_BYTES, MOST_DEPTH, parse_json
from batchscore.storage.store import Store

TEXTS = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('[]{}"\\'))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
)


@given(VALUES, st.booleans())
def test_what_json_writes_comes_back(value: object, ascii_only: bool) -> None:
    """Every value comes back, whatever brackets and quotes its texts hold."""
    assert parse_json(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not JSON"),
        (b'{"a": 1', "not JSON"),
        (b"[" * 100_000, "nested"),
        (b"[" * 100_000 + b"]" * 100_000, "nested"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested"),
        (b"[" * (MOST_DEPTH + 1) + b"]" * (MOST_DEPTH + 1), "nested"),
        (b"1" * 5_000, "too many digits"),
        (b'"\\ud800"', "half of a character"),
        (b"\xff\xfe{}", "not UTF-8"),
    ],
)
def test_what_is_out_of_bounds_is_a_value_error(data: bytes, words: str) -> None:
    """The message is short, and repeats nothing of the document."""
    with pytest.raises(ValueError, match=words) as caught:
        parse_json(data)
    assert len(str(caught.value)) < 100


def test_brackets_within_texts_are_no_depth() -> None:
    """A text of a thousand brackets is as good as another."""
    value = {"error": "[" * 1_000, "again": '\\"{' * 500}
    assert parse_json(json.dumps(value).encode()) == value


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    """A document larger than the bound is refused by its size."""
    with (tmp_path / "x.json").open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(ValueError, match="more than"):
        Store(str(tmp_path)).read_json("x.json")
