"""Tests of programs of torch.export: loaded only where a job allows it, with their own scores."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml

import batchscore as bs
from batchscore.columnar.arrays import Array
from batchscore.errors import ModelError
from batchscore.models.backends.registry import backend_of
from batchscore.models.backends.torch.exported_file import read_exported
from batchscore.models.folder import bare_model
from tests import factory

pytestmark = pytest.mark.slow

ROWS = 2_000
NUMBERS = [f"n{place}" for place in range(6)]


class Net(torch.nn.Module):
    """Numbers and a category to an amount and two probabilities."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(11, 3)
        self.norm = torch.nn.BatchNorm1d(9)
        self.last = torch.nn.Linear(9, 3)

    def forward(self, numbers: torch.Tensor, kind: torch.Tensor) -> dict[str, torch.Tensor]:
        both = self.last(self.norm(torch.cat([numbers, self.table(kind)], 1)))
        return {"amount": both[:, 0], "classes": torch.softmax(both[:, 1:], 1)}


class Counting(torch.nn.Module):
    """A score that goes with the calls before."""

    def __init__(self) -> None:
        super().__init__()
        self.count = torch.nn.Buffer(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count.add_(1)
        return x.sum(1) + self.count


def rows() -> dict[str, Array]:
    rng = np.random.default_rng(3)
    numbers = rng.normal(size=(ROWS, 6)).astype(np.float32)
    return {"numbers": numbers, "kind": rng.integers(0, 11, ROWS)}


def table() -> pa.Table:
    found = rows()
    columns = {name: found["numbers"][:, place] for place, name in enumerate(NUMBERS)}
    return pa.table({"id": np.arange(ROWS), "kind": found["kind"], **columns})


def exported(size: int | None, seed: int = 5) -> Any:
    """Returns a program for a fixed number of rows, or for any up to 4,096."""
    torch.manual_seed(seed)
    net = Net().eval()
    given = (torch.randn(size or 4, 6), torch.randint(0, 11, (size or 4,)))
    if size:
        return torch.export.export(net, given)
    rows = torch.export.Dim("rows", min=2, max=4096)
    return torch.export.export(net, given, dynamic_shapes=({0: rows}, {0: rows}))


def write(program: Any, path: Path) -> Path:
    torch.export.save(program, path)
    return path


def own_scores(program: Any, size: int) -> dict[str, Array]:
    """Returns what the program itself makes of all rows, in calls of a size."""
    found, module = rows(), program.module()
    made = []
    with torch.inference_mode():
        for start in range(0, ROWS, size):
            part = slice(start, start + size)
            given = (torch.from_numpy(found[name][part]) for name in ("numbers", "kind"))
            made.append(module(*given))
    return {name: torch.cat([each[name] for each in made]).numpy() for name in made[0]}


def job_of(folder: Path, model: Path, **changes: Any) -> Path:
    (folder / "in").mkdir(exist_ok=True)
    pq.write_table(table(), folder / "in/rows.parquet", row_group_size=500)
    facts: dict[str, Any] = {"path": str(model), "inputs": {"numbers": NUMBERS}, **changes}
    if model.is_file() and "sha256" not in changes:
        facts["sha256"] = factory.sha256(model)
    job = {
        "batchscore": 1,
        "name": "program",
        "input": {"path": "in"},
        "model": facts,
        "output": {"path": "out", "columns": ["id"]},
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(job))
    return folder / "job.yaml"


def published(folder: Path) -> dict[str, Array]:
    found = factory.published(folder / "out")
    return {name: np.array([*found[name].to_numpy()]) for name in ("amount", "classes")}


@pytest.mark.parametrize("size", [None, 8], ids=["any", "8"])
def test_scores_are_the_programs_own(size: int | None, tmp_path: Path) -> None:
    """Of any number of rows, and of a program that takes eight at a time and no other number."""
    program = exported(size)
    job = job_of(tmp_path, write(program, tmp_path / "net.pt2"), allow_code=True)
    done = factory.run_json("run", job)
    assert done["rows"]["scored"] == ROWS
    assert done["inference"]["call_rows"] == (size or 1024)
    for name, own in own_scores(program, size or ROWS).items():
        np.testing.assert_allclose(published(tmp_path)[name], own, rtol=0, atol=1e-6)
    known = published(tmp_path)
    factory.run_json("run", job, "--rescore", "--set", "runtime.batch_rows=70")
    for name, array in published(tmp_path).items():
        assert array.tobytes() == known[name].tobytes()
    assert factory.run_json("run", job)["status"] == "unchanged"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "loading a file of format 'pt2' can run code that is in it; if you trust it as"),
        ({"allow_code": True, "sha256": None}, "net.pt2 is of format pt2 and needs its sha256"),
        ({"sha256": None}, "set sha256 to it, and allow_code to true, or convert the weights"),
        ({"allow_code": True, "inputs": {"number": NUMBERS}}, "has no input 'number'; nearest"),
        ({"allow_code": True, "inputs": {"numbers": NUMBERS[:5]}}, "takes 6 values per row"),
    ],
)
def test_what_a_job_has_to_say(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    """The message names the key that allows it; a file that runs code is pinned as well."""
    path = write(exported(None), tmp_path / "net.pt2")
    done = factory.run_cli("check", job_of(tmp_path, path, **changes))
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())


