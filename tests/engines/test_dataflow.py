"""The engine `dataflow` against a fake for its service and a server of its buckets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.portability.fn_api_runner import translations

from batchscore.commands.prepared import all_flags
from batchscore.engines.dataflow import DataflowEngine
from batchscore.errors import InvalidError, JobFileError
from batchscore.job import load_job
from batchscore.pipeline import build
from batchscore.plan import make_plan, settle
from tests import factory
from tests.dataflows import (
    SECTION,
    FakeDataflow,
    options_of,
    run_staged,
    serving_fake,
    staged,
    write_job,
)
from tests.servers import ObjectStore, running
from tests.waiting import wait_until

pytest.importorskip("google.cloud.dataflow")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def buckets() -> Iterator[ObjectStore]:
    """A server of Google Cloud Storage, for all tests here."""
    with running("gcs") as found, found.at():
        found.make_bucket("staging")
        yield found


@pytest.fixture
def service() -> Iterator[FakeDataflow]:
    """A service that knows no job yet."""
    with serving_fake() as found:
        yield found


@pytest.fixture
def job(buckets: ObjectStore, service: FakeDataflow, tmp_path: Path) -> Path:
    """A job file of this engine, whose input is in a bucket and whose model is on this machine."""
    return write_job(tmp_path, buckets, service)


def _submitted(job: Path, service: FakeDataflow, **section: Any) -> dict[str, Any]:
    """Submits a job past the command, and returns the request that the service got."""
    changes = {f"runtime.dataflow.{key}": value for key, value in section.items()}
    device = {"runtime.device": "cuda"} if "accelerator" in section else {}
    factory.change_job(job.parent, {**changes, **device})
    plan = make_plan(load_job(str(job)))
    units, engine = settle(plan).units, DataflowEngine()
    flags = all_flags(plan.loaded.job.runtime, [])
    engine.parse_flags(flags)
    plan = engine.place(plan, units)
    spec = factory.run_spec(plan)
    work = engine.submit(lambda pipeline: build(pipeline, spec, units), plan, flags)
    wait_until(lambda: bool(work.job) or work.error is not None, 20)
    assert work.error is None
    service.end()
    work.join(20)
    return service.bodies[0]


def test_the_request_has_what_the_section_says(job: Path, service: FakeDataflow) -> None:
    """Image, VMs, network, account and labels are in the request; no package is staged."""
    body = _submitted(job, service)
    environment, pool = body["environment"], body["environment"]["workerPools"][0]
    assert body["type"] == "JOB_TYPE_BATCH"
    assert body["name"].startswith("batchscore-small-")
    assert body["labels"] == SECTION["labels"]
    assert environment["serviceAccountEmail"] == SECTION["service_account"]
    assert environment["tempStoragePrefix"].startswith("storage.googleapis.com/staging/temp/")
    assert pool["workerHarnessContainerImage"] == SECTION["image"]
    assert [each["containerImage"] for each in pool["sdkHarnessContainerImages"]] == [
        SECTION["image"]
    ]
    assert pool["kind"] == "harness"
    assert pool["machineType"] == "n1-standard-4"
    assert pool["subnetwork"] == SECTION["subnetwork"]
    assert pool["ipConfiguration"] == "WORKER_IP_PRIVATE"
    assert pool["autoscalingSettings"]["maxNumWorkers"] == 1
    assert pool["numThreadsPerWorker"] == 1
    assert "packages" not in pool
    assert options_of(body)["region"] == SECTION["region"]
    assert "use_multiple_sdk_containers" in environment["experiments"]
    assert "no_use_multiple_sdk_containers" not in environment["experiments"]


def test_hints_are_on_the_whole_fused_stage(job: Path, service: FakeDataflow) -> None:
    """One environment has GPU and memory for all steps, so that fusion keeps rows in one stage."""
    body = _submitted(job, service, accelerator="nvidia-tesla-t4", min_ram="16GB")
    graph = staged(body)
    (environment,) = graph.components.environments.values()
    assert dict(environment.resource_hints) == {
        "beam:resources:accelerator:v1": b"type:nvidia-tesla-t4;count:1;install-nvidia-driver",
        "beam:resources:min_ram_bytes:v1": b"16000000000",
    }
    assert environment.urn == "beam:env:docker:v1"
    payload = beam_runner_api_pb2.DockerPayload.FromString(environment.payload)
    assert payload.container_image == SECTION["image"]
    assert not environment.dependencies
    stages = [{name.partition("/")[0] for name in names} for names in _fused(graph)]
    rows = {"Read", "Preprocess", "Infer", "Postprocess", "Write"}
    assert [stage & rows for stage in stages if stage & rows] == [rows]
    experiments = body["environment"]["experiments"]
    assert "no_use_multiple_sdk_containers" in experiments
    assert "use_multiple_sdk_containers" not in experiments
    assert options_of(body)["dataflow_service_options"] == []


def _fused(graph: beam_runner_api_pb2.Pipeline) -> list[list[str]]:
    """Returns the names of the steps of each stage, as Beam fuses them."""
    _, stages = translations.create_and_optimize_stages(
        graph,
        phases=[translations.lift_combiners, translations.greedily_fuse],
        known_runner_urns=frozenset(
            {"beam:transform:impulse:v1", "beam:transform:group_by_key:v1"}
        ),
    )
    return [[transform.unique_name for transform in stage.transforms] for stage in stages]


def test_a_run_that_was_left_publishes_the_rows_of_the_engine_direct(
    job: Path, service: FakeDataflow, tmp_path: Path
) -> None:
    """What was staged is all that it needs, with the code and model of the output."""
    left = factory.run_json("run", job, "--detach")
    assert left["status"] == "submitted"
    (job_id,) = service.jobs
    assert left["submission"]["job"] == job_id
    assert left["submission"]["address"] == service.root
    run_staged(service.bodies[0])
    service.end()
    done = factory.run_json("wait", job, left["run"])
    assert done["status"] == "published"
    direct = factory.change_job(tmp_path, {"output.path": "direct", "runtime": {}})
    assert factory.run_json("run", direct)["rows"] == done["rows"]
    assert len(service.bodies) == 1


def test_a_run_is_cancelled_by_its_id(job: Path, service: FakeDataflow) -> None:
    """`status` shows the job, and `cancel` ends it at the service and closes the run."""
    left = factory.run_json("run", job, "--detach")
    (found,) = service.jobs.values()
    assert left["run"] in factory.run_cli("runs", job).stdout
    again = factory.run_cli("run", job)
    assert again.exit_code == 4
    assert found["id"] in again.stderr
    assert factory.run_cli("cancel", job, left["run"]).exit_code == 0
    assert found["currentState"] == "JOB_STATE_CANCELLED"
    assert all("Authorization" not in headers for headers in service.headers)


def test_check_says_what_a_vm_runs(job: Path, service: FakeDataflow) -> None:
    """It starts no VM."""
    done = factory.run_cli("check", job)
    assert done.exit_code == 0, done.output
    assert "each VM     4 processes with 1 thread and a model each, about 4.0 GB" in done.stdout
    assert not service.jobs


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        (
            (403, "Dataflow API has not been used in project 7"),
            ("(403)", "enable the Dataflow API"),
        ),
        (
            (429, "Quota exceeded for quota metric"),
            ("Quota exceeded", "lower runtime.dataflow.max"),
        ),
        ((400, "The region europe-west4 is unknown"), ("(400)", "correct runtime.dataflow.region")),
        ((401, "Request had invalid credentials"), ("gcloud auth application-default login",)),
    ],
)
def test_a_refusal_is_one_message(
    refusal: tuple[int, str], words: tuple[str, ...], job: Path, service: FakeDataflow
) -> None:
    """It names project and region, the service's words, and what helps, before any work."""
    service.refusals.append(refusal)
    done = factory.run_cli("run", job)
    assert done.exit_code == (4 if refusal[0] == 429 else 2)
    assert "project my-project, region europe-west4" in done.stderr
    assert all(word in done.stderr for word in words), done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_region_is_an_error(job: Path) -> None:
    """The service knows no jobs there."""
    factory.change_job(job.parent, {"runtime.dataflow.region": "europe-east9"})
    factory.change_job(job.parent, {"runtime.dataflow.subnetwork": None})
    done = factory.run_cli("run", job)
    assert done.exit_code == 2
    assert "region europe-east9" in done.stderr


