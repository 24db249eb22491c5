"""Test that the names of modules and classes say which one is meant, and that the root is small."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from functools import cache
from pathlib import Path

import batchscore

ROOT = Path(batchscore.__file__).parent
MOST_AT_THE_ROOT = 10
# A command: its arguments, what it prints, what it does.
COMMANDS = {"cli", "cli/render", "commands"}
# Each room in it holds one format. All of them may divide their work alike.
FORMATS = "models/backends"
# Places that share a name because they are about the same thing.
PAIRS = {
    "column_checks": {"job", "runs"},  # what a job may ask for; the judge of what was counted
    "compare": {"commands", "drift"},  # the command; the comparison of two columns that it makes
    "drift": {"cli", "cli/render", ""},  # arguments and lines of its commands; the room
    "finish": {"finish", ""},  # the room's step; the room
    "plan": {"plan", ""},
    "preloaded": {"engines", f"{FORMATS}/*"},  # what a server imports; torch's part of it
    "protocol": {"engines", "models/backends"},  # what each seam asks of what is plugged in
    "registry": {"engines", "models/backends"},  # what is plugged into each seam
    "report": {"commands", ""},
    "score": {"cli", ""},  # arguments of the commands that score; the room of `bs.Score`
}


# Classes that share a name because they hold the same thing for another reader.
TWINS = {"RowCounts": {"api.py", "runs/manifest_parts.py"}}  # of a result; of a stored manifest


def _room(named: Path) -> str:
    """Returns where a module lies; the rooms of all model formats count as one."""
    folder = named.parent.relative_to(ROOT)
    if folder.parent.as_posix() == FORMATS:
        return f"{FORMATS}/*"
    return "" if folder == Path() else folder.as_posix()


@cache
def _modules() -> dict[str, ast.Module]:
    """The parsed modules of the package, by their path in it."""
    return {
        path.relative_to(ROOT).as_posix(): ast.parse(path.read_text())
        for path in ROOT.rglob("*.py")
    }


def test_no_two_modules_of_one_name_mean_different_things() -> None:
    """Modules and rooms of one name are a command's parts, or pairs that are listed here."""
    places = defaultdict[str, set[str]](set)
    for path in ROOT.rglob("*.py"):
        named = path.parent if path.name == "__init__.py" else path.with_suffix("")
        if path.name != "__main__.py" and named != ROOT:
            places[named.name].add(_room(named))
    shared = {name: found for name, found in places.items() if len(found) > 1}
    strangers = {name: found for name, found in shared.items() if not found <= COMMANDS}
    assert strangers == PAIRS


def test_no_two_classes_have_one_name() -> None:
    """Each class of the package, private ones too, has a name of its own, or a twin listed here."""
    places = defaultdict[str, set[str]](set)
    for place, module in _modules().items():
        for node in module.body:
            if isinstance(node, ast.ClassDef):
                places[node.name.lstrip("_")].add(place)
    assert {name: found for name, found in places.items() if len(found) > 1} == TWINS


def test_the_root_has_few_modules() -> None:
    """What is new goes into a room: the root keeps at most ten modules."""
    modules = {path.stem for path in ROOT.glob("*.py")} - {"__init__", "__main__"}
    assert len(modules) <= MOST_AT_THE_ROOT, sorted(modules)


# What docs/architecture.md explains for all modules.
GENERAL = {"b", "n", "s"}
SUFFIX = re.compile(r"_*[a-z0-9]\w*?_([a-z][a-z0-9]?)")
# Two letters at a name's end that are a word or a unit.
WORDS = {"as", "at", "by", "do", "gb", "hi", "id", "in", "is", "it", "kb", "lo", "mb", "ms", "no"}
WORDS |= {"np", "ns", "of", "ok", "on", "or", "os", "pa", "py", "tb", "to", "tz", "up", "us"}


def _suffixes(module: ast.Module) -> set[str]:
    """Letters behind the names of a module's variables, arguments and attributes."""
    names = set[str]()
    for node in ast.walk(module):
        if isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add(node.attr)
    return {found[1] for name in names if (found := SUFFIX.fullmatch(name))} - WORDS


def test_each_module_says_what_the_suffixes_of_its_arrays_mean() -> None:
    """A module's docstring lists the suffixes that it uses, save those that all modules share."""
    silent = dict[str, set[str]]()
    for place, module in _modules().items():
        legend = (ast.get_docstring(module) or "").partition("Suffixes:")[2]
        said = set(re.findall(r"`_([a-z][a-z0-9]?)`", legend))
        used = _suffixes(module)
        if wrong := (used - said - GENERAL) | (said - used - {*"".join(used)}):
            silent[place] = wrong
    assert silent == {}