def test_a_folder_needs_the_jobs_leave_too(tmp_path: Path) -> None:
    """bs.save_model writes a folder of a program, with golden rows of its own scores."""
    program = exported(None)
    columns = {"numbers": NUMBERS, "kind": ["kind"]}
    saved = bs.save_model(tmp_path / "model", program, table().slice(0, 300), columns=columns)
    assert saved.outputs == {"amount": "float32 []", "classes": "float32 [2]"}
    assert saved.golden_rows > 200
    done = factory.run_cli("check", job_of(tmp_path, tmp_path / "model"))
    assert done.exit_code == 2
    assert "allow_code: true" in done.output
    done = factory.run_json("run", job_of(tmp_path, tmp_path / "model", allow_code=True))
    assert "golden_rows" in {each["name"] for each in done["checks"]}
    for name, own in own_scores(program, ROWS).items():
        np.testing.assert_allclose(published(tmp_path)[name], own, rtol=0, atol=1e-6)


def test_a_path_is_not_saved(tmp_path: Path) -> None:
    """It would have to be loaded, which nobody has allowed."""
    path = write(exported(None), tmp_path / "net.pt2")
    with pytest.raises(ModelError, match=r"can run code that is in it; .*torch\.export\.load"):
        bs.save_model(tmp_path / "model", path, table())


def test_facts_say_that_it_can_run_code(tmp_path: Path) -> None:
    """Names, types and shapes come from the file, without torch."""
    path = write(exported(8), tmp_path / "net.pt2")
    facts = backend_of("pt2").inspect(bare_model(str(path), "pt2"))
    assert facts.runs_code
    assert [(t.name, t.dtype, t.shape) for t in facts.taken] == [
        ("numbers", "float32", (6,)),
        ("kind", "int64", ()),
    ]
    assert [(t.name, t.shape) for t in facts.made] == [("amount", ()), ("classes", (2,))]
    assert facts.counts["parameters"] == sum(each.numel() for each in Net().state_dict().values())
    assert facts.said["rows a call"] == "8"


def _changed(content: bytes, **keys: Any) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as own, zipfile.ZipFile(made, "w") as archive:
        for name in own.namelist():
            text = own.read(name)
            if name.endswith("models/model.json"):
                text = json.dumps({**json.loads(text), **keys}).encode()
            archive.writestr(name, text)
    return made.getvalue()


def test_programs_that_do_not_score_rows_are_refused(tmp_path: Path) -> None:
    """Each ends in one message, also a file that is none."""
    content = write(exported(None), tmp_path / "net.pt2").read_bytes()
    counting = torch.export.export(Counting().eval(), (torch.randn(4, 3),))
    cases = {
        "each call changes the program's state": write(counting, tmp_path / "c.pt2").read_bytes(),
        "no program of torch.export: it begins with": b"\x80\x02",
        "no program of torch.export, or damaged": content[: len(content) // 2],
        "or damaged .KeyError": _changed(content, graph_module={}),
        "or damaged .TypeError": _changed(content, graph_module=3),
    }
    for message, each in cases.items():
        with pytest.raises(ModelError, match=message):
            read_exported(each)


def test_a_newer_torch_is_named(tmp_path: Path) -> None:
    """A program of a newer torch is refused, with both versions."""
    path = tmp_path / "new.pt2"
    content = write(exported(None), tmp_path / "net.pt2").read_bytes()
    path.write_bytes(_changed(content, torch_version="9.1.0+cpu"))
    done = factory.run_cli("check", job_of(tmp_path, path, allow_code=True))
    assert done.exit_code == 2
    words = " ".join(done.output.split())
    assert "was written by torch 9.1.0+cpu, and 2." in words
    assert "install 'torch>=9.1.0'" in words
