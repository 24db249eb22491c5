"""The references of a job's drift section: found, and tried before a worker starts."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone

from batchscore.drift.table import TableProfile
from batchscore.errors import InputError, InvalidError, JobFileError, RecordError
from batchscore.finish.drift_gate import drift_rules
from batchscore.finish.drift_policy import Policy, policy_of
from batchscore.job import EarlierRuns, Job, ListedReference, LoadedJob
from batchscore.models.loadable import Model
from batchscore.runs.history import read_raw, runs_before
from batchscore.runs.profiles import (
    LAST,
    ProfileFile,
    Reference,
    read_profile,
    read_reference,
    run_profile,
)
from batchscore.runs.snapshot import published_run
from batchscore.storage.store import Store


@dataclass(frozen=True)
class References:
    """What a run is compared with, and what to know of it.

    Args:
        chosen: What its job lists; or what it chose, and the model's as the anchor. There may be
            none.
        notes: What was left out, and why.
    """

    chosen: tuple[Reference, ...] = ()
    notes: tuple[str, ...] = ()


def find_references(loaded: LoadedJob, model: Model, slice_: str) -> References:
    """Returns what a run is compared with, and notes, also on mutes that ended.

    Profiles of earlier runs that are missing, damaged, or of other types than the newest are left
    out and noted, so that one of them does not keep a job from running.

    Raises:
        InvalidError: A reference that the job names is missing or damaged.
        JobFileError: It asks for something that there cannot be.
    """
    _check_rules(loaded.job)
    found = _find(loaded, model, slice_)
    ended = drift_policy(loaded.job, slice_).notes
    return replace(found, notes=(*found.notes, *ended))


def drift_policy(job: Job, slice_: str) -> Policy:
    """Returns what counts of drift in a run that starts now."""
    started = datetime.now(timezone.utc).isoformat()
    return policy_of(job.drift, Store(job.output.path), slice_, job.name, started)


def _find(loaded: LoadedJob, model: Model, slice_: str) -> References:
    wanted, anchor = loaded.job.drift.reference, _models(model)
    if isinstance(wanted, tuple):
        return _listed(loaded, anchor, wanted, slice_)
    if wanted == "model":
        return References(_readable(anchor))
    found, notes = _item(loaded, anchor, _as_item(wanted), slice_, "drift.reference")
    anchors = _readable(None if anchor is None else replace(anchor, anchor=True))
    return References((*found, *anchors), tuple(notes))


def _listed(
    loaded: LoadedJob, model: Reference | None, items: Sequence[ListedReference], slice_: str
) -> References:
    """Returns the references of a list, each with its own `on_fail`, and a note for each gap."""
    found: list[Reference] = []
    notes: list[str] = []
    for place, item in enumerate(items):
        key = f"drift.reference.{place}"
        references, more = _item(loaded, model, item, slice_, key)
        on_fail = item.on_fail or loaded.job.drift.on_fail
        found += [replace(each, on_fail=on_fail) for each in references]
        notes += more or ([] if references else [f"{key}: {_missing(item)}; it is not compared"])
    return References(tuple(found), tuple(notes))


def _missing(item: ListedReference) -> str:
    if item.model:
        return "the model folder has no profile"
    return "nothing is published before this slice yet"


def _item(
    loaded: LoadedJob, model: Reference | None, item: ListedReference, slice_: str, key: str
) -> tuple[tuple[Reference, ...], list[str]]:
    store = Store(loaded.job.output.path)
    if item.model:
        return _readable(model, key), []
    if item.previous:
        return _previous(store, slice_, loaded.job.name)
    if item.file is not None:
        return _readable(_stored(item.file, key), key), []
    if item.run is not None:
        return _readable(_named_run(store, item.run), key), []
    return _last(loaded, item, store, slice_, key)


def _as_item(wanted: str | EarlierRuns) -> ListedReference:
    """Returns the only reference of a job as an item of a list."""
    if isinstance(wanted, EarlierRuns):
        return ListedReference(**wanted.model_dump())
    return ListedReference(previous=True) if wanted == "previous" else ListedReference(file=wanted)


def _readable(reference: Reference | None, key: str = "drift.reference") -> tuple[Reference, ...]:
    if reference is None:
        return ()
    try:
        read_reference(reference.files)
    except RecordError as error:
        raise InvalidError(f"{key}: {error}") from error
    return (reference,)


def _check_rules(job: Job) -> None:
    from batchscore.drift.thresholds import check_rules

    try:
        check_rules(drift_rules(job.drift, job.drift.columns))
    except ValueError as error:
        raise JobFileError(f"drift.{error}") from error


def _stored(address: str, key: str) -> Reference:
    """Returns the profile that somebody stored as a file; InvalidError where there is none."""
    folder, name = posixpath.split(address)
    if not Store(folder or ".").exists(name):
        raise InvalidError(
            f"{key} {address}: no such file; expected model, previous, or a file that batchscore "
            "profile wrote"
        )
    return Reference(f"file {name}", (ProfileFile(folder or ".", name),))


def _named_run(store: Store, run: str) -> Reference:
    status = read_raw(store, run).status
    title = f"run {run}" if status == "published" else f"run {run} ({status})"
    return Reference(title, (run_profile(store, run),))


def _models(model: Model) -> Reference | None:
    if model.profile is None:
        return None
    title = f"model {model.name} {model.version}"
    return Reference(title, (ProfileFile(model.folder, model.profile),))


def _previous(store: Store, slice_: str, job: str) -> tuple[tuple[Reference, ...], list[str]]:
    earlier = runs_before(store, slice_, job, 1, same_weekday=False)
    runs = earlier or [run for run in (published_run(store, slice_),) if run is not None]
    files, notes = _alike(store, runs)
    title = "" if not runs else f"run {runs[0]}"
    return tuple(Reference(title, (file,), own=not earlier) for file in files), notes


def _last(
    loaded: LoadedJob, wanted: ListedReference, store: Store, slice_: str, key: str
) -> tuple[tuple[Reference, ...], list[str]]:
    if not any(parameter.type == "date" for parameter in loaded.job.params.values()):
        raise JobFileError(
            f"{key}: last needs a parameter of type date, which orders slices; declare one, or "
            "use previous, a run or a file"
        )
    assert wanted.last is not None
    runs = runs_before(store, slice_, loaded.job.name, wanted.last, wanted.same_weekday)
    files, notes = _alike(store, runs)
    if not files:
        return (), notes
    same = ", same weekday" if wanted.same_weekday else ""
    which = f"run {runs[0]}" if len(runs) == 1 else f"runs {runs[-1]} to {runs[0]}"
    slices = "slice" if len(files) == 1 else f"{len(files)} slices"
    return (Reference(f"{LAST}{slices}{same}, {which}", tuple(files)),), notes


def _alike(store: Store, runs: Sequence[str]) -> tuple[list[ProfileFile], list[str]]:
    """Returns the profiles of runs, newest first, that can be merged with the newest; and notes."""
    files: list[ProfileFile] = []
    notes: list[str] = []
    merged = TableProfile.empty()
    for run in runs:
        file = run_profile(store, run)
        try:
            merged.merge(read_profile(file))
            files.append(file)
        except (RecordError, InputError) as error:
            notes.append(f"run {run} is left out of the reference: {error}")
    return files, notes
