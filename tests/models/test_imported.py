"""Test which files are found to be imported, without running them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from batchscore.models.imported import imported_files
from tests.models.test_importing import CASES, write

_LIST = """import os, sys, f
f.value()
here = os.getcwd() + "/"
files = (getattr(module, "__file__", None) or "" for module in [*sys.modules.values()])
print(*sorted(file.removeprefix(here) for file in files if file.startswith(here)))
"""


@pytest.mark.parametrize("case", CASES)
def test_all_that_python_imports_is_found(tmp_path: Path, case: str) -> None:
    """What a process of plain Python has loaded from the folder after a call is listed."""
    base = write(tmp_path, CASES[case])
    command = [sys.executable, "-B", "-c", _LIST]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {*done.stdout.split()} <= {*imported_files(base, "f.py")}


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"f.py": "if False:\n    import a", "a.py": "", "b.py": ""}, "a.py f.py"),
        ({"f.py": "import nosuch, json", "json/x.py": ""}, "f.py"),
        ({"f.py": "x = 'a'\nimport_module(x)", "a.py": ""}, "f.py"),
        ({"f.py": "import_module('a.b')", "a/__init__.py": "", "a/b.py": ""}, None),
        ({"f.py": "import_module('.b', package='a')", "a/b.py": ""}, "a/b.py f.py"),
        ({"f.py": "from .a import *\nfrom . import b", "a.py": "", "b.py": ""}, None),
        ({"f.py": "import a", "a.py": "not ( python", "b.py": ""}, "a.py f.py"),
        ({"f.py": "import a", "a.py": "\0"}, "a.py f.py"),
        ({"f.py": "from ... import a\nimport_module('')\nimport_module()", "a.py": ""}, None),
        ({"f.py": "import batchscore, sys", "batchscore.py": "", "sys.py": ""}, "f.py"),
        ({"f.py": "import a.b.c", "a/b.py": "", "a/b/c.py": ""}, "a/b.py a/b/c.py f.py"),
        ({"other.py": ""}, ""),
    ],
)
def test_files_are_found_by_text(
    tmp_path: Path, files: Mapping[str, str], found: str | None
) -> None:
    """Branches and literals count, names that are computed do not; None means all files."""
    expected = sorted(files) if found is None else found.split()
    assert [*imported_files(write(tmp_path, files), "f.py")] == expected


def test_packages_above_a_function_and_links_are_followed(tmp_path: Path) -> None:
    """A file that a link below the folder leads to counts as itself; one outside does not."""
    files = {"p/__init__.py": "import top", "p/f.py": "import near", "p/near.py": "", "top.py": ""}
    base = write(tmp_path / "base", files)
    (tmp_path / "base/link.py").symlink_to("p/f.py")
    (tmp_path / "base/out.py").symlink_to(tmp_path / "outside.py")
    (tmp_path / "outside.py").write_text("")
    assert [*imported_files(base, "link.py")] == sorted(files)
    assert imported_files(base, "out.py") == {}
