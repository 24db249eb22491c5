"""Columns of two nights between which one thing went wrong, and the words that name it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

BEFORE, NOW = 40_000, 15_000

Random = np.random.Generator
Column = Callable[[Random, int], Any]


@dataclass(frozen=True)
class Planted:
    """One change.

    Args:
        name: What was done.
        column: Draws a column as it should be.
        spoil: Does it to a column.
        words: Words that name it, in lower case; any of them will do.
    """

    name: str
    column: Column
    spoil: Callable[[Any], Any]
    words: tuple[str, ...]


def amounts(random: Random, rows: int) -> Any:
    """Prices in cents' steps, skewed."""
    return np.round(random.lognormal(3, 1, rows), 2)


def temperatures(random: Random, rows: int) -> Any:
    """Degrees Celsius with noise."""
    return random.normal(12, 8, rows)


def sensor(random: Random, rows: int) -> Any:
    """Readings with many digits."""
    return random.normal(50, 3, rows)


def balances(random: Random, rows: int) -> Any:
    """Positive and negative, skewed to above."""
    return random.gamma(2, 40, rows) - 20


def ages(random: Random, rows: int) -> Any:
    """Whole years."""
    return random.integers(18, 95, rows)


def weights(random: Random, rows: int) -> Any:
    """Kilograms."""
    return random.normal(78, 14, rows).clip(30, 180)


def counts(random: Random, rows: int) -> Any:
    """Many zeros."""
    return random.poisson(0.8, rows)


def moments(random: Random, rows: int) -> Any:
    """Times of one day, most of them by day, in microseconds."""
    hours = random.normal(14, 3, rows).clip(0, 23.9)
    return pa.array((hours * 3.6e9).astype("i8") + 1_700_000_000_000_000, pa.timestamp("us"))


def seconds(random: Random, rows: int) -> Any:
    """How long calls took, in seconds."""
    return random.gamma(1.5, 200, rows)


def cities(random: Random, rows: int) -> Any:
    """Few names, some far more frequent."""
    names = ["Berlin", "Hamburg", "Munich", "Cologne", "Frankfurt", "Bremen"]
    return random.choice(names, rows, p=[0.35, 0.2, 0.18, 0.12, 0.1, 0.05])


def codes(random: Random, rows: int) -> Any:
    """Some hundred codes."""
    return np.array([f"P{number:04d}" for number in random.zipf(1.4, rows) % 300])


def flags(random: Random, rows: int) -> Any:
    """A boolean."""
    return random.random(rows) < 0.3


def words(random: Random, rows: int) -> Any:
    """Yes and no as texts."""
    return np.where(random.random(rows) < 0.3, "yes", "no")


def with_nulls(column: Column, share: float = 0.08) -> Column:
    """Returns a column of which some rows are null."""

    def made(random: Random, rows: int) -> Any:
        return pa.array(column(random, rows), mask=random.random(rows) < share)

    return made


