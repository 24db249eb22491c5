"""Pages of the documentation as tests read them: code blocks, and sessions with their output."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import duckdb
from click.testing import CliRunner

from batchscore.cli import cli

ROOT = Path(__file__).parents[1]
REFUSED = ("FAIL", "HELD")


def page(name: str) -> str:
    """Returns a page's text, by its path from the root."""
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(language: str, text: str) -> list[str]:
    """Returns a page's code blocks of a language that have no title."""
    return re.findall(rf"```{language}\n(.*?)```", text, re.S)


def all_blocks(text: str) -> list[tuple[str, str, str]]:
    """Returns each code block of a page: its language, title and content."""
    return re.findall(r'^```(\w+)(?: title="(.*?)")?\n(.*?)^```', text, re.S | re.M)


def run_code(code: str, names: dict[str, Any]) -> None:
    """Runs a page's Python code as a program of its own would start.

    DuckDB's default connection is one for the process, and refuses further work where the code of
    another page left a result that nobody read to its end.
    """
    duckdb.set_default_connection(duckdb.connect())
    try:
        exec(code, names)
    finally:
        duckdb.set_default_connection(duckdb.connect())


def sessions(text: str) -> list[tuple[str, list[str]]]:
    """Returns each command of a console's text with the lines that it is said to print."""
    found: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return found


def shape(line: str) -> str:
    """Returns a line without what differs from run to run; the equation of rows stays as it is."""
    line = re.sub(r"\s+", " ", line.strip())
    if line.startswith("read "):
        return line
    line = line.replace(".venv/bin/", "")
    line = re.sub(r"\b\d{8}-[0-9a-f]{4}\b", "RUN", line)
    line = re.sub(r"\b[0-9a-f]{16}\b", "UNIT", line)
    line = re.sub(r"limited by .*|^help .*|in \S+/data$|\S+@\S+", "…", line)
    line = re.sub(r"\S*/?data/samples/", "data/samples/", line)
    line = re.sub(r"\S*/out/", "out/", line)  # the page names the folder from the clone's root
    return re.sub(r"\d{4}-\d\d-\d\dT[\d:.+]+|[\d.,]*\d[kM]?", "#", line)


def arguments(command: str) -> list[str] | None:
    """Returns a batchscore command's arguments, the Makefile's for `make demo`; else None."""
    if command == "make demo":
        recipe = re.search(r"^demo:.*\n\t\$\(BIN\)/(.*)$", page("Makefile"), re.M)
        assert recipe is not None
        command = recipe[1]
    words = shlex.split(command)
    return words[1:] if words[0] == "batchscore" else None


def replay(words: list[str], expected: list[str]) -> str:
    """Runs a command as a page shows it: it ends as shown, and prints the lines shown.

    Returns:
        What it printed.
    """
    done = CliRunner().invoke(cli, words)
    refused = expected[:1] and expected[0].startswith(REFUSED)
    assert done.exit_code == (3 if refused else 0), done.output
    printed = [shape(line) for line in done.output.splitlines()]
    assert [shape(line) for line in expected if shape(line) not in printed] == []
    return done.output
