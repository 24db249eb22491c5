"""What a Flink cluster says of itself, and whether its worker pools answer."""

from __future__ import annotations

import http.client
import json
import re
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from batchscore.engines.no_redirect import strict_opener
from batchscore.errors import InvalidError
from batchscore.messages.wording import reason
from batchscore.runs.submission import JobState

_SECONDS = 10.0
_CANCEL_SECONDS = 30.0
_LOOK_SECONDS = 0.2
_NOT_FLINK = (ValueError, LookupError, TypeError, OverflowError, RecursionError)
_NO_ANSWER = (OSError, http.client.HTTPException, *_NOT_FLINK)
_ENDED = frozenset({"FINISHED", "FAILED", "CANCELED"})
_MOST_BYTES = 1 << 22
_TASK_MANAGER = re.compile(r"@([^:/]+):")
_LOOPBACK = re.compile(r"localhost|127\.[0-9.]+")
# A lease names addresses and jobs, too, and who may write the output may write leases.
_ROOT = re.compile(
    r"(?:https?://)?(?:\[[0-9A-Fa-f:.]+\]|[\w.-]+)(?::[0-9]{1,5})?(?:/(?!\.{1,2}(?:/|$))[^\s/?#]+)*",
    re.ASCII,
)
_JOB = re.compile(r"[0-9A-Za-z]{1,64}")


@dataclass(frozen=True)
class FlinkCluster:
    """What a cluster has.

    Args:
        slots: Of all TaskManagers; each slot works on one part of a job.
        hosts: Of the TaskManagers.
        version: Of Flink.
    """

    slots: int
    hosts: tuple[str, ...]
    version: str


def ask_cluster(rest: str) -> FlinkCluster:
    """Asks Flink's REST interface.

    Args:
        rest: HOST:PORT, or an address of http.

    Raises:
        InvalidError: Nothing answers there within seconds, or something else than Flink does.
    """
    root = _root(rest)
    try:
        found = _get(f"{root}/taskmanagers")["taskmanagers"]
        return FlinkCluster(
            slots=sum(int(each["slotsNumber"]) for each in found),
            hosts=tuple(_host(each["path"]) for each in found),
            version=str(_get(f"{root}/config")["flink-version"]),
        )
    except (OSError, http.client.HTTPException) as error:
        raise InvalidError(
            f"engine flink: Flink does not answer at runtime.flink.rest {rest} ({reason(error)}); "
            "start the cluster, or correct the address"
        ) from error
    except _NOT_FLINK as error:
        raise InvalidError(
            f"engine flink: what answers at runtime.flink.rest {rest} is not Flink's REST "
            "interface; correct the address"
        ) from error


def cancel_jobs(rest: str, name: str) -> int:
    """Asks Flink to cancel all jobs of a name, as far as it answers.

    Args:
        rest: HOST:PORT, or an address of http.
        name: Of the jobs, or how their names begin.

    Returns:
        How many jobs there were.
    """
    with suppress(*_NO_ANSWER):
        found = living_jobs(rest, name)
        _cancel(rest, found)
        return len(found)
    return 0


def job_state(rest: str, job: str, name: str) -> JobState:
    """Asks Flink for the state of a job.

    Args:
        rest: HOST:PORT, or an address of http.
        job: Its id; empty if only the name is known.
        name: Of the job.
    """
    try:
        # What Flink says of one job may be some seconds old; its overview is not.
        found = _get(f"{_root(rest)}/jobs/overview")["jobs"] if job else _jobs(rest, name)
        states = {each["state"] for each in found if job in ("", each["jid"])}
    except _NO_ANSWER:
        return "unknown"
    return "gone" if not states else "ended" if states <= _ENDED else "alive"


def cancel_job(rest: str, job: str, name: str) -> bool:
    """Asks Flink to cancel a job; False if it does not answer, or has no such job any more.

    Nothing is sent to who does not name the job as Flink does: a lease may name any address. The
    arguments are those of `job_state`.
    """
    try:
        if job:
            _id(job)
        jobs = _get(f"{_root(rest)}/jobs/overview")["jobs"] if job else _jobs(rest, name)
        living = [each["jid"] for each in jobs if each["state"] not in _ENDED]
        return _cancel(rest, [each for each in living if not job or each == job]) > 0
    except _NO_ANSWER:
        return False


def await_end(rest: str, name: str) -> None:
    """Waits until all jobs of a name have ended, for some seconds at most."""
    deadline = time.monotonic() + _CANCEL_SECONDS
    with suppress(*_NO_ANSWER):
        while living_jobs(rest, name) and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)


