"""Where a run's time goes: what is measured, which stage limits it, and what would help."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from batchscore.phases import LOADING, PLANNING, PUBLISHING, SCORING, START_UP, Units, label, split

_CLOSE = 0.9
_LATE = 0.1
_WORTH_WORKERS_S = 5.0
_LARGE_BATCH = 65_536
_MANY_FILES = 16
_MANY_COLUMNS = 16


@dataclass(frozen=True)
class Metric:
    """One figure of a unit.

    Args:
        name: Its key in a unit's record.
        unit: `s` for a duration, `Unix s` for a moment.
        meaning: What it tells.
        thread: Thread of a worker, on which it is taken.
        join: Makes one figure of those of several units, whichever workers they were scored by.
    """

    name: str
    unit: str
    meaning: str
    thread: str
    join: Callable[[Iterable[float]], float] = sum


STAGES = (
    Metric("read", "s", "decoding row groups, casting, filtering", "reader"),
    Metric("preprocess", "s", "source columns to model inputs", "main"),
    Metric("infer", "s", "tiles through the network, checking that scores are finite", "main"),
    Metric("postprocess", "s", "model outputs to scores", "main"),
    Metric("explain", "s", "contributions of columns to the scores that are explained", "main"),
    Metric("profile", "s", "statistics of every column, hashes of unique keys", "profiler"),
    Metric("write", "s", "partitioning, encoding, compressing, hashing, writing", "writer"),
)
"""Busy seconds: each call counts once, on however many threads it works within."""

BETWEEN = (
    Metric("engine", "s", "Beam: what is left of the time between two batches", "main"),
    Metric("wait_read", "s", "no batch was read yet: the model waits for data", "main"),
    Metric(
        "wait_infer", "s", "the model's results are not there yet, or two batches precede", "main"
    ),
    Metric("wait_write", "s", "profiler or writer had no room for a batch yet", "main"),
)
"""The rest of the main thread's time: with its stages it makes up all of it."""

MOMENTS = (
    Metric("began", "Unix s", "the reader opened the unit", "reader", min),
    Metric("ended", "Unix s", "the unit's files and profile were whole", "main", max),
)

PARALLEL = (Metric("tiles", "s", "other threads that put tiles through the network", "tiles"),)
"""Work that is part of what another thread waits for."""

MEASURES = (*STAGES, *BETWEEN, *PARALLEL, *MOMENTS)

THREADS = (
    *(("read",), ("preprocess", "infer", "postprocess", "explain", "engine")),
    *(("profile",), ("write",)),
)
"""What keeps each thread of a worker busy; threads overlap, what shares one adds up."""

_GPU_THREADS = (
    *(("read",), ("preprocess", "postprocess", "explain", "engine")),
    *(("infer",), ("profile",), ("write",)),
)
_ALWAYS_MEASURED = ("engine", "wait_read", "wait_write")


def threads(seconds: Mapping[str, float]) -> tuple[tuple[str, ...], ...]:
    """Returns THREADS of a run; where results come late, as from a GPU, infer has its own."""
    return _GPU_THREADS if "wait_infer" in seconds else THREADS


def thread_of(measure: Metric, seconds: Mapping[str, float]) -> str:
    """Returns on which thread of a worker a measure was taken in a run."""
    late = measure.name == "infer" and "wait_infer" in seconds
    return "device" if late else measure.thread


@dataclass(frozen=True)
class Setting:
    """What a run worked with.

    Args:
        started: Start of the command, in Unix seconds.
        finished: End of its checks, in Unix seconds.
        before: Seconds by phase, until workers were started.
        workers: Processes that scored.
        cores: Cores that they shared.
        device: `cpu`, `cuda` or `cuda:N`.
        precision: Precision that the network computes with.
        units: Units that were scored.
        batch_rows: Rows of a batch.
        call_rows: Rows that the network sees at once, padded where a batch has fewer.
        model_columns: Input columns that the model reads.
        passed_columns: Columns that are written as they were read, next to the scores.
        files: Files that were written.
        partition_by: Columns whose values have files of their own.
        preprocess: The user's function, or none.
        pandas: Whether it takes pandas frames.
        postprocess: The user's functions, or none.
    """

    started: float
    finished: float
    before: Mapping[str, float] = field(default_factory=dict)
    workers: int = 1
    cores: int = 1
    device: str = "cpu"
    precision: str = "float32"
    units: int = 1
    batch_rows: int = _LARGE_BATCH
    call_rows: int = 1
    model_columns: int = 0
    passed_columns: int = 0
    files: int = 0
    partition_by: tuple[str, ...] = ()
    preprocess: str = ""
    pandas: bool = False
    postprocess: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """From start to end."""
        return max(0.0, self.finished - self.started)

    @property
    def at_work(self) -> int:
        """Workers that had a unit."""
        return max(1, min(self.workers, self.units))


