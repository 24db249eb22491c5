"""Test which files user code may read, and that it is refused whatever it does with the error."""

from __future__ import annotations

import py_compile
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from batchscore.errors import FunctionError
from batchscore.models.code import hashes, load_object
from batchscore.models.imported import imported_files
from batchscore.models.importing import Code, Listed, guarded
from batchscore.models.modules import Tree
from batchscore.models.watching import may_read
from tests.models.test_importing import write

pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)

PRELUDE = "import json, os, pathlib, sqlite3\nHERE = pathlib.Path(__file__).parent\n"
# How a function reads the file `data/it`.
READS = {
    "open": "open(HERE / 'data/it').read()",
    "open of bytes": "open(os.fsencode(HERE / 'data/it'), 'rb').read()",
    "open to change": "open(HERE / 'data/it', 'r+').read()",
    "pathlib": "(HERE / 'data' / 'it').read_text()",
    "a relative path": "os.chdir(HERE) or open('data/../data/it').read()",
    "os.open": "os.read(os.open(HERE / 'data/it', os.O_RDONLY), 9)",
    "json": "json.load(open(HERE / 'data/it'))",
    "mmap": "(lambda file: __import__('mmap').mmap(file.fileno(), 0, prot=1))"
    "(open(HERE / 'data/it', 'rb'))",
    "gzip": "__import__('gzip').open(HERE / 'data/it').read()",
    "sqlite": "sqlite3.connect(HERE / 'data/it').execute('select * from t').fetchall()",
    "sqlite by address": "sqlite3.connect(f'file:{HERE}/data/it?mode=ro', uri=True)",
    "a library": "__import__('ctypes').CDLL(str(HERE / 'data/it'))",
    "runpy": "__import__('runpy').run_path(str(HERE / 'data/it'))",
    "numpy": "__import__('numpy').load(HERE / 'data/it')",
    "numpy memmap": "__import__('numpy').load(HERE / 'data/it', mmap_mode='r')",
    "pandas csv": "__import__('pandas').read_csv(HERE / 'data/it')",
    "torch": "__import__('torch').load(HERE / 'data/it')",
    "torch mmap": "__import__('torch').load(str(HERE / 'data/it'), mmap=True)",
    "a thread": "list(__import__('concurrent.futures').futures.ThreadPoolExecutor(1)"
    ".map(lambda path: open(path).read(), [HERE / 'data/it']))",
}


def write_data(path: Path, kind: str) -> None:
    """A file that the reader can read, were it allowed to."""
    path.parent.mkdir(exist_ok=True)
    if "numpy" in kind:
        np.save(path.with_suffix(".npy"), np.zeros(3))
        path.with_suffix(".npy").rename(path)
    elif "torch" in kind:
        torch.save({"a": torch.zeros(2)}, path)
    elif "sqlite" in kind:
        with sqlite3.connect(path) as connection:
            connection.execute("create table t (a)")
    elif "csv" in kind:
        pd.DataFrame({"a": [1]}).to_csv(path)
    elif kind == "gzip":
        import gzip

        path.write_bytes(gzip.compress(b"1"))
    else:
        path.write_text("1")


def load(base: str, *data: str, **options: Any) -> Any:
    """The function `f.py:f`, which may read these files."""
    code = {
        **imported_files(base, "f.py"),
        **{name: Path(base, name).read_bytes() for name in data},
    }
    listed = Listed(hashes(code), **options)
    function: Any = load_object("f.py:f", base, listed)
    return guarded(function, base)


