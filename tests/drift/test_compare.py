"""Test that two profiles are compared as people need it, and where peers go wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscore.drift.column import Hint
from batchscore.drift.compare import compare_profiles
from batchscore.drift.findings import AspectDrift, Measure, Rules, TableDrift, Thresholds
from batchscore.drift.profile_file import read_table, write_table
from batchscore.drift.table import TableProfile

NOTHING = Thresholds(None, None)


def profile(hint: Hint | None = None, **columns: Any) -> TableProfile:
    """Return the profile of a table of columns, all with the hint."""
    table = TableProfile(hints=dict.fromkeys(columns, hint) if hint else {})
    arrays = [each if isinstance(each, pa.Array) else pa.array(each) for each in columns.values()]
    table.update(pa.RecordBatch.from_arrays(arrays, list(columns)))
    return table


def table_of(columns: Mapping[str, Any]) -> TableProfile:
    """Return the profile of columns of any names."""
    return profile(**columns)


def compared(reference: Any, current: Any, rules: Rules | None = None) -> TableDrift:
    """Return how two columns `x`, or two profiles, differ."""
    sides = [each if isinstance(each, TableProfile) else profile(x=each) for each in
             (reference, current)]  # fmt: skip
    return compare_profiles(sides[0], sides[1], rules or Rules())


def normal(seed: int, n: int, shift: float = 0.0) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return n normal numbers."""
    return np.random.default_rng(seed).normal(shift, 1, n)


def aspect(drift: TableDrift, column: str = "x", name: str = "value") -> AspectDrift:
    """Return one aspect of the findings."""
    return next(each for each in drift.aspects if (each.column, each.aspect) == (column, name))


def measure(drift: TableDrift, name: str, column: str = "x", of: str = "value") -> Measure:
    """Return one measure of the findings."""
    return next(each for each in aspect(drift, column, of).measures if each.name == name)


@pytest.mark.slow
def test_identical_samples_of_100_rows_do_not_alarm() -> None:
    """Noise of small samples is not drift, whatever the kind of column."""
    rng = np.random.default_rng(1)

    def sample() -> TableProfile:
        words = pa.array(rng.choice(list("abcdef"), 100))
        return profile(x=rng.normal(size=100), i=rng.poisson(2, 100), s=words, c=rng.pareto(1, 100))

    for _ in range(60):
        assert compared(sample(), sample()).verdict not in ("warn", "fail")


def test_one_outlier_does_not_hide_a_shift_of_half_a_sigma() -> None:
    """Every measure that takes part is bounded in what one value can do."""
    current = np.r_[normal(2, 3000, 0.5), 1e6]
    drift = compared(normal(1, 3000), current)
    assert drift.verdict == "fail"
    assert {measure(drift, name).outcome for name in ("psi", "ks", "w1")} <= {"warn", "fail"}
    assert compared(normal(1, 3000), np.r_[normal(2, 3000), 1e300]).verdict == "ok"


def test_nulls_from_none_to_half_fail() -> None:
    """Missing values are drift of their own, and NaN are missing values."""
    values = normal(1, 1000)
    for missing in (None, float("nan")):
        half = pa.array([each if i % 2 else missing for i, each in enumerate(values.tolist())])
        drift = compared(values, half)
        assert measure(drift, "null_rate").outcome == "fail"
        assert measure(drift, "null_rate").value == pytest.approx(0.5)
        assert measure(drift, "psi").outcome == "ok"


def test_vectors_that_are_not_whole_count_as_missing() -> None:
    """A vector with a NaN has no value, and its share is the null rate."""
    whole = pa.FixedSizeListArray.from_arrays(pa.array(normal(1, 2000)), 2)
    spoiled = pa.FixedSizeListArray.from_arrays(
        pa.array(np.where(np.arange(2000) % 4, normal(2, 2000), np.nan)), 2
    )
    assert measure(compared(whole, spoiled), "null_rate", of="norm").outcome == "fail"


def test_an_empty_column_is_compared_by_its_nulls() -> None:
    """All null on both sides is ok, on one side a failure; on few rows nothing is said."""
    empty = pa.nulls(1000, pa.float64())
    assert compared(empty, empty).verdict == "ok"
    stored = read_table(write_table(profile(x=empty), {}))[0]
    assert compared(profile(x=empty), stored).verdict == "ok"
    assert compared(normal(1, 1000), stored).verdict == "fail"
    assert compared(empty, normal(1, 1000)).verdict == "fail"
    assert compared(normal(1, 4), pa.nulls(4, pa.float64())).verdict == "insufficient_data"


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 400), max_size=6), st.integers(0, 99))
def test_the_same_rows_give_the_same_findings_however_they_were_split(
    cuts: list[int], seed: int
) -> None:
    """Profiled again, in other pieces and another order, and stored, every figure is the same."""
    batch = pa.record_batch({"x": normal(1, 400), "s": np.array(list("abcd") * 100)})
    reference, once = profile(x=normal(2, 300), s=list("abc") * 100), TableProfile.empty()
    once.update(batch)
    ends = sorted({0, 400, *cuts})
    pieces = [batch.slice(i, j - i) for i, j in pairwise(ends)]
    np.random.default_rng(seed).shuffle(pieces)
    again = TableProfile.empty()
    for piece in pieces:
        again.update(piece)
    again = read_table(write_table(again, {}))[0]
    assert compared(reference, once).to_json() == compared(reference, again).to_json()


