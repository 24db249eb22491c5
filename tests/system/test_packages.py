"""Versions of installed packages are those that Python's own library finds."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

from batchscore.system.packages import version


def test_versions_are_those_that_python_finds() -> None:
    """Of each package that is installed here, whatever its description says."""
    names = {found.metadata["Name"] for found in metadata.distributions()}
    assert len(names) > 50
    assert {name: version(name) for name in names} == {
        name: metadata.version(name) for name in names
    }


def test_a_description_is_no_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line of the description that looks like a version is none."""
    folder = tmp_path / "odd_one-1.5.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Name: odd-one\nVersion: 1.5\n\nVersion: 9\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert version("odd-one") == "1.5"


def test_a_package_that_is_not_there_is_an_error() -> None:
    """The error is that of Python's library."""
    with pytest.raises(metadata.PackageNotFoundError):
        version("no-such-package")