@pytest.mark.parametrize("kind", READS)
def test_a_file_that_is_not_listed_is_not_read(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names the place and the entry to add, and with it the function reads the file."""
    monkeypatch.chdir(tmp_path)
    base = write(tmp_path, {"f.py": f"{PRELUDE}def f():\n    return {READS[kind]}\n"})
    write_data(tmp_path / "data/it", kind)
    with pytest.raises(
        FunctionError, match=r"^f\.py, line \d, .*data/it.*code: \[data/it\], .*\[data\]\. If"
    ):
        load(base)()
    if kind not in ("a library", "sqlite by address"):
        load(base, "data/it")()


@pytest.mark.parametrize(
    "text",
    [
        "    try: return open(HERE / 'it').read()\n    except Exception: return 'a default'",
        "    try: return open(HERE / 'it')\n    except Exception as e: raise KeyError from e",
        "    try: return open(HERE / 'it').read()\n    finally: return 'a default'",
        "    import threading\n    def go():\n        try: open(HERE / 'it')\n"
        "        except Exception: pass\n"
        "    thread = threading.Thread(target=go)\n    thread.start()\n    thread.join()",
        "    try: import g\n    except Exception: return 'a default'",
    ],
)
def test_a_refusal_cannot_be_caught(tmp_path: Path, text: str) -> None:
    """A function that has a default for a file that it cannot read fails all the same."""
    base = write(tmp_path, {"f.py": f"{PRELUDE}def f():\n{text}\n", "it": "", "g.py": "open(HERE)"})
    (tmp_path / "g.py").write_text(f"{PRELUDE}\nopen(HERE / 'it')")
    function = load(base)
    for _ in range(2):
        with pytest.raises(FunctionError, match="reads it, which is in the job's folder"):
            function()


def test_a_listed_file_that_was_edited_since_is_not_read(tmp_path: Path) -> None:
    """Rows would be scored by two contents of it; what the code itself changes it may read."""
    base = write(tmp_path, {"f.py": "def f(path, *how):\n    return open(path, *how)", "it": "1"})
    (tmp_path / "own").write_text("1")
    function = load(base, "it", "own")
    for _ in range(2):
        assert function(tmp_path / "it").read() == "1"
    with function(tmp_path / "own", "r+") as own:
        own.write("mine")
    assert function(tmp_path / "own").read() == "mine"
    (tmp_path / "it").write_text("2 and more")
    for _ in range(2):
        with pytest.raises(FunctionError, match="it was changed since it was hashed; run again"):
            function(tmp_path / "it")


@pytest.mark.parametrize("before", [False, True], ids=["by this run", "by an earlier one"])
def test_a_file_of_the_codes_own_may_lie_elsewhere(before: bool, tmp_path: Path) -> None:
    """What C++ or a child process writes is not seen, so the message says where it may lie."""
    text = "import subprocess\ndef f(path):\n"
    text += "    subprocess.run(['sh', '-c', f'echo 1 > {path}'])\n"
    files = {"f.py": f"{text}    return open(path).read()", **({"it": "1"} if before else {})}
    function = load(write(tmp_path, files))
    with pytest.raises(FunctionError, match=r"code: \[it\]\. If the .*tempfile\.mkdtemp\(\)$"):
        function(tmp_path / "it")
    assert function(tmp_path.parent / f"{tmp_path.name}.it") == "1\n"


def test_a_file_that_is_read_at_the_import_is_refused(tmp_path: Path) -> None:
    """Loading the function fails, though the module would do without the file."""
    text = f"{PRELUDE}try: WORDS = open(HERE / 'it').read()\nexcept Exception: WORDS = ''\n"
    base = write(tmp_path, {"f.py": f"{text}def f(): return WORDS", "it": "words"})
    with pytest.raises(FunctionError, match=r"f\.py, line 3, reads it"):
        load(base)
    assert load(base, "it")() == "words"


ALLOWED = {
    "its own source": "open(__file__).read()",
    "a listed module": "open(HERE / 'g.py').read()",
    "a file elsewhere": "open(HERE.parent / 'elsewhere').read()",
    "what it wrote": "(HERE / 'new').write_text('1') and (HERE / 'new').read_text()",
    "what it wrote and moved": "(HERE / 'new').write_text('1') and "
    "[os.replace(HERE / 'new', HERE / 'final'), open(HERE / 'final').read()]",
    "what it made to change": "[open(HERE / 'made', 'a+').read() for _ in range(2)]",
    "a database of its own": "[sqlite3.connect(HERE / 'own.db').execute("
    "'create table if not exists t (a)') for _ in range(2)]",
    "an installed project's metadata": "open(HERE / 'src/project.egg-info/PKG-INFO').read()",
    "the lines that a traceback shows": "__import__('linecache').getlines(str(HERE / 'main.py'))",
    "a temporary file": "__import__('tempfile').TemporaryFile(dir=HERE).read()",
    "a cache": "open(HERE / '__pycache__/x').read()",
    "a hidden file": "open(HERE / '.cache/deep/x').read()",
    "an installed package": "open(HERE / 'venv/lib/site-packages/x').read()",
    "a virtual environment": "open(HERE / 'env/share/x').read()",
    "what pip installs into a folder": "open(HERE / 'vendor/package/x').read()",
    "a log": "open(HERE / 'log', 'a').write('x')",
    "a database in memory": "sqlite3.connect(':memory:').execute('select 1').fetchall()",
    "a folder": "os.listdir(HERE)",
    "a file of the model": "open(HERE / 'model/vocab.json').read()",
}


@pytest.mark.parametrize("kind", ALLOWED)
def test_what_decides_no_score_is_read(tmp_path: Path, kind: str) -> None:
    """Caches, files elsewhere, and what counts already."""
    folder = tmp_path / "job"
    files = {"f.py": f"{PRELUDE}import g\ndef f():\n    return {ALLOWED[kind]}\n", "g.py": ""}
    hidden = ("__pycache__/x", ".cache/deep/x", "venv/lib/site-packages/x")
    others = (*hidden, "model/vocab.json", "src/project.egg-info/PKG-INFO", "main.py", "log")
    installed = (
        "env/pyvenv.cfg",
        "env/share/x",
        "vendor/p-1.dist-info/METADATA",
        "vendor/package/x",
    )
    base = write(folder, {**files, **dict.fromkeys((*others, *installed), "")})
    (tmp_path / "elsewhere").write_text("")
    load(base, readable=frozenset({"model/vocab.json"}))()


def test_what_one_edition_wrote_another_reads(tmp_path: Path) -> None:
    """A run loads a function more than once, and each may make or read a cache."""
    text = "def f():\n    path = HERE / 'cache'\n    path.exists() or path.write_text('1')\n"
    base = write(tmp_path, {"f.py": f"{PRELUDE}{text}    return path.read_text()"})
    for edition in range(2):
        listed = Listed(hashes(imported_files(base, "f.py")))
        function: Any = load_object("f.py:f", base, listed, edition)
        assert guarded(function, base)() == "1"


def test_byte_code_is_read_as_its_source(tmp_path: Path) -> None:
    """A module that is loaded by its path is refused though Python only opens its byte code."""
    base = write(
        tmp_path,
        {
            "f.py": f"{PRELUDE}from importlib.util import module_from_spec\n"
            "from importlib.util import spec_from_file_location as spec_of\ndef f():\n"
            "    spec = spec_of('of_byte_code', HERE / 'lib/of_byte_code.py')\n"
            "    module = module_from_spec(spec)\n    spec.loader.exec_module(module)\n"
            "    return module.A",
            "lib/of_byte_code.py": "A = 1",
        },
    )
    py_compile.compile(str(tmp_path / "lib/of_byte_code.py"))
    with pytest.raises(FunctionError, match=r"reads lib/of_byte_code\.py"):
        load(base)()
    assert load(base, "lib/of_byte_code.py")() == 1


def test_a_job_in_the_root_folder_reads_what_the_system_has() -> None:
    """Files of the kernel, of time zones and of the configuration are no part of its code."""
    code = Code(Tree(Path("/")), Listed({}))
    assert may_read(code, "etc/hosts")
    assert may_read(code, "proc/cpuinfo")


def test_a_missing_file_is_missing(tmp_path: Path) -> None:
    """A file that does not exist needs no entry: the function gets the error of plain Python."""
    base = write(tmp_path, {"f.py": f"{PRELUDE}def f():\n    return open(HERE / 'none')\n"})
    with pytest.raises(FileNotFoundError):
        load(base)()


def test_a_linked_folder_is_watched_by_all_its_paths(tmp_path: Path) -> None:
    """A job that is reached by a link may name its files by either path."""
    base = write(tmp_path / "job", {"f.py": "def f(path): return open(path).read()", "it": ""})
    (tmp_path / "link").symlink_to("job")
    function = load(str(tmp_path / "link"))
    for path in (tmp_path / "link/it", Path(base, "it")):
        with pytest.raises(FunctionError, match=r"code: \[it\]"):
            function(path)


def test_readers_that_are_not_pythons_are_not_seen(tmp_path: Path) -> None:
    """Arrow opens files without an audit event: this is the limit that the docs name."""
    text = "import pyarrow.parquet as pq\ndef f(path): return pq.read_table(path).num_rows"
    base = write(tmp_path, {"f.py": text})
    pq.write_table(pa.table({"a": [1]}), tmp_path / "it")
    assert load(base)(tmp_path / "it") == 1


def test_other_code_reads_what_it_wants(tmp_path: Path) -> None:
    """What this process reads itself is not watched, in the same folder and at the same time."""
    base = write(tmp_path, {"f.py": "def f(then): return then()", "it": "1"})
    load(base)
    assert (tmp_path / "it").read_text() == "1"


def test_names_are_spelled_for_yaml(tmp_path: Path) -> None:
    """The entry can be pasted into the job file as it is."""
    base = write(tmp_path, {"f.py": f"{PRELUDE}def f(): return open(HERE / 'a: b.json')\n"})
    (tmp_path / "a: b.json").write_text("")
    with pytest.raises(FunctionError, match=r'code: \["a: b\.json"\]'):
        load(base)()
