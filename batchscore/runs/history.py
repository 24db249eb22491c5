"""What an output tells of its runs: manifests, newest first, and the one that is meant."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date, datetime, timezone
from typing import Any, TypeVar

from batchscore.errors import InvalidError, OutputError, RecordError, VersionError
from batchscore.messages.wording import counted, of_count, one_line, reason
from batchscore.runs import layout
from batchscore.runs.holder import holder
from batchscore.runs.layout import slice_id
from batchscore.runs.manifest_model import Manifest, decode_manifest
from batchscore.runs.manifest_parts import ModelFacts
from batchscore.runs.order import newest_first
from batchscore.runs.publication import Publication, pending
from batchscore.runs.run_plan import read_plan
from batchscore.runs.segments import expand
from batchscore.runs.snapshot import listing_path, published_run, read_listing, snapshot
from batchscore.storage.store import Store
from batchscore.storage.typed import decode

_THREADS = 16
T = TypeVar("T")
_NEIGHBOURS = 7
_LOOKS = 3
_UNREADABLE = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)
_UNENDED = "has not ended, or was killed: look again later, or run the job again"
_DATE = re.compile(r"=\d{4}-\d{2}-\d{2}")


def require_output(store: Store) -> None:
    """Raises OutputError when the folder is not an output of batchscore."""
    if not store.exists(layout.HOME):
        found = store.names()
        what = (
            f"holds {found[0]!r} and is not an output of batchscore"
            if found
            else "holds no run yet"
        )
        raise OutputError(
            f"output {store.address}: {what}; check the address, or run the job first"
        )
    layout.check_readable(store)


def read_manifest(store: Store, run: str) -> Manifest:
    """Returns a run's manifest.

    Raises:
        InvalidError: The output has no such run, or it left no manifest.
        RecordError: The manifest is damaged.
    """
    return _read_or_explain(store, run, _read)


def read_raw(store: Store, run: str) -> Manifest:
    """Returns a run's manifest as it was written; what it lists may lie in segments.

    Raises:
        InvalidError: The output has no such run, or it left no manifest.
        RecordError: The manifest is damaged.
    """
    return _read_or_explain(store, run, _read_raw)


def _read_or_explain(store: Store, run: str, read: Callable[[Store, str], Manifest]) -> Manifest:
    try:
        return read(store, run)
    except FileNotFoundError as error:
        raise _unknown(store, run) from error
    except _UNREADABLE as error:
        raise _damaged(store, run, error) from error


def _read(store: Store, run: str) -> Manifest:
    return expand(store, _read_raw(store, run))


def _read_raw(store: Store, run: str) -> Manifest:
    if "/" in run or "\0" in run or run in ("", ".", ".."):
        raise FileNotFoundError(run)
    return decode_manifest(store.read_json(layout.run_file(run, "manifest.json")), run)


def _damaged(store: Store, run: str, error: Exception) -> RecordError:
    path = layout.run_file(run, "manifest.json")
    return RecordError(
        f"manifest {store.url(path)}: damaged ({reason(error)}); restore it from a copy"
    )


@contextmanager
def reading(store: Store, run: str) -> Iterator[None]:
    """Turns what a block cannot do with a run's manifest into an error that names the manifest.

    Raises:
        RecordError: The manifest is damaged.
    """
    try:
        yield
    except _UNREADABLE as error:
        raise _damaged(store, run, error) from error


def _unknown(store: Store, run: str) -> InvalidError:
    if run in store.names(f"{layout.HOME}/work"):
        errors = {each.run: each.error for each in unfinished(store)}
        return InvalidError(f"run {run!r}: left no manifest; it {errors.get(run, _UNENDED)}")
    today = datetime.now(timezone.utc).strftime("%Y%m%d")
    newest = sorted(each for each in list_runs(store) if each[:8] <= today)[-3:]
    known = ", ".join(newest) or "none"
    return InvalidError(
        f"run {one_line(run)!r}: {store.address} has no such run; the newest are {known}"
    )


def published_manifest(store: Store, slice_: str) -> Manifest | None:
    """Returns the manifest of what is published of a slice, or is just being published.

    Raises:
        RecordError: It is damaged, missing, or does not know how to be built upon.
    """
    found = _published(store, slice_)
    if found is None and snapshot(store, slice_):
        # A publication may have removed the marker after its journal was looked for.
        found = _published(store, slice_)
    if found is None:
        _check_unpublished(store, slice_)
        return None
    try:
        found.require(*_BUILT_UPON)
        if found.slice != slice_ or found.status not in ("published", "empty"):
            raise ValueError("it is of another slice, or not published")
    except (KeyError, ValueError) as error:
        raise _unfounded(store, slice_, found.run, f"damaged ({error!r})") from error
    return found


def _unfounded(store: Store, slice_: str, run: str, what: str) -> RecordError:
    path = store.url(layout.run_file(run, "manifest.json")) if "/" not in run else "?"
    return RecordError(
        f"manifest {path} of run {one_line(run)!r}, which published slice {slice_!r}: {what}; "
        "restore it from a copy, or score the slice again with --rescore"
    )


def _published(store: Store, slice_: str) -> Manifest | None:
    started = pending(store, slice_)
    if started is not None and read_listing(store, slice_).lists(started.files):
        return _as_started(store, slice_, started)
    run = published_run(store, slice_) if started is None else started.predecessor
    if run is None:
        return None
    try:
        return _read(store, run)
    except FileNotFoundError as error:
        raise _unfounded(store, slice_, run, "no such file") from error
    except _UNREADABLE as error:
        raise _unfounded(store, slice_, run, f"damaged ({reason(error)})") from error


def _as_started(store: Store, slice_: str, started: Publication) -> Manifest:
    """Returns the manifest of a publication under way, with whole lists."""
    try:
        return expand(store, started.manifest)
    except _UNREADABLE as error:
        raise _unfounded(store, slice_, started.run, f"damaged ({reason(error)})") from error


# Without these nothing can be built upon what is published; every version wrote them.
_BUILT_UPON = (
    *("slice", "score", "fingerprint", "job_sha256", "files", "units", "shards", "columns"),
    *("score_facts", "model", "seconds", "base"),
)


def _check_unpublished(store: Store, slice_: str) -> None:
    if snapshot(store, slice_):
        raise RecordError(
            f"slice {slice_!r} of {store.address}: files are published, but its marker _SUCCESS is "
            "gone; restore it from a copy, or score the slice again with --rescore"
        )


def list_runs(store: Store) -> list[str]:
    """Returns the names of all runs that left a manifest, in no stated order."""
    runs = store.names(f"{layout.HOME}/runs")
    with ThreadPoolExecutor(_THREADS) as pool:
        ended = pool.map(lambda run: store.exists(layout.run_file(run, "manifest.json")), runs)
        return [run for run, is_there in zip(runs, ended, strict=True) if is_there]


@dataclass(frozen=True)
class Unreadable:
    """What is known of a run without a manifest that can be read: damaged, under way or killed.

    Args:
        run: Its name.
        status: `damaged` or `unfinished`.
        started: When the command started; empty if that is not known.
        error: Why its manifest cannot be read, and what to do.
        base: The run that was published before, or None.
        facts: What its plan says, as JSON.
    """

    run: str
    status: str
    started: str
    error: str
    base: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def slice(self) -> str:
        """Its slice; empty if that is not known."""
        return str(self.facts.get("slice", ""))

    @property
    def model(self) -> ModelFacts:
        """The model that scores its rows, as far as that is known."""
        return decode(ModelFacts, self.facts.get("model", {}))

    @property
    def actor(self) -> str:
        """Who started it; empty if that is not known."""
        return str(self.facts.get("actor", ""))

    @property
    def document(self) -> dict[str, Any]:
        """What is known, as `runs --json` prints it."""
        head = {"run": self.run, "status": self.status}
        if not self.facts:
            return {**head, "started": self.started, "error": self.error}
        return {**self.facts, "base": self.base, "error": self.error, **head}


def read_history(
    store: Store, slice_: str | None = None, whole: bool = False
) -> list[Manifest | Unreadable]:
    """Returns the manifests of all runs, of one slice if it is given, newest first.

    Of a run whose manifest is damaged, or that is under way or was killed, only what is known.

    Args:
        store: The output.
        slice_: The slice; None for all.
        whole: Reads lists that lie in segments too.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        runs = store.names(f"{layout.HOME}/runs")
        found = pool.map(lambda run: _find(store, run, whole), runs)
        ended = [each for each in found if each is not None]
    wanted = [*ended, *unfinished(store)]
    return newest_first([each for each in wanted if slice_ is None or each.slice in ("", slice_)])


