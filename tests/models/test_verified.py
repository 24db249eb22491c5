"""Test that a model folder's code is run from the bytes that were hashed, and nothing else is."""

from __future__ import annotations

import importlib.util
import py_compile
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from batchscore.errors import FunctionError, ModelError
from batchscore.models.backends.torch import load
from batchscore.models.folder import read_model_folder
from batchscore.models.loadable import localize, read_sources
from batchscore.models.verified import load_verified
from tests.factory import NET, STATE, run_cli, write_job, write_model, write_weights
from tests.models.backends.torch.networks import call as score_of
from tests.models.backends.torch.networks import describe, score


def call(folder: Path, file: str = "f", **files: str) -> Any:
    """Call `value` of a file, of files that lie nowhere on disk."""
    sources = {f"{each}.py": text.encode() for each, text in files.items()}
    function: Any = load_verified(f"{file}.py:value", folder, sources)
    return function()


def test_files_import_each_other_by_name(tmp_path: Path) -> None:
    """A file finds the others at its top, within functions, and in a circle; no other code does."""
    main = (
        "import verified_helper\nfrom verified_helper import two\n"
        "def value():\n    import verified_late as late\n"
        "    return verified_helper.one(), two, late.THREE\nONE = 1\n"
    )
    helper = "import f\ntwo = 2\ndef one():\n    return f.ONE\n"
    files = {"f": main, "verified_helper": helper, "verified_late": "THREE = 3\n"}
    assert call(tmp_path, **files) == (1, 2, 3)
    assert not {"f", "verified_helper", "verified_late"} & {*sys.modules}


def test_a_version_of_the_files_runs_once(tmp_path: Path) -> None:
    """The same bytes give the same object; other bytes of any file, or an edition, a new one."""
    one = load_verified("f.py:A", tmp_path, {"f.py": b"class A: ...\n"})
    assert load_verified("f.py:A", tmp_path, {"f.py": b"class A: ...\n"}) is one
    others = [
        load_verified("f.py:A", tmp_path, {"f.py": b"class A: ...\n", "g.py": b""}),
        load_verified("f.py:A", tmp_path, {"f.py": b"class A: ...\n"}, 1),
    ]
    assert len({one, *others}) == 3


def test_nothing_else_of_the_folder_is_run(tmp_path: Path) -> None:
    """A file that is not listed is not imported, nor is byte code that lies there."""
    (tmp_path / "verified_stray.py").write_text("x = 1\n")
    with pytest.raises(FunctionError, match=r"verified_stray.*list it in model\.yaml"):
        call(tmp_path, f="import verified_stray\n")
    with pytest.raises(FunctionError, match="verified files"):
        call(tmp_path, file="verified_stray", f="")
    (tmp_path / "evil.src").write_text("def value(): return 'planted'\n")
    planted = importlib.util.cache_from_source(str(tmp_path / "f.py"))
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(str(tmp_path / "evil.src"), planted, invalidation_mode=mode)
    assert call(tmp_path, f="def value(): return 1\n") == 1


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"f": "x = (\n"}, r"f\.py is not valid Python.*line 1"),
        ({"f": "import g\n", "g": "\n1 / 0\n"}, r"g\.py, line 2: ZeroDivisionError"),
        ({"f": "import sys; sys.exit(3)\n"}, "SystemExit"),
        ({"f": "def other(): ...\n"}, "defines no 'value'.*name one of: other"),
    ],
)
def test_broken_files_are_explained(tmp_path: Path, files: dict[str, str], says: str) -> None:
    """A failing import is a FunctionError with file, line and remedy."""
    with pytest.raises(FunctionError, match=says):
        call(tmp_path, **files)


def test_a_file_may_try_an_import(tmp_path: Path) -> None:
    """A listed file whose import fails raises that error in the file that imports it."""
    main = "try:\n    import g\nexcept ImportError:\n    g = None\ndef value(): return g\n"
    assert call(tmp_path, f=main, g="import nosuchmodule\n") is None


