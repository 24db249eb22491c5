"""Beam's private parts are used in one module, and only of a version that was tested."""

from __future__ import annotations

import ast
import re
from importlib.metadata import version
from pathlib import Path

import pytest
import tomllib

import batchscore
from batchscore.engines import beam_version
from tests import factory
from tests.conftest import ROOT

PRIVATE = re.compile(
    r"apache_beam\.(runners|portability|utils\.thread_pool|transforms\.environments)|\._"
)


def _imported(tree: ast.AST) -> set[str]:
    """The names that a module imports of others, with those that they are in."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_one_module_imports_private_parts() -> None:
    """No other module of the package imports what Beam calls its own."""
    package = Path(batchscore.__file__).parent
    users = set()
    for path in package.rglob("*.py"):
        names = _imported(ast.parse(path.read_text()))
        if any(PRIVATE.search(n) for n in names if n.startswith("apache_beam.")):
            users.add(path.relative_to(package).as_posix())
    assert users == {"engines/beam_private.py"}


@pytest.mark.parametrize("found", ["2.76.0", "2.78.0", "3.0.0rc1"])
def test_another_version_of_beam_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: str
) -> None:
    """Check and run end with code 2 before any work, and say which version to install."""
    monkeypatch.setattr(beam_version, "version", lambda _: found)
    job = factory.write_job(tmp_path)
    for command in ("check", "run"):
        reported = factory.run_json(command, job)
        assert (reported["status"], reported["exit_code"]) == ("invalid", 2)
        assert f"apache-beam {found} is installed" in reported["error"]
        assert f"install 'apache-beam=={beam_version.TESTED}.*'" in reported["error"]
    assert not (tmp_path / "out/data").exists()


def test_the_version_that_is_tested_is_the_one_that_is_required() -> None:
    """The package requires the tested minor version, and this environment has it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (required,) = (each for each in project["dependencies"] if each.startswith("apache-beam"))
    major, minor = beam_version.TESTED.split(".")
    assert required == f"apache-beam>={major}.{minor},<{major}.{int(minor) + 1}"
    assert version("apache-beam").startswith(f"{major}.{minor}.")
