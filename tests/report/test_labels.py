"""Test the labels of values: short, and different wherever the values are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.report.labels import (
    moment_labels,
    number_labels,
    shortened,
    value_labels,
    visible,
)

NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**64 - 1)


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([0.0, 0.1, 1 / 3, 1e-9], ["0", "0.1", "0.33333", "1e-9"]),
        ([1.08511, 1.08512, 1.0851], ["1.08511", "1.08512", "1.0851"]),
        ([12345678.25, 12345678.5], ["12,345,678.25", "12,345,678.5"]),
        ([2**62, -(2**62) - 1], ["4,611,686,018,427,387,904", "-4,611,686,018,427,387,905"]),
        ([1.7e308, 5e-324], ["1.7e308", "4.9407e-324"]),
        ([0.99999999], ["1"]),
        ([], []),
    ],
)
def test_numbers_have_digits_enough(values: list[float], labels: list[str]) -> None:
    """Few digits where they tell values apart, more where they do not, integers in full."""
    assert number_labels(values) == labels


@given(st.lists(NUMBERS, max_size=20))
def test_different_numbers_have_different_labels(values: list[float]) -> None:
    """Labels are equal where, and only where, the numbers are."""
    assert len(set(number_labels(values))) == len(set(values))


@given(st.lists(st.integers(-(10**9) * 10**9, 10**10 * 10**9), max_size=20))
def test_different_moments_have_different_labels(moments: list[int]) -> None:
    """Moments that differ by nanoseconds have labels that differ."""
    assert len(set(moment_labels(moments))) == len(set(moments))


def test_moments_are_as_fine_as_they_need_to_be() -> None:
    """Days are dates; else seconds are shown, and decimals where seconds are the same."""
    second = 10**9
    assert moment_labels([0, 86_400 * second]) == ["1970-01-01", "1970-01-02"]
    assert moment_labels([0, second]) == ["1970-01-01 00:00:00", "1970-01-01 00:00:01"]
    assert moment_labels([0, 10**6]) == ["1970-01-01 00:00:00.000", "1970-01-01 00:00:00.001"]
    assert moment_labels([-1]) == ["1969-12-31 23:59:59"]


@pytest.mark.slow
@given(st.dictionaries(st.integers(0, 2**64 - 1), st.text(max_size=3)))
def test_different_values_have_different_labels(values: dict[int, str]) -> None:
    """Values that look alike on one line are distinguished by their hash."""
    assert len(set(value_labels(values))) == len(values)


@given(
    st.lists(st.lists(st.sampled_from(["x" * 9, "y", "漢"]), max_size=6).map("".join), max_size=12)
)
def test_shortened_labels_stay_apart(labels: list[str]) -> None:
    """Whatever is left out of labels, those that differed still do, and none is too wide."""
    short = shortened(labels, 12)
    assert len(set(short)) == len(set(labels))
    assert all(len(each) <= 12 for each in short)


def test_the_middle_is_left_out() -> None:
    """The ends of a long label stay; where those are alike, another part does."""
    assert shortened(["a" * 20 + "b" * 20, "short"], 9) == ["aaaa…bbbb", "short"]
    first, second = (f"http://{'x' * 30}{end}{'y' * 8}" for end in "12")
    assert shortened([first, second], 20) == ["http://xxx…1yyyyyyyy", "http://xxx…2yyyyyyyy"]
    first, second = (f"{'x' * 30}{end}{'y' * 30}" for end in "12")
    assert shortened([first, second], 12) == ["1: xxxx…yyy", "2: xxxx…yyy"]


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("", "(empty)"),
        (" ", "␣"),
        ("late ", "late␣"),
        ("  late", "␣␣late"),
        ("two  words here", "two␣␣words here"),
        ("a\tb\n", "a␉b␊"),
        ("\0\x7f", "␀␡"),
        ("\u00a0\u200b\u202e", "U+00A0U+200BU+202E"),
        ("漢字 ✓", "漢字 ✓"),
    ],
)
def test_nothing_in_a_value_is_hidden(text: str, seen: str) -> None:
    """Spaces that people overlook and characters that do not print have a sign."""
    assert visible(text, 40) == seen


@given(st.text(max_size=60), st.integers(4, 40))
def test_a_value_is_one_line_of_what_prints(text: str, width: int) -> None:
    """Whatever a value holds, its label is printable, not empty, and not too wide."""
    line = visible(text, max(width, 7))
    assert line.isprintable()
    assert 0 < len(line) <= max(width, 7)
