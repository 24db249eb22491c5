"""Tests of the reader of protobuf's wire format."""

from __future__ import annotations

import struct
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.models.backends.onnx.protobuf import WireReader

Pairs = list[tuple[int, int | bytes | float]]


def varint(value: int) -> bytes:
    made = bytearray()
    while True:
        made.append(value & 127 | (128 if value > 127 else 0))
        value >>= 7
        if not value:
            return bytes(made)


def encoded(pairs: Pairs) -> bytes:
    """Returns a message of fields: whole numbers, bytes, and floats of four bytes."""
    made = b""
    for number, value in pairs:
        if isinstance(value, bytes):
            made += varint(number << 3 | 2) + varint(len(value)) + value
        elif isinstance(value, int):
            made += varint(number << 3) + varint(value)
        else:
            made += varint(number << 3 | 5) + struct.pack("<f", value)
    return made


def read(content: bytes, *lists: int) -> list[tuple[int, object]]:
    fields = WireReader(lists).fields(memoryview(content))
    return [(e.number, e.value if isinstance(e.value, int) else bytes(e.value)) for e in fields]


numbers_st = st.integers(0, 2**64 - 1)
pairs_st = st.lists(st.tuples(st.integers(1, 40), st.one_of(numbers_st, st.binary(max_size=9))))


@given(pairs_st)
def test_fields_come_back_as_they_were_written(pairs: Pairs) -> None:
    """Numbers and bytes are those that were written."""
    assert read(encoded(pairs)) == pairs


runs_st = st.one_of(
    st.lists(numbers_st, max_size=300), st.lists(st.binary(max_size=140), max_size=60)
)


@given(runs_st, st.lists(numbers_st, max_size=4), st.integers(1, 15))
def test_a_long_run_of_a_list_ends_where_it_ends(
    run: list[int | bytes], after: list[int], number: int
) -> None:
    """What follows thousands of numbers or texts is read, whatever their lengths."""
    tail: Pairs = [(number + 1, b"next"), *((number + 2, each) for each in after)]
    tags = number << 3, number << 3 | 2
    found = read(encoded([*((number, each) for each in run), *tail]), *tags)
    assert found[-len(tail) :] == tail
    assert len(found) - len(tail) <= len(run)


def test_millions_of_numbers_take_no_time() -> None:
    """A list of numbers or texts, each of which is a field, is passed over at once."""
    for one in (b"\x40\x07", b"\x40\xff\x7f", struct.pack("<Bf", 0x3D, 1.5), b"\x4a\x04LEAF"):
        start = time.process_time()
        found = read(one * 2_000_000 + encoded([(20, 1)]), 0x40, 0x3D, 0x4A)
        assert found[-1] == (20, 1)
        assert len(found) < 200
        assert time.process_time() - start < 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x0a\x05abc", "ends too early"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "ends too early"),
        (b"\x08" + b"\xff" * 11, "too long a number"),
        (b"\x0b", "unknown kind"),
        (b"\x00\x01", "field 0"),
        (b"\x08", "ends too early"),
    ],
)
def test_what_is_no_message_is_refused(content: bytes, message: str) -> None:
    """Lengths and numbers beyond the file are refused before anything is taken for them."""
    with pytest.raises(ValueError, match=message):
        read(content)


def test_a_file_of_more_entries_than_are_read_is_refused() -> None:
    """The bound holds for all messages of a reader together."""
    reader = WireReader(most=10)
    assert len([*reader.fields(memoryview(encoded([(1, b"")] * 6)))]) == 6
    with pytest.raises(ValueError, match="more entries"):
        [*reader.fields(memoryview(encoded([(1, b"")] * 6)))]
