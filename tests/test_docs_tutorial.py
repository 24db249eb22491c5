"""Test that docs/tutorial.md can be followed: its files, code and commands, in their order."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.pages import all_blocks, arguments, page, replay, sessions

RUN = r"\d{8}-[0-9a-f]{4}"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is the current one, and where Python imports from."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "net", raising=False)
    return tmp_path


@pytest.mark.slow
def test_the_tutorial_can_be_followed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The code runs and prints what the page shows; each command ends and prints as shown."""
    names: dict[str, object] = {}
    run = ""
    for language, title, text in all_blocks(page("docs/tutorial.md")):
        if title:
            (folder / title).write_text(text, encoding="utf-8")
        elif language == "python":
            exec(text, names)
        elif language == "text":
            assert capsys.readouterr().out == text
        for command, expected in sessions(text) if language == "console" else ():
            printed = replay(arguments(re.sub(RUN, run, command)) or [], expected)
            run = (re.findall(RUN, printed) or [run])[0]
    sys.modules.pop("net")
    assert len([*(folder / "out/data").glob("date=*/*.parquet")]) == 2