def test_the_network_is_of_the_bytes_that_were_hashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network file that is replaced after it was read is not run, whatever is on disk then."""
    folder = write_model(tmp_path)
    model = read_model_folder(str(folder))

    def read_and_replace(*args: Any) -> dict[str, bytes]:
        sources = read_sources(*args)
        (folder / "net.py").write_text("raise SystemExit('replaced')\n")
        return sources

    monkeypatch.setattr(load, "read_sources", read_and_replace)
    network = load.load_network(model, "cpu")
    assert score_of(network) == [0.125, 0.625]
    with pytest.raises(ModelError, match="has SHA-256"):
        load.load_network(model, "cpu")


def test_the_network_of_a_weights_file_is_of_the_bytes_that_were_hashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job's own network file that changes between its hash and its import is refused."""
    write_weights(tmp_path / "w.safetensors")
    model = describe(tmp_path, "w.safetensors")

    def localize_and_replace(*args: Any) -> Path:
        folder = localize(*args)
        (tmp_path / "net.py").write_text(f"# changed\n{NET}")
        return folder

    monkeypatch.setattr(load, "localize", localize_and_replace)
    with pytest.raises(FunctionError, match="was changed"):
        load.load_network(model, "cpu")


CALLED = """
import functools, os, pathlib
from os import mkdir, makedirs
from pathlib import Path
from torch.nn import Identity
made = functools.partial(makedirs)
late = pathlib.Path("x").touch
"""


@pytest.mark.parametrize(
    ("architecture", "args"),
    [
        ("os:mkdir", {"path": "called"}),
        ("os:makedirs", {"name": "called"}),
        ("subprocess:Popen", {"args": ["mkdir", "called"]}),
        ("net.py:mkdir", {"path": "called"}),
        ("net.py:makedirs", {"name": "called"}),
        ("net.py:made", {"name": "called"}),
        ("net.py:late", {}),
        ("net.py:os", {}),
        ("net.py:Path", {}),
    ],
)
@pytest.mark.parametrize("kind", ["folder", "file"])
def test_only_own_code_and_modules_of_torch_are_called(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    architecture: str,
    args: dict[str, Any],
    kind: str,
) -> None:
    """What an architecture names of another module is refused before anything calls it."""
    monkeypatch.chdir(tmp_path)
    facts: dict[str, Any] = {"architecture": architecture, "architecture_args": args}
    if kind == "folder":
        model = read_model_folder(str(write_model(tmp_path / "m", NET + CALLED, **facts)))
    else:
        write_weights(tmp_path / "w.safetensors")
        model = describe(tmp_path, "w.safetensors", NET + CALLED, **facts)
    with pytest.raises(ModelError, match=r"expected a class or a function that is defined in"):
        load.load_network(model, "cpu")
    assert not (tmp_path / "called").exists()
    assert not (tmp_path / "x").exists()


REFUSED = {
    "antigravity": "Python's own library",
    "this": "Python's own library",
    "distutils.core": "Python's own library",
    "idlelib.idle": "Python's own library",
    "test.autotest": "Python's own library",
    "torch.utils.bottleneck.__main__": "is a program",
    "__main__": "is a program",
    "harmful_plugin": "a package that does not use torch",
    "harmful_tools.sub": "a package that does not use torch",
}


