"""A fake of Dataflow's REST interface, which keeps jobs and never runs any by itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.pipeline_context import PipelineContext
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from apache_beam.transforms.environments import EmbeddedPythonEnvironment

from batchscore.engines import dataflow
from batchscore.storage.store import Store
from batchscore.worker import log
from tests import factory
from tests.servers import ObjectStore, answering

PROJECT, REGION = "my-project", "europe-west4"
_JOBS = f"/v1b3/projects/{PROJECT}/locations/{REGION}/jobs"
SECTION = {
    "project": PROJECT,
    "region": REGION,
    "image": "europe-docker.pkg.dev/my-project/images/batchscore:0.2.0",
    "service_account": "scorer@my-project.iam.gserviceaccount.com",
    "subnetwork": f"regions/{REGION}/subnetworks/inner",
    "public_ips": False,
    "labels": {"team": "churn", "cost_center": "7"},
    "machine_type": "n1-standard-4",
}


@dataclass
class FakeDataflow:
    """What the service was asked, and what it knows.

    Args:
        port: Of loopback.
        jobs: What it keeps of jobs, by id.
        bodies: The requests that created them.
        messages: Errors that it tells of each job.
        metrics: Those of each job.
        refusals: Status and message of the next answers.
        headers: Those of all requests.
        fate: The state that each job goes to once it was created; by default it goes on.
        rejections: As `refusals`, but only of requests that create a job.
        created: Called once a job was created, before anybody hears of it.
    """

    port: int = 0
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    refusals: list[tuple[int, str]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    fate: str = "RUNNING"
    rejections: list[tuple[int, str]] = field(default_factory=list)
    created: Callable[[], object] = bool

    @property
    def endpoint(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def root(self) -> str:
        """The address of the jobs of its project and region."""
        return f"{self.endpoint}{_JOBS.removesuffix('/jobs')}"

    def end(self, state: str = "DONE") -> None:
        """Ends all jobs that have not ended."""
        for job in self.jobs.values():
            if job["currentState"] == "JOB_STATE_RUNNING":
                job["currentState"] = f"JOB_STATE_{state}"

    def answer(self, method: str, target: str, body: Any) -> tuple[int, Any]:
        """Returns the status and the body of an answer."""
        refusals = self.refusals or (self.rejections if method == "POST" else [])
        if refusals:
            code, said = refusals.pop(0)
            return code, {"error": {"code": code, "message": said}}
        address = urlsplit(target)
        if not address.path.startswith(_JOBS):
            said = f"The workflow could not be found: {address.path}: unknown region"
            return 404, {"error": {"code": 404, "message": said}}
        match address.path.removeprefix(_JOBS).strip("/").split("/"):
            case [""] if method == "POST":
                return 200, self._create(body)
            case [""]:
                return 200, {"jobs": self._list(parse_qs(address.query))}
            case [job, *_] if job not in self.jobs:
                return 404, {"error": {"code": 404, "message": f"{job}: no such job"}}
            case [job] if method == "PUT":
                self.jobs[job]["currentState"] = "JOB_STATE_CANCELLED"
                return 200, self.jobs[job]
            case [job]:
                return 200, self.jobs[job]
            case [_, "messages"]:
                texts = [{"messageText": text} for text in self.messages]
                return 200, {"jobMessages": texts}
            case _:
                return 200, {"metrics": self.metrics}

    def _create(self, body: dict[str, Any]) -> dict[str, Any]:
        for known in self.jobs.values():
            if known["clientRequestId"] == body["clientRequestId"]:
                return known
        self.bodies.append(body)
        job = f"2026-11-30_00_00_00-{len(self.jobs)}"
        kept = {key: body[key] for key in ("name", "clientRequestId")}
        self.jobs[job] = {**kept, "id": job, "currentState": f"JOB_STATE_{self.fate}"}
        self.created()
        return self.jobs[job]

    def _list(self, query: dict[str, list[str]]) -> list[dict[str, Any]]:
        names = query.get("name")
        return [job for job in self.jobs.values() if not names or job["name"] in names]


@contextmanager
def serving_fake() -> Iterator[FakeDataflow]:
    """Starts a fake on loopback; what this process asked others before is asked again."""
    dataflow._require_service.cache_clear()
    dataflow._require_bucket.cache_clear()
    found = FakeDataflow()

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            found.headers.append(dict(self.headers))
            code, answer = found.answer(self.command, self.path, body)
            content = json.dumps(answer).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = _serve  # noqa: N815

    with answering(Handler) as found.port:
        yield found


def write_job(folder: Path, buckets: ObjectStore, service: FakeDataflow) -> Path:
    """Writes a job whose input is in a bucket and whose model is on this machine.

    The bucket has the folder's name; that of `temp_location` is `staging`.
    """
    address = buckets.make_bucket(folder.name.replace("_", "-").lower()[-40:].strip("-"))
    path = factory.write_job(folder)
    for shard in (folder / "in").iterdir():
        Store(address).write(f"in/{shard.name}", shard.read_bytes())
    changes = {
        "input.path": f"{address}/in",
        "output.path": f"{address}/out",
        "runtime": {
            "engine": "dataflow",
            "dataflow": {**SECTION, "temp_location": "gs://staging/temp"},
            "options": {"dataflow_endpoint": service.endpoint},
        },
    }
    factory.change_job(folder, changes)
    return path


def staged(body: dict[str, Any]) -> beam_runner_api_pb2.Pipeline:
    """Returns the pipeline that a request names, from its bucket."""
    folder, _, name = url_of(body).rpartition("/")
    pipeline = beam_runner_api_pb2.Pipeline()
    pipeline.ParseFromString(Store(folder).read(name))
    return pipeline


def url_of(body: dict[str, Any]) -> str:
    """Returns where a request says that its pipeline is."""
    return str(options_of(body)["pipelineUrl"])


def options_of(body: dict[str, Any]) -> dict[str, Any]:
    """Returns the options that a request hands to workers."""
    found: dict[str, Any] = body["environment"]["sdkPipelineOptions"]["options"]
    return found


def run_staged(body: dict[str, Any]) -> None:
    """Runs the pipeline of a request as a VM would, but in this process."""
    pipeline = staged(body)
    embedded = EmbeddedPythonEnvironment.default().to_runner_api(PipelineContext())
    for environment in pipeline.components.environments.values():
        environment.CopyFrom(embedded)
    runner = FnApiRunner()
    try:
        runner.run_via_runner_api(pipeline, PipelineOptions([])).wait_until_finish()
    finally:
        _end_log()


def _end_log() -> None:
    """Has this process write no more into the output of the run, whose server ends sooner.

    A VM ends with its job, and its next run is in another process.
    """
    if log._kept is not None:
        log._kept.save(now=True)
        log._kept._has_room = False
