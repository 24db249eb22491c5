"""Test that user code imports as in plain Python, and that no other code sees its modules."""

from __future__ import annotations

import importlib
import multiprocessing
import pickle
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from batchscore.errors import FunctionError
from batchscore.models.code import hashes, load_object
from batchscore.models.imported import imported_files
from batchscore.models.importing import Listed, guarded, plain

# The files of a folder; `f.py` has a function `value`.
CASES: dict[str, Mapping[str, str]] = {
    "a package with relative imports": {
        "f.py": "from helpers.x import up\nimport helpers\ndef value(): return up(), helpers.ONE",
        "helpers/__init__.py": "from .deep.y import ONE",
        "helpers/x.py": "from . import z\nfrom .deep import y\ndef up(): return z.Z + y.ONE",
        "helpers/z.py": "Z = 7",
        "helpers/deep/__init__.py": "",
        "helpers/deep/y.py": "from ..base import ONE",
        "helpers/base.py": "ONE = 1",
    },
    "a folder without __init__.py": {
        "f.py": "import parts.one.a as a\nfrom parts import b\ndef value(): return a.A, b.B",
        "parts/one/a.py": "from parts.b import B\nA = B + 1",
        "parts/b.py": "B = 1",
    },
    "imports inside functions": {
        "f.py": "def value():\n    import g\n    from h.i import I\n    return g.late(), I",
        "g.py": "def late():\n    from h import i\n    return i.I + 1",
        "h/__init__.py": "",
        "h/i.py": "I = 1",
    },
    "a circle": {
        "f.py": "import g\nA = 1\ndef value(): return g.both()",
        "g.py": "import f\ndef both(): return f.A",
    },
    "a package's __all__": {
        "f.py": "from p import *\ndef value(): return one.ONE, two",
        "p/__init__.py": "__all__ = ['one', 'two']\ntwo = 2",
        "p/one.py": "ONE = 1",
    },
    "importlib": {
        "f.py": "import importlib\nfrom importlib import import_module\n"
        "def value():\n"
        "    a, b = importlib.import_module('p.a'), import_module('.b', 'p')\n"
        "    return a.A, b.B, __import__('p.a').a.A",
        "p/__init__.py": "",
        "p/a.py": "A = 1",
        "p/b.py": "B = 2",
    },
    "data of a package": {
        "f.py": "import pkgutil\nimport p\nfrom importlib.util import find_spec\n"
        "def value(): return pkgutil.get_data('p', 'a.py'), find_spec('p.a').origin[-6:]",
        "p/__init__.py": "from . import a",
        "p/a.py": "A = 1",
    },
    "data of a folder without __init__.py": {
        "f.py": "from importlib.resources import files\nimport p.a\n"
        "def value(): return [files(p).joinpath('a.py').read_text() for p in (p, 'p')]",
        "p/a.py": "A = 1",
    },
    "names of the standard library": {
        "f.py": "import random, types, queue, csv\nfrom statistics import mean\n"
        "def value(): return random.MINE, types.MINE, queue.MINE, csv.MINE, mean([1, 3])",
        **{f"{name}.py": "MINE = 1" for name in ("random", "types", "queue", "csv")},
        "statistics.py": "def mean(_): return 'mine'",
    },
    "names that Python has built in": {
        "f.py": "import sys, os, io, time\n"
        "def value(): return sys.byteorder, os.sep, io.SEEK_END, time.sleep",
        **{f"{name}.py": "raise SystemExit" for name in ("sys", "os", "io", "time")},
    },
    "installed packages next to folders of their names": {
        "f.py": "import json, email.message\nimport fractions\n"
        "def value(): return json.dumps(1), email.message.Message.__name__, fractions.F",
        "json/data.txt": "",
        "email/notes.txt": "",
        "fractions/__init__.py": "F = 'mine'",
    },
    "a package and a file of one name": {
        "f.py": "import g\ndef value(): return g.WHO",
        "g.py": "WHO = 'file'",
        "g/__init__.py": "WHO = 'package'",
    },
    "what is missing": {
        "f.py": "def one(): import p.none\n"
        "def two(): from p import none\n"
        "def three(): from p.a import none\n"
        "def four(): import nosuch\n"
        "def five(): import p.a.b\n"
        "def text(function):\n"
        "    try: function()\n"
        "    except ImportError as error: return str(error)\n"
        "def value(): return [text(each) for each in (one, two, three, four, five)]",
        "p/__init__.py": "",
        "p/a.py": "",
    },
    "modules' own facts": {
        "f.py": "import p.a\ndef value():\n"
        "    return [m.__file__[-6:] for m in (p, p.a)], p.a.NAME == '__main__', p.a.__doc__",
        "p/__init__.py": "",
        "p/a.py": "'''Doc.'''\nNAME = __name__\nif __name__ == '__main__': raise SystemExit",
    },
    "an __init__.py that hides the module of a name": {
        "f.py": "from p import a\nimport p.b as b\ndef value(): return a, b.B",
        "p/__init__.py": "a = 'attribute'",
        "p/a.py": "",
        "p/b.py": "B = 1",
    },
    "classes that look themselves up": {
        "f.py": "from g import Point, Kind\ndef value():\n"
        "    import copy, pickle, typing\n"
        "    there = pickle.loads(pickle.dumps([Point(1), Kind.A]))\n"
        "    same = there == [Point(1), Kind.A]\n"
        "    return same, typing.get_type_hints(Point), copy.copy(Point(2)).x",
        "g.py": "from __future__ import annotations\nimport dataclasses, enum\n"
        "@dataclasses.dataclass\nclass Point:\n    x: int\n"
        "class Kind(enum.Enum):\n    A = 1",
    },
    "a pickle of a class in a plain module": {
        "f.py": "import pickle\ndef unused(): import shapes.square\n"
        "def value():\n"
        "    found = b'cshapes.square\\nside\\n.'\n"
        "    return pickle.loads(found)(2), pickle._loads(found)(4)",
        "shapes/square.py": "def side(area): return area ** 0.5",
    },
}