def _some(share: float, then: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Returns what spoils a share of the rows."""

    def spoil(values: Any) -> Any:
        spoiled = np.random.default_rng(9).random(len(values)) < share
        return np.where(spoiled, then(values), values)

    return spoil


def _renamed(old: str, new: str) -> Callable[[Any], Any]:
    return lambda values: np.where(values == old, new, values)


def _filled(value: Any) -> Callable[[Any], Any]:
    return lambda values: pc.fill_null(values, value)


def _nulled(value: Any) -> Callable[[Any], Any]:
    return lambda values: pa.array(values, mask=np.asarray(values == value))


def _later(hours: int) -> Callable[[Any], Any]:
    return lambda values: pc.add(values, pa.scalar(hours * 3_600_000_000, pa.duration("us")))


def planted() -> Iterator[Planted]:
    """Yields forty changes that nights have really seen."""
    yield Planted("× 1,000", amounts, lambda x: x * 1000, ("× 1,000 ",))
    yield Planted("÷ 1,000", seconds, lambda x: x / 1000, ("÷ 1,000 ",))
    yield Planted("× 100", amounts, lambda x: np.round(x * 100), ("× 100 ",))
    yield Planted("÷ 100", weights, lambda x: x / 100, ("÷ 100 ",))
    yield Planted("× 60", seconds, lambda x: x * 60, ("× 60 ",))
    yield Planted("× 10 of some", amounts, _some(0.2, lambda x: x * 10), ("× 10 ",))
    yield Planted("× 1,000 of few", seconds, _some(0.05, lambda x: x * 1000), ("× 1,000 ",))
    yield Planted("kilograms to pounds", weights, lambda x: x * 2.2046226, ("pounds",))
    yield Planted("miles to kilometres", seconds, lambda x: x * 1.609344, ("kilometres",))
    yield Planted("Fahrenheit", temperatures, lambda x: x * 1.8 + 32, ("became fahrenheit",))
    yield Planted(
        "Celsius",
        lambda r, n: temperatures(r, n) * 1.8 + 32,
        lambda x: (x - 32) / 1.8,
        ("became celsius",),
    )
    yield Planted("kelvin", temperatures, lambda x: x + 273.15, ("kelvin",))
    yield Planted("sign", balances, lambda x: -x, ("sign",))
    yield Planted("sign of some", balances, _some(0.3, lambda x: -x), ("sign",))
    yield Planted("rounded to 0.1", temperatures, lambda x: np.round(x, 1), ("rounded to 0.1",))
    yield Planted("rounded to 1", sensor, np.round, ("rounded to 1",))
    yield Planted("rounded to 10", amounts, lambda x: np.round(x, -1), ("rounded to 10",))
    yield Planted("five hours later", moments, _later(5), ("+5 h",))
    yield Planted("an hour earlier", moments, _later(-1), ("-1 h",))
    yield Planted("nulls to 0", with_nulls(amounts), _filled(0.0), ("nulls became 0",))
    yield Planted("nulls to -1", with_nulls(ages), _filled(-1), ("nulls became -1",))
    yield Planted("0 to null", counts, _nulled(0), ("0 became null",))
    yield Planted(
        "-999 in 0.5 %", sensor, _some(0.005, lambda x: -999.0 + 0 * x), ("sentinel: -999",)
    )
    yield Planted("9999 in 3 %", ages, _some(0.03, lambda x: 9999 + 0 * x), ("sentinel: 9999",))
    yield Planted("-1 in 1 %", ages, _some(0.01, lambda x: -1 + 0 * x), ("sentinel: -1",))
    yield Planted("stuck", sensor, lambda x: 0 * x + 51.5, ("stuck at 51.5",))
    yield Planted("stuck in a third", sensor, _some(0.33, lambda x: 0 * x + 51.5), ("stuck",))
    yield Planted("cut off", seconds, lambda x: np.minimum(x, 500.0), ("cut off at 500",))
    yield Planted("letter case", cities, np.char.upper, ("letter case",))
    yield Planted("case of some", cities, _some(0.3, np.char.lower), ("letter case",))
    yield Planted("a space at the end", cities, lambda x: np.char.add(x, " "), ("space",))
    yield Planted("a space in some", codes, _some(0.2, lambda x: np.char.add(x, " ")), ("space",))
    yield Planted("renamed", cities, _renamed("Munich", "München"), ("renamed",))
    yield Planted("another code", cities, _renamed("Cologne", "CGN"), ("renamed",))
    yield Planted("nulls to empty", with_nulls(cities), _filled(""), ("nulls became ''",))
    yield Planted("nulls to a word", with_nulls(cities), _filled("None"), ("nulls became 'none'",))
    yield Planted("boolean as text", flags, lambda x: x.astype(str), ("boolean",))
    yield Planted(
        "yes and no as Y and N", words, lambda x: np.where(x == "yes", "Y", "N"), ("boolean",)
    )
    yield Planted(
        "a new value",
        cities,
        _some(0.1, lambda x: np.full(len(x), "Leipzig")),
        ("new value: 'leipzig'",),
    )
    yield Planted("one value", cities, lambda x: np.full(len(x), "Berlin"), ("stuck at 'berlin'",))
