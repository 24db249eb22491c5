"""Tests of declared parameters and of the placeholders that stand for them."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.job.parameters import (
    Parameter,
    ParameterValue,
    Problem,
    printable,
    read_parameters,
    shown,
    substitute,
)
from batchscore.messages.wording import nearest

DECLARED = {
    "date": Parameter(type="date"),
    "region": Parameter(type="string"),
    "part": Parameter(type="integer"),
    "cut": Parameter(type="number"),
    "full": Parameter(type="boolean"),
}
VALUES: dict[str, ParameterValue] = {
    "date": date(2026, 1, 5),
    "region": "eu",
    "part": 7,
    "cut": 0.25,
    "full": True,
}


def fill(text: str) -> object:
    filled, problems = substitute({"key": [text]}, DECLARED, VALUES)
    assert not problems
    return filled["key"][0]


def problem(text: str) -> str:
    filled, problems = substitute({"key": [text]}, DECLARED, VALUES)
    assert filled == {"key": [text]}
    assert [found.location for found in problems] == [("key", 0)]
    return problems[0].message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${date}", date(2026, 1, 5)),
        ("${part}", 7),
        ("${cut}", 0.25),
        ("${full}", True),
        ("${date.month}", 1),
        ("${date.isoweekday}", 1),
        ("${date:%Y-%m-%d}", "2026-01-05"),
        ("${date:%y%j %u %G-W%V 100%%}", "26005 1 2026-W02 100%"),
        ("${part:03d}", "007"),
        ("${cut:.1f}", "0.2"),
        ("d=${date}/p=${part}/${full}/${region}", "d=2026-01-05/p=7/true/eu"),
        ("$${date}", "${date}"),
        ("$$", "$$"),
        ("$5 {x}", "$5 {x}"),
    ],
)
def test_fills_placeholders(text: str, expected: object) -> None:
    """A whole placeholder keeps its type, one in a text becomes text, an escaped one stays."""
    filled = fill(text)
    assert filled == expected
    assert type(filled) is type(expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${dat}", "'${dat}': the job declares no such parameter; nearest: 'date'"),
        ("${}", "no such parameter"),
        ("${date", "another"),
        ("${ date }", "no such parameter"),
        ("${date.mont}", "a date has no such part; nearest: 'month'"),
        ("${part.month}", "only a date has parts"),
        ("${date:YYYY}", "not a format of a date"),
        ("${date:%B}", "not a format of a date"),
        ("${date:%}", "not a format of a date"),
        ("${part:.2f}", "not a format of a integer; expected one like 03d"),
        ("${part:999999999d}", "not a format"),
        ("${region:>9}", "takes no format"),
        ("${date.year:%Y}", "a part or a format, not both"),
    ],
)
def test_refuses_wrong_placeholders(text: str, message: str) -> None:
    """A placeholder that cannot be filled is a problem that names it and the remedy."""
    assert message in problem(text)


def test_leaves_a_declared_parameter_without_value() -> None:
    """A placeholder whose parameter has no value is left, since that was reported before."""
    assert substitute("${date}", DECLARED, {}) == ("${date}", [])


@pytest.mark.parametrize("value", ["..", ".", "", "a/b", "/a", "a\\b", "s3:", "a..b"])
def test_confines_strings_in_an_output_path(value: str) -> None:
    """A string parameter that could lead out of the output's folder is refused there alone."""
    tree = {"output": "out/${region}", "input": "in/${region}"}
    filled, problems = substitute(
        tree, DECLARED, {**VALUES, "region": value}, frozenset({("output",)})
    )
    assert [found.location for found in problems] == [("output",)]
    assert filled["input"] == f"in/{value}"


@pytest.mark.slow
@given(st.dictionaries(st.text(), st.lists(st.text(alphabet="${}.:%dabte \n") | st.integers())))
def test_any_text_is_filled_or_a_problem(tree: dict[str, list[object]]) -> None:
    """Whatever the texts, substituting ends, keeps the shape, and changes only texts with '${'."""
    filled, problems = substitute(tree, DECLARED, VALUES)
    assert list(filled) == list(tree)
    for key, items in tree.items():
        assert len(filled[key]) == len(items)
        for old, new in zip(items, filled[key], strict=True):
            assert new == old or "${" in str(old)
    assert all(isinstance(found, Problem) for found in problems)


