"""How often the drift verdict is a false alarm, and what it sees.

    python -m benchmarks.verdict_simulation [--quick] [--seed 5] [--workers 2]

Prints Markdown. Reference and current are drawn from one distribution, compared by the measures
that the verdict is made of, and judged by its defaults as one of k columns. Up to 1,000 values are
drawn as such; beyond, counts of buckets are drawn from their probabilities.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import groupby, product
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import stats

from batchscore.drift.aspects import compare_aspects
from batchscore.drift.categorical import AlignedCategories
from batchscore.drift.categories import Categories
from batchscore.drift.findings import NO_THRESHOLDS
from batchscore.drift.measures.all_measures import MEASURES, differences
from batchscore.drift.measures.declaration import Difference
from batchscore.drift.measures.of_categories import CategorySides
from batchscore.drift.measures.of_nulls import NullSides
from batchscore.drift.measures.of_numbers import NumberSides
from batchscore.drift.measures.of_vectors import VectorSides
from batchscore.drift.numbers import Numbers
from batchscore.drift.ordered import Aligned
from batchscore.drift.ordering import FLOAT
from batchscore.drift.vectors import Vectors
from batchscore.drift.verdict import judge

Rng = np.random.Generator
Counts = NDArray[np.int64]
Floats = NDArray[np.float64]
Compared = tuple[Difference, ...]
DEFAULTS = {
    name: spec.defaults for name, spec in MEASURES.items() if spec.defaults != NO_THRESHOLDS
}

ALPHAS = (0.05, 0.01, 0.001)
COLUMNS = (1, 10, 100, 500)
# A column of k is judged at alpha / k, shared by its measures.
LEVELS = sorted({alpha / k for alpha, k in product(ALPHAS, COLUMNS)}, reverse=True)
SIZES = (
    *((n, n) for n in (100, 300, 1000, 10**5, 10**7)),
    *((100, 10**5), (10**5, 100), (1000, 10**7)),
)
NULL_RATE = 0.02
RAW = 1000
FEW = np.array([0.5, 0.3, 0.15, 0.045, 0.004, 0.001])
ZIPF = np.power(np.arange(1, 4001, dtype=np.float64), -1.3)
LONG_ZIPF = np.power(np.arange(1, 200_001, dtype=np.float64), -1.1)
FOLDS, SAMPLE = 4096, 1000
WIDTH = 8
POWER_COLUMNS, POWER_SIZES = 50, (300, 1000, 10**4, 10**5)


@dataclass(frozen=True)
class Cell:
    """One row of the table of false alarms, and what its draws came to.

    `noise` and `alarms` count, by level, draws with a measure beyond noise, and such as warn or
    fail; `tests` counts the former by measure at alpha .05, .01, .001 of one column.
    """

    family: str
    n: int
    m: int
    draws: int
    noise: Counts
    alarms: Counts
    tests: dict[str, Counts]


def numbers(values: Callable[[Floats], Floats], rng: Rng, n: int, m: int) -> Compared:
    """Compares n and m numbers that a quantile function makes of uniform ones."""
    if max(n, m) <= RAW:
        aligned = aligned_values(values(rng.random(n)), values(rng.random(m)))
    else:
        edges = quantile_edges()
        values_b, cells = np.unique(values((edges[1:] + edges[:-1]) / 2), return_inverse=True)
        shares_b = np.bincount(cells, np.diff(edges))
        p_b, q_b = (rng.multinomial(size, shares_b / shares_b.sum()) for size in (n, m))
        there_b = p_b + q_b > 0
        aligned = Aligned.of_values(values_b[there_b], p_b[there_b], q_b[there_b])
    return differences(NumberSides(aligned))


def aligned_values(reference_n: Floats, current_m: Floats) -> Aligned:
    """Returns samples of numbers as counts of their distinct values."""
    values_b, cells = np.unique(np.r_[reference_n, current_m], return_inverse=True)
    sides = cells[: reference_n.size], cells[reference_n.size :]
    return Aligned.of_values(values_b, *(np.bincount(s, minlength=values_b.size) for s in sides))


def quantile_edges() -> Floats:
    """Returns edges of about 2,000 shares, finer towards the tails."""
    tail = 2.0 ** -np.arange(11, 30)
    return np.unique(np.r_[0, tail, np.linspace(0, 1, 2001)[1:-1], 1 - tail, 1])


def categories(weights_v: Floats, rng: Rng, n: int, m: int) -> Compared:
    """Compares n and m categories with such weights."""
    p_v, q_v = (rng.multinomial(size, weights_v / weights_v.sum()) for size in (n, m))
    there = p_v + q_v > 0
    cells = np.flatnonzero(there).astype(np.uint64)
    p_v, q_v = p_v[there], q_v[there]
    aligned = AlignedCategories(cells, p_v, q_v, cells, p_v, q_v, sampled=1.0, exact=True)
    return differences(CategorySides(aligned, str))


def folded(weights_v: Floats, rng: Rng, n: int, m: int) -> Compared:
    """Compares n and m categories of too many values, by fold and by a sample of the values."""
    p_v, q_v = (rng.multinomial(size, weights_v / weights_v.sum()) for size in (n, m))
    hash_v = rng.permutation(weights_v.size)
    p_f, q_f = (np.bincount(hash_v % FOLDS, side_v, FOLDS).astype(int) for side_v in (p_v, q_v))
    limit = min(np.sort(hash_v[side_v > 0])[:SAMPLE][-1] + 1 for side_v in (p_v, q_v))
    taken = (hash_v < limit) & (p_v + q_v > 0)
    hash_s = hash_v[taken].astype(np.uint64)
    folds, sampled = np.arange(FOLDS, dtype=np.uint64), limit / weights_v.size
    aligned = AlignedCategories(
        folds, p_f, q_f, hash_s, p_v[taken], q_v[taken], sampled, exact=False
    )
    return differences(CategorySides(aligned, str))


def vectors(kind: str, rng: Rng, n: int, m: int) -> Compared:
    """Compares n and m vectors: of normal, of Cauchy, or of clustered elements."""
    sides = (Vectors("", WIDTH), Vectors("", WIDTH))
    for side, size in zip(sides, (n, m), strict=True):
        rows_bd = rng.normal(size=(size, WIDTH))
        if kind == "cauchy":
            rows_bd /= rng.normal(size=(size, WIDTH))
        elif kind == "clusters":
            rows_bd = rows_bd / 20 + np.eye(WIDTH)[rng.integers(3, size=size)]
        side.update(rows_bd)
    return differences(VectorSides(*sides))


def _normal(u: Floats) -> Floats:
    return np.asarray(stats.norm.ppf(u))


def _ties(u: Floats) -> Floats:
    return np.floor(2 * _normal(u))


def _cauchy(u: Floats) -> Floats:
    return np.asarray(stats.cauchy.ppf(u))


def _pareto(u: Floats) -> Floats:
    return np.asarray(stats.pareto.ppf(u, 1.2))


def _zero_inflated(u: Floats) -> Floats:
    return np.maximum(0.0, -np.log1p(-u) + math.log(0.3))


Family = Callable[[Rng, int, int], Compared]
FAMILIES: dict[str, Family] = {
    "normal": partial(numbers, _normal),
    "ties (12 values)": partial(numbers, _ties),
    "Cauchy": partial(numbers, _cauchy),
    "Pareto 1.2": partial(numbers, _pareto),
    "70 % zeros": partial(numbers, _zero_inflated),
    "6 categories": partial(categories, FEW),
    "Zipf 1.3": partial(categories, ZIPF),
    "Zipf 1.1, folded": partial(folded, LONG_ZIPF),
    "vectors, normal": partial(vectors, "normal"),
    "vectors, Cauchy": partial(vectors, "cauchy"),
    "vectors, clusters": partial(vectors, "clusters"),
}


def draws_of(family: str, n: int, m: int, scale: float) -> int:
    """Returns how often a cell is drawn; less where a draw takes long, 0 where it is left out."""
    most = max(n, m)
    if family.startswith("vectors"):
        return int(2000 * scale) if most <= RAW else 0
    if family.endswith("folded"):
        return int(500 * scale) if n == m and most in (10**5, 10**7) else 0
    return int((10_000 if most <= RAW else 4000 if most < 10**7 else 1500) * scale)


def false_alarms(family: str, n: int, m: int, draws: int, seed: Sequence[int]) -> Cell:
    """Draws a cell of the table of false alarms."""
    rng = np.random.default_rng(seed)
    noise, alarms = np.zeros((2, len(LEVELS)), np.int64)
    cell = Cell(family, n, m, draws, noise, alarms, {})
    for _ in range(draws):
        count(cell, [*FAMILIES[family](rng, n, m), nulls(rng, n, m)])
    return cell


def nulls(rng: Rng, n: int, m: int, rate: float = NULL_RATE) -> Difference:
    """Compares the nulls of columns with so many values; `rate` is the current one."""
    missing, missing_now = int(rng.binomial(n, NULL_RATE)), int(rng.binomial(m, rate))
    return differences(NullSides(missing, n, missing_now, m))[0]


def count(cell: Cell, comparisons: Iterable[Difference]) -> None:
    """Adds one draw to a cell."""
    groups = {name: list(group) for name, group in groupby(comparisons, key=lambda c: c.name)}
    part = {name: group for name, group in groups.items() if name in DEFAULTS}
    noise = alarms = 0
    for name, group in groups.items():
        if group[0].floor is None:
            continue
        reach = reached(partial(_is_noise, group), len(part))
        counts = cell.tests.setdefault(name, np.zeros(len(LEVELS), np.int64))
        counts[:reach] += 1
        if name in part:
            noise = max(noise, reach)
            alarms = max(alarms, reached(partial(_is_alarm, group), len(part)) if reach else 0)
    cell.noise[:noise] += 1
    cell.alarms[:alarms] += 1


def reached(alarms: Callable[[float], bool], measures: int) -> int:
    """Returns at how many of the levels, from the largest on, something alarms."""
    return next((i for i, level in enumerate(LEVELS) if not alarms(level / measures)), len(LEVELS))


def _is_noise(group: list[Difference], level: float) -> bool:
    return any(each.is_beyond_noise(level) for each in group)


def _is_alarm(group: list[Difference], level: float) -> bool:
    return judge(group, DEFAULTS[group[0].name], level).outcome in ("warn", "fail")


def changes() -> dict[str, Callable[[Rng, int], Compared]]:
    """Returns the changes that the verdict should see, each drawing n values of either side."""
    shifts = {
        f"shift of {shift:g} sigma": partial(_moved, partial(np.add, shift))
        for shift in (0.1, 0.25, 0.5)
    }
    scales = {
        f"sigma x {factor:g}": partial(_moved, partial(np.multiply, factor))
        for factor in (1.2, 1.5)
    }
    moved = partial(_moved, _some_times_ten)
    risen, rare = np.array([0.35, 0.65]), np.array([0.011, 0.989])
    fallen = np.array([0.25, 0.75])
    return {
        **shifts,
        **scales,
        "5 % of the rows x 10": moved,
        "a category from .30 to .35": partial(_reweighted, np.array([0.30, 0.70]), risen),
        "a category from .30 to .25": partial(_reweighted, np.array([0.30, 0.70]), fallen),
        "a category from .001 to .011": partial(_reweighted, np.array([0.001, 0.999]), rare),
        "nulls from .02 to .03": lambda rng, n: (nulls(rng, n, n, 0.03),),
        "nulls from .02 to .07": lambda rng, n: (nulls(rng, n, n, 0.07),),
        "vectors, .25 sigma in all of 8": partial(_shifted_vectors, 0.25),
        "vectors, .5 sigma in all of 8": partial(_shifted_vectors, 0.5),
        "vectors, 1 sigma in one of 8": partial(_shifted_vectors, np.eye(WIDTH)[0]),
    }


def _moved(change: Callable[[Floats], Floats], rng: Rng, n: int) -> Compared:
    sides = Numbers("double", FLOAT), Numbers("double", FLOAT)
    sides[0].update(rng.normal(size=n))
    sides[1].update(change(rng.normal(size=n)))
    return compare_aspects(*sides)[0]


def _some_times_ten(values_n: Floats) -> Floats:
    changed_n = values_n.copy()
    changed_n[: values_n.size // 20] *= 10
    return changed_n


def _reweighted(before_v: Floats, now_v: Floats, rng: Rng, n: int) -> Compared:
    names = pa.array(["this", "others"])
    sides = Categories("string"), Categories("string")
    for side, weights_v in zip(sides, (before_v, now_v), strict=True):
        drawn_n = rng.choice(weights_v.size, n, p=weights_v)
        side.update(pa.DictionaryArray.from_arrays(pa.array(drawn_n, pa.int32()), names))
    return compare_aspects(*sides)[0]


def _shifted_vectors(shift: Any, rng: Rng, n: int) -> Compared:
    sides = Vectors("", WIDTH), Vectors("", WIDTH)
    sides[0].update(rng.normal(1, 1, size=(n, WIDTH)))
    sides[1].update(rng.normal(1, 1, size=(n, WIDTH)) + shift)
    return differences(VectorSides(*sides))


def power(change: str, n: int, draws: int, seed: Sequence[int]) -> tuple[float, float]:
    """Returns how often a change warns or fails, and how often it fails, as one of 50 columns."""
    rng, alarms, fails = np.random.default_rng(seed), 0, 0
    for _ in range(draws):
        groups = groupby(changes()[change](rng, n), key=lambda each: each.name)
        level = 0.001 / POWER_COLUMNS / 5
        outcomes = {
            judge(list(group), DEFAULTS[name], level).outcome
            for name, group in groups
            if name in DEFAULTS
        }
        fails += "fail" in outcomes
        alarms += bool(outcomes & {"warn", "fail"})
    return alarms / draws, fails / draws


def upper_bound(events: int, draws: int) -> float:
    """Returns the upper end of the one-sided 95 % interval of Clopper and Pearson."""
    return 1.0 if events == draws else float(stats.beta.ppf(0.95, events + 1, draws - events))


def share(events: int, draws: int) -> str:
    """Returns a share in per cent, and its upper bound."""
    return f"{100 * events / draws:.3g} (< {100 * upper_bound(events, draws):.2g})"


def print_cells(cells: list[Cell]) -> None:
    """Prints the false alarms of one column by distribution and size."""
    print(
        "| distribution | n | m | pairs | noise test at 5 % | 1 % | .1 % | "
        "verdict at 5 % | .1 % |\n|---|---|---|---|---|---|---|---|---|"
    )
    for cell in cells:
        noise = [share(int(cell.noise[LEVELS.index(alpha)]), cell.draws) for alpha in ALPHAS]
        alarms = [
            share(int(cell.alarms[LEVELS.index(alpha)]), cell.draws) for alpha in (0.05, 0.001)
        ]
        sizes = f"{cell.n:,} | {cell.m:,} | {cell.draws:,}"
        print(f"| {cell.family} | {sizes} | {' | '.join([*noise, *alarms])} |")


def print_columns(cells: list[Cell]) -> None:
    """Prints the false alarms of tables of k columns, from those of single columns."""
    draws = sum(cell.draws for cell in cells)
    print(
        "\n| columns | alpha | a column's share of alpha | columns beyond noise | warn or fail | "
        "tables that alarm |\n|---|---|---|---|---|---|"
    )
    for columns, alpha in product(COLUMNS, ALPHAS):
        level = LEVELS.index(alpha / columns)
        noise, alarms = (
            sum(int(side[level]) for side in sides)
            for sides in ([cell.noise for cell in cells], [cell.alarms for cell in cells])
        )
        table = 1 - (1 - upper_bound(alarms, draws)) ** columns
        print(
            f"| {columns} | {alpha:g} | {alpha / columns:.2g} | {noise} of {draws:,} | {alarms} | "
            f"< {100 * table:.2g} % |"
        )


def print_measures(cells: list[Cell]) -> None:
    """Prints each measure's test alone at a nominal 1 % of its column, where it is worst."""
    print(
        "\n| measure | nominal % | beyond noise, all pairs | worst | where |\n|---|---|---|---|---|"
    )
    level = LEVELS.index(0.05)
    for name in sorted({name for cell in cells for name in cell.tests}):
        here = [cell for cell in cells if name in cell.tests]
        events = sum(int(cell.tests[name][level]) for cell in here)
        worst = max(here, key=lambda cell: cell.tests[name][level] / cell.draws)
        measures = len(worst.tests.keys() & DEFAULTS.keys())
        print(
            f"| {name} | {5 / measures:.3g} | {share(events, sum(cell.draws for cell in here))} | "
            f"{share(int(worst.tests[name][level]), worst.draws)} | "
            f"{worst.family}, {worst.n:,} and {worst.m:,} |"
        )