def write(folder: Path, files: Mapping[str, str]) -> str:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return str(folder)


def in_python(folder: Path) -> str:
    """What plain Python, started in the folder, says of `f.value()`."""
    command = [sys.executable, "-B", "-c", "import f; print(repr(f.value()))"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def load(base: str, reference: str = "f.py:value") -> Any:
    function: Any = load_object(reference, base)
    return guarded(function, base)


def call(base: str, reference: str = "f.py:value") -> Any:
    return load(base, reference)()


@pytest.mark.parametrize("case", CASES)
def test_imports_are_those_of_plain_python(tmp_path: Path, case: str) -> None:
    """Packages, siblings and imports in functions find what they find in a process of their own."""
    base = write(tmp_path, CASES[case])
    before = {*sys.modules}
    assert plain(repr(call(base))) == in_python(tmp_path)
    found = {name for name in {*sys.modules} - before if not name.startswith("batchscore_user_")}
    files = {str(getattr(sys.modules[name], "__file__", "")) for name in found}
    assert not [file for file in files if file.startswith(base)]


def test_functions_of_two_jobs_do_not_share_modules(tmp_path: Path) -> None:
    """Neither at the start nor in a call, by whatever way they import."""
    text = "import shared\nimport importlib, pickle\ndef value():\n    from shared import part\n"
    text += "    load = b'cshared.part\\nWHO\\n.'\n"
    text += "    return shared.WHO, part.WHO, importlib.import_module('shared.part').WHO, "
    text += "pickle.loads(load)\n"
    for who in ("one", "two"):
        own = f"WHO = {who!r}"
        files = {"f.py": text, "shared/__init__.py": own, "shared/part.py": own}
        write(tmp_path / who, files)
    functions = [load(str(tmp_path / who)) for who in ("one", "two")]
    for _ in range(2):
        assert [function() for function in functions] == [("one",) * 4, ("two",) * 4]


def test_a_name_of_the_standard_library_stays_its_own_elsewhere(tmp_path: Path) -> None:
    """A file `random.py` is what the function imports, and not what a library imports."""
    base = write(
        tmp_path,
        {
            "f.py": "import colorsys, wave\nimport random\n"
            "def value(): return random.MINE, wave.Error",
            "random.py": "MINE = 1",
            "chunk.py": "raise SystemExit",
            "colorsys.py": "import random\nassert random.MINE",
        },
    )
    import random

    sys.modules.pop("wave", None)
    assert call(base)[0] == 1
    assert sys.modules["random"] is random


def test_jobs_that_extend_the_path_do_not_share_modules(tmp_path: Path) -> None:
    """Each finds what lies in the folder that it added, at the start and in a later call."""
    text = "import pathlib, sys\nsys.path.append(str(pathlib.Path(__file__).parent / 'lib'))\n"
    text += "import part\ndef value():\n    import late\n    return part.WHO, late.WHO"
    files = ("f.py", "lib/part.py", "lib/late.py")
    before, functions = [*sys.path], list[Any]()
    for job in ("one", "two"):
        base = write(tmp_path / job, {"f.py": text, **dict.fromkeys(files[1:], f"WHO = {job!r}")})
        with pytest.raises(FunctionError, match=r"imports lib/part\.py.* code: \[lib\]"):
            load(base)
        listed = Listed(hashes({file: Path(base, file).read_bytes() for file in files}))
        functions.append(guarded(cast(Any, load_object("f.py:value", base, listed)), base))
        assert sys.path == before
    assert [function() for function in functions] == [("one", "one"), ("two", "two")]
    assert not {"part", "late"} & {*sys.modules}


@pytest.mark.parametrize("how", ["importlib.import_module('g').W", "pickle.loads(b'cg\\nW\\n.')"])
def test_own_modules_win_however_they_are_asked_for(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module of the same name in the folder that Python was started in is not the job's."""
    monkeypatch.syspath_prepend(write(tmp_path / "elsewhere", {"g.py": "W = 'theirs'"}))
    text = f"import importlib, pickle\ndef unused(): import g\ndef value(): return {how}"
    assert call(write(tmp_path / "job", {"f.py": text, "g.py": "W = 'own'"})) == "own"


def test_a_package_that_is_installed_for_development_is_the_jobs_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below the job's folder its files count as code; what is installed there does not."""
    text = "import package.part, other\ndef value(): return package.part.WHO, other.__file__"
    base = write(
        tmp_path,
        {
            "f.py": text,
            "src/package/__init__.py": "",
            "src/package/part.py": "WHO = 'own'",
            "env/pyvenv.cfg": "",
            "env/lib/other.py": "",
        },
    )
    for folder in ("src", "env/lib"):
        monkeypatch.syspath_prepend(str(tmp_path / folder))
    expected = ["f.py", "src/package/__init__.py", "src/package/part.py"]
    assert [*imported_files(base, "f.py")] == expected
    assert call(base) == ("own", str(tmp_path / "env/lib/other.py"))
    assert "package" not in sys.modules
    del sys.modules["other"]


def test_threads_import_in_calls(tmp_path: Path) -> None:
    """A function that imports for the first time on another thread finds its modules there."""
    files = {"f.py": "def value():\n    from p import a\n    return a.A"}
    base = write(tmp_path, {**files, "p/__init__.py": "", "p/a.py": "A = 1"})
    function = load(base)
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(function())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [1] * 4


def test_processes_know_the_modules_that_they_were_forked_with(tmp_path: Path) -> None:
    """A class of a user's module goes to a child process and back."""
    files = {"f.py": "from g import Point\ndef value(): return Point(3)"}
    point = "import dataclasses\n@dataclasses.dataclass\nclass Point:\n    x: int"
    base = write(tmp_path, {**files, "g.py": point})
    made = call(base)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.map(_twice, [made]) == [type(made)(6)]
    assert pickle.loads(pickle.dumps(made)) == made


def _twice(point: Any) -> Any:
    return type(point)(2 * point.x)


def test_a_function_in_a_folder_sees_that_folder_and_the_jobs(tmp_path: Path) -> None:
    """Its own folder first; a module that both ways lead to runs once."""
    base = write(
        tmp_path,
        {
            "features/f.py": "import near\nimport far\nfrom features import near as same\n"
            "from . import near as relative\nimport twice\n"
            "def value(): return near.WHO, far.WHO, same is near is relative, twice.WHO",
            "features/near.py": "WHO = 'near'",
            "features/twice.py": "WHO = 'own'",
            "far.py": "WHO = 'far'",
            "twice.py": "WHO = 'job'",
        },
    )
    assert call(base, "features/f.py:value") == ("near", "far", True, "own")


@pytest.mark.parametrize("file", ["v1.2/f.py", "net.v2.py", "my-net.py", "g.py", "g/__init__.py"])
def test_files_of_any_name_are_loaded(tmp_path: Path, file: str) -> None:
    """A dot or a dash in a name, and a package of the same name, change nothing."""
    text = f"from side import S\ndef value(): return S, {file!r}"
    base = write(tmp_path, {"g/__init__.py": "", "side.py": "S = 1", file: text})
    assert call(base, f"{file}:value") == (1, file)


def test_an_edited_module_is_imported_again(tmp_path: Path) -> None:
    """A function sees the module of today though its own file is as before."""
    base = write(tmp_path, {"f.py": "from g import G\ndef value(): return G", "g.py": "G = 1"})
    first: Any = load_object("f.py:value", base)
    again: Any = load_object("f.py:value", base)
    assert again is first
    write(tmp_path, {"g.py": "G = 2"})
    assert (call(base), first()) == (2, 1)


def test_an_extension_module_is_imported(tmp_path: Path) -> None:
    """A compiled module next to a function is found by its platform's ending."""
    source = Path(str(importlib.import_module("_datetime").__file__))
    (tmp_path / source.name).write_bytes(source.read_bytes())
    base = write(tmp_path, {"f.py": "import _datetime\ndef value(): return _datetime.__file__"})
    assert call(base) == str(tmp_path / source.name)


def test_a_module_that_only_a_call_names_is_refused(tmp_path: Path) -> None:
    """What the text does not show is not known to be part of the code, and must be declared."""
    text = "import importlib\ndef value(name='g'): return importlib.import_module(name)"
    base = write(tmp_path, {"f.py": text, "g.py": ""})
    with pytest.raises(FunctionError, match=r"imports g\.py.*code: \[g\.py\]"):
        call(base)
