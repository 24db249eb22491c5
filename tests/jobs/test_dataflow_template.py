"""The flex template of jobs/dataflow: its parameters, its launcher, and the job that it leaves."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batchscore.job import dataflow_section as section
from batchscore.job import load_job
from batchscore.job.sections import Runtime
from batchscore.storage.store import Store
from jobs.dataflow import launch
from tests import factory
from tests.dataflows import (
    PROJECT,
    REGION,
    SECTION,
    FakeDataflow,
    run_staged,
    serving_fake,
    write_job,
)
from tests.pages import ROOT
from tests.servers import ObjectStore, running

METADATA = ROOT / "jobs/dataflow/metadata.json"
PARAMETERS = {each["name"]: each for each in launch.parameters()}
ID = "2026-12-01_00_00_00-42"
# As it is in the launcher's log of a template: python-docs-samples, issue 4307.
LAUNCHER = {
    "runner": "DataflowRunner",
    "project": PROJECT,
    "region": REGION,
    "job_name": "flights-nightly",
    "service_account_email": "7-compute@developer.gserviceaccount.com",
    "temp_location": "gs://staging/temp",
    "staging_location": "gs://staging/staging",
    "template_location": f"gs://staging/staging/template_launches/{ID}/job_object",
}


@pytest.fixture(scope="module")
def buckets() -> Iterator[ObjectStore]:
    """A server of Google Cloud Storage."""
    pytest.importorskip("google.cloud.dataflow")
    with running("gcs") as found, found.at():
        found.make_bucket("staging")
        yield found


@pytest.fixture
def service() -> Iterator[FakeDataflow]:
    """A service that has the job of a template, whose launcher runs."""
    with serving_fake() as found:
        kept = {"name": LAUNCHER["job_name"], "clientRequestId": ""}
        found.jobs[ID] = {**kept, "id": ID, "currentState": "JOB_STATE_QUEUED"}
        yield found


@pytest.fixture
def job(buckets: ObjectStore, service: FakeDataflow, tmp_path: Path) -> Path:
    """A job file whose input and output are in a bucket."""
    return write_job(tmp_path, buckets, service)


def words(**parameters: str) -> list[str]:
    """Returns what Dataflow's launcher starts the program with."""
    return [f"--{name}={value}" for name, value in {**LAUNCHER, **parameters}.items()]


def launched(service: FakeDataflow, **parameters: str) -> Any:
    """Runs the command that the template stands for, in this process."""
    given = launch.read(words(**parameters, dataflow_endpoint=service.endpoint))
    assert launch.wrong(given) == []
    return factory.run_cli(*launch.command(given))


def test_dataflow_reads_the_metadata() -> None:
    """Google's own class takes each key, and each parameter has a label, a help and a form."""
    templates = pytest.importorskip("google.cloud.dataflow_v1beta3.types.templates")
    found = templates.TemplateMetadata.from_json(METADATA.read_text(), ignore_unknown_fields=False)
    for each in found.parameters:
        assert each.label
        assert each.help_text.endswith(".")
        (form,) = each.regexes
        assert form.startswith("^")
        assert form.endswith("$")
        assert "(?" not in form  # Dataflow's expressions look neither ahead nor back


def test_the_metadata_has_the_parameters_that_the_launcher_takes() -> None:
    """Each parameter becomes a word of the command, and each of the program's is described."""
    assert PARAMETERS.keys() == {*launch.KEYS, *launch.OTHERS}
    assert not launch.KEYS.keys() & launch.OPTIONS.keys()
    values = {"job": "/j.yaml", "rescore": "true", "params": "a=1"}
    for name in PARAMETERS:
        given = {"job": "/j.yaml", name: values.get(name, "some-value")}
        command = launch.command(given)
        assert any(given[name] in word or word == f"--{name}" for word in command), name
        assert f"--{name}={given[name]}" not in command[command.index("--") :]