@given(st.text())
def test_escaping_undoes_substituting(text: str) -> None:
    """A text whose every '${' is escaped stays as it was, but for a '$' before one."""
    if "$${" in text:
        return
    assert substitute(text.replace("${", "$${"), {}, {}) == (text, [])


@given(st.text(alphabet="ab${}/.", max_size=20), st.text(alphabet="xy /", max_size=5))
def test_values_are_not_searched_again(value: str, around: str) -> None:
    """The text contains a value as it is, even if it looks like a placeholder."""
    declared = {"a": Parameter(type="string")}
    filled, problems = substitute(f"{around}|${{a}}", declared, {"a": value})
    assert (filled, problems) == (f"{around}|{value}", [])


@given(st.dates(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), st.booleans())
def test_values_survive_their_text(day: date, part: int, cut: float, full: bool) -> None:
    """A date, integer, finite number or boolean given as text is read as the same value."""
    texts = [f"date={day}", f"part={part}", f"cut={cut!r}", f"full={str(full).lower()}", "region="]
    values, messages = read_parameters(DECLARED, texts)
    if abs(cut) == float("inf"):
        assert len(messages) == 1
    else:
        expected = {"date": day, "part": part, "cut": cut, "full": full, "region": ""}
        assert (values, messages) == (expected, [])


@pytest.mark.parametrize(
    ("given_text", "message"),
    [
        ("date=20260105", "--param date: expected a date such as 2026-11-20, found '20260105'"),
        ("date=2026-02-30", "expected a date"),
        ("part=1.0", "expected a integer"),
        ("part=1_0", "expected a integer"),
        ("part=9999999999999999999", "does not fit 64 bits"),
        ("cut=nan", "expected a number"),
        ("cut=1e999", "not finite"),
        ("full=True", "expected a boolean"),
        ("region=a\x1b[2J", "expected a string"),
        ("region", "--param region: expected name=value"),
        ("regoin=eu", "nearest: 'region'"),
    ],
)
def test_refuses_wrong_values(given_text: str, message: str) -> None:
    """A value of another type, or for a parameter that is not declared, is a message."""
    _, messages = read_parameters(DECLARED, [given_text])
    assert message in messages[0]


def test_names_missing_and_repeated_parameters() -> None:
    """A declared parameter without a value is named with an example, and so is one given twice."""
    declared = {"date": DECLARED["date"], "part": DECLARED["part"]}
    _, messages = read_parameters(declared, ["part=1", "part=2"])
    assert messages == [
        "--param part: given twice; give it once",
        "--param date: missing; give --param date=2026-11-20 (date)",
    ]


def test_hides_secrets() -> None:
    """A value under a secret's name, or a password in an address, is not shown."""
    assert "hunter2" not in read_parameters({"token": DECLARED["part"]}, ["token=hunter2"])[1][0]
    assert "hunter2" not in shown({"a": [{"secret_key": "hunter2"}], "b": "s3://me:hunter2@x/y"})
    assert "hunter2" not in shown("https://x/y?access_token=hunter2&z=1")
    assert "hunter2" not in shown("hunter2", ("storage", "password"))


@given(st.text() | st.lists(st.text()) | st.dictionaries(st.text(), st.text()))
def test_shows_any_value_on_one_short_line(value: object) -> None:
    """Whatever was found is shown printable, in at most 80 characters."""
    assert len(shown(value)) <= 80
    assert shown(value).isprintable()
    assert len(printable(str(value))) <= 80
    assert printable(str(value)).isprintable()


def test_lists_the_names_where_none_is_near() -> None:
    """A name like no other is answered with all that there are."""
    assert nearest("zzz", ["b", "a"]) == "expected one of a, b"
    assert nearest("zzz", []) == "there are none"
