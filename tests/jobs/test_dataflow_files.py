"""The files of jobs/dataflow: what they name is what the package and the tests use."""

from __future__ import annotations

import re

import batchscore
from batchscore.engines.beam_version import TESTED
from batchscore.engines.dataflow import DataflowEngine
from batchscore.job import load_job
from jobs.dataflow import launch
from tests.pages import ROOT

FOLDER = ROOT / "jobs/dataflow"


def test_the_job_file_names_all_that_the_engine_needs() -> None:
    """Its section stands for the options that must be there, and its image is this version's."""
    runtime = load_job(str(FOLDER / "job.yaml")).job.runtime
    flags = DataflowEngine().section_flags(runtime)
    names = {flag.partition("=")[0] for flag in flags}
    assert {"--project", "--region", "--temp_location", "--sdk_container_image"} <= names
    assert runtime.dataflow.image is not None
    assert runtime.dataflow.image.endswith(f"/batchscore:{batchscore.__version__}")


def test_the_image_has_beams_program_of_the_tested_version() -> None:
    """Python and Beam are those of the image at the root."""
    text = (FOLDER / "Dockerfile").read_text()
    python, beam = re.findall(r"beam_python([0-9.]+)_sdk:([0-9]+\.[0-9]+)", text)[0]
    assert beam == TESTED
    assert f"ARG PYTHON={python}\n" in (ROOT / "Dockerfile").read_text()
    assert "COPY --from=beam /opt/apache/beam /opt/apache/beam" in text
    assert "ENV RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT=1\n" in text
    assert text.rstrip().splitlines()[-2] == 'ENTRYPOINT ["/opt/apache/beam/boot"]'


def test_the_image_launches_the_template() -> None:
    """It has Google's launcher for its Python, the program and its parameters, in one folder."""
    text = (FOLDER / "Dockerfile").read_text()
    (python,) = re.findall(r"beam_python([0-9.]+)_sdk", text)
    assert f"/python{python.replace('.', '')}-template-launcher-base:" in text
    program = "/opt/google/dataflow/python_template_launcher"
    assert f"COPY --from=launcher {program} {program}\n" in text
    (folder,) = re.findall(
        r"^COPY jobs/dataflow/launch.py jobs/dataflow/metadata.json (.*)/$", text, re.M
    )
    assert f"ENV FLEX_TEMPLATE_PYTHON_PY_FILE={folder}/launch.py\n" in text
    assert launch.METADATA.parent == FOLDER
    sent = (ROOT / ".dockerignore").read_text().splitlines()
    assert {"!jobs/dataflow/launch.py", "!jobs/dataflow/metadata.json"} <= {*sent}
    assert not re.search(r"^ENV FLEX_TEMPLATE_PYTHON_(REQUIREMENTS|SETUP)_FILE", text, re.M)


def test_the_readme_has_the_parameters_of_the_template() -> None:
    """Its table names each, and which are needed."""
    text = (FOLDER / "README.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (yes)? ?\| ", text, re.M)
    assert dict(rows) == {
        each["name"]: "" if each.get("isOptional") else "yes" for each in launch.parameters()
    }