def test_a_tiny_effect_in_many_rows_is_no_drift() -> None:
    """What is more than noise, but too small to matter, is ok."""
    drift = compared(normal(1, 200_000), normal(2, 200_000, 0.03))
    assert drift.verdict == "ok"
    assert measure(drift, "ks").beyond_noise


def test_thresholds_are_honoured() -> None:
    """Thresholds for all, and of a column, decide; without any the measure takes no part."""
    sides = (
        profile(x=normal(1, 5000), y=normal(1, 5000)),
        profile(x=normal(2, 5000, 0.2), y=normal(2, 5000, 0.2)),
    )
    assert compared(*sides).verdict == "warn"
    strict = Rules(column_thresholds={"x": {"w1": Thresholds(0.01, 0.1)}})
    drift = compared(*sides, strict)
    assert (aspect(drift, "x").verdict, aspect(drift, "y").verdict) == ("fail", "warn")
    off = Rules(
        thresholds=dict.fromkeys(("psi", "ks", "w1", "tail", "beyond", "distinct"), NOTHING)
    )
    assert compared(*sides, off).verdict == "ok"
    assert compared(*sides, off).comparisons == 2
    js = Rules(thresholds={"js": Thresholds(0.01, 0.05)})
    assert measure(compared(*sides, js), "js").outcome == "fail"


def test_only_the_judged_columns_count() -> None:
    """Other columns are compared, but neither judged nor in the number of tests."""
    sides = (
        profile(x=normal(1, 3000), y=normal(1, 3000)),
        profile(x=normal(2, 3000), y=normal(2, 3000, 1)),
    )
    drift = compared(*sides, Rules(columns=frozenset({"x"})))
    assert (drift.verdict, drift.comparisons) == ("ok", 7)
    assert not aspect(drift, "y").judged
    assert aspect(drift, "y").verdict == "fail"
    assert drift.aspects[-1].column == "y"


def test_the_level_is_shared_by_all_tests() -> None:
    """More columns raise every floor."""
    one, many = (table_of({f"c{i}": normal(i, 500) for i in range(k)}) for k in (1, 40))
    floors = [measure(compared(each, each), "ks", "c0").floor for each in (one, many)]
    assert floors[0] is not None
    assert floors[1] is not None
    assert floors[0] < floors[1]
    assert floors[1] == pytest.approx(np.sqrt(-np.log(0.001 / 280 / 2) / 2 * 2 / 500))


def test_columns_that_are_gone_fail_and_added_ones_are_listed() -> None:
    """A missing column cannot be scored by; a further one harms nobody."""
    both = profile(x=normal(1, 500), y=normal(1, 500))
    drift = compared(both, profile(x=normal(2, 500)))
    assert (drift.verdict, drift.gone, drift.added) == ("fail", ("y",), ())
    assert aspect(drift, "y").verdict == "fail"
    drift = compared(profile(x=normal(2, 500)), both)
    assert (drift.verdict, drift.gone, drift.added) == ("ok", (), ("y",))
    drift = compared(both, both, Rules(columns=frozenset({"z"})))
    assert drift.verdict == "fail"
    assert aspect(drift, "z").note.startswith(
        "is in neither the reference nor the current data; correct its name"
    )
    assert (aspect(drift, "z").kind, aspect(drift, "z").measures) == ("nulls", ())
    drift = compared(profile(x=normal(2, 500)), both, Rules(columns=frozenset({"y"})))
    assert aspect(drift, "y").note.startswith("is not in the reference; take one")


def test_without_rows_nothing_is_said() -> None:
    """An empty side is too little data, not a change of columns."""
    full, empty = profile(x=normal(1, 500), s=["a"] * 500), TableProfile.empty()
    no_rows = profile(x=pa.array([], pa.float64()), s=pa.array([], pa.string()))
    for other in (empty, no_rows):
        assert compared(full, other).verdict == "insufficient_data"
        assert compared(other, full).verdict == "insufficient_data"
        assert compared(full, other).gone == ()
    assert compared(empty, empty).verdict == "ok"


