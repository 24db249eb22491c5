"""Scores Parquet tables with a model; every row is accounted for before it is published.

What is in `__all__` is for code of others: jobs, model folders, profiles of tables, and how two
profiles differ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batchscore.api import BackfillResult, CheckResult, RunResult, backfill, check, run
    from batchscore.commands.compare import compare
    from batchscore.commands.files import read_profile, write_profile
    from batchscore.commands.profile import profile
    from batchscore.commands.report import write_report
    from batchscore.commands.save_model import SavedModel, save_model
    from batchscore.errors import (
        BatchscoreError,
        FailedError,
        InvalidError,
        RetryError,
        StoppedError,
    )
    from batchscore.models.features import Features
    from batchscore.models.fitting import Category, DatePart, Number, fit_features
    from batchscore.score.transform import Score

__version__ = "0.1.0"
__all__ = [
    "BackfillResult",
    "BatchscoreError",
    "Category",
    "CheckResult",
    "DatePart",
    "FailedError",
    "Features",
    "InvalidError",
    "Number",
    "RetryError",
    "RunResult",
    "SavedModel",
    "Score",
    "StoppedError",
    "backfill",
    "check",
    "compare",
    "fit_features",
    "profile",
    "read_profile",
    "run",
    "save_model",
    "write_profile",
    "write_report",
]

_HOMES = {
    **dict.fromkeys(("BackfillResult", "CheckResult", "RunResult"), "batchscore.api"),
    **dict.fromkeys(("backfill", "check", "run"), "batchscore.api"),
    **dict.fromkeys((name for name in __all__ if name.endswith("Error")), "batchscore.errors"),
    **dict.fromkeys(("SavedModel", "save_model"), "batchscore.commands.save_model"),
    **dict.fromkeys(
        ("Category", "DatePart", "Number", "fit_features"), "batchscore.models.fitting"
    ),
    "Features": "batchscore.models.features",
    "Score": "batchscore.score.transform",
    "compare": "batchscore.commands.compare",
    "profile": "batchscore.commands.profile",
    "read_profile": "batchscore.commands.files",
    "write_profile": "batchscore.commands.files",
    "write_report": "batchscore.commands.report",
}


def __getattr__(name: str) -> Any:
    """Imports a function when it is asked for, since Arrow and NumPy take half a second."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
