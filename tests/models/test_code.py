from __future__ import annotations

import importlib.util
import json
import pickle
import py_compile
from pathlib import Path
from typing import Any

import pytest

from batchscore.errors import FunctionError
from batchscore.models.code import hashes, load_object
from batchscore.models.imported import imported_files
from batchscore.models.importing import Listed


def write(folder: Path, **files: str) -> str:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    return str(folder)


def call(reference: str, base: str, **options: Any) -> Any:
    function: Any = load_object(reference, base, **options)
    return function()


def test_files_and_modules_are_found(tmp_path: Path) -> None:
    """A reference names something in a file below the base, or in an installed module."""
    base = write(tmp_path, features="def encode():\n    return 1\n")
    assert call("features.py:encode", base) == 1
    assert load_object("json:dumps", base) is json.dumps


def test_a_version_of_a_file_runs_once(tmp_path: Path) -> None:
    """The same content gives the same object, changed content a new one."""
    base = write(tmp_path, f="class A: ...\n")
    first = load_object("f.py:A", base)
    assert load_object("f.py:A", base) is first
    assert pickle.loads(pickle.dumps(first)) is first
    write(tmp_path, f="class A:\n    new = True\n")
    assert load_object("f.py:A", base) is not first


def test_byte_code_next_to_a_file_is_not_run(tmp_path: Path) -> None:
    """A planted `__pycache__` that passes for a sibling's own is ignored, and none is written."""
    base = write(
        tmp_path, f="from secret_sibling import value\n", secret_sibling="def value(): ..."
    )
    evil = tmp_path / "evil.src"
    evil.write_text("def value(): return 'planted'\n")
    planted = Path(importlib.util.cache_from_source(str(tmp_path / "secret_sibling.py")))
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(str(evil), str(planted), invalidation_mode=unchecked)
    assert call("f.py:value", base) is None
    assert [p.name for p in planted.parent.iterdir()] == [planted.name]


def test_what_runs_is_what_was_hashed(tmp_path: Path) -> None:
    """Neither the first file nor another is run if it was changed after it was hashed."""
    base = write(tmp_path, f="import g\nx = 1\n", g="")
    before = Listed(hashes(imported_files(base, "f.py")))
    for name in ("g", "f"):
        write(tmp_path, **{name: f"{name} = 1\n"})
        with pytest.raises(FunctionError, match=rf"{name}\.py was changed"):
            load_object("f.py:x", base, before)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("x = 1\ny = (\n", r"f\.py, line 2"),
        ("x = 1\n\nraise KeyError('k')\n", r"f\.py, line 3: KeyError"),
        ("import nosuchmodule\n", r"f\.py, line 1.*install the module"),
        ("import sys; sys.exit(3)\n", "SystemExit"),
        ("x = 1\n", "defines no 'encode'.*name one of: x"),
        ("\0", "f.py"),
    ],
)
def test_broken_files_are_explained(tmp_path: Path, source: str, says: str) -> None:
    """A failing import is a FunctionError with file, line and remedy."""
    with pytest.raises(FunctionError, match=says):
        load_object("f.py:encode", write(tmp_path, f=source))


def test_a_sibling_that_fails_is_named(tmp_path: Path) -> None:
    """The line is the one in the sibling at fault."""
    base = write(tmp_path, f="import bad_sibling\n", bad_sibling="\n1 / 0\n")
    with pytest.raises(FunctionError, match=r"bad_sibling\.py, line 2: ZeroDivisionError"):
        load_object("f.py:x", base)


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("nosuch.py:f", "cannot be read"),
        ("../outside.py:f", "is outside"),
        ("/etc/outside.py:f", "is outside"),
        ("link.py:f", "is outside"),
        ("f.py", "must read"),
        ("f.py:a.b", "must read"),
        (":x", "must read"),
        ("nosuch.module:x", "cannot be imported"),
        ("..x:y", "cannot be imported"),
    ],
)
def test_bad_references_are_explained(tmp_path: Path, reference: str, says: str) -> None:
    """A reference that is malformed, missing or outside of the base is a FunctionError."""
    (tmp_path / "outside.py").write_text("f = 1\n")
    base = Path(write(tmp_path / "base"))
    (base / "link.py").symlink_to(tmp_path / "outside.py")
    with pytest.raises(FunctionError, match=says):
        load_object(reference, str(base))
