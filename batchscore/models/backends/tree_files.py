"""Model files of trees: the package that reads them, and messages that name the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

from batchscore.errors import BatchscoreError, ModelError
from batchscore.messages.wording import reason

if TYPE_CHECKING:
    from batchscore.models.loadable import Model

INPUT = "features"
"""The one input of a model of trees, unless a card names it."""


_NAMES = {"sklearn": "scikit-learn"}
"""Packages by the module that they bring, if they have another name."""


def require_package(package: str, format: str = "", does: str = "need") -> None:
    """Looks for a package, and does not import it.

    Args:
        package: The module that it brings.
        format: The format of the models, which is the name of the extra too; if not the module's.
        does: What the models do with it.

    Raises:
        ModelError: It is not installed.
    """
    if find_spec(package) is None:
        extra = format or package
        raise ModelError(
            f"models of format {extra!r} {does} the package {_NAMES.get(package, package)}, which "
            f"is not installed: pip install 'batchscore[{extra}]'"
        )


@contextmanager
def importing(package: str) -> Iterator[None]:
    """Says of a package that is installed, and cannot be imported, what it lacks.

    Raises:
        ModelError: An import failed, most often for a library of the system.
    """
    try:
        yield
    except BatchscoreError:
        raise
    except Exception as error:  # XGBoost has an error of its own, NumPy's versions a ValueError
        raise ModelError(
            f"the package {_NAMES.get(package, package)} is installed, and cannot be imported "
            f"({reason(error)}); install what it lacks, such as the system's package libgomp1 for "
            "libgomp.so.1, or install it again"
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
