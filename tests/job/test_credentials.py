"""Tests of addresses in a job file: a credential is refused and not shown, a folder is a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from batchscore.errors import JobFileError
from batchscore.job import load_job

MINIMAL: dict[str, Any] = {
    "name": "flights",
    "input": {"path": "in"},
    "model": "model",
    "output": {"path": "out"},
}


@pytest.mark.parametrize("key", ["input.path", "model.path", "output.path", "input.ready"])
def test_credentials_in_an_address_are_refused_and_not_shown(tmp_path: Path, key: str) -> None:
    """An address with a user, password or key is an error that does not show them."""
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(MINIMAL))
    addresses = ("ftp://me:hunter2@host/x", "https://host/x?jwt=hunter2", "s3://K:S/hunter2@b/x")
    for address in addresses:
        with pytest.raises(JobFileError, match="holds a user, password or key") as caught:
            load_job(str(tmp_path / "job.yaml"), overrides=[f"{key}={address}"])
        assert "hunter2" not in str(caught.value)


def test_folders_named_like_credentials_are_folders(tmp_path: Path) -> None:
    """A hive key or folder called `key=`, `token=` or `sig=` is part of a path."""
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(MINIMAL))
    for path in ("/data/key=5/token=a", "s3://bucket/sig=1/x", "file:///data/password=x"):
        loaded = load_job(str(tmp_path / "job.yaml"), overrides=[f"input.path={path}"])
        assert loaded.job.input.path == (path,)
