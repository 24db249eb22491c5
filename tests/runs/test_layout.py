"""Test that names of slices and runs are safe and never shared, and that outputs are claimed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.errors import OutputError
from batchscore.runs import layout
from batchscore.storage.store import Store

TEXT = st.text(max_size=60) | st.sampled_from(["a", "a,b=1", "a=b", "b=1", "%2C", "é/..", ","])
PARAMS = st.dictionaries(st.sampled_from(["a", "b", "date"]), TEXT, max_size=3)
SLICES = st.tuples(TEXT.filter(bool), PARAMS)


@given(st.lists(SLICES, min_size=2, max_size=2, unique_by=str))
def test_no_two_slices_share_a_name(
    pair: list[tuple[str, dict[str, str]]],
) -> None:
    """Jobs or parameters that differ give different slices, long ones and odd ones too."""
    (job, params), (other, others) = pair
    same = (job, params) == (other, others)
    assert (layout.slice_id(job, params) == layout.slice_id(other, others)) == same


@given(SLICES)
def test_a_slice_is_one_folders_name(slice_: tuple[str, dict[str, str]]) -> None:
    """The name is plain ASCII without a slash, of at most 100 characters."""
    name = layout.slice_id(*slice_)
    assert 0 < len(name) <= 100
    assert name.isascii()
    assert name.isprintable()
    assert "/" not in name


def test_the_order_of_parameters_does_not_matter() -> None:
    """A slice is named as people read it, its parameters sorted."""
    assert layout.slice_id("job", {"b": 1, "a": "x"}) == "job,a=x,b=1"
    assert layout.slice_id("job", {}) == "job"


def test_run_names_are_not_given_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that a run of the output has already is passed over."""
    store = Store(str(tmp_path))
    digits = iter(["aaaa", "aaaa", "bbbb"])
    monkeypatch.setattr("secrets.token_hex", lambda _: next(digits))
    first = layout.new_run_id(store)
    store.write_json(layout.run_file(first, "plan.json"), {})
    assert (first[-4:], layout.new_run_id(store)[-4:]) == ("aaaa", "bbbb")


def test_what_a_run_needs_while_it_works_lies_in_one_folder() -> None:
    """Plan, failures and counts are removed together."""
    for place in (layout.plan_file, layout.failures, layout.progress):
        assert place("r").startswith(f"{layout.work('r')}/")


def test_an_output_is_claimed_once(tmp_path: Path) -> None:
    """An empty or new folder becomes an output, and stays one."""
    store = Store(str(tmp_path / "new"))
    layout.claim_output(store)
    store.write("data/x", b"")
    layout.claim_output(store)
    assert store.read_json("_batchscore/format.json") == {"batchscore_output": 1}


@pytest.mark.parametrize("name", ["data/part-0.parquet", "readme.txt", "_batchscore/other"])
def test_somebody_elses_folder_is_not_claimed(tmp_path: Path, name: str) -> None:
    """A folder that holds anything without batchscore's mark is refused and left alone."""
    store = Store(str(tmp_path))
    store.write(name, b"theirs")
    with pytest.raises(OutputError, match="not an output of batchscore"):
        layout.claim_output(store)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / name]


def test_a_bucket_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is written; a bucket without the output is as good as any."""

    def missing(*_: object) -> None:
        raise FileNotFoundError(f"The specified {what} does not exist.")

    monkeypatch.setattr(Store, "read_json", missing)
    what = "key"
    layout.check_output(Store(str(tmp_path)))
    what = "bucket"
    with pytest.raises(OutputError, match=r"there is no such bucket; create it, or correct"):
        layout.check_output(Store(str(tmp_path)))
