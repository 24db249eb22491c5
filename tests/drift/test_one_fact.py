"""One fact has one verdict: rates, lengths of few texts, and numbers that are very frequent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from batchscore.drift.findings import Rules, Thresholds
from batchscore.drift.measures.all_measures import differences
from batchscore.drift.measures.of_numbers import NumberSides
from batchscore.drift.ordered import Aligned, coarse_buckets, decile_bins, ks
from batchscore.drift.sentences import coarse_reason
from tests.drift.test_aspects import aspect, compared, measure

ROWS = 20_000
FILLED = 0.0123

RATES: dict[str, Callable[[Any], Any]] = {
    "boolean": pa.array,
    "integer": lambda flag_n: pa.array(flag_n.astype(np.int8)),
    "float": lambda flag_n: pa.array(flag_n.astype(np.float32)),
    "decimal": lambda flag_n: pa.array(flag_n.astype(int)).cast(pa.decimal128(24, 2)),
    "text": lambda flag_n: pa.array(np.where(flag_n, "yes", "no")),
    "dictionary": lambda flag_n: pa.array(np.where(flag_n, "yes", "no")).dictionary_encode(),
    "dictionary of integers": lambda flag_n: pa.array(flag_n.astype(int)).dictionary_encode(),
}


def flags(rate: float, seed: int, rows: int = 5000) -> np.ndarray[Any, Any]:
    """Return so many booleans of which about a share is true."""
    return np.random.default_rng(seed).random(rows) < rate


def filled(share: float, seed: int, rows: int = ROWS) -> np.ndarray[Any, Any]:
    """Return normal numbers of which a share is one imputed number near their mean."""
    chance = np.random.default_rng(seed)
    values = chance.normal(size=rows)
    values[: round(share * rows)] = FILLED
    return chance.permutation(values)


@pytest.mark.parametrize(("before", "now"), [(0.2, 0.27), (0.02, 0.08), (0.5, 0.62), (0.3, 0.3)])
def test_a_rate_is_judged_alike_in_every_type(before: float, now: float) -> None:
    """Verdict, tests and the measures that judge are those of a boolean, bit for bit."""
    sides = flags(before, 1), flags(now, 2)
    found = {name: compared(*map(typed, sides)) for name, typed in RATES.items()}
    judged = {
        name: [
            (m.name, m.outcome, m.value, m.floor, m.beyond_noise)
            for m in aspect(drift, "value").measures
            if m.outcome != "shown"
        ]
        for name, drift in found.items()
    }
    assert {name for name, each in judged.items() if each != judged["boolean"]} == set()
    assert len({(drift.verdict, drift.comparisons) for drift in found.values()}) == 1
    assert (
        found["integer"].verdict
        == {0.07: "warn", 0.06: "warn", 0.12: "fail", 0: "ok"}[round(now - before, 2)]
    )


def test_a_third_value_of_a_rate_is_judged_alike() -> None:
    """A value that a flag never had is an unseen one, whatever the type."""
    sides = [0, 1] * 1000, [0, 1] * 970 + [2] * 60
    texts = [list(map(str, side)) for side in sides]
    number, text = compared(sides[0], sides[1]), compared(texts[0], texts[1])
    assert measure(number, "unseen").value == measure(text, "unseen").value == 0.03
    assert number.verdict == text.verdict == "warn"
    assert number.comparisons == text.comparisons


def test_the_rarer_value_names_a_rate() -> None:
    """Of two values that changed alike the rare one is named, though the other comes first."""
    sides = [0] * 980 + [1] * 20, [0] * 900 + [1] * 100
    assert measure(compared(*sides), "category").detail.startswith("1: 2 % → 10 %")


def test_thresholds_of_the_column_judge_where_numbers_of_a_rate_lie() -> None:
    """Measures of places are shown for a rate, and judged if the job gives them thresholds."""
    sides = flags(0.2, 1).astype(int), flags(0.27, 2).astype(int)
    assert measure(compared(*sides), "w1").outcome == "shown"
    rules = Rules(column_thresholds={"x": {"w1": Thresholds(0.1, 0.5)}})
    assert measure(compared(*sides, rules), "w1").outcome == "warn"
    everywhere = Rules(thresholds={"w1": Thresholds(0.1, 0.5)})
    assert measure(compared(*sides, everywhere), "w1").outcome == "shown"


def test_times_of_two_values_are_no_rate() -> None:
    """Two dates are dates, which move by design."""
    days = pa.array([0, 1] * 500, pa.int32()).cast(pa.date32())
    found = aspect(compared(days, days), "value")
    assert "category" not in {each.name for each in found.measures}


@pytest.mark.parametrize(("distinct", "judged"), [(5, False), (100, False), (101, True)])
def test_lengths_are_judged_only_where_values_are_many(distinct: int, judged: bool) -> None:
    """The length of one of few values tells nothing that the value does not."""
    texts = pa.array([str(i % distinct) for i in range(distinct * 70)])
    found = aspect(compared(texts, texts), "length")
    assert {each.outcome for each in found.measures} == ({"ok", "shown"} if judged else {"shown"})
    assert ("their lengths are not" in found.note) != judged
    assert compared(texts, texts).comparisons == (10 if judged else 4)


@pytest.mark.parametrize("share", [0.22, 0.5])
def test_an_imputed_mean_is_ok_on_the_same_law(share: float) -> None:
    """Though its bucket holds half of the values, KS is known well enough to be ok."""
    found = compared(filled(share, 1), filled(share, 2))
    assert found.verdict == "ok"
    assert measure(found, "ks").high == measure(found, "ks").low


@pytest.mark.parametrize("share", [0.1, 0.22, 0.5])
@pytest.mark.parametrize("by", [-0.08, 0.08])
def test_an_imputed_mean_that_grows_by_8_points_warns(share: float, by: float) -> None:
    """Its share is judged by itself, with Fisher's p of the counts in its bucket."""
    found = compared(filled(share, 3), filled(share + by, 4))
    frequent = measure(found, "frequent")
    assert (found.verdict, frequent.outcome) == ("warn", "warn")
    assert frequent.value == pytest.approx(abs(by), abs=0.004)
    assert frequent.detail.startswith("0.0123: ")