def _find(store: Store, run: str, whole: bool) -> Manifest | Unreadable | None:
    """Returns what the manifest of a run says; None if it left none."""
    try:
        return _read(store, run) if whole else _read_raw(store, run)
    except (FileNotFoundError, NotADirectoryError) as error:
        # Lists may lie in files of their own, which may be gone.
        if not (whole and store.exists(layout.run_file(run, "manifest.json"))):
            return None
        return Unreadable(run, "damaged", "", str(_damaged(store, run, error)))
    except RecordError as error:
        return Unreadable(run, "damaged", "", str(error))
    except _UNREADABLE as error:
        return Unreadable(run, "damaged", "", str(_damaged(store, run, error)))


def unfinished(store: Store) -> list[Unreadable]:
    """Returns what is known of runs that left no manifest: under way, or killed."""
    found = []
    for run in store.names(f"{layout.HOME}/work"):
        with suppress(FileNotFoundError, RecordError):
            planned = _planned(store, run)
            if not store.exists(layout.run_file(run, "manifest.json")):
                found.append(planned)
    return found


def _planned(store: Store, run: str) -> Unreadable:
    """Returns what the plan of an open run says of it, and why the run has no manifest."""
    try:
        plan = read_plan(store, run)
    except VersionError as error:
        return Unreadable(run, "unfinished", "", str(error))
    why = _why_unfinished(store, plan.slice, run)
    return Unreadable(run, "unfinished", plan.started, why, plan.base, plan.facts)


