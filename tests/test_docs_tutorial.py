"""Test that the tutorials can be followed: their files, code and commands, in their order."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import yaml

from tests.pages import all_blocks, arguments, blocks, page, replay, run_code, sessions

RUN = r"\d{8}-[0-9a-f]{4}"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is the current one, and where Python imports from."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "net", raising=False)
    return tmp_path


def follow(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Does what a page says: the code prints what it shows, and each command ends as shown."""
    names: dict[str, object] = {}
    run = ""
    for language, title, text in all_blocks(page(name)):
        if title:
            (folder / title).write_text(text, encoding="utf-8")
        elif language == "python":
            run_code(text, names)
        elif language == "text":
            assert capsys.readouterr().out == text
        for command, expected in sessions(text) if language == "console" else ():
            printed = replay(arguments(re.sub(RUN, run, command)) or [], expected)
            run = (re.findall(RUN, printed) or [run])[0]


@pytest.mark.slow
def test_the_tutorial_can_be_followed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The code runs and prints what the page shows; each command ends and prints as shown."""
    follow("docs/tutorial.md", folder, capsys)
    assert len([*(folder / "out/data").glob("date=*/*.parquet")]) == 2
    shown = next(text for kind, _, text in all_blocks(page("docs/tutorial.md")) if kind == "yaml")
    assert yaml.safe_load((folder / "job.yaml").read_text()) == yaml.safe_load(shown)


@pytest.mark.slow
def test_the_tutorial_takes_few_lines() -> None:
    """From a DataFrame and a fitted model to a published run are at most fifteen lines."""
    text = page("docs/tutorial.md").partition("## The model folder")[2].partition("## A night")[0]
    code = [line for each in blocks("python", text) for line in each.splitlines() if line.strip()]
    commands = [command for each in blocks("console", text) for command, _ in sessions(each)]
    assert len(code) + len(commands) <= 15


@pytest.mark.slow
def test_the_tutorial_of_torch_can_be_followed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same holds for a network."""
    follow("docs/tutorial-torch.md", folder, capsys)
    sys.modules.pop("net")
    assert len([*(folder / "out/data").glob("date=*/*.parquet")]) == 1