def _cancel(rest: str, jobs: Sequence[str]) -> int:
    """Asks Flink to cancel jobs; returns how many it took the request for."""
    done = 0
    for job in jobs:
        request = urllib.request.Request(f"{_root(rest)}/jobs/{_id(job)}", method="PATCH")
        # One may end in the meantime, which Flink answers with an error.
        with suppress(urllib.error.HTTPError):
            strict_opener().open(request, timeout=_SECONDS).close()
            done += 1
    return done


def living_jobs(rest: str, name: str) -> list[str]:
    """Returns the ids of the jobs of a name that have not ended; raises what urllib does."""
    return [job["jid"] for job in _jobs(rest, name) if job["state"] not in _ENDED]


def all_jobs(rest: str, name: str) -> set[str]:
    """Returns the ids of the jobs of a name that Flink remembers; none if it does not answer."""
    with suppress(*_NO_ANSWER):
        return {job["jid"] for job in _jobs(rest, name)}
    return set()


def _jobs(rest: str, name: str) -> list[Any]:
    """Returns what Flink says of the jobs of a name, or whose names begin with it and a hyphen."""
    jobs = _get(f"{_root(rest)}/jobs/overview")["jobs"]
    return [job for job in jobs if f"{job['name']}-".startswith(f"{name}-")]


def find_trouble(rest: str, name: str) -> str | None:
    """Returns the trace of what a job that has not ended met last; None if it met nothing."""
    with suppress(*_NO_ANSWER):
        for job in living_jobs(rest, name):
            if found := job_error(rest, job):
                return found
    return None


def job_error(rest: str, job: str) -> str:
    """Returns the trace of what a job met last; empty if it met nothing, or Flink does not say."""
    with suppress(*_NO_ANSWER):
        return str(_get(f"{_root(rest)}/jobs/{_id(job)}/exceptions").get("root-exception") or "")
    return ""


def require_pool(pool: str, hosts: Sequence[str]) -> None:
    """Makes sure that a worker pool answers, as far as this machine can tell.

    A pool on loopback is each TaskManager's own: it can be asked where all TaskManagers are on
    loopback, too. Another host may be known to the TaskManagers alone.

    Args:
        pool: HOST:PORT, as seen from a TaskManager.
        hosts: Of the TaskManagers.

    Raises:
        InvalidError: Nobody listens there.
    """
    host, _, port = pool.rpartition(":")
    if _LOOPBACK.fullmatch(host) and not all(map(_LOOPBACK.fullmatch, hosts)):
        return
    try:
        socket.create_connection((host, int(port)), _SECONDS).close()
    except ConnectionRefusedError as error:
        raise InvalidError(
            f"engine flink: no worker pool answers at runtime.flink.pool {pool} ({reason(error)}); "
            f"start it next to each TaskManager: python -m batchscore.engines.pool {pool}"
        ) from error
    except (OSError, OverflowError):
        return


def _root(rest: str) -> str:
    """Returns the address that all requests begin with; ValueError if it is none of HTTP.

    It has no path but of plain names, and no query: requests are those to Flink alone.
    """
    plain = rest.rstrip("/")
    if not _ROOT.fullmatch(plain):
        raise ValueError("it is no address of HTTP")
    return plain if "://" in plain else f"http://{plain}"


def _id(job: str) -> str:
    """Returns a job's id; ValueError if it cannot be one."""
    if not _JOB.fullmatch(job):
        raise ValueError("it is no id of a job")
    return job


def _get(address: str) -> Any:
    deadline = time.monotonic() + _SECONDS
    with strict_opener().open(address, timeout=_SECONDS) as answer:
        return json.loads(_read(answer, deadline))


def _read(answer: http.client.HTTPResponse, deadline: float) -> bytes:
    """Returns an answer; TimeoutError if it is not whole in time, ValueError if it is too large."""
    content = bytearray()
    while part := answer.read1(_MOST_BYTES):
        content += part
        if len(content) > _MOST_BYTES:
            raise ValueError(f"it has more than {_MOST_BYTES:,} bytes")
        if time.monotonic() > deadline:
            raise TimeoutError(f"its answer takes more than {_SECONDS:.0f} s")
    return bytes(content)


def _host(path: str) -> str:
    """Returns the host in the address of a TaskManager's process; empty without one."""
    found = _TASK_MANAGER.search(path)
    return found[1] if found else ""
