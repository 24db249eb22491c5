"""Files that commands write where the user says: what is replaced, and what never is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from batchscore.commands.files import (
    check_page,
    check_replaceable,
    is_profile,
    read_profile,
    write_page,
    write_profile,
)
from batchscore.commands.profile import profile
from batchscore.drift.profile_file import write_table
from batchscore.errors import InvalidError, OutputError
from batchscore.runs.profiles import save_profile
from batchscore.storage.store import Store
from tests.factory import make_rows, write_shard

PROFILE = profile(make_rows())


def test_a_profile_returns_as_it_was_written(tmp_path: Path) -> None:
    """What is stored is read again whole, replaced by the next, and distinguished from data."""
    path = tmp_path / "new/reference.parquet"
    for made in (profile(make_rows(10)), PROFILE):
        assert write_profile(made, path) == path.stat().st_size
    assert write_table(read_profile(path), {}) == write_table(PROFILE, {})
    assert is_profile(str(path))
    assert not is_profile(str(write_shard(tmp_path / "data.parquet")))
    assert not is_profile(str(tmp_path))
    assert not is_profile("what://x")
    assert [each.name for each in path.parent.iterdir()] == ["reference.parquet"]


def test_a_runs_profile_is_read_with_its_second_file(tmp_path: Path) -> None:
    """Of a run's profile the large and approximate parts, stored apart, are there too."""
    save_profile(Store(str(tmp_path)), "20261120-aaaa", PROFILE)
    path = tmp_path / "_batchscore/runs/20261120-aaaa/profile.parquet"
    assert write_table(read_profile(path), {}) == write_table(PROFILE, {})


def test_data_are_not_replaced(tmp_path: Path) -> None:
    """Neither a profile nor a page overwrites a file that is something else, nor joins the data."""
    data = write_shard(tmp_path / "in/data.parquet")
    before = data.read_bytes()
    with pytest.raises(OutputError, match="exists and is not a profile"):
        write_profile(PROFILE, data)
    with pytest.raises(OutputError, match=r"expected a name that ends in \.html"):
        write_page("<p>", str(data))
    with pytest.raises(OutputError, match="would be read as part of it"):
        check_replaceable(str(tmp_path / "in/profile.parquet"), [str(tmp_path / "in")])
    check_replaceable(str(tmp_path / "in/_profile.parquet"), [str(tmp_path / "in")])
    check_replaceable(str(tmp_path / "profile.parquet"), [str(tmp_path / "in")])
    assert data.read_bytes() == before


@pytest.mark.parametrize("address", ["", "folder/", "s3://me:secret@b/x.html", "what://x/y.html"])
def test_an_address_that_is_no_files_is_reported(address: str) -> None:
    """An address without a name, of an unknown kind, or with credentials is an error."""
    with pytest.raises(OutputError) as caught:
        check_page(address)
    assert "secret" not in str(caught.value)


def test_a_store_that_does_not_answer_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without credentials nobody knows what lies at the address, and nothing is written."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(OutputError, match=r"output s3://nobody: cannot be written .*credentials"):
        write_profile(PROFILE, "s3://nobody/profile.parquet")


def test_a_place_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    """A file in the folder's place is an error with the remedy."""
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        write_page("<p>", str(tmp_path / "file/page.html"))


@pytest.mark.parametrize("content", [None, b"PAR1", b"text"])
def test_a_profile_that_is_none_is_reported(content: bytes | None, tmp_path: Path) -> None:
    """What is missing, or not a profile, is wrong input that names the file."""
    path = tmp_path / "x.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidError, match=r"x\.parquet: (no such file|damaged)"):
        read_profile(path)
