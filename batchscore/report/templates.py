"""The page's templates, with the filters that put figures and texts into words."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from batchscore.messages.wording import count, one_line
from batchscore.report import formats

if TYPE_CHECKING:
    import jinja2


def read_file(name: str) -> str:
    """Returns a file of this package."""
    return resources.files("batchscore.report").joinpath(name).read_text(encoding="utf-8")


def render(name: str, view: Mapping[str, Any]) -> str:
    """Returns a template filled with a view; texts become no markup."""
    return _environment().get_template(name).render(view, signs=formats.VERDICT_SIGNS)


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    import jinja2

    loader = jinja2.FunctionLoader(read_file)
    made = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    for name in ("figure", "seconds", "moment", "shown_name"):
        made.filters[name] = getattr(formats, name)
    made.filters |= {"count": count, "line": one_line, "explained": formats.explained}
    return made
