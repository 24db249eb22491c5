"""Test that the names of modules and classes say which one is meant, and that the root is small."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import batchscore

ROOT = Path(batchscore.__file__).parent
MOST_AT_THE_ROOT = 10
# A command: its arguments, what it prints, what it does.
COMMANDS = {"cli", "cli/render", "commands"}
# Places that share a name because they are about the same thing.
PAIRS = {
    "column_checks": {"job", "runs"},  # what a job may ask for; the judge of what was counted
    "compare": {"commands", "drift"},  # the command; the comparison of two columns that it makes
    "drift": {"cli", "cli/render", ""},  # arguments and lines of its commands; the room
    "finish": {"finish", ""},  # the room's step; the room
    "plan": {"plan", ""},
    "protocol": {"engines", "models/backends"},  # what each seam asks of what is plugged in
    "report": {"commands", ""},
}


# Classes that share a name because they are the same thing, told to another reader.
TWINS = {"RowCounts": {"api.py", "runs/manifest_model.py"}}  # of a result; of a stored manifest


def test_no_two_modules_of_one_name_mean_different_things() -> None:
    """Modules and rooms of one name are a command's parts, or pairs that are listed here."""
    places = defaultdict[str, set[str]](set)
    for path in ROOT.rglob("*.py"):
        named = path.parent if path.name == "__init__.py" else path.with_suffix("")
        if path.name != "__main__.py" and named != ROOT:
            folder = named.parent.relative_to(ROOT).as_posix()
            places[named.name].add("" if folder == "." else folder)
    shared = {name: found for name, found in places.items() if len(found) > 1}
    strangers = {name: found for name, found in shared.items() if not found <= COMMANDS}
    assert strangers == PAIRS


def test_no_two_classes_have_one_name() -> None:
    """Each class of the package, private ones too, has a name of its own, or a twin listed here."""
    places = defaultdict[str, set[str]](set)
    for path in ROOT.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                places[node.name.lstrip("_")].add(path.relative_to(ROOT).as_posix())
    assert {name: found for name, found in places.items() if len(found) > 1} == TWINS


def test_the_root_has_few_modules() -> None:
    """What is new goes into a room: the root keeps at most ten modules."""
    modules = {path.stem for path in ROOT.glob("*.py")} - {"__init__", "__main__"}
    assert len(modules) <= MOST_AT_THE_ROOT, sorted(modules)
