"""How often nights that depend on each other alarm, and when a real change is found.

    python -m benchmarks.night_simulation [--seeds 20] [--nights 60] [--rows 2000]

Each source draws nights; from the 15th on each night is compared with the first seven together, as
with a model's reference, or with the night before. What earlier nights differ by among themselves
counts as in a run: it is looked at only where something alarms. Printed are alarming nights of each
source on average, without and with it; then the night on which a change is found.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchscore.drift.between_nights import LOOKED_AT, alarming, between_nights
from batchscore.drift.compare import compare_profiles
from batchscore.drift.findings import Rules
from batchscore.drift.table import TableProfile

FIRST = 15
REFERENCE_NIGHTS = 7
PER_CUSTOMER = 50
WOBBLE = 0.08
STEP, CREEP = 0.5, 0.02

Values = NDArray[np.float64]
Random = np.random.Generator
Source = Callable[[Random, int], pa.Array]


def independent(random: Random, rows: int) -> pa.Array:
    """Draws independent normal numbers."""
    return pa.array(random.normal(size=rows))


def customers(random: Random, rows: int) -> pa.Array:
    """Draws fresh customers with fifty rows each, whose means differ as much as their rows."""
    means = np.repeat(random.normal(size=rows // PER_CUSTOMER), PER_CUSTOMER)
    return pa.array((means + random.normal(size=means.size)) / np.sqrt(2))


def categories(random: Random, rows: int) -> pa.Array:
    """Draws categories that are one for each of the fresh customers."""
    drawn = random.choice(["a", "b", "c", "d"], rows // PER_CUSTOMER, p=[0.4, 0.3, 0.2, 0.1])
    return pa.array(np.repeat(drawn, PER_CUSTOMER))


def autoregressive(share: float) -> Source:
    """Returns a source whose rows follow each other with a correlation."""

    def draw(random: Random, rows: int) -> pa.Array:
        steps = random.normal(size=rows) * np.sqrt(1 - share**2)
        values, last = np.empty(rows), random.normal()
        for row, step in enumerate(steps.tolist()):
            values[row] = last = share * last + step
        return pa.array(values)

    return draw


def wobbling(random: Random, rows: int) -> pa.Array:
    """Draws numbers whose mean differs from day to day."""
    return pa.array(random.normal(random.normal(0, WOBBLE), 1, rows))


SOURCES: dict[str, Source] = {
    "independent rows": independent,
    "fresh customers × 50 rows": customers,
    "categories constant within customers": categories,
    "AR(1) 0.9": autoregressive(0.9),
    "AR(1) 0.99": autoregressive(0.99),
    f"day means wobble by {WOBBLE:g} sigma": wobbling,
}


@dataclass(frozen=True)
class Alarms:
    """Nights that alarm by rows alone, and by what nights differ by as well."""

    alone: tuple[int, ...]
    between: tuple[int, ...]


def profile(column: pa.Array) -> TableProfile:
    """Returns the profile of a night."""
    made = TableProfile.empty()
    made.update(pa.record_batch([column], names=["x"]))
    return made


def alarms(nights: list[TableProfile], with_previous: bool) -> Alarms:
    """Returns the nights from the fifteenth on that alarm."""
    reference = TableProfile.empty()
    for night in nights[:REFERENCE_NIGHTS]:
        reference.merge(night)
    alone, between = [], []
    for number in range(FIRST - 1, len(nights)):
        before = nights[number - 1] if with_previous else reference
        found = compare_profiles(before, nights[number], Rules(), with_causes=False)
        if not alarming(found):
            continue
        alone.append(number + 1)
        earlier = nights[max(0, number - LOOKED_AT) : number]
        bounds = between_nights(earlier, alarming(found), before.rows / nights[number].rows)
        rules = replace(Rules(), nights=bounds)
        if alarming(compare_profiles(before, nights[number], rules, with_causes=False)):
            between.append(number + 1)
    return Alarms(tuple(alone), tuple(between))


def drawn(source: Source, seed: int, nights: int, rows: int) -> Iterator[pa.Array]:
    """Yields the nights of a source."""
    random = np.random.default_rng(seed)
    for _ in range(nights):
        yield source(random, rows)


def false_alarms(seeds: int, nights: int, rows: int) -> None:
    """Prints the alarming nights of each source on average."""
    print(f"| {nights} nights of {rows:,} rows | previous | first nights |")
    print("|---|---:|---:|")
    for name, source in SOURCES.items():
        cells = []
        for with_previous in (True, False):
            found = [
                alarms([*map(profile, drawn(source, seed, nights, rows))], with_previous)
                for seed in range(seeds)
            ]
            means = (
                sum(len(kind) for kind in each) / seeds
                for each in ([f.alone for f in found], [f.between for f in found])
            )
            cells.append(" → ".join(f"{mean:.1f}" for mean in means))
        print(f"| {name} | {cells[0]} | {cells[1]} |", flush=True)


def shifted(column: pa.Array, by: float) -> pa.Array:
    """Returns numbers moved by so many of their deviations."""
    return pa.array(column.to_numpy() + by)


def found_steps(seeds: int, rows: int) -> None:
    """Prints how often a shift of half a sigma alarms on the night on which it comes."""
    print("\n| a shift of 0.5 sigma on night 20 | found that night |\n|---|---:|")
    for name in ("independent rows", f"day means wobble by {WOBBLE:g} sigma", "AR(1) 0.9"):
        hits = 0
        for seed in range(seeds):
            columns = [*drawn(SOURCES[name], seed, 20, rows)]
            columns[-1] = shifted(columns[-1], STEP)
            hits += 20 in alarms([*map(profile, columns)], with_previous=False).between
        print(f"| {name} | {hits} of {seeds} |", flush=True)


def found_creeps(seeds: int, rows: int) -> None:
    """Prints when a drift of 0.02 sigma a day, from night 15 on, is found."""
    print("\n| 0.02 sigma a day | found by day 14 | median day |\n|---|---:|---:|")
    for name in ("independent rows", f"day means wobble by {WOBBLE:g} sigma"):
        days = []
        for seed in range(seeds):
            columns = [*drawn(SOURCES[name], seed, 60, rows)]
            moved = [
                shifted(each, CREEP * max(0, number - FIRST + 2))
                for number, each in enumerate(columns)
            ]
            found = alarms([*map(profile, moved)], with_previous=False).between
            days.append(found[0] - FIRST + 1 if found else 99)
        share = sum(day <= 14 for day in days)
        print(f"| {name} | {share} of {seeds} | {sorted(days)[seeds // 2]} |", flush=True)


def main() -> None:
    """Prints all tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--nights", type=int, default=60)
    parser.add_argument("--rows", type=int, default=2_000)
    given = parser.parse_args()
    false_alarms(given.seeds, given.nights, given.rows)
    found_steps(given.seeds, given.rows)
    found_creeps(given.seeds, given.rows)


if __name__ == "__main__":
    main()
