"""Test that a worker of other versions says so, and unpickles nothing of the run."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from batchscore.errors import FailedError
from batchscore.job import load_embedded, load_job
from batchscore.plan import make_plan
from batchscore.plan.shipping import pack
from batchscore.runs.failures import read_failure
from batchscore.transforms import NetworkHandler, PreprocessBlocks, SpecDoFn, WriteUnits
from batchscore.worker.spec import ElementSpec, RunSpec
from batchscore.worker.versions import header_of, unsealed, versions_here
from tests import factory

COMPARED = ["Python", "apache-beam", "batchscore", "numpy", "pyarrow", "torch"]


@pytest.fixture
def spec(tmp_path: Path) -> RunSpec:
    """The spec of a run whose workers fetch what they need."""
    plan = make_plan(load_job(str(factory.write_job(tmp_path))))
    return replace(factory.run_spec(plan), shipment=pack(plan))


def test_what_must_be_alike_is_compared(spec: RunSpec) -> None:
    """Python's minor version, batchscore, Beam, NumPy, Arrow and the model's framework."""
    assert spec.shipment is not None
    assert sorted(spec.shipment.versions) == COMPARED


@pytest.mark.parametrize("name", COMPARED)
def test_another_version_is_refused_with_both(name: str, spec: RunSpec) -> None:
    """The message reaches the launcher by the output, though nothing can be unpickled."""
    facts = json.loads(header_of(spec))
    own = facts["versions"][name]
    facts["versions"][name] = "0.7"
    with pytest.raises(FailedError, match=rf"{name} {own} \(launcher: 0\.7\)"):
        unsealed(json.dumps(facts), b"no pickle")
    found = read_failure(spec.output, spec.identity.run)
    assert found is not None
    assert f"{name} {own} (launcher: 0.7); nothing was published: install" in str(found[0])


def test_a_step_of_another_pipeline_compares_versions_too(spec: RunSpec, tmp_path: Path) -> None:
    """The pipeline ends with the message, and nothing is written down for a launcher."""
    own = load_embedded(str(tmp_path / "job.yaml")).job
    parts = (spec.job, spec.slice, spec.output, spec.scoring, spec.execution)
    element = ElementSpec(*parts, own, pa.schema([]), "key", spec.shipment)
    facts = json.loads(header_of(element))
    assert list(facts) == ["versions"]
    facts["versions"]["numpy"] = "0.7"
    with pytest.raises(FailedError, match=r"\(launcher: 0\.7\): install the launcher's versions"):
        unsealed(json.dumps(facts), b"no pickle")


def test_all_differences_are_in_one_message(spec: RunSpec) -> None:
    """A package that is not installed counts as one."""
    facts = json.loads(header_of(spec))
    facts["versions"] |= {"numpy": "0.7", "no-such-package": "1.0"}
    with pytest.raises(FailedError, match=r"numpy .* no-such-package none \(launcher: 1\.0\)"):
        unsealed(json.dumps(facts), b"no pickle")


@pytest.mark.parametrize("kind", [PreprocessBlocks, WriteUnits, NetworkHandler])
def test_steps_come_back_as_they_were(kind: type[SpecDoFn], spec: RunSpec) -> None:
    """A worker of the same versions gets the step, sealed or not."""
    for each in (spec, replace(spec, shipment=None)):
        step = pickle.loads(pickle.dumps(kind(each)))
        assert (type(step), step._spec) == (kind, each)


def test_a_step_of_this_machine_is_not_sealed(spec: RunSpec) -> None:
    """Workers of the launcher's own environment compare nothing."""
    assert b"unsealed" in pickle.dumps(WriteUnits(spec))
    assert b"unsealed" not in pickle.dumps(WriteUnits(replace(spec, shipment=None)))


def test_versions_are_those_that_are_installed() -> None:
    """Python's patch does not count."""
    assert versions_here(["no-such-package"])["no-such-package"] == "none"
    assert versions_here([])["Python"].count(".") == 1