@dataclass(frozen=True)
class Timings:
    """Where a run's time went; None is what was not measured.

    Args:
        limited_by: What to speed up first: a stage, `engine`, or a phase: `start-up`, `planning`,
            `loading` or `publishing`; two stages if they are within 10 % of each other.
        share: Share of the main threads' time that the first of these took, or was waited for where
            it is a GPU; for a phase, its share of the run.
        start_up_s: Seconds from the command's start until its first unit was opened.
        scoring_s: Seconds from then to the end of the run.
        finish_s: Of these, seconds of merging, checks and publishing after the last unit.
        thread_s: What the workers' main threads spent on units, waits among it, added up.
        waited_for_data: Share of `thread_s` in which a main thread had no batch to score.
        waited_for_writer: Share of it in which the batches before were not written yet.
        engine: Share of it that is Beam's.
        help: What would make the run faster, in a sentence.
    """

    limited_by: tuple[str, ...]
    share: float | None
    start_up_s: float | None
    scoring_s: float | None
    finish_s: float | None
    thread_s: float | None
    waited_for_data: float | None
    waited_for_writer: float | None
    engine: float | None
    help: str


def add_up(units: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Joins the figures of units into those of a run; what no unit measured is left out."""
    found = list(units)
    values = {m: [unit[m.name] for unit in found if m.name in unit] for m in MEASURES}
    return {measure.name: float(measure.join(each)) for measure, each in values.items() if each}


def explain(seconds: Mapping[str, float], run: Setting) -> Timings:
    """Tells what limited a run, and what would help.

    Args:
        seconds: Seconds by measure, joined over all units; those that are missing make it say less.
        run: What it worked with.
    """
    thread_s, phases = _thread_seconds(seconds), _phases(seconds, run)
    limited_by, share = _limit(seconds, run, phases, thread_s)
    return Timings(
        limited_by=limited_by,
        share=share,
        start_up_s=_together(phases, START_UP, PLANNING, LOADING),
        scoring_s=_together(phases, SCORING, PUBLISHING),
        finish_s=_together(phases, PUBLISHING),
        thread_s=thread_s,
        waited_for_data=_share(seconds.get("wait_read"), thread_s),
        waited_for_writer=_share(seconds.get("wait_write"), thread_s),
        engine=_share(seconds.get("engine"), thread_s),
        help=advise(limited_by[0], seconds, run),
    )


def _thread_seconds(seconds: Mapping[str, float]) -> float | None:
    """Returns all of the main threads' time, if what lies between their stages was measured.

    It is no less than another thread's: the last batches may be written on the main thread.
    """
    if any(name not in seconds for name in _ALWAYS_MEASURED):
        return None
    main = [m.name for m in (*STAGES, *BETWEEN) if thread_of(m, seconds) == "main"]
    return max(sum(seconds.get(name, 0.0) for name in main), *_loads(seconds))


def _together(phases: Mapping[str, float] | None, *names: str) -> float | None:
    return None if phases is None else sum(phases[name] for name in names)


def _share(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else min(1.0, part / whole)


def _phases(seconds: Mapping[str, float], run: Setting) -> dict[str, float] | None:
    """Returns the run's phases, if it was measured when its units were scored."""
    if "began" not in seconds or "ended" not in seconds:
        return None
    units = Units(seconds["began"] - run.started, seconds["ended"] - run.started)
    return split(run.seconds, run.before, units)


_OUTSIDE = (START_UP, PLANNING, LOADING, PUBLISHING)
"""Of these the longest limits a run, if it took longer than all units."""


def _limit(
    seconds: Mapping[str, float],
    run: Setting,
    phases: Mapping[str, float] | None,
    thread_s: float | None,
) -> tuple[tuple[str, ...], float | None]:
    """Returns what limits a run, and the share of the time that the first of it takes."""
    if phases is None:
        # Where no worker's busiest thread worked half of the time, something else took it.
        idle = (thread_s or max(_loads(seconds))) < run.seconds * run.at_work / 2
        longest, spent, units = START_UP, None, 0.0 if idle else run.seconds
    else:
        longest = max(_OUTSIDE, key=phases.__getitem__)
        spent = phases[longest]
        units = phases[SCORING] if phases[SCORING] >= spent else 0.0
    stages = limiting_stages(seconds)
    if not units or not stages:
        return (label(longest),), _share(spent, run.seconds)
    late = seconds.get(_WAITS.get(stages, ""), 0.0)
    return stages, _share(max(seconds.get(stages[0], 0.0), late), thread_s or units * run.at_work)


_WAITS: dict[tuple[str, ...], str] = {("infer",): "wait_infer", ("read",): "wait_read"}


def limiting_stages(seconds: Mapping[str, float]) -> tuple[str, ...]:
    """Returns the longest stage of the busiest thread; two, if that is not sure by 10 %.

    A GPU works on while its thread is idle: it is the limit where it was waited for most. So is a
    store that answers slowly, which the time of reading does not tell where it is tried again.
    """
    late, data, room = (
        seconds.get(name, 0.0) for name in ("wait_infer", "wait_read", "wait_write")
    )
    whole = _thread_seconds(seconds) or 0.0
    if late > max(data, room, _LATE * whole):
        return ("infer",)
    if data > max(late, room, whole / 2):
        return ("read",)
    loads = dict(zip(threads(seconds), _loads(seconds), strict=True))
    most = max(loads.values())
    found: list[str] = []
    for thread in (thread for thread, load in loads.items() if load >= _CLOSE * most > 0):
        longest = max(seconds.get(stage, 0.0) for stage in thread)
        found += [stage for stage in thread if seconds.get(stage, 0.0) >= _CLOSE * longest]
    busiest = next(thread for thread, load in loads.items() if load == most)
    return tuple(sorted(found, key=lambda s: (s not in busiest, -seconds.get(s, 0.0)))[:2])


def _loads(seconds: Mapping[str, float]) -> list[float]:
    return [sum(seconds.get(stage, 0.0) for stage in stages) for stages in threads(seconds)]


class _Case(NamedTuple):
    """What limits a run, and the evidence for what would help."""

    limit: str
    seconds: Mapping[str, float]
    run: Setting


_Rule: TypeAlias = Callable[[_Case], str]


def advise(limit: str, seconds: Mapping[str, float], run: Setting) -> str:
    """Returns what would make a run faster that `limit` limits, by what was measured of it."""
    said = (rule(_Case(limit, seconds, run)) for rule in _RULES[limit])
    return next(text for text in said if text)


def _cores_used(seconds: Mapping[str, float], run: Setting) -> float:
    """Returns how many cores were at work at most, on average, while units were scored."""
    whole = (_thread_seconds(seconds) or run.seconds * run.at_work) / run.at_work
    return (sum(_loads(seconds)) + seconds.get("tiles", 0.0)) / whole if whole else 0.0


def _more_workers(case: _Case) -> str:
    run, more = case.run, min(case.run.cores, case.run.units)
    used, spent = _cores_used(case.seconds, run), case.seconds.get(case.limit, 0.0) / run.at_work
    on_gpu = case.limit == "infer" and run.device != "cpu"
    if on_gpu or more <= run.workers or run.cores - used < 1 or spent < _WORTH_WORKERS_S:
        return ""
    return (
        f"runtime.workers: {more}, since with {run.workers} about {used:.1f} of {run.cores} cores "
        f"were busy, and there are {run.units} units"
    )


def _fewer_columns(case: _Case) -> str:
    passed, taken = case.run.passed_columns, case.run.model_columns
    if passed < max(_MANY_COLUMNS, 2 * taken):
        return ""
    verb = {"read": "read", "profile": "profiled", "write": "written"}[case.limit]
    return (
        f"fewer columns in output.columns: {passed:,} are {verb} to be passed through, and the "
        f"model takes {taken:,}"
    )


def _fewer_partitions(case: _Case) -> str:
    run = case.run
    if not run.partition_by or run.files < _MANY_FILES * run.units:
        return ""
    return (
        f"fewer values in output.partition_by: by {', '.join(run.partition_by)} {run.files:,} "
        "files were written"
    )


def _fill_calls(case: _Case) -> str:
    rows, filled = case.run.batch_rows, case.run.call_rows
    if rows >= filled:
        return ""
    return (
        f"runtime.batch_rows of {filled:,} or more, or auto: the network takes {filled:,} rows at "
        f"once, and a batch has {rows:,}"
    )


def _larger_batches(case: _Case) -> str:
    rows = case.run.batch_rows
    if rows >= _LARGE_BATCH:
        return ""
    return f"runtime.batch_rows above {rows:,}, since what Beam does is done once a batch"


def _more_cores(case: _Case) -> str:
    cores = case.run.cores
    busy = _cores_used(case.seconds, case.run) >= _CLOSE * cores
    return f"a machine with more cores than {cores}, all of which are busy" if busy else ""


def _own_function(case: _Case) -> str:
    run = case.run
    if case.limit == "preprocess" and run.pandas:
        return f"write {run.preprocess} on Arrow batches (preprocess.batch: arrow), not on frames"
    functions = (run.preprocess,) if case.limit == "preprocess" else run.postprocess
    names = " and ".join(name for name in functions if name)
    return f"make {names} faster: whole columns at once, no loop over rows" if names else ""


def _better_device(case: _Case) -> str:
    if case.run.device == "cpu":
        return "a GPU (runtime.device: cuda), or a smaller network"
    if case.run.precision == "float32":
        return "runtime.precision: bf16 or tf32, if the model tolerates it, or a smaller network"
    return "a smaller network, or a faster or a further GPU"


def _fewer_workers(case: _Case) -> str:
    run, phases = case.run, _phases(case.seconds, case.run)
    if phases is None or run.workers == 1:
        return ""
    loading, scoring = phases[LOADING], phases[SCORING]
    if scoring * (run.at_work - 1) >= loading:
        return ""
    return (
        f"runtime.workers: 1, which starts sooner: with {run.workers} loading took {loading:.1f} s "
        f"and scoring {scoring:.1f} s"
    )


def _took(text: str, phase: str) -> _Rule:
    """Returns the rule that says `text`, and how much of the run a phase took."""

    def say(case: _Case) -> str:
        phases, whole = _phases(case.seconds, case.run), case.run.seconds
        took = f"{phases[phase]:.1f} s of {whole:.1f} s" if phases else "most of the time"
        return f"{text} took {took}"

    return say


def _always(text: str) -> _Rule:
    return lambda _case: text


_RULES: Mapping[str, tuple[_Rule, ...]] = {
    "read": (
        _more_workers,
        _fewer_columns,
        _more_cores,
        _always("a faster disk or store, or shards that are quicker to decode (snappy, zstd)"),
    ),
    "preprocess": (
        _own_function,
        _more_workers,
        _more_cores,
        _always("fewer or simpler features before the network"),
    ),
    "infer": (_fill_calls, _more_workers, _better_device),
    "postprocess": (
        _own_function,
        _more_workers,
        _more_cores,
        _always("fewer steps after the network"),
    ),
    "explain": (
        _always("a higher explain.above, so that fewer rows are explained"),
        _more_workers,
        _more_cores,
    ),
    "profile": (
        _more_workers,
        _fewer_columns,
        _more_cores,
        _always("fewer input columns, since every column that is read is profiled"),
    ),
    "write": (
        _fewer_partitions,
        _more_workers,
        _fewer_columns,
        _more_cores,
        _always("fewer or narrower columns in output.columns, or a faster store"),
    ),
    "engine": (
        _fill_calls,
        _larger_batches,
        _more_workers,
        _more_cores,
        _always("larger shards: what is left of Beam's work is done once a batch and a unit"),
    ),
    "start-up": (
        _took("fewer and larger runs: starting Python, Beam and the framework", START_UP),
    ),
    "planning": (_took("fewer and larger shards: listing and comparing them", PLANNING),),
    "loading": (
        _fewer_workers,
        _took("fewer and larger runs: loading the model and starting workers", LOADING),
    ),
    "publishing": (
        _fewer_partitions,
        _always(
            "larger shards: merging, checks and publishing depend on the number of units and files"
        ),
    ),
}
"""What to say of each limit: the first rule for which there is evidence."""