@pytest.mark.parametrize(
    ("before", "now", "words"),
    [
        (pa.array([1, 2, 3]), pa.array([1.0, 2.0, 3.0]), ("int64", "double")),
        (pa.array(["1"]), pa.array([1]), ("string", "int64")),
        (pa.array([1], pa.time32("ms")), pa.array([1], pa.time64("us")), ("[ms]", "[us]")),
        (pa.array(["1"]), pa.array([1], pa.timestamp("us")), ("string", "timestamp[us]")),
        (pa.array([[1.0]], pa.list_(pa.float32(), 1)),
         pa.array([[1.0, 2]], pa.list_(pa.float32(), 2)), ("[1]", "[2]")),
        (pa.array([[1.0] * 999], pa.list_(pa.float32(), 999)),
         pa.array([[1.0] * 998], pa.list_(pa.float32(), 998)), ("[999]", "[998]")),
        (pa.array([[1]]), pa.array([["a"]]), ("int64", "string")),
    ],
)  # fmt: skip
def test_types_that_cannot_be_compared_fail_with_both_names_and_the_remedy(
    before: pa.Array, now: pa.Array, words: tuple[str, str]
) -> None:
    """No figure is made of values that mean different things."""
    found = compared(before, now).aspects[0]
    assert found.verdict == "fail"
    assert all(word in found.note for word in (*words, "cast it to"))
    assert "by design" not in found.note
    assert [each.name for each in found.measures] == ["null_rate"]


def test_columns_profiled_as_different_kinds_fail() -> None:
    """A score that one side took for a number is not comparable."""
    scores = np.linspace(0, 1, 50)
    found = compared(profile("probability", x=scores), profile(x=scores)).aspects[0]
    assert found.verdict == "fail"
    assert found.note == (
        "was profiled as probability, is profiled as number: not comparable; "
        "profile both the same way"
    )


@pytest.mark.parametrize("side", ["reference", "current profile"])
def test_a_profile_that_lacks_an_aspect_fails_and_says_which(side: str) -> None:
    """Of one type, but accumulated in other ways, a column is not said to have changed its type."""
    whole, lacking = profile(x=["a"] * 50), profile(x=["a"] * 50)
    del lacking.columns["x"].aspects["length"]
    sides = (lacking, whole) if side == "reference" else (whole, lacking)
    found = compared(*sides).aspects[0]
    assert found.verdict == "fail"
    assert found.note.startswith(f"has no aspect 'length' in the {side}: not comparable; profile")
    assert "string" not in found.note


def test_a_profile_with_an_aspect_of_another_kind_fails_and_says_which() -> None:
    """An aspect that is of numbers on one side and of categories on the other is named."""
    sides = profile(x=["a"] * 50), profile(x=["a"] * 50)
    sides[1].columns["x"].aspects["length"] = sides[1].columns["x"].aspects["value"]
    found = compared(*sides).aspects[0]
    assert (found.verdict, found.note.partition(":")[0]) == (
        "fail",
        "has an aspect 'length' of two kinds",
    )


def test_numbers_of_other_precision_are_compared_by_their_common_one() -> None:
    """A column cast from float64 to float32 did not change, and that is noted, not called exact."""
    values = np.random.default_rng(1).choice([0.1, 0.2, 0.3, 1e-50, 7.7], 2000)
    drift = compared(values, values.astype(np.float32))
    assert measure(drift, "ks").value == 0
    assert measure(drift, "w1_unclipped").value == 0
    assert "double" in aspect(drift).note
    assert "compared as float" in aspect(drift).note
    many = normal(1, 20_000)
    assert compared(many.astype(np.float32), many).verdict == "ok"


def test_types_that_hold_the_same_values_are_compared_with_a_note() -> None:
    """Wider integers, other widths of texts and other zones are the same values."""
    for before, now in ((pa.int32(), pa.int64()), (pa.string(), pa.large_string())):
        words = pa.array(["1", "2", "3"] * 300)
        drift = compared(words.cast(before), words.cast(now))
        assert drift.verdict == "ok"
        assert str(now) in aspect(drift).note
    zones = [pa.array([1, 2] * 100, pa.timestamp("ms", zone)) for zone in ("UTC", "Asia/Tokyo")]
    assert compared(zones[0], zones[1]).verdict == "ok"


def test_timestamps_that_move_on_are_no_drift() -> None:
    """Only nulls and the hour of day are judged, unless the column has thresholds of its own."""
    days = [pa.array(np.arange(1000) + start, pa.timestamp("s")) for start in (0, 864_000)]
    drift = compared(days[0], days[1])
    assert drift.verdict == "ok"
    assert drift.comparisons == 2
    assert measure(drift, "ks").outcome == "shown"
    assert "by design" in aspect(drift).note
    own = Rules(column_thresholds={"x": {"ks": Thresholds(0.1, 0.2)}})
    assert compared(days[0], days[1], own).verdict == "fail"


