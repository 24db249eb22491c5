"""Beam's graph, built and run without parsing the same options and signatures again and again.

For each of a graph's steps Beam asks the options for several views, and each view parses all flags
with a parser of its own. Several times for each DoFn it looks through all its methods, and takes
their signatures. Together these are more than half of what a graph costs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from types import MethodType
from typing import Any
from weakref import ref

from batchscore.engines.beam_private import core, userstate
from batchscore.system.beam_import import PipelineOptions

_Signature = tuple[list[str], list[Any]]

_Specs = tuple[set[Any], set[Any]]

_BEAMS: Callable[[Any], _Signature] = core.get_function_args_defaults
_BEAMS_SPECS: Callable[[Any], _Specs] = userstate.get_dofn_specs


def quick_options(flags: Sequence[str]) -> PipelineOptions:
    """Returns Beam options that make each view of them once; all views share the values."""
    options = PipelineOptions(list(flags))
    vars(options)["view_as"] = cache(options.view_as)
    return options


@contextmanager
def quick_signatures() -> Iterator[None]:
    """Inside, in this process, Beam takes the signature of each method, and looks at a DoFn, once.

    Of two that overlap the first to end ends both, which costs the other no more than time.
    """
    known: dict[object, _Signature] = {}
    # A DoFn need not be hashable. Another one may get the id of one that is gone.
    seen: dict[int, tuple[ref[Any], _Specs]] = {}

    def remembered(function: Any) -> _Signature:
        if not isinstance(function, MethodType):
            return _BEAMS(function)
        key = function.__func__
        if key not in known:
            known[key] = _BEAMS(function)
        names, defaults = known[key]
        return [*names], [*defaults]

    def looked_at(dofn: Any) -> _Specs:
        found = seen.get(id(dofn))
        if found is None or found[0]() is not dofn:
            found = seen[id(dofn)] = ref(dofn), _BEAMS_SPECS(dofn)
        states, timers = found[1]
        return {*states}, {*timers}

    vars(core)["get_function_args_defaults"] = remembered
    vars(userstate)["get_dofn_specs"] = looked_at
    try:
        yield
    finally:
        vars(core)["get_function_args_defaults"] = _BEAMS
        vars(userstate)["get_dofn_specs"] = _BEAMS_SPECS
