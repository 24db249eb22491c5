"""Model files of trees: the package that reads them, and messages that name the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

from batchscore.errors import ModelError
from batchscore.messages.wording import reason

if TYPE_CHECKING:
    from batchscore.models.loadable import Model

INPUT = "features"
"""The one input of a model of trees, unless a card names it."""


def require_package(package: str, format: str = "") -> None:
    """Looks for a package, and does not import it; the extra has the name of the format."""
    if find_spec(package) is None:
        extra = format or package
        raise ModelError(
            f"models of format {extra!r} need the package {package}, which is not installed: "
            f"pip install 'batchscore[{extra}]'"
        )


@contextmanager
def importing(package: str) -> Iterator[None]:
    """Says of a package that is installed, and cannot be imported, what it lacks.

    Raises:
        ModelError: An import failed, most often for a library of the system.
    """
    try:
        yield
    except Exception as error:  # XGBoost has an error of its own, NumPy's versions a ValueError
        raise ModelError(
            f"the package {package} is installed, and cannot be imported ({reason(error)}); "
            "install what it lacks, such as the system's package libgomp1 for libgomp.so.1, or "
            "install it again"
        ) from error


def classes_said(classes: int) -> dict[str, str]:
    """Returns what a person may want to know of the classes; nothing of a model without any."""
    return {"classes": str(classes)} if classes > 1 else {}


@contextmanager
def naming_file(model: Model) -> Iterator[None]:
    """Puts the path of a model's file before the message of a ModelError."""
    try:
        yield
    except ModelError as error:
        raise ModelError(f"{model.folder}/{model.weights}: {error}") from error
