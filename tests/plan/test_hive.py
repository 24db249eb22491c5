"""Test that hive keys keep their values and types, and that none merge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.errors import InputError, JobFileError
from batchscore.job import load_job
from batchscore.plan.footers import read_footers
from batchscore.plan.hive import KeyRules, hive_keys, key_types, key_value, same_keys
from batchscore.plan.listing import InputFile, find_shards
from batchscore.plan.published import Published
from batchscore.units.unit import Shard
from tests.factory import change_job, make_rows, run_json, write_job, write_shard

INTEGER, STRING = pa.int64(), pa.string()


def found(*texts: str | None, name: str = "k") -> list[InputFile]:
    """Shards of one key with these texts."""
    return [InputFile(f"/x/{n}", 1, "m", ((name, text),)) for n, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("texts", "kind"),
    [
        (["1", "12"], INTEGER),
        (["01", "12"], INTEGER),
        (["00", "23"], INTEGER),
        (["-5", "5"], INTEGER),
        (["1", None], INTEGER),
        ([None], INTEGER),
        (["02139", "10001"], STRING),
        (["001"], STRING),
        (["-0"], STRING),
        (["+5"], STRING),
        (["1", "x"], STRING),
        (["5\n"], STRING),
        (["٣"], STRING),
        ([""], STRING),
        ([" 5"], STRING),
        (["1.0"], STRING),
        (["9223372036854775808"], STRING),
        (["null", "NULL"], STRING),
    ],
)
def test_types_of_new_keys(texts: list[str | None], kind: pa.DataType) -> None:
    """A key is an integer if its values are whole numbers that are written as such."""
    assert key_types(found(*texts), KeyRules()) == {"k": kind}


@pytest.mark.parametrize("texts", [("02139", "2139"), ("1", "01"), ("0", "00"), ("0", "-0")])
def test_two_spellings_of_one_integer_are_an_error(texts: tuple[str, str]) -> None:
    """It names both shards and the key of the job file; each declaration is a remedy."""
    with pytest.raises(
        InputError, match=r"/x/[01].*two spellings; set input\.hive_types"
    ) as caught:
        key_types(found(*texts), KeyRules())
    assert "/x/0" in str(caught.value)
    assert "/x/1" in str(caught.value)
    for declared, kind in (("string", STRING), ("integer", INTEGER)):
        assert key_types(found(*texts), KeyRules({"k": declared})) == {"k": kind}
    assert key_types(found(*texts, "x"), KeyRules()) == {"k": STRING}


@given(st.lists(st.text("0123456789-+ax \n٣", max_size=6), min_size=1))
def test_no_two_values_merge(texts: list[str]) -> None:
    """Whatever the texts, two that differ have values that differ, or there is an error."""
    for rules in (None, KeyRules()):
        try:
            kind = key_types(found(*texts), rules)["k"]
        except InputError:
            assert rules is not None
            continue
        values = {key_value(text, kind) for text in texts}
        assert rules is None or len(values) == len(set(texts))


@pytest.mark.parametrize(
    ("known", "texts", "kind"),
    [
        ("integer", ["02139", "10001"], INTEGER),
        ("string", ["1", "2"], STRING),
        ("integer", ["1", "x"], STRING),
    ],
)
def test_a_key_keeps_its_published_type(known: str, texts: list[str], kind: pa.DataType) -> None:
    """As long as its values fit it; a declared type comes first."""
    rules = KeyRules({}, Published({}, {"k": known}))
    assert key_types(found(*texts), rules) == {"k": kind}
    declared = KeyRules({"k": "string"}, Published({}, {"k": known}))
    assert key_types(found(*texts), declared) == {"k": STRING}


def test_values_that_were_published_as_one_stay() -> None:
    """An output that has two spellings as one integer goes on so; another key is an error."""
    shards = [Shard(f"/x/k={text}/0", 1, "m", 1, (("k", 2139),)) for text in ("02139", "2139")]
    known = {"k": "integer", "m": "integer"}
    rules = KeyRules({}, Published({}, known, tuple(shards)))
    assert key_types(found("02139", "2139"), rules) == {"k": INTEGER}
    for one, name in ((rules, "m"), (KeyRules({}, Published({}, known, tuple(shards[:1]))), "k")):
        with pytest.raises(InputError, match="two spellings"):
            key_types(found("02139", "2139", name=name), one)


@pytest.mark.slow
def test_later_slices_of_an_earlier_output_may_have_both_spellings(tmp_path: Path) -> None:
    """A nightly job whose output has `m=01` and `m=1` as one integer goes on; a new one may not."""
    job = write_job(tmp_path, {"params": {"d": {"type": "integer"}}, "input.path": "in/d=${d}"})
    for number, text in enumerate(("d=1/m=01", "d=1/m=1", "d=2/m=01", "d=2/m=1")):
        write_shard(tmp_path / f"in/{text}/0.parquet", make_rows(10, 10 * number))
    declared = ("--set", "input.hive_types={m: integer}")
    assert "two spellings" in run_json("run", job, "--param", "d=1")["error"]
    # Earlier versions published both as one without being asked, as this declaration does.
    assert run_json("run", job, "--param", "d=1", *declared)["status"] == "published"
    for day, status in ((1, "unchanged"), (2, "published")):
        found = run_json("run", job, "--param", f"d={day}")
        assert found["status"] == status
        assert [dict(shard["keys"])["m"] for shard in found["inputs"]] == [1, 1]


@pytest.mark.parametrize("text", ["x", "1.5", "9223372036854775808", "", "٣", "5\n", "0x1f"])
def test_a_declared_integer_that_is_none_is_an_error(text: str) -> None:
    """It names the shard, the value and the declaration."""
    with pytest.raises(InputError, match=r"shard /x/1: hive key 'k' is .*hive_types declares"):
        key_types(found("1", text), KeyRules({"k": "integer"}))
    assert key_types(found("+5", "007", "-9223372036854775808", None), KeyRules({"k": "integer"}))


def test_a_declared_key_that_is_not_there_is_an_error() -> None:
    """It names the nearest; an input without shards has none to compare with."""
    with pytest.raises(
        InputError, match=r"input\.hive_types: 'zpi' is not a hive key .*nearest: 'zip'"
    ):
        key_types(found("1", name="zip"), KeyRules({"zpi": "string"}))
    assert key_types([], KeyRules({"zip": "string"})) == {}


@pytest.mark.parametrize("value", ["%E8", "%FF", "\udce8", "%ED%A0%80"])
def test_values_that_are_not_utf_8_are_an_error(value: str) -> None:
    """Two such values would be one, so that the folder is named instead."""
    for folder in (f"k={value}", f"{value}=1"):
        with pytest.raises(InputError, match=r"is not UTF-8 once it is decoded.*rename"):
            hive_keys(f"/x/{folder}/a.parquet")


@given(st.text(min_size=1).filter(lambda text: text != "__HIVE_DEFAULT_PARTITION__"))
def test_any_text_comes_back_from_its_folder(text: str) -> None:
    """A value that was encoded into a folder's name is the value that is read."""
    assert hive_keys(f"/x/k={quote(text, safe='')}/a.parquet") == (("k", text),)


