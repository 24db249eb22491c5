"""Test that a worker has a run's code, model and profiles in folders of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batchscore.errors import FailedError, UnseenError
from batchscore.job import load_job
from batchscore.models.loadable import localize
from batchscore.plan import Plan, make_plan
from batchscore.plan.shipping import pack, send
from batchscore.runs import layout
from batchscore.storage.store import Store
from batchscore.worker.arrival import arrived
from batchscore.worker.scoring import load_call
from batchscore.worker.spec import RunSpec
from tests import factory

FUNCTION = """
from pathlib import Path

import other

HERE = Path(__file__).parent


def prepare(batch):
    return [other.NAME, (HERE / "lists/a.txt").read_text(), (HERE / "model/net.py").read_text()]
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The worker's temporary directory."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    return tmp_path / "tmp"


def write(home: Path, changes: Mapping[str, Any] | None = None) -> Plan:
    """Writes a job with code, a file that it reads and others, and plans it."""
    functions = {"preprocess": {"function": "steps.py:prepare"}, "code": ["lists"]}
    job = factory.write_job(home, {**functions, **(changes or {})})
    files = {
        "steps.py": FUNCTION,
        "other.py": "NAME = 'imported'",
        "lists/a.txt": "declared",
        "lists/.secret": "password",
        "secrets.env": "password",
        "model/.cache": "x",
    }
    for name, text in files.items():
        (home / name).parent.mkdir(exist_ok=True)
        (home / name).write_text(text)
    return make_plan(load_job(str(job)))


def shipped(plan: Plan, run: str) -> RunSpec:
    """Sends what a plan needs, and returns the spec of a run of this name."""
    shipment = pack(plan)
    layout.claim_output(plan.spec.output)
    send(plan, shipment)
    return replace(factory.run_spec(plan, run), shipment=shipment)


def test_code_and_model_come_without_the_launchers_folder(tmp_path: Path, temporary: Path) -> None:
    """Code imports and reads what it did there, the model is verified, and it stays the same."""
    plan = write(tmp_path / "home")
    spec = shipped(plan, "r1")
    net = (tmp_path / "home/model/net.py").read_text()
    (tmp_path / "home").rename(tmp_path / "gone")
    (tmp_path / "home").mkdir()
    (tmp_path / "gone/out").rename(tmp_path / "home/out")
    found = arrived(spec)
    section = found.scoring.preprocess
    assert section is not None
    assert load_call(section, found).function(None) == ["imported", "declared", net]
    assert localize(found.scoring.model).is_relative_to(temporary)
    assert found.scoring.model.identity == plan.spec.scoring.model.identity
    assert arrived(spec) is found


def test_only_what_was_hashed_travels(tmp_path: Path) -> None:
    """Hidden files, other files of the folders, and the model's weights as code do not."""
    found = arrived(shipped(write(tmp_path / "home"), "r2"))
    base = Path(found.scoring.base)
    code = {path.relative_to(base).as_posix() for path in base.rglob("*") if path.is_file()}
    assert code == {"steps.py", "other.py", "lists/a.txt", "model/net.py"}
    model = {path.name for path in Path(found.scoring.model.folder).iterdir()}
    assert model == {"net.py", "weights.safetensors"}
    stored = plan_objects(tmp_path / "home/out")
    assert len(stored) == 4 + 2
    assert not any(b"password" in path.read_bytes() for path in stored)


def plan_objects(output: Path) -> list[Path]:
    """The objects that were stored in an output."""
    return [path for place in (layout.CODE, layout.MODELS) for path in (output / place).iterdir()]


def test_one_weights_file_travels_with_its_architecture(tmp_path: Path) -> None:
    """The architecture is imported from the code that was fetched."""
    home = tmp_path / "home"
    sha256 = factory.write_weights(home / "w.safetensors")
    home.joinpath("net.py").write_text(factory.NET)
    model = {
        "path": str(home / "w.safetensors"),
        "format": "safetensors",
        "sha256": sha256,
        "architecture": "net.py:Net",
        "inputs": {"x": ["a", "b"]},
        "outputs": {"logit": {"type": "float32"}},
    }
    job = factory.write_job(home, {"model": model})
    plan = make_plan(load_job(str(job)))
    found = arrived(shipped(plan, "r3")).scoring
    assert Path(found.model.folder, found.model.weights).read_bytes()
    assert factory.sha256(Path(found.model.folder, found.model.weights)) == sha256
    assert found.model.code == found.base != str(home)
    assert localize(found.model) == Path(found.model.folder)


def test_profiles_of_the_launchers_disk_travel(tmp_path: Path) -> None:
    """The drift gate of a worker reads its own copy, by the address that the plan has."""
    home = tmp_path / "home"
    factory.write_job(home)
    made = factory.run_cli("profile", home / "in", "-o", home / "reference.parquet")
    assert made.exit_code == 0, made.output
    reference = str(home / "reference.parquet")
    plan = write(home, {"drift": {"reference": reference}})
    found = arrived(shipped(plan, "r4"))
    copy = Path(found.profiles[reference])
    assert copy.read_bytes() == Path(reference).read_bytes()
    assert not copy.is_relative_to(home)


def test_a_model_elsewhere_is_not_sent(tmp_path: Path) -> None:
    """Workers copy a model with an address of its own from there."""
    plan = write(tmp_path / "home", {"preprocess": None, "code": []})
    address = f"memory://{tmp_path.name}/model"
    scoring = plan.spec.scoring
    model = replace(scoring.model, folder=address)
    plan = replace(plan, spec=replace(plan.spec, scoring=replace(scoring, model=model)))
    layout.claim_output(plan.spec.output)
    shipment = pack(plan)
    assert (shipment.model, shipment.code) == ({}, {})
    spec = replace(factory.run_spec(plan, "r5"), shipment=shipment)
    assert arrived(spec).scoring == spec.scoring


def test_what_somebody_changed_is_named(tmp_path: Path) -> None:
    """An object that is not what the job graph says ends the worker in one message."""
    spec = shipped(write(tmp_path / "home"), "r6")
    for path in plan_objects(tmp_path / "home/out"):
        path.write_bytes(path.read_bytes()[::-1])
    with pytest.raises(FailedError, match=r"is damaged: .* remove it, and run again"):
        arrived(spec)


def test_a_machine_without_the_output_is_named(tmp_path: Path) -> None:
    """The error says so, and nothing is written where a worker has something else."""
    spec = shipped(write(tmp_path / "home"), "r9")
    (tmp_path / "home").rename(tmp_path / "gone")
    with pytest.raises(UnseenError, match="does not see the output") as caught:
        arrived(spec)
    assert caught.value.recorded
    assert not (tmp_path / "home").exists()


def test_an_output_that_a_worker_may_not_write_to_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is found before anything is scored, since its errors would never be seen."""
    spec = shipped(write(tmp_path / "home"), "r8")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Store, "write", refuse)
    with pytest.raises(UnseenError, match=r"may not write to the output .* Permission denied"):
        arrived(spec)
