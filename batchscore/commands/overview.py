"""What `status` looks at: an output, or all outputs of a folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any

from batchscore.commands.unwatched import ask
from batchscore.errors import BatchscoreError, OutputError
from batchscore.messages.wording import one_line, reason, remedy_of
from batchscore.runs import layout
from batchscore.runs.history import Unreadable, read_history
from batchscore.runs.holder import last_holder
from batchscore.runs.series import Series, StoreClock, find_series, named_series
from batchscore.runs.underway import Activity, Undecided, find_activities, find_undecided
from batchscore.storage.store import Store

_THREADS = 8
_FIRST = ("held", "failed", "killed", "interrupted")


@dataclass(frozen=True)
class Outputs:
    """What is looked at.

    Args:
        stores: The outputs.
        slice: The only slice that is meant; None for all.
        is_folder: Whether a folder of outputs was named, of which there may be one.
        closed: Folders right below it that this user may not look into, each with why; they may be
            outputs.
    """

    stores: tuple[Store, ...]
    slice: str | None = None
    is_folder: bool = False
    closed: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Overview:
    """What there is to say of outputs.

    Args:
        outputs: Their addresses.
        is_folder: Whether a folder of outputs was named.
        under_way: What somebody works on, each with its output.
        undecided: Slices that wait for a person, each with its output.
        jobs: The jobs; those that need somebody first.
        unreadable: Outputs of a folder that could not be read, each with why.
    """

    outputs: tuple[str, ...]
    is_folder: bool
    under_way: tuple[tuple[str, Activity], ...]
    undecided: tuple[tuple[str, Undecided], ...]
    jobs: tuple[Series, ...]
    unreadable: tuple[tuple[str, str], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Returns all of it as JSON-able values; of each job the last run and the newest slice."""
        several = self.is_folder
        return {
            **({} if several else {"output": self.outputs[0]}),
            "outputs": [*self.outputs],
            "under_way": [_with_output(o, each, several) for o, each in self.under_way],
            "undecided": [_with_output(o, each, several) for o, each in self.undecided],
            "jobs": [_job_json(each) for each in self.jobs],
            **({"unreadable": [_why_json(*each) for each in self.unreadable]} if several else {}),
        }


def _with_output(output: str, each: Activity | Undecided, several: bool) -> dict[str, Any]:
    return {**({"output": output} if several else {}), **asdict(each)}


def _why_json(output: str, why: str) -> dict[str, str]:
    return {"output": output, "why": why}


def _job_json(job: Series) -> dict[str, Any]:
    last, newest = job.last, job.newest
    return {
        "output": job.output,
        "job": job.job,
        "last": asdict(last) if last else None,
        "newest_published": asdict(newest) if newest else None,
    }


def find_outputs(where: str) -> Outputs:
    """Returns the output at an address, or the outputs that are folders right below it.

    Raises:
        OutputError: There is none.
    """
    store = Store(where if "://" in where else os.path.abspath(where))
    if store.exists(layout.HOME):
        layout.check_readable(store)
        return Outputs((store,))
    names = store.names()
    below = [Store(store.url(name)) for name in names if not name.startswith((".", "_"))]
    with ThreadPoolExecutor(_THREADS) as pool:
        seen = [*zip(below, pool.map(_is_output, below), strict=True)]
    found = tuple(each for each, is_output in seen if is_output is True)
    closed = tuple((each.address, why) for each, why in seen if isinstance(why, str))
    if not found and not closed:
        raise OutputError(f"{store.address}: {_nothing(names)}; check the address, or run a job")
    return Outputs(found, is_folder=True, closed=closed)


def _is_output(store: Store) -> bool | str:
    """Tells whether a folder is an output; or says why it cannot know."""
    if not store.is_local:
        return store.exists(layout.HOME)
    try:
        os.stat(store.path(layout.HOME))
    except PermissionError as error:
        # What a file system keeps for its own repair is closed to all but root, and no output.
        return store.address.rpartition("/")[2] != "lost+found" and _why(error)
    except OSError:
        return False
    return True


