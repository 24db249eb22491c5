"""Dataflow's REST interface: jobs of one project and region, created, asked for and cancelled.

An access token goes to addresses of Google alone, and never into a message.
"""

from __future__ import annotations

import http.client
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from typing import Any
from urllib.parse import urlencode, urlsplit

from batchscore.engines.no_redirect import strict_opener
from batchscore.errors import BatchscoreError, InvalidError, RetryError
from batchscore.messages.wording import one_line, reason
from batchscore.runs.submission import JobState

_SECONDS = 30.0
_MOST_BYTES = 1 << 26
_MOST_PAGES = 50
# Answers and troubles of a moment; a repeated job has the same request id, and is made once.
_PASSING = frozenset({429, 500, 502, 503, 504})
_WAITS_S = (0.5, 2.0, 5.0)
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
ENDED = frozenset(
    f"JOB_STATE_{name}" for name in ("DONE", "FAILED", "CANCELLED", "UPDATED", "DRAINED")
)
"""The states that a job does not leave."""
# A lease names addresses and jobs, too, and who may write the output may write leases.
_ROOT = re.compile(
    r"https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?/v1b3/projects/[a-z][a-z0-9.:-]{1,90}"
    r"/locations/[a-z0-9-]{2,40}",
    re.ASCII,
)
_GOOGLE = re.compile(r"[a-z0-9.-]+\.googleapis\.com", re.ASCII)
_JOB = re.compile(r"[A-Za-z0-9_-]{1,128}", re.ASCII)
_NO_ANSWER = (OSError, http.client.HTTPException, ValueError, LookupError, TypeError)


class ServiceError(OSError):
    """An answer of Dataflow that is an error.

    Args:
        code: The status of HTTP.
        said: The service's own words.
    """

    def __init__(self, code: int, said: str) -> None:
        super().__init__(f"{code}: {said}")
        self.code, self.said = code, said


def root_of(endpoint: str, project: str, region: str) -> str:
    """Returns the address of a project's jobs in a region."""
    base = endpoint if "://" in endpoint else f"https://{endpoint}"
    return f"{base.rstrip('/')}/v1b3/projects/{project}/locations/{region}"


def require_service(root: str) -> None:
    """Makes sure that this machine may ask for jobs of the project in the region.

    Raises:
        InvalidError: It may not, or there is no such project or region, or nobody answers.
        RetryError: The quota is used up, or the service has trouble.
    """
    try:
        _ask("GET", root, "jobs?pageSize=1")
    except _NO_ANSWER as error:
        raise _refused(error, root) from error


def create_job(root: str, body: Mapping[str, Any]) -> str:
    """Creates a job, and returns its id.

    Raises:
        InvalidError: The service does not take it, or nobody answers.
        RetryError: The quota is used up, or the service has trouble.
    """
    try:
        found = _ask("POST", root, "jobs", body)
        if found.get("clientRequestId", body["clientRequestId"]) != body["clientRequestId"]:
            raise InvalidError(
                f"engine dataflow: a job {body['name']} is active already, with the id "
                f"{found.get('id')}; cancel it, or wait for its end"
            )
        return _id(str(found["id"]))
    except _NO_ANSWER as error:
        raise _refused(error, root) from error


def state_of(root: str, job: str) -> str:
    """Returns Dataflow's name of a job's state; raises what urllib does, or ValueError."""
    return str(_ask("GET", root, f"jobs/{_id(job)}").get("currentState", ""))


def final_state(root: str, job: str) -> str:
    """Returns Dataflow's name of the state that a job ended in; empty if it may go on."""
    with suppress(*_NO_ANSWER):
        state = state_of(root, job)
        return state if state in ENDED else ""
    return ""


def job_state(root: str, job: str, name: str) -> JobState:
    """Asks for the state of a job; by its name if its id is empty. Raises nothing."""
    try:
        states = (
            {state_of(root, job)}
            if job
            else {j.get("currentState", "") for j in _named(root, name)}
        )
    except ServiceError as error:
        return "gone" if error.code == 404 and job else "unknown"
    except _NO_ANSWER:
        return "unknown"
    return "gone" if not states else "ended" if states <= ENDED else "alive"


def cancel_job(root: str, job: str, name: str) -> bool:
    """Asks for the end of a job; False if nobody answers, or it has ended.

    A job of another name is left alone: a lease may name any.
    """
    done = 0
    with suppress(*_NO_ANSWER):
        found = [_ask("GET", root, f"jobs/{_id(job)}")] if job else list(_named(root, name))
        for each in found:
            if each["name"] == name and each.get("currentState") not in ENDED:
                _cancel(root, each["id"])
                done += 1
    return done > 0


def cancel_others(root: str, beginning: str) -> int:
    """Cancels all jobs that are active and whose names begin so; returns how many."""
    done = 0
    with suppress(*_NO_ANSWER):
        for job in list(_listed(root, {"filter": "ACTIVE"})):
            if job["name"].startswith(beginning) and job.get("currentState") not in ENDED:
                _cancel(root, job["id"])
                done += 1
    return done


def job_error(root: str, job: str) -> str:
    """Returns what the service says went wrong, a worker's trace first; empty if nothing did."""
    with suppress(*_NO_ANSWER):
        path = f"jobs/{_id(job)}/messages?minimumImportance=JOB_MESSAGE_ERROR"
        found = [
            str(message.get("messageText", ""))
            for message in _ask("GET", root, path).get("jobMessages", [])
        ]
        traces = [text for text in found if "Traceback" in text]
        return (traces or found or [""])[-1]
    return ""


