"""Beam's graph, built and run without parsing the same options and signatures again and again.

For each of a graph's steps Beam asks the options for several views, and each view parses all flags
with a parser of its own. Each time it looks at a DoFn it takes the signatures of all its methods.
Together these are more than half of what a graph costs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from types import MethodType
from typing import Any

from batchscore.beam_import import PipelineOptions
from batchscore.engines.beam_private import core

_Signature = tuple[list[str], list[Any]]

_BEAMS: Callable[[Any], _Signature] = core.get_function_args_defaults


def quick_options(flags: Sequence[str]) -> PipelineOptions:
    """Returns Beam options that make each view of them once; all views share the values."""
    options = PipelineOptions(list(flags))
    vars(options)["view_as"] = cache(options.view_as)
    return options


@contextmanager
def quick_signatures() -> Iterator[None]:
    """Inside, in this process, Beam takes the signature of each method once.

    Of two that overlap the first to end ends both, which costs the other no more than time.
    """
    known: dict[object, _Signature] = {}

    def remembered(function: Any) -> _Signature:
        if not isinstance(function, MethodType):
            return _BEAMS(function)
        key = function.__func__
        if key not in known:
            known[key] = _BEAMS(function)
        names, defaults = known[key]
        return [*names], [*defaults]

    vars(core)["get_function_args_defaults"] = remembered
    try:
        yield
    finally:
        vars(core)["get_function_args_defaults"] = _BEAMS