def _why_unfinished(store: Store, slice_: str, run: str) -> str:
    """Says whether a run is under way or was killed, and what to do."""
    by = None
    with suppress(RecordError):  # the next run says what is wrong with the lease
        by = holder(store, slice_)
    if by is not None and by.run == run and by.submission is not None:
        return (
            f"is under way on {by.submission}, started by {by.user}@{by.host}; `batchscore wait` "
            "waits for it"
        )
    if by is not None and by.run == run:
        return f"is under way ({by.user}@{by.host}, pid {by.pid}); `batchscore wait` waits for it"
    return "was killed, or lost with its machine; run the job again, which resumes what it finished"


def newest(store: Store, slice_: str | None) -> Manifest:
    """Returns the newest run's manifest, of one slice if it is given; InvalidError if none is."""
    found = read_history(store, slice_)
    ended = next((each for each in found if isinstance(each, Manifest)), None)
    if ended is not None:
        return read_manifest(store, ended.run)
    what = f"slice {slice_!r} of {store.address}" if slice_ else store.address
    if found and isinstance(found[0], Unreadable):
        why = f"run {found[0].run}: {found[0].error}"
        raise InvalidError(f"{what}: no run can be shown yet; {why}")
    raise InvalidError(f"{what}: has no run yet; run the job first")


def rows_before(store: Store, slice_: str, job: str) -> list[int]:
    """Returns the rows to score of up to seven published slices of a job, those before by name.

    Where there is none before, those after.
    """
    names = _neighbours(store, slice_, job)
    earlier = [name for name in names if name < slice_][-_NEIGHBOURS:]
    near = earlier or [name for name in names if name > slice_][:_NEIGHBOURS]
    rows = []
    for name in near:
        with suppress(RecordError):
            manifest = published_manifest(store, name)
            if manifest is not None:
                rows.append(manifest.rows.scored + manifest.rows.rejected)
    return rows


def runs_before(store: Store, slice_: str, job: str, most: int, same_weekday: bool) -> list[str]:
    """Returns the runs that published the last slices of a job before this one by date.

    The newest comes first.

    Args:
        most: How many at most.
        same_weekday: Counts only slices whose date is the same day of the week.
    """
    runs: list[str] = []
    earlier = [name for name in _neighbours(store, slice_, job) if name < slice_]
    for name in reversed([name for name in earlier if _DATE.search(name)]):
        run = None
        with suppress(RecordError):  # a neighbour's damage is reported where it is read itself
            run = published_run(store, name)
        if run is not None and not (same_weekday and _weekday(name) != _weekday(slice_)):
            runs.append(run)
        if len(runs) == most:
            break
    return runs


def slice_date(slice_: str) -> date | None:
    """Returns the date that a slice's name holds, of several the first."""
    for match in _DATE.finditer(slice_):
        with suppress(ValueError):  # a text may look like one
            return date.fromisoformat(match[0][1:])
    return None