def test_dates_whose_unit_changed_are_judged_by_their_nulls() -> None:
    """Another unit of what moves by design holds no run, and both types are noted."""
    types = [pa.timestamp("ms"), pa.timestamp("us", "UTC"), pa.date32()]
    days = [pa.array(np.arange(1000), pa.int32()).cast(pa.date32()).cast(each) for each in types]
    for before, now in ((0, 1), (1, 0), (0, 2), (2, 1)):
        found = aspect(compared(days[before], days[now]))
        assert (found.verdict, [each.name for each in found.measures]) == ("ok", ["null_rate"])
        assert found.note == (
            f"the type was {types[before]} and is {types[now]}; "
            "dates move by design, so only the null rate is judged"
        )
    half = pa.array([None, 1] * 500, pa.timestamp("us"))
    assert compared(days[0], half).verdict == "fail"


@pytest.mark.parametrize(
    ("own", "verdict"),
    [
        ({"ks": Thresholds(0.1, 0.2)}, "fail"),
        ({"null_rate": Thresholds(0.5, 0.6)}, "ok"),
        ({"ks": NOTHING}, "ok"),
    ],
)
def test_dates_with_thresholds_of_their_own_must_keep_their_unit(own: Any, verdict: str) -> None:
    """Thresholds for more than nulls ask for a comparison, which another unit does not allow."""
    days = [pa.array([1, 2] * 500, pa.timestamp(unit)) for unit in ("ms", "us")]
    found = aspect(compared(days[0], days[1], Rules(column_thresholds={"x": own})))
    assert found.verdict == verdict
    assert ("not comparable" in found.note) == (verdict == "fail")
    assert ("by design" in found.note) == (verdict == "ok")


def test_the_worst_come_first_whatever_the_order_of_columns() -> None:
    """Verdict, then the effect in units of its threshold, then the name decide."""
    shifts = {"ok": 0.0, "some": 0.2, "more": 1.0, "most": 3.0}
    names = [*shifts]
    reference = table_of({name: normal(1, 2000) for name in names})
    for order in (names, names[::-1]):
        current = table_of({name: normal(2, 2000, shifts[name]) for name in order})
        drift = compared(reference, current)
        assert [each.column for each in drift.aspects] == ["most", "more", "some", "ok"]
    ranks = ["fail", "warn", "undecided", "ok", "shown"]
    for each in drift.aspects:
        found = [ranks.index(one.outcome) for one in each.measures]
        assert found == sorted(found)


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "x" * 10_000, "", "\u202egnp", "\0"])
def test_hostile_names_and_values_do_not_matter(name: str) -> None:
    """Names and values are compared as any other, and JSON holds them."""
    sides = [table_of({name: pa.array([name, f"{name}{i}"] * 200)}) for i in range(2)]
    drift = compared(sides[0], sides[1])
    assert aspect(drift, name).verdict == "fail"
    assert len(json.dumps(drift.to_json())) < 200_000
    assert max(len(each.detail) for each in aspect(drift, name).measures) < 200


def test_findings_are_json() -> None:
    """Infinite values and effects that are not defined leave no figure that JSON lacks."""
    values = np.r_[normal(1, 100), np.inf, -np.inf]
    drift = compared(values, np.full(100, np.inf))
    assert json.loads(json.dumps(drift.to_json(), allow_nan=False))["verdict"] == "fail"
    same = compared([5.0] * 500, [5.0] * 500)
    assert same.verdict == "ok"
    assert compared([5.0] * 500, [6.0] * 500).verdict == "fail"


def test_rules_are_checked_first() -> None:
    """An unknown measure is an error, not a rule that is never applied."""
    with pytest.raises(ValueError, match="nearest: 'psi'"):
        compared([1], [1], Rules(thresholds={"pis": NOTHING}))


def test_class_scores_are_compared_by_class_and_best_class() -> None:
    """A shift of one class's scores is seen in its own aspect, not only in the best class."""
    rng = np.random.default_rng(1)

    def scores(lift: float) -> TableProfile:
        raw = rng.dirichlet([5, 3, 2], 3000) + np.array([lift, 0, 0])
        shares = (raw / raw.sum(axis=1, keepdims=True)).ravel()
        return profile("classes", x=pa.FixedSizeListArray.from_arrays(pa.array(shares), 3))

    drift = compared(scores(0), scores(0.3))
    assert aspect(drift, name="class 0").verdict == "fail"
    assert measure(drift, "category", of="argmax").detail.startswith("'0': ")
    rates = [each for one in drift.aspects for each in one.measures if each.name == "null_rate"]
    assert len(rates) == 1
