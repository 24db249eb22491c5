"""The files of jobs/dataflow: what they name is what the package and the tests use."""

from __future__ import annotations

import re

import batchscore
from batchscore.engines.beam_version import TESTED
from batchscore.engines.dataflow import DataflowEngine
from batchscore.job import load_job
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
    assert text.rstrip().splitlines()[-2] == 'ENTRYPOINT ["/opt/apache/beam/boot"]'