def test_a_frequent_number_has_the_p_of_fishers_test_for_all_buckets() -> None:
    """SciPy's p of the two shares, times the buckets that might have been the frequent one."""
    values_b = np.arange(21.0)
    p_b, q_b = np.full(21, 20), np.full(21, 20)
    p_b[7], q_b[7] = 200, 260
    (found,) = (
        each
        for each in differences(NumberSides(Aligned.of_values(values_b, p_b, q_b)))
        if each.name == "frequent"
    )
    n, m = 600, 660
    table = [[200, n - 200], [260, m - 260]]
    assert found.value == pytest.approx(260 / m - 200 / n)
    assert found.chance == pytest.approx(21 * stats.fisher_exact(table).pvalue, rel=1e-9)


def test_neighbours_of_a_like_share_are_no_frequent_numbers() -> None:
    """Whole numbers around a mode have none that is far more frequent."""
    before, now = (np.random.default_rng(seed).poisson(4, ROWS) for seed in (1, 2))
    assert "frequent" not in {each.name for each in aspect(compared(before, now), "value").measures}


def test_a_narrow_bucket_leaves_ks_exact_and_a_wide_one_does_not() -> None:
    """A bucket counts as wide from a fiftieth of the reference's standard deviation on."""
    lows_b, p_b = np.array([-1.0, 0.0, 1.0]), np.array([300, 400, 300])
    for width, coarse in ((0.01, False), (0.02, True)):
        widths_b = np.array([0.0, width, 0.0])
        both = Aligned(lows_b, lows_b + widths_b, p_b, p_b, lows_b + widths_b / 2, widths_b)
        sigma = np.repeat(both.places_b, p_b).std()
        assert (width > 0.02 * sigma) == coarse
        assert coarse_buckets(both).tolist() == [False, coarse, False]
        assert ks(both, coarse_buckets(both)) == pytest.approx((0, 0.4 if coarse else 0))


def coarse(seed: int) -> np.ndarray[Any, Any]:
    """Return numbers of which nearly all share a bucket, since others have many magnitudes."""
    chance = np.random.default_rng(seed)
    values = 1.1 + 1e-3 * chance.normal(size=600_000)
    wild = chance.choice([-1, 1], size=5_000) * 10 ** chance.uniform(-12, 12, size=5_000)
    values[:5_000] = wild
    return values


def test_a_coarse_profile_says_why_by_how_much_and_what_to_do() -> None:
    """The bounds, the share and the ends of the bucket, and two remedies, each of which works."""
    sides = coarse(1), coarse(2)
    found = compared(*sides)
    assert found.verdict == "insufficient_resolution"
    text = coarse_reason("ks", measure(found, "ks").detail)
    low, high = (float(each) for each in text.split(",")[0].split(" ")[3::2])
    assert (0 < low < 0.01, high > 0.9) == (True, True)
    assert "99.2 % of the values lie between 1." in text
    assert "at most 4,096 distinct values, or give the column `ks: null`" in text
    before, now = (np.round(side.clip(0, 2), 3) for side in sides)
    assert compared(before, now).verdict == "ok"
    silent = Rules(column_thresholds={"x": {"ks": Thresholds(None, None)}})
    assert compared(*sides, silent).verdict == "ok"


@pytest.mark.parametrize("shift", [-20, 0, 20])
def test_a_frequent_value_at_a_decile_has_a_bin_of_its_own(shift: int) -> None:
    """It is chance whether its first row is before or after the decile; bins do not follow that.

    Else PSI of 8 points more would be the half where it shares a bin with a decile.
    """
    values_b = np.arange(9020.0 + shift)
    p_b = np.ones(values_b.size, np.int64)
    p_b[9000 + shift] = 990  # 9.9 %, of which the first is at the ninth decile, or 20 off
    p_k, _ = decile_bins(Aligned.of_values(values_b, p_b, p_b))
    its_bin = np.searchsorted(p_k.cumsum(), 9000 + shift + 500)
    assert 990 <= p_k[its_bin] <= 1010
