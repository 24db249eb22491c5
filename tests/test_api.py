"""What the package offers to other code: its names, its examples, and that it is there at once."""

from __future__ import annotations

import doctest
import subprocess
import sys
from importlib import import_module

import pytest

import batchscore
from tests.conftest import ROOT

# Others rely on these names: a change here is a change for them, and needs a reason.
ERRORS = ["BatchscoreError", "FailedError", "InvalidError", "RetryError", "StoppedError"]
JOBS = ["BackfillResult", "CheckResult", "RunResult", "Score", "backfill", "check", "run"]
MODELS = ["SavedModel", "save_model", "Features", "fit_features", "Category", "DatePart", "Number"]
TABLES = ["compare", "profile", "read_profile", "write_profile", "write_report"]


def test_the_names_are_frozen() -> None:
    """Nothing is offered, or taken back, without this list being changed."""
    names = sorted([*ERRORS, *JOBS, *MODELS, *TABLES])
    assert batchscore.__all__ == names
    assert set(names) <= set(dir(batchscore))
    assert all(callable(getattr(batchscore, name)) for name in names)
    with pytest.raises(AttributeError, match="no attribute 'profiel'"):
        batchscore.profiel  # noqa: B018


def test_the_package_is_there_at_once() -> None:
    """To import the package imports nothing heavy: a function brings what it needs."""
    heavy = {"numpy", "pyarrow", "pandas", "scipy", "torch", "apache_beam", "pydantic"}
    program = f"import sys, batchscore\nprint(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("name", ["commands.profile", "commands.compare", "models.fitting"])
def test_examples_are_true(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The docstrings' examples print what they show."""
    monkeypatch.chdir(ROOT)
    module = import_module(f"batchscore.{name}")
    done = doctest.testmod(module)
    assert done.attempted >= 3
    assert done.failed == 0