def _why(error: OSError | BatchscoreError) -> str:
    """Says why an output cannot be read, and what to do."""
    if isinstance(error, BatchscoreError):
        return one_line(error, 400)
    what = getattr(error, "strerror", None) or reason(error)
    remedy = remedy_of(error, "check the disk or store")
    return f"cannot be read ({what}); {remedy}, or move the folder away"


def _nothing(names: Sequence[str]) -> str:
    if not names:
        return "holds no run yet"
    return f"holds {one_line(repr(names[0]))} and is no output, nor is any folder right below it"


def look_at(outputs: Outputs) -> Overview:
    """Looks at outputs side by side; one of a folder that cannot be read hides no other.

    Raises:
        OSError: A store cannot be reached, or the one output cannot be read.
    """
    look = _look_or_say if outputs.is_folder else _look
    with ThreadPoolExecutor(_THREADS) as pool:
        found = [*pool.map(lambda store: look(store, outputs.slice), outputs.stores)]
    jobs = [job for each in found for job in each.jobs]
    unreadable = [*outputs.closed, *(pair for each in found for pair in each.unreadable)]
    return Overview(
        outputs=tuple(store.address for store in outputs.stores),
        is_folder=outputs.is_folder,
        under_way=tuple(one for each in found for one in each.under_way),
        undecided=tuple(one for each in found for one in each.undecided),
        jobs=tuple(sorted(jobs, key=_urgency)),
        unreadable=tuple(sorted(unreadable)),
    )


def _look_or_say(store: Store, slice_: str | None) -> Overview:
    try:
        layout.check_readable(store)
        return _look(store, slice_)
    except (OSError, BatchscoreError) as error:
        why = ((store.address, _why(error)),)
        return Overview((store.address,), False, (), (), (), why)


def _look(store: Store, slice_: str | None) -> Overview:
    active = find_activities(store, slice_)
    under_way = [_asked(store, each) for each in active if isinstance(each, Activity)]
    # After the leases: a run that ends in between is seen by its manifest.
    history = [
        each if isinstance(each, Unreadable) else each.without_lists()
        for each in read_history(store, slice_)
    ]
    undecided = [each for each in active if not isinstance(each, Activity)]
    undecided += [*_damaged(history), *find_undecided(history)]
    states = {each.run: each.state for each in under_way}
    jobs = find_series(store, history, states, StoreClock(store))
    if slice_ is not None and not jobs:
        jobs = [named_series(store, slice_)]
    where = store.address
    return Overview(
        outputs=(where,),
        is_folder=False,
        under_way=tuple((where, each) for each in under_way),
        undecided=tuple((where, each) for each in undecided),
        jobs=tuple(jobs),
    )


def _asked(store: Store, found: Activity) -> Activity:
    """Returns what is under way as `lost` if its engine says that nothing is.

    It is asked of a job that no launcher watches, and no worker. Nothing is changed.
    """
    if not found.job or found.state not in ("submitted", "silent"):
        return found
    last = last_holder(store, found.slice)
    if last is None or last.run != found.run or last.released or last.job is None:
        return found
    alone = last.job.detached or last.is_dead or found.state == "silent"
    if alone and ask(last.job) in ("ended", "gone"):
        return replace(found, state="lost", rows_per_s=None, left_s=None)
    return found


def _damaged(history: Sequence[Any]) -> list[Undecided]:
    return [
        Undecided("", "", "damaged", "", each.error)
        for each in history
        if isinstance(each, Unreadable) and each.status == "damaged"
    ]


def _urgency(job: Series) -> tuple[int, str, str]:
    status = job.last.status if job.last else ""
    place = _FIRST.index(status) if status in _FIRST else len(_FIRST)
    return place, job.output, job.job