def nights_before(store: Store, slice_: str, job: str, most: int) -> int:
    """Returns how many slices of a job before this one by date are published, up to `most`.

    Of a slice without a date, how many of its own runs published.
    """
    if slice_date(slice_) is not None:
        return len(runs_before(store, slice_, job, most, same_weekday=False))
    published = [each for each in read_history(store, slice_) if _has_published(each)]
    return min(most, len(published))


def _has_published(run: Manifest | Unreadable) -> bool:
    return run.status in ("published", "empty")


def _weekday(slice_: str) -> int | None:
    day = slice_date(slice_)
    return None if day is None else day.weekday()


def _neighbours(store: Store, slice_: str, job: str) -> list[str]:
    """Returns the slices of a job that differ in one parameter, by name; of several, in a date."""
    first = slice_id(job, {})
    names = store.names(f"{layout.HOME}/slices")
    return [n for n in names if n.startswith(f"{first},") and _is_neighbour(n, slice_)]


def _is_neighbour(name: str, slice_: str) -> bool:
    """Tells whether two slices differ in one parameter, and, of several, in a date."""
    theirs, mine = name.split(","), slice_.split(",")
    if len(theirs) != len(mine):
        return False
    pairs = [(a, b) for a, b in zip(theirs, mine, strict=True) if a != b]
    alone = len(mine) == 2
    return len(pairs) == 1 and (alone or all(map(_DATE.search, pairs[0])))


def published_files(store: Store, slice_: str | None) -> list[str]:
    """Returns the published files of an output, or of one of its slices, sorted.

    Raises:
        RecordError: A list was changed by hand, so that a reader would miss rows, read rows twice,
            or read files outside the output.
    """
    found = over_slices(store, slice_, _checked_files)
    return sorted(path for files in found for path in files)


def over_slices(store: Store, slice_: str | None, look: Callable[[Store, str], T]) -> list[T]:
    """Returns what a look finds at each slice of an output, or at one; it looks side by side."""
    slices = [slice_] if slice_ else store.names(f"{layout.HOME}/slices")
    with ThreadPoolExecutor(_THREADS) as pool:
        return [*pool.map(lambda name: look(store, name), slices)]


def _checked_files(store: Store, slice_: str) -> tuple[str, ...]:
    """Returns a slice's published files; RecordError if its list and its manifest differ."""
    for left in reversed(range(_LOOKS)):
        listing = read_listing(store, slice_)
        listed = published = set(listing.files)
        with suppress(RecordError):  # without a manifest the list is all that there is
            manifest = published_manifest(store, slice_)
            if manifest is not None:
                with reading(store, manifest.run):
                    published = set(manifest.paths)
        strange = [*listing.wrong, *sorted(listed ^ published)]
        # A run that publishes at this moment changes one after the other.
        if not strange or not (left and read_listing(store, slice_).raw != listing.raw):
            break
    if strange:
        raise _changed_by_hand(store, slice_, strange[0], len(listing.files), len(published))
    return listing.files


def _changed_by_hand(
    store: Store, slice_: str, strange: str, listed: int, published: int
) -> RecordError:
    return RecordError(
        f"{store.url(listing_path(slice_))}: lists {counted(listed, 'file')}, but {published:,} "
        f"{of_count(published, 'is', 'are')} published, or its lines differ, such as "
        f"{one_line(repr(strange))}. It was changed by hand: write the published files into it, "
        "one per line, as the run's manifest lists them, or score and publish the slice again "
        "with --rescore"
    )


def current_runs(store: Store, slice_: str | None) -> set[str]:
    """Returns the runs that are published, one a slice; of one slice if it is given."""
    slices = [slice_] if slice_ else store.names(f"{layout.HOME}/slices")
    found = set()
    for name in slices:
        with suppress(RecordError):  # the other slices' runs are known all the same
            found.add(published_run(store, name))
    return {run for run in found if run is not None}


def pending_runs(store: Store, slice_: str | None) -> list[str | RecordError]:
    """Returns the runs whose publication was started and not finished; damaged journals' errors."""
    found = over_slices(store, slice_, _pending_run)
    return [each for each in found if each is not None]


def _pending_run(store: Store, slice_: str) -> str | RecordError | None:
    try:
        publication = pending(store, slice_)
    except RecordError as error:
        return error
    return None if publication is None else publication.run
