"""The references of a job's drift section: found, and tried before a worker starts."""

from __future__ import annotations

import posixpath

from batchscore.errors import InvalidError, JobFileError, RecordError
from batchscore.gate import drift_rules
from batchscore.job import EarlierRuns, Job, LoadedJob
from batchscore.models.folder import Model
from batchscore.profiles import ProfileFile, Reference, read_reference, run_profile
from batchscore.runs.history import read_manifest, runs_before
from batchscore.runs.publish import published_run
from batchscore.storage import Store


def find_references(loaded: LoadedJob, model: Model, slice_: str) -> tuple[Reference, ...]:
    """Returns what a run is compared with: what its job chose, and the model's as the anchor.

    There may be neither: no profile in the model folder, and nothing that ran before.

    Raises:
        InvalidError: a reference that the job names is missing or damaged.
        JobFileError: it asks for something that there cannot be.
    """
    _check_rules(loaded.job)
    chosen, anchor = _chosen(loaded, model, slice_), _models(model)
    found = [chosen] if chosen is not None else []
    if anchor is not None and loaded.job.drift.reference != "model":
        found.append(Reference(anchor.title, anchor.files, anchor=True))
    for reference in found:
        try:
            read_reference(reference.files)
        except RecordError as error:
            raise InvalidError(f"drift.reference: {error}") from error
    return tuple(found)


def _check_rules(job: Job) -> None:
    from batchscore.drift.thresholds import check_rules

    try:
        check_rules(drift_rules(job.drift, job.drift.columns))
    except ValueError as error:
        raise JobFileError(f"drift.thresholds: {error}") from error


def _chosen(loaded: LoadedJob, model: Model, slice_: str) -> Reference | None:
    job = loaded.job
    wanted, store = job.drift.reference, Store(job.output.path)
    if wanted == "model":
        return _models(model)
    if wanted == "previous":
        return _previous(store, slice_, job.name)
    if isinstance(wanted, str):
        folder, name = posixpath.split(wanted)
        return Reference(f"file {name}", (ProfileFile(folder or ".", name),))
    if wanted.run is not None:
        read_manifest(store, wanted.run)
        return Reference(f"run {wanted.run}", (run_profile(store, wanted.run),))
    return _last(loaded, wanted, store, slice_)


def _models(model: Model) -> Reference | None:
    if model.profile is None:
        return None
    title = f"model {model.name} {model.version}"
    return Reference(title, (ProfileFile(model.folder, model.profile),))


def _previous(store: Store, slice_: str, job: str) -> Reference | None:
    earlier = runs_before(store, slice_, job, 1, same_weekday=False)
    run = earlier[0] if earlier else published_run(store, slice_)
    return None if run is None else Reference(f"run {run}", (run_profile(store, run),))


def _last(loaded: LoadedJob, wanted: EarlierRuns, store: Store, slice_: str) -> Reference | None:
    if not any(parameter.type == "date" for parameter in loaded.job.params.values()):
        raise JobFileError(
            "drift.reference: last needs a parameter of type date, which tells the slices before "
            "this one; declare one, or use previous, a run or a file"
        )
    assert wanted.last is not None
    runs = runs_before(store, slice_, loaded.job.name, wanted.last, wanted.same_weekday)
    if not runs:
        return None
    same = ", same weekday" if wanted.same_weekday else ""
    title = f"the last {len(runs)} slices{same}, runs {runs[-1]} to {runs[0]}"
    return Reference(title, tuple(run_profile(store, run) for run in runs))
