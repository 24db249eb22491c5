"""Tries a job on an engine's own workers: a few rows, through the real way, and nothing stays."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from batchscore.commands.ending import explained
from batchscore.commands.prepared import engine_of
from batchscore.engines.protocol import Handle
from batchscore.errors import BatchscoreError, InvalidError
from batchscore.plan import Plan
from batchscore.plan.elsewhere import (
    Placement,
    part_of,
    place_there,
    placed_as,
    seen_here,
    unplaced,
)
from batchscore.plan.places import removing_folders
from batchscore.plan.sample import read_sample
from batchscore.plan.shipping import pack, send
from batchscore.runs import layout
from batchscore.runs.failures import find_own_error, read_failure, shortened
from batchscore.storage.store import Store
from batchscore.storage.typed import decode
from batchscore.units.unit import Unit
from batchscore.worker.inspection import FOUND, Findings, Try, difference, inspect_worker
from batchscore.worker.spec import RunIdentity, RunSpec, Shipment

_ROWS = 64
_MOST_WORKERS = 16
_SECONDS = 300.0
_LOOK_SECONDS = 0.25
_END_SECONDS = 20.0
_RUN = "check"

_Found = TypeVar("_Found", Findings, Placement)


@dataclass(frozen=True)
class WorkersChecked:
    """What an engine's workers found.

    Args:
        own: What this process found in the same way.
        found: What each worker process found.
        seconds: From the submission to the answer of the last one.
    """

    own: Findings
    found: tuple[Findings, ...]
    seconds: float

    @property
    def differences(self) -> list[str]:
        """How the scores of workers differ from those of this process; empty if they do not."""
        pairs = [(each, difference(self.own, each)) for each in self.found]
        return [f"worker {each.host}, process {each.pid}: {why}" for each, why in pairs if why]


def check_workers(plan: Plan, units: Sequence[Unit], flags: Sequence[str]) -> WorkersChecked | None:
    """Has workers fetch code and model, read, score and write; None where there is no row to try.

    What they fetch and find is in a folder of the output, which is removed in the end.

    Args:
        plan: A plan that was tried here.
        units: What a run would score.
        flags: All Beam options.

    Raises:
        InvalidError: No worker can do what a run needs; the message is the worker's, if it has one.
    """
    sample = read_sample(units, plan.spec.scoring.source, _ROWS)
    if sample is None:
        return None
    with _store_for(plan.spec.output) as store:
        shipment, few = pack(plan), _on_few_rows(plan, store)
        attempt = partial(inspect_worker, unit=sample.unit, packages=tuple(shipment.versions))
        own = attempt(_run_of(_on_few_rows(seen_here(plan), store)))
        count, start = min(plan.workers, _MOST_WORKERS), time.monotonic()
        found = _try(Findings, few, shipment, attempt, count, flags)
        return WorkersChecked(own, found, time.monotonic() - start)


def place_by_worker(plan: Plan, tried: Plan, units: Sequence[Unit], flags: Sequence[str]) -> Plan:
    """Has one worker resolve the device of a plan, and prove there what depends on it.

    Args:
        plan: What the job asks for.
        tried: The plan as it was tried here, on the CPU.
        units: What a run would score.
        flags: All Beam options.

    Raises:
        InvalidError: The worker has no such device, or a score may not be computed on it; the
            message is the worker's.
    """
    sample = read_sample(units, plan.spec.scoring.source, _ROWS)
    if sample is None:
        return unplaced(plan, tried)
    small = part_of(plan, sample.unit)
    attempt = partial(place_there, plan=small, units=(sample.unit,))
    with _store_for(plan.spec.output) as store:
        sent = replace(plan, spec=replace(plan.spec, output=store))
        found = _try(Placement, sent, pack(plan), attempt, 1, flags)
    return placed_as(plan, tried, found[0])


def _try(
    kind: type[_Found],
    plan: Plan,
    shipment: Shipment,
    attempt: Try,
    count: int,
    flags: Sequence[str],
) -> tuple[_Found, ...]:
    """Has workers of the plan's engine try something; returns what each process found."""
    from batchscore.pipeline import build_tries

    run = replace(_run_of(plan), shipment=shipment)
    send(plan, shipment)
    engine = engine_of(plan)
    work = engine.submit(lambda p: build_tries(p, run, attempt, count), plan, flags)
    return _await(kind, work, run, _SECONDS + engine.start_seconds)


def _run_of(plan: Plan) -> RunSpec:
    spec, identity = plan.spec, RunIdentity(_RUN, 1, _RUN)
    return RunSpec(spec.job, spec.slice, spec.output, spec.scoring, spec.execution, identity)


@contextmanager
def _store_for(output: Store) -> Iterator[Store]:
    """Gives a store within an output, and removes it with all folders that were not there."""
    path = f"{layout.HOME}/{layout.PROBE}{secrets.token_hex(4)}"
    store = Store(output.url(path))
    with removing_folders(output):
        try:
            layout.claim_output(store)
            store.write_json(layout.plan_file(_RUN), {}, flush=False)
            yield store
        except OSError as error:
            raise InvalidError(f"output {output.address}: cannot be written ({error})") from error
        finally:
            with suppress(OSError):
                output.remove(path)


def _on_few_rows(plan: Plan, store: Store) -> Plan:
    source = replace(plan.spec.scoring.source, batch_rows=_ROWS)
    scoring = replace(plan.spec.scoring, source=source)
    execution = replace(plan.spec.execution, max_rejects=_ROWS, fresh=True)
    spec = replace(plan.spec, output=store, scoring=scoring, execution=execution)
    return replace(plan, spec=spec)


def _await(kind: type[_Found], work: Handle, run: RunSpec, seconds: float) -> tuple[_Found, ...]:
    deadline = time.monotonic() + seconds
    try:
        while work.is_alive() and time.monotonic() < deadline:
            work.join(_LOOK_SECONDS)
            _raise_failure(work, run)
    finally:
        if work.is_alive():
            work.cancel()
            work.join(_END_SECONDS)
    found = _read(kind, run.output)
    if work.error is not None:
        raise _refused(explained(run, work.error)) from work.error
    if not found:
        raise InvalidError(f"no worker answered within {seconds:.0f} s; look at the engine's logs")
    return found


def _raise_failure(work: Handle, run: RunSpec) -> None:
    """Raises what a worker met; an engine would have it meet that again and again."""
    failure = read_failure(run.output, _RUN, elsewhere=True)
    if failure is not None:
        raise _refused(failure[0])
    # A handle of another package may have no such method.
    trouble = work.trouble() if hasattr(work, "trouble") else None
    if trouble:
        raise _refused(find_own_error(trouble) or InvalidError(shortened(trouble)))


def _refused(error: BatchscoreError) -> InvalidError:
    return InvalidError(f"tried on a worker: {error}")


def _read(kind: type[_Found], store: Store) -> tuple[_Found, ...]:
    """Returns what each process found; one that was asked several times counts once."""
    found = dict[tuple[str, int], _Found]()
    for name in store.names(FOUND):
        with suppress(OSError, ValueError):
            each = decode(kind, store.read_json(f"{FOUND}/{name}"))
            found.setdefault((each.host, each.pid), each)
    return tuple(found[key] for key in sorted(found))