def print_power(found: dict[tuple[str, int], tuple[float, float]]) -> None:
    """Prints how often each change is seen."""
    print(f"\n| change | {' | '.join(f'n = m = {n:,}' for n in POWER_SIZES)} |")
    print("|---|" + "---|" * len(POWER_SIZES))
    for change in changes():
        row = [found[change, n] for n in POWER_SIZES]
        seen = " | ".join(f"{100 * alarms:.0f} ({100 * fails:.0f})" for alarms, fails in row)
        print(f"| {change} | {seen} |")


def main(arguments: Sequence[str] | None = None) -> list[Cell]:
    """Runs the simulation, prints it, and returns the cells of false alarms."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a fiftieth of the draws")
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args(arguments)
    scale = 0.02 if options.quick else 1.0
    plan = [(f, n, m, draws_of(f, n, m, scale)) for f, (n, m) in product(FAMILIES, SIZES)]
    plan = [each for each in plan if each[3]]
    wanted = list(product(changes(), POWER_SIZES))
    with ProcessPoolExecutor(options.workers) as pool:
        runs = [pool.submit(false_alarms, *each, (options.seed, i)) for i, each in enumerate(plan)]
        powers = [
            pool.submit(power, *each, max(5, int(100 * scale)), (options.seed, 1000 + i))
            for i, each in enumerate(wanted)
        ]
        cells = [run.result() for run in runs]
        print_cells(cells)
        print_columns(cells)
        print_measures(cells)
        print_power(dict(zip(wanted, (each.result() for each in powers), strict=True)))
    return cells


if __name__ == "__main__":
    main()