@pytest.mark.parametrize(
    ("texts", "keys", "same"),
    [
        ([("k", "01")], [("k", 1)], True),
        ([("k", "1")], [("k", "1")], True),
        ([("k", None)], [("k", None)], True),
        ([("k", None)], [("k", 0)], False),
        ([("k", "x")], [("k", 1)], False),
        ([("k", "1")], [("m", 1)], False),
        ([], [("m", 1)], False),
    ],
)
def test_texts_are_compared_with_published_values(texts: Any, keys: Any, same: bool) -> None:
    """By what they say, in whichever type it was published."""
    assert same_keys(tuple(texts), tuple(keys)) is same


def test_values_are_those_of_duckdb(tmp_path: Path) -> None:
    """Texts of folders are decoded as DuckDB decodes them, when it infers no types."""
    texts = ["02139", "5\n", "a/b", "é", " x", "%41", "a=b", "null", "-0", "٣"]
    for number, text in enumerate(texts):
        folder = tmp_path / f"k={quote(text, safe=' ')}"
        write_shard(folder / "0.parquet", make_rows(1, number))
    footers = read_footers(find_shards([str(tmp_path)]), rules=KeyRules()).good
    options = "hive_partitioning = true, hive_types_autocast = false"
    query = f"SELECT k FROM read_parquet('{tmp_path}/*/*.parquet', {options})"
    rows = duckdb.connect().execute(query).fetchall()
    assert sorted(str(dict(f.shard.keys)["k"]) for f in footers) == sorted(k for (k,) in rows)
    assert sorted(texts) == sorted(k for (k,) in rows)


