"""The page on pipelines shows what happens: its code runs, and prints what it says."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.pages import ROOT, all_blocks, page

pytestmark = pytest.mark.slow


def test_the_page_on_pipelines_is_true(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its code runs with other transforms, in its order, and prints what the page shows."""
    shutil.copytree(ROOT / "jobs", tmp_path / "jobs")
    (tmp_path / "data").symlink_to(ROOT / "data")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for language, title, text in all_blocks(page("docs/pipelines.md")):
        if title:
            continue
        if language == "python":
            exec(text, names)
        else:
            assert capsys.readouterr().out == text
