"""The files of jobs/flink: what they name is what the job file, the package and the tests use."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

import batchscore
from batchscore.engines.flink import FlinkEngine
from batchscore.job import load_job
from tests.pages import ROOT
from tools.flink.parts import BEAM, FLINK

FOLDER = ROOT / "jobs/flink"
DOCKERFILE = (ROOT / "Dockerfile").read_text()
README = (FOLDER / "README.md").read_text()
PROJECT = (ROOT / "pyproject.toml").read_text()
IMAGE = f"registry.example.org/batchscore:{batchscore.__version__}"
MINOR = FLINK.rpartition(".")[0]


def documents(name: str) -> list[dict[str, Any]]:
    """Returns the documents of a file."""
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


def cluster() -> dict[str, Any]:
    """Returns the spec of the session cluster."""
    (found,) = documents("cluster.yaml")
    assert (found["apiVersion"], found["kind"]) == ("flink.apache.org/v1beta1", "FlinkDeployment")
    spec: dict[str, Any] = found["spec"]
    return spec


def pod(document: dict[str, Any]) -> dict[str, Any]:
    """Returns what the pods of a Deployment or Job are made of."""
    spec: dict[str, Any] = document["spec"]["template"]["spec"]
    return spec


def pool() -> dict[str, Any]:
    """Returns the container of the Python workers."""
    main, found = cluster()["taskManager"]["podTemplate"]["spec"]["containers"]
    assert main["name"] == "flink-main-container"
    side_car: dict[str, Any] = found
    return side_car


def test_the_job_file_is_valid_and_finds_the_cluster() -> None:
    """Its addresses are those of the Services, and of the pool in each TaskManager's pod."""
    job = load_job(str(FOLDER / "job.yaml")).job
    section = job.runtime.flink
    jobs, service = documents("job-server.yaml")
    (job_server,) = pod(jobs)["containers"]
    ports = {port["name"]: port["port"] for port in service["spec"]["ports"]}
    assert section.job_service == f"{service['metadata']['name']}:{ports['jobs']}"
    assert section.rest == f"{documents('cluster.yaml')[0]['metadata']['name']}-rest:8081"
    assert section.pool == pool()["command"][-1]
    assert FlinkEngine().section_flags(job.runtime)[1:] == [
        "--environment_type=EXTERNAL",
        f"--environment_config={section.pool}",
    ]
    for argument in (
        f"--flink-master={section.rest}",
        f"--job-host={service['metadata']['name']}",
        f"--job-port={ports['jobs']}",
        f"--artifact-port={ports['artifacts']}",
    ):
        assert argument in job_server["args"]


def test_the_versions_are_those_that_were_run() -> None:
    """Flink and the job server are those of `tools.flink`; the image is of this batchscore."""
    spec, (jobs, _), (run,) = cluster(), documents("job-server.yaml"), documents("run.yaml")
    assert spec["image"] == f"flink:{FLINK}-java17"
    assert spec["flinkVersion"] == f"v{MINOR.replace('.', '_')}"
    job_server = f"apache/beam_flink{MINOR}_job_server:{BEAM}"
    assert pod(jobs)["containers"][0]["image"] == job_server
    assert pool()["image"] == pod(run)["containers"][0]["image"] == IMAGE
    for name in (spec["image"], job_server, IMAGE):
        assert name in README


def test_the_image_has_a_tested_python_and_known_extras() -> None:
    """The page names the versions of the image."""
    python = re.findall(r"^ARG PYTHON=(.+)$", DOCKERFILE, re.MULTILINE)[0]
    extras = re.findall(r"^ARG EXTRAS=(.+)$", DOCKERFILE, re.MULTILINE)[0]
    beam = re.findall(r'"apache-beam>=([\d.]+),', PROJECT)[0]
    assert f'"Programming Language :: Python :: {python}"' in PROJECT
    assert all(re.search(f"^{extra} = ", PROJECT, re.MULTILINE) for extra in extras.split(","))
    assert f"| Python of the image | {python} |" in README
    assert f"| Beam in Python | {beam} |" in README


def test_the_containers_run_as_the_images_user() -> None:
    """Pool and launcher may write to the image's scratch folder."""
    user = int(re.findall(r"^USER (\d+)$", DOCKERFILE, re.MULTILINE)[0])
    launcher = pod(documents("run.yaml")[0])
    task_manager = cluster()["taskManager"]["podTemplate"]["spec"]
    for template, container in ((task_manager, pool()), (launcher, launcher["containers"][0])):
        assert container["securityContext"]["runAsUser"] == user
        assert template["securityContext"]["fsGroup"] == user
        assert {"name": "scratch", "mountPath": "/scratch"} in container["volumeMounts"]
    assert pool()["command"][:3] == ["python", "-m", "batchscore.engines.pool"]


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.iterdir()))
def test_the_page_names_each_file(name: str) -> None:
    """A newcomer learns what each file is for."""
    assert name == "README.md" or f"| `{name}` |" in README


def test_the_page_explains_each_key_of_the_cluster() -> None:
    """Keys of Flink's configuration may share a row."""
    spec = cluster()
    explained = README.partition("## Keys of cluster.yaml")[2].partition("**Memory")[0]
    keys = [*spec, *spec["jobManager"], *spec["taskManager"], *pool()]
    sections = {"flinkConfiguration", "jobManager", "taskManager", "podTemplate", "name"}
    for key in set(keys) - sections:
        assert re.search(rf"`(\w+\.)?{key}\b", explained), key
    for key in spec["flinkConfiguration"]:
        assert f"`{key}`" in explained or f"`{key.partition('.')[0]}.*`" in explained, key
