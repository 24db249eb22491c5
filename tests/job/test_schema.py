"""Every key of the job file is described, in its schema and on the reference page."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

from batchscore.job import job_schema


def test_every_key_is_described() -> None:
    """Each key of the job file has a description, and the schema is JSON."""
    schema = job_schema()
    json.dumps(schema)
    models = [schema, *(d for d in schema["$defs"].values() if "properties" in d)]
    assert len(models) > 12
    for model in models:
        assert all(field.get("description") for field in model["properties"].values())
        assert model["additionalProperties"] is False


def test_the_reference_page_is_up_to_date() -> None:
    """docs/job-file.md is what docs/make_job_reference.py makes of the models."""
    script = Path(__file__).parents[2] / "docs" / "make_job_reference.py"
    specification = importlib.util.spec_from_file_location("make_job_reference", script)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    assert module.PAGE.read_text(encoding="utf-8") == module.render()