@pytest.mark.parametrize(("module", "why"), REFUSED.items())
def test_a_module_without_networks_is_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, why: str
) -> None:
    """What an import does is not done where the module cannot hold a network."""
    (tmp_path / "tools/harmful_tools").mkdir(parents=True)
    for name in ("harmful_plugin", "harmful_tools/__init__", "harmful_tools/sub"):
        (tmp_path / f"tools/{name}.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(tmp_path / "tools")
    before = {*sys.modules}
    folder = write_model(tmp_path / "m", architecture=f"{module}:Net")
    with pytest.raises(ModelError, match=f"{module} .*{why}.*not imported; expected a class"):
        load.load_network(read_model_folder(str(folder)), "cpu")
    assert not {name for name in {*sys.modules} - before if name.startswith(module)}


def test_a_module_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    """A name that no module has, or that a package lacks, is an error of its import."""
    for module in ("nosuch_module", "torch.nosuch_module"):
        folder = write_model(tmp_path / module, architecture=f"{module}:Net")
        with pytest.raises(FunctionError, match=f"'{module}' cannot be imported"):
            load.load_network(read_model_folder(str(folder)), "cpu")


@pytest.mark.parametrize("place", ["nets_of_others.py", "nets_of_others/__init__.py", "folder"])
def test_a_network_of_an_installed_module_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """It may be a file, a package that holds it in another module, or a folder without any."""
    files = {"nets_of_others.py": NET, "nets_of_others/__init__.py": "from .net import Net\n"}
    monkeypatch.syspath_prepend(tmp_path / "tools")
    (tmp_path / "tools/nets_of_others").mkdir(parents=True)
    (tmp_path / "tools/nets_of_others/net.py").write_text(NET)
    if place != "folder":
        (tmp_path / "tools" / place).write_text(files[place])
    if place == "nets_of_others.py":
        shutil.rmtree(tmp_path / "tools/nets_of_others")
    module = "nets_of_others.net" if place == "folder" else "nets_of_others"
    for name in ("nets_of_others", "nets_of_others.net"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    folder = write_model(tmp_path / "m", architecture=f"{module}:Net")
    assert score(read_model_folder(str(folder))) == [0.125, 0.625]


FACTORIES = {
    "function": "def make(): return Net()",
    "lambda": "make = lambda: Net()",
    "decorated": "@torch.no_grad()\ndef make(): return Net()",
    "class": "class make:\n    def __new__(cls): return Net()",
    "of a sibling": "from sibling_maker import make as found\ndef make(): return found(Net)",
}


@pytest.mark.parametrize("make", FACTORIES.values(), ids=FACTORIES.keys())
@pytest.mark.parametrize("kind", ["folder", "file"])
def test_own_code_of_any_form_is_called(tmp_path: Path, make: str, kind: str) -> None:
    """Functions, decorated ones, and classes that are no modules may build the network."""
    net = f"{NET}\n{make}\n".replace("super().__init__()", "nn.Module.__init__(self)")
    if kind == "folder":
        files = {"sibling_maker.py": b"def make(kind): return kind()\n"}
        folder = write_model(tmp_path, net, more=files, architecture="net.py:make")
        model = read_model_folder(str(folder))
    else:
        (tmp_path / "sibling_maker.py").write_text("def make(kind): return kind()\n")
        write_weights(tmp_path / "w.safetensors")
        model = describe(tmp_path, "w.safetensors", net, architecture="net.py:make")
    assert score(model) == [0.125, 0.625]


def test_a_module_of_an_installed_package_is_called(tmp_path: Path) -> None:
    """A card may name a subclass of torch.nn.Module of any package."""
    state = {name.partition(".")[2]: each for name, each in STATE.items()}
    args = {"in_features": 2, "out_features": 1}
    folder = write_model(
        tmp_path, state=state, architecture="torch.nn:Linear", architecture_args=args
    )
    assert score(read_model_folder(str(folder))) == [0.125, 0.625]


def test_a_card_that_calls_a_command_ends_in_exit_2(tmp_path: Path) -> None:
    """`check` and `run` of a card that names `os:system` call nothing."""
    job = write_job(tmp_path)
    args = {"command": f"touch {tmp_path}/called"}
    write_model(tmp_path / "model", architecture="os:system", architecture_args=args)
    for command in ("check", "run"):
        done = run_cli(command, job)
        assert (done.exit_code, (tmp_path / "called").exists()) == (2, False)
        assert "architecture os:system" in done.output