def test_the_forms_are_those_of_the_job_file() -> None:
    """What Dataflow lets through, the job file takes, and nothing else."""
    expected = {
        "output": section.BUCKET,
        "accelerator": section.ACCELERATOR,
        "min_ram": section.MIN_RAM,
        "sdk_container_image": section.IMAGE,
        "processes": "^(auto|core|vm)$",
    }
    assert {name: PARAMETERS[name]["regexes"] for name in expected} == {
        name: [form] for name, form in expected.items()
    }
    keys = {key.removeprefix("runtime.") for key in {**launch.KEYS, **launch.OPTIONS}.values()}
    known = {*Runtime.model_fields, *(f"dataflow.{key}" for key in section.Dataflow.model_fields)}
    assert keys - known == {"output.path"}


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, ["template parameter job: is not set; expected: The job file: gs://BUCKET/"]),
        ({"job": "s3://b/job.yaml"}, ["job: found 's3://b/job.yaml'; expected: The job file"]),
        ({"job": "/j.yaml", "params": "2026-01-31"}, ["params: found '2026-01-31'; expected: Val"]),
        ({"job": "/j.yaml", "output": "gs:/b/o"}, ["output: found 'gs:/b/o'; expected: Where"]),
        ({"job": "/j.yaml", "rescore": "yes"}, ["rescore: found 'yes'; expected: true scores"]),
        ({"job": "/j.yaml", "device": "gpu"}, ["device: found 'gpu'; expected: cpu, or cuda"]),
        (
            {"job": "/j.yaml", "accelerator": "T4", "min_ram": "32 GB", "processes": "4"},
            ["accelerator: found 'T4'", "min_ram: found '32 GB'", "processes: found '4'"],
        ),
        ({"job": "/j.yaml", "sdk_container_image": "-"}, ["sdk_container_image: found '-'"]),
        ({"job": "/j.yaml", "output": "", "params": ""}, []),
    ],
)
def test_a_wrong_form_is_named(parameters: dict[str, str], expected: list[str]) -> None:
    """Each line has the parameter, its value, and what was expected; an empty one is not set."""
    found = launch.wrong(launch.read(words(**parameters)))
    assert len(found) == len(expected)
    assert all(part in line for part, line in zip(expected, found, strict=True)), found


def test_a_wrong_form_ends_the_launcher_before_it_imports_anything() -> None:
    """As Dataflow starts it: a program, with exit code 2, and no trace."""
    command = [sys.executable, str(ROOT / "jobs/dataflow/launch.py"), *words(job="job.txt")]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ})
    assert done.returncode == 2
    assert done.stderr.startswith("INVALID  template parameter job: found 'job.txt'; expected: The")
    assert "Traceback" not in done.stderr


def test_options_of_the_launcher_replace_those_of_the_job(tmp_path: Path) -> None:
    """The job that is run has the project, account and VMs of the launch."""
    path = factory.write_job(tmp_path, {"runtime": {"engine": "direct", "dataflow": SECTION}})
    given = launch.read(words(job=str(path), num_workers="2", max_num_workers="7"))
    command = launch.command(given)
    settings = [command[i + 1] for i, word in enumerate(command) if word == "--set"]
    found = load_job(str(path), (), settings).job.runtime.dataflow
    assert (found.vms, found.max_vms) == (2, 7)
    assert found.service_account == LAUNCHER["service_account_email"]
    assert found.temp_location == "gs://staging/temp"
    assert found.image == SECTION["image"]
    left = command[command.index("--") + 1 :]
    assert {word.partition("=")[0] for word in left} == {
        *("--job_name", "--staging_location", "--template_location"),
    }


@pytest.mark.slow
def test_a_launched_template_publishes_the_rows_of_the_engine_direct(
    job: Path, service: FakeDataflow, tmp_path: Path
) -> None:
    """The program describes the job where Dataflow looks, and leaves; that job is complete."""
    done = launched(service, job=str(job))
    assert done.exit_code == 0, done.output
    assert f"engine dataflow has it as job {ID}" in done.stdout
    assert service.bodies == []  # Dataflow has the job already
    folder, _, name = LAUNCHER["template_location"].rpartition("/")
    body = json.loads(Store(folder).read(name))
    assert body["name"] == LAUNCHER["job_name"]
    assert body["environment"]["serviceAccountEmail"] == LAUNCHER["service_account_email"]
    assert body["environment"]["sdkPipelineOptions"]["options"]["pipelineUrl"].startswith(
        LAUNCHER["staging_location"]
    )
    service.jobs[ID]["currentState"] = "JOB_STATE_RUNNING"
    assert ID in factory.run_cli("status", job).stdout
    assert factory.run_cli("run", job).exit_code == 4
    run_staged(body)
    service.end()
    ended = factory.run_json("wait", job)
    assert ended["status"] == "published"
    direct = factory.change_job(tmp_path, {"output.path": "direct", "runtime": {}})
    assert factory.run_json("run", direct)["rows"] == ended["rows"]


@pytest.mark.slow
def test_a_launched_template_is_cancelled_by_its_id(job: Path, service: FakeDataflow) -> None:
    """Also before its first worker has started."""
    launched(service, job=str(job))
    (run,) = re.findall(
        r"^(\d{8}-[0-9a-f]{4}) +submitted", factory.run_cli("status", job).stdout, re.M
    )
    assert factory.run_cli("cancel", job, run).exit_code == 0
    assert service.jobs[ID]["currentState"] == "JOB_STATE_CANCELLED"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"template_location": "gs://staging/classic"}, "classic templates are not supported"),
        ({"job_name": ""}, "'--job_name' is not set"),
    ],
)
def test_a_classic_template_is_refused(
    options: dict[str, str], expected: str, job: Path, service: FakeDataflow
) -> None:
    """Its job would have neither id nor launcher."""
    done = launched(service, job=str(job), **options)
    assert done.exit_code == 2
    assert expected in done.stderr
