"""The folder that only this user writes to, and what may be in its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchscore.errors import FailedError
from batchscore.storage.private_folder import private_folder


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the folder belongs, which is not there."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    place = private_folder("name")
    place.rmdir()
    return place


def test_it_is_made_once_for_this_user_alone(place: Path) -> None:
    """A later call returns the same folder with what is in it."""
    assert private_folder("name") == place
    assert place.stat().st_mode & 0o777 == 0o700
    (place / "kept").touch()
    assert [path.name for path in private_folder("name").iterdir()] == ["kept"]


@pytest.mark.parametrize("what", ["file", "link", "link to nothing", "open folder"])
def test_what_another_user_may_have_put_there_is_refused(what: str, place: Path) -> None:
    """A link leads to where others may write; nothing is written through it."""
    elsewhere = place.with_name("elsewhere")
    if what == "file":
        place.touch()
    elif what == "open folder":
        place.mkdir()
        place.chmod(0o777)
    else:
        place.symlink_to(elsewhere)
    if what == "link":
        elsewhere.mkdir()
    with pytest.raises(FailedError, match=r"name-\d+ (is not a folder|belongs).*; remove it, or"):
        private_folder("name")
    assert elsewhere.exists() == (what == "link")
