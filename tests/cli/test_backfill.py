"""What a person or a program reads of `backfill`, and is asked, before dates are replaced."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests import factory
from tests.cli.test_app import IN_TERMINAL, read_terminal
from tests.faults import backfills

pytestmark = pytest.mark.slow


@pytest.fixture(name="dates")
def dates_(tmp_path: Path) -> backfills.Dates:
    """Three dates, of which the third cannot be read, and the others are published."""
    dates = backfills.write_dates(tmp_path, 3, {"drift": None})
    assert factory.run_cli("backfill", *dates.arguments).exit_code == 1
    return dates


def markers(output: Path) -> dict[str, str]:
    """The run that published each slice."""
    found = output.glob("_batchscore/slices/*/_SUCCESS")
    return {path.parent.name: path.read_text() for path in found}


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_rescoring_lists_first_what_it_replaces(
    tmp_path: Path, dates: backfills.Dates, more: tuple[str, ...]
) -> None:
    """`--rescore` names each published date with its run and rows before it starts any.

    With `--json` too, where the one document on standard output has the same dates.
    """
    before = markers(tmp_path / "out")
    done = factory.run_cli("backfill", *dates.arguments, "--rescore", *more)
    head, *lines = done.stderr.splitlines()
    assert head == "--rescore replaces what is published of 2 dates:"
    assert [line.split()[0] for line in lines[:2]] == [*dates.days[:2]]
    assert lines[0].endswith("200 rows  model small 1.0")
    after = markers(tmp_path / "out")
    assert all(after[name] != run for name, run in before.items())
    if more:
        replaced = json.loads(done.stdout)["replaced"]
        listed = [(each["date"], "run", each["run"]) for each in replaced]
        assert listed == [tuple(line.split()[:3]) for line in lines[:2]]
    else:
        assert "published      2" in done.stdout


def test_a_person_is_asked_before_dates_are_replaced(
    tmp_path: Path, dates: backfills.Dates
) -> None:
    """On a terminal `y` alone replaces what was listed; Ctrl-C and `n` replace nothing."""
    before = markers(tmp_path / "out")
    for typed in (b"n\n", b"\x03"):
        code, said = answer(dates, typed)
        assert code == 130, said
        assert "nothing was replaced, and no date was scored" in said
        assert markers(tmp_path / "out") == before
    code, said = answer(dates, b"y\n")
    assert code == 0, said
    assert markers(tmp_path / "out").keys() == before.keys()
    assert not set(markers(tmp_path / "out").values()) & set(before.values())


def answer(dates: backfills.Dates, typed: bytes) -> tuple[int, str]:
    """Rescores two dates on a terminal, and types an answer; exit code and what is shown."""
    days = ("--from", dates.days[0], "--to", dates.days[1])
    command = ["backfill", str(dates.job), *days, "--rescore"]
    terminal, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", IN_TERMINAL, *command],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    read_terminal(terminal, lambda text: "replace these? [y/N]: " in text)
    os.write(terminal, typed)
    said = read_terminal(terminal, lambda _: False)
    os.close(terminal)
    return process.wait(60), said