def test_a_missing_bucket_is_an_error_before_any_work(job: Path, service: FakeDataflow) -> None:
    """Beam would make a bucket of its own."""
    factory.change_job(job.parent, {"runtime.dataflow.temp_location": "gs://no-such/temp"})
    done = factory.run_cli("run", job)
    assert done.exit_code == 2
    assert "temp_location gs://no-such/temp: there is no bucket 'no-such'" in done.stderr
    assert not service.jobs


def test_a_job_that_fails_is_an_error_with_its_reason(job: Path, service: FakeDataflow) -> None:
    """The service's message ends the run."""
    service.messages.append("Startup of the worker pool in zone europe-west4-b failed: no T4 left")
    plan = make_plan(load_job(str(job)))
    units, engine = settle(plan).units, DataflowEngine()
    flags = all_flags(plan.loaded.job.runtime, [])
    plan = engine.place(plan, units)
    spec = factory.run_spec(plan)
    work = engine.submit(lambda pipeline: build(pipeline, spec, units), plan, flags)
    wait_until(lambda: bool(work.job), 20)
    service.end("FAILED")
    work.join(20)
    assert "failed: Startup of the worker pool in zone europe-west4-b failed" in str(work.error)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--setup_file=x"], "the image of runtime.dataflow.image sets it"),
        (["--dry_run=False"], "--dry_run"),
        (["--template_location=gs://staging/t"], "classic templates are not supported"),
        (["--dataflow_job_file=x"], "creates a batch job itself, and would ignore it"),
        (["--num_workers=3"], "runtime.dataflow.vms sets it"),
        (["--experiments=no_use_multiple_sdk_containers"], "runtime.dataflow.processes sets it"),
        (["--dataflow_service_options=worker_accelerator=type:x"], "set runtime.dataflow.acceler"),
        (["--temp_location=gs://b/t"], "expected gs://BUCKET/FOLDER, found 'gs://b/t'"),
        (["--parallelism=3"], "is of "),
    ],
)
def test_options_that_the_section_sets_are_errors(flags: list[str], words: str, job: Path) -> None:
    """Each is named with the key that sets it."""
    runtime = load_job(str(job)).job.runtime
    with pytest.raises((InvalidError, JobFileError)) as caught:
        DataflowEngine().parse_flags(all_flags(runtime, flags))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"runtime.dataflow.project": None}, "runtime.dataflow.project is not set"),
        ({"output.path": "out"}, "is not in an object store"),
        ({"runtime.device": "cuda"}, "no VM has a GPU; set runtime.dataflow.accelerator"),
        ({"runtime.dataflow.accelerator": "nvidia-l4"}, "runtime.device is auto"),
        ({"runtime.dataflow.machine_type": "q9-huge-4"}, "vCPUs and memory are not known"),
    ],
)
def test_a_job_that_no_vm_can_do_is_refused(changes: dict[str, Any], words: str, job: Path) -> None:
    """It ends before any work, with the key to change."""
    factory.change_job(job.parent, changes)
    done = factory.run_cli("run", job)
    assert done.exit_code == 2
    assert words in done.stderr.replace("\n", " ")


def test_the_options_of_workers_are_no_dry_run(job: Path, service: FakeDataflow) -> None:
    """Beam's `dry_run`, which describes the job, is not what workers get."""
    options = options_of(_submitted(job, service))
    assert options.get("dry_run", False) is False
    assert PipelineOptions.from_dictionary(options)
