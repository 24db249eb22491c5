"""Test that batchscore can be installed into an environment of its own, as the README says."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
(SHELL,) = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
BUILD, INSTALL = map(shlex.split, SHELL.splitlines())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that the README's first command builds, by the tools that are installed here."""
    words = [str(ROOT) if word == "path/to/batchscore" else word for word in BUILD[1:]]
    folder = tmp_path_factory.mktemp("wheel")
    quiet = ["--no-build-isolation", "--disable-pip-version-check", "--quiet"]
    subprocess.run([sys.executable, *words, *quiet], cwd=folder, check=True)
    (built,) = (folder / "dist").iterdir()
    return built


def uv(*words: str) -> None:
    """Runs uv, which must succeed."""
    subprocess.run([sys.executable, "-m", "uv", *words, "--quiet"], check=True)


@pytest.mark.slow
def test_the_wheel_holds_the_whole_package(wheel: Path) -> None:
    """Each file of the package is in the wheel, which has the name that the README installs."""
    package = ROOT / "batchscore"
    files = (path for path in package.rglob("*") if path.is_file())
    expected = {path.relative_to(ROOT).as_posix() for path in files if path.suffix != ".pyc"}
    held = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("batchscore/")}
    assert held == expected
    assert INSTALL[-1] == f"dist/{wheel.name}"


@pytest.mark.slow
def test_the_installed_wheel_works_without_the_tree(wheel: Path, tmp_path: Path) -> None:
    """An environment with the wheel, and not the tree, has the command, which writes a report."""
    place = tmp_path / "own"
    python, command = str(place / "bin/python"), str(place / "bin/batchscore")
    uv("venv", "--python", sys.executable, str(place))
    uv("pip", "install", "--offline", "--no-deps", "--python", python, str(wheel))
    # Dependencies are those of the tests; the tree itself, which is installed editable, is not.
    (site,) = place.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    months = [str(ROOT / f"data/samples/flights/month={month}") for month in (1, 7)]
    alone = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    words = [command, "compare", *months, "--columns", "carrier", "-o", "r.html"]
    done = subprocess.run(words, cwd=tmp_path, env=alone, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "<html" in (tmp_path / "r.html").read_text(encoding="utf-8")
    where = [python, "-c", "import batchscore; print(batchscore.__file__)"]
    found = subprocess.run(where, cwd=tmp_path, env=alone, capture_output=True, text=True)
    assert found.stdout.startswith(str(site))