def write_zips(folder: Path, *zips: str) -> Path:
    """A job whose shards lie in folders of postal codes, which its output is partitioned by."""
    job = write_job(folder, {"output.partition_by": ["zip"]})
    for number in range(2):
        (folder / f"in/{number}.parquet").unlink()
    for number, text in enumerate(zips):
        write_shard(folder / f"in/zip={text}/0.parquet", make_rows(10, 10 * number))
    return job


def partitions(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "out/data").iterdir())


@pytest.mark.slow
def test_postal_codes_are_published_as_they_are(tmp_path: Path) -> None:
    """`zip=01001` is `zip=01001` again, its type stays, and can be declared."""
    job = write_zips(tmp_path, "01001", "10001")
    assert run_json("run", job)["status"] == "published"
    assert partitions(tmp_path) == ["zip=01001", "zip=10001"]
    # Only whole numbers are left, and the output keeps its texts.
    (tmp_path / "in/zip=01001/0.parquet").unlink()
    change_job(tmp_path, {"on_change": {"removed_shards": "remove"}})
    assert run_json("run", job)["inputs"][0]["keys"] == [["zip", "10001"]]
    assert partitions(tmp_path) == ["zip=10001"]
    change_job(tmp_path, {"input.hive_types": {"zip": "integer"}})
    declared = run_json("run", job)
    assert declared["inputs"][0]["keys"] == [["zip", 10001]]
    assert declared["rows"]["reused"] == 0


@pytest.mark.slow
def test_an_output_of_an_earlier_version_keeps_its_integers(tmp_path: Path) -> None:
    """Keys that were published as integers stay so, in the slice and in others of the job."""
    job = write_zips(tmp_path, "10001", "20002")
    assert run_json("run", job)["status"] == "published"
    manifests = [*(tmp_path / "out/_batchscore/runs").glob("*/manifest.json")]
    kinds = [s["keys"] for m in manifests for s in json.loads(m.read_text())["inputs"]]
    assert kinds == [[["zip", 10001]], [["zip", 20002]]]
    write_shard(tmp_path / "in/zip=01001/0.parquet", make_rows(10, 50))
    assert run_json("run", job)["status"] == "published"
    assert partitions(tmp_path) == ["zip=10001", "zip=1001", "zip=20002"]
    other = change_job(tmp_path, {"params": {"part": {"type": "integer"}}})
    found = run_json("run", other, "--param", "part=1")
    assert found["status"] == "published"
    assert sorted(s["keys"][0][1] for s in found["inputs"]) == [1001, 10001, 20002]


def test_hive_types_of_a_job_file_are_checked(tmp_path: Path) -> None:
    """Another type than the two is an error that names them."""
    job = write_job(tmp_path, {"input.hive_types": {"zip": "text"}})
    with pytest.raises(JobFileError, match=r"input\.hive_types\.zip: expected 'string' or 'int"):
        load_job(str(job))