def metrics_of(root: str, job: str) -> list[dict[str, Any]]:
    """Returns a job's metrics as Dataflow lists them; none if nobody answers."""
    with suppress(*_NO_ANSWER):
        return list(_ask("GET", root, f"jobs/{_id(job)}/metrics").get("metrics", []))
    return []


def _refused(error: BaseException, root: str) -> BatchscoreError:
    """Returns the error of a request that the service refused, perhaps for now only."""
    passes = isinstance(error, ServiceError) and (_is_of_quota(error) or error.code in _PASSING)
    return (RetryError if passes else InvalidError)(explained(error, root))


def _is_of_quota(error: ServiceError) -> bool:
    return error.code == 429 or "quota" in error.said.lower()


def explained(error: BaseException, root: str) -> str:
    """Returns what is wrong at Dataflow, and what helps."""
    project, region = re.findall(r"/(?:projects|locations)/([^/]+)", root) or ("?", "?")
    where = f"engine dataflow: project {project}, region {region}"
    if not isinstance(error, ServiceError):
        return (
            f"{where}: Dataflow does not answer at {urlsplit(root).netloc} ({reason(error)}); "
            "look at the network, and run again"
        )
    said = one_line(error.said, 300)
    return f"{where}: {said} ({error.code}); {_remedy(error)}"


def _remedy(error: ServiceError) -> str:
    said = error.said.lower()
    if _is_of_quota(error):
        return "lower runtime.dataflow.max_vms, or ask for more quota, and run again"
    if error.code == 401:
        return (
            "log in with `gcloud auth application-default login`, or name a key's file in "
            "GOOGLE_APPLICATION_CREDENTIALS"
        )
    if error.code == 403:
        return (
            "enable the Dataflow API in the project, and grant the caller the role Dataflow "
            "Developer and, on runtime.dataflow.service_account, Service Account User"
        )
    if "region" in said or "location" in said or error.code == 404:
        return "correct runtime.dataflow.region and project; `gcloud compute regions list` has them"
    if error.code in _PASSING:
        return "run again later"
    return "correct runtime.dataflow or runtime.options"


def _named(root: str, name: str) -> Iterator[Any]:
    if not name:
        raise ValueError("a job has a name")
    jobs = _listed(root, {"filter": "ALL", "name": name})
    return (job for job in jobs if job["name"] == name)


def _listed(root: str, query: Mapping[str, str]) -> Iterator[Any]:
    token = ""
    for _ in range(_MOST_PAGES):
        page = _ask("GET", root, f"jobs?{urlencode({**query, 'pageToken': token})}")
        yield from page.get("jobs", [])
        token = page.get("nextPageToken", "")
        if not token:
            return


def _cancel(root: str, job: str) -> None:
    # One may end in the meantime, which the service answers with an error.
    with suppress(ServiceError):
        _ask("PUT", root, f"jobs/{_id(job)}", {"requestedState": "JOB_STATE_CANCELLED"})


def _ask(method: str, root: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
    if not _ROOT.fullmatch(root):
        raise ValueError("it is no address of Dataflow's jobs")
    data = None if body is None else json.dumps(body).encode()

    def once() -> Any:
        headers = {"Content-Type": "application/json", **_login(root)}
        request = urllib.request.Request(f"{root}/{path}", data, headers, method=method)
        try:
            with strict_opener().open(request, timeout=_SECONDS) as answer:
                content = answer.read(_MOST_BYTES)
        except urllib.error.HTTPError as error:
            raise ServiceError(error.code, _said(error)) from None
        found = json.loads(content or b"{}")
        if not isinstance(found, dict):
            raise TypeError("it answers with something else than Dataflow does")
        return found

    return _patiently(once)


def _patiently(once: Callable[[], Any]) -> Any:
    for wait_s in _WAITS_S:
        try:
            return once()
        except ServiceError as error:
            if error.code not in _PASSING or "quota" in error.said.lower():  # it lasts
                raise
        except (TimeoutError, http.client.HTTPException, ConnectionResetError):
            pass
        time.sleep(wait_s)
    return once()


def _said(error: urllib.error.HTTPError) -> str:
    """Returns the message in an answer's body, or what HTTP calls the answer."""
    with suppress(*_NO_ANSWER):
        return str(json.loads(error.read(_MOST_BYTES))["error"]["message"])
    return str(error.reason)


def _login(root: str) -> dict[str, str]:
    """Returns the header that carries a token; none for who is not Google over TLS."""
    parts = urlsplit(root)
    if parts.scheme != "https" or not _GOOGLE.fullmatch(parts.hostname or "") or parts.port:
        return {}
    return {"Authorization": f"Bearer {_token()}"}


def _token() -> str:
    from google.auth.exceptions import GoogleAuthError
    from google.auth.transport.requests import Request

    try:
        credentials = _credentials()
        if not credentials.valid:
            credentials.refresh(Request())
        return str(credentials.token)
    except GoogleAuthError as error:
        raise ServiceError(
            401, f"there are no credentials of Google ({type(error).__name__})"
        ) from None


@cache
def _credentials() -> Any:
    import google.auth

    return google.auth.default(scopes=[_SCOPE])[0]


def _id(job: str) -> str:
    """Returns a job's id; ValueError if it cannot be one."""
    if not _JOB.fullmatch(job):
        raise ValueError("it is no id of a job")
    return job
