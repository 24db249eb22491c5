"""Beam options as flags of a command line: from the job file, and validated."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Mapping, Sequence

from batchscore.engines.beam_version import require_tested_beam
from batchscore.errors import JobFileError
from batchscore.system.imports import uncollected

Option = str | int | float | bool | tuple[str, ...]


def as_flags(options: Mapping[str, Option]) -> list[str]:
    """Returns the flags of a mapping: true is a flag without a value, false is none."""
    flags: list[str] = []
    for name, value in options.items():
        if isinstance(value, bool):
            flags += [f"--{name}"] if value else []
        else:
            values = value if isinstance(value, tuple) else (value,)
            flags += [f"--{name}={each}" for each in values]
    return flags


_RUNNERS = {
    "DirectOptions": "Beam's direct runner",
    "FlinkRunnerOptions": "Beam's Flink runner",
    "JobServerOptions": "runners with a job server",
    "KafkaStreamsRunnerOptions": "Beam's Kafka Streams runner",
    "PortableOptions": "runners with a job server",
    "PrismRunnerOptions": "Beam's Prism runner",
    "SparkRunnerOptions": "Beam's Spark runner",
}
"""What Beam's options are of that are for some runners only, by their class."""


def parse_flags(
    flags: Sequence[str],
    ours: Mapping[str, str],
    engine: str = "",
    taken: Collection[str] = tuple(_RUNNERS),
) -> argparse.Namespace:
    """Returns the values of Beam's options, those with defaults as well.

    Args:
        flags: Options as on a command line.
        ours: Options that belong elsewhere, each with the key of the job file that sets it.
        engine: Name of the engine that they are for.
        taken: Classes of options of some runners only that the engine takes.

    Raises:
        JobFileError: Beam does not know a flag, the flag is set by the job file, or it is of
            another engine.
        InvalidError: Beam has a version that was not tested.
    """
    require_tested_beam()
    with uncollected():
        from batchscore.engines.beam_private import option_parser
    try:
        known, unknown = option_parser().parse_known_args(list(flags))
    except (argparse.ArgumentError, SystemExit) as error:
        raise JobFileError(f"Beam options {' '.join(flags)!r}: {error}") from error
    if unknown:
        raise JobFileError(
            f"Beam option {unknown[0]!r}: Beam has no such option; put batchscore's own options "
            "before the --"
        )
    for flag in flags:
        name = flag.split("=")[0].removeprefix("--")
        if name in ours:
            raise JobFileError(
                f"Beam option '--{name}': {ours[name]} sets it; give it there, in the job file "
                "or with --set"
            )
    _refuse_others(flags, engine, _RUNNERS.keys() - set(taken))
    return known


def _refuse_others(flags: Sequence[str], engine: str, kinds: Collection[str]) -> None:
    from batchscore.engines.beam_private import options_of

    others = options_of(kinds) if flags else {}
    for flag in flags:
        name = flag.split("=")[0]
        if name in others:
            raise JobFileError(
                f"Beam option '{name}': is of {_RUNNERS[others[name]]}, and the engine is "
                f"{engine}, which would ignore it; take it out of runtime.options or the command "
                "line, or choose another engine"
            )
