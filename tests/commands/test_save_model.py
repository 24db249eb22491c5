"""`bs.save_model`: the folder that it writes, what it finds, and what it refuses."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from torch import nn

import batchscore as bs
from tests.factory import published, read_tree, run_cli, write_job, write_shard

SOURCE = '''
from pathlib import Path

import torch
from parts_of_saved import Base


class Net(Base):
    """A score a row of x; neither the arguments nor the weights hold `shift`."""

    def __init__(self, width=2, shift=0.0):
        super().__init__()
        self.linear = torch.nn.Linear(width, 1)
        self.shift = shift

    def forward(self, x):
        return self.linear(x) + self.shift


class Sized(Net):
    def __init__(self, width):
        super().__init__(width)


class Centred(Net):
    def forward(self, x):
        return self.linear(x - x.mean(0))


class Here(Net):
    def __init__(self):
        super().__init__()
        Path(__file__).with_name("words.txt").read_text()


class Tied(Base):
    def __init__(self):
        super().__init__()
        self.a = torch.nn.Linear(2, 2)
        self.b = torch.nn.Linear(2, 2)
        self.b.weight = self.a.weight

    def forward(self, x):
        return {"logit": self.b(self.a(x)).sum(1)}


class Overlapping(Net):
    def __init__(self):
        super().__init__()
        whole = torch.zeros(4)
        self.register_buffer("first", whole[:3])
        self.register_buffer("last", whole[1:])


class Tokens(Base):
    """A vector and a number a row, of tokens of any number."""

    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(100, 4)

    def forward(self, ids, mask):
        sum_bd = (self.table(ids) * mask.unsqueeze(-1)).sum(1)
        return sum_bd, sum_bd.mean(1)


class Grid(Base):
    def __init__(self):
        super().__init__()
        self.table = torch.nn.Parameter(torch.arange(12.0).view(3, 4))

    def forward(self, x):
        return (x * self.table).sum((1, 2)) / 66
'''
ROWS = pd.DataFrame({"a": np.arange(500.0) / 500, "b": np.arange(500), "who": ["x", "y"] * 250})
COLUMNS = {"x": ["a", "b"]}


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Gives a module of networks that lies in a folder of its own, with a file that it imports."""
    folder = tmp_path_factory.mktemp("nets")
    (folder / "nets_to_save.py").write_text(SOURCE)
    (folder / "parts_of_saved.py").write_text("from torch.nn import Module as Base\n")
    (folder / "words.txt").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        import nets_to_save  # type: ignore[import-not-found]

        yield nets_to_save
    del sys.modules["nets_to_save"], sys.modules["parts_of_saved"]


def test_a_saved_model_scores_a_job(net: Any, tmp_path: Path) -> None:
    """A run accepts the folder, and its scores are those of the network itself."""
    job = write_job(tmp_path, {"model.inputs": None, "runtime.workers": 1})
    rows = pq.read_table(tmp_path / "in")
    features = bs.fit_features(rows, {"x": ["a", "b"]})
    threads = torch.get_num_threads()
    model = net.Sized(2).eval()
    saved = bs.save_model(
        tmp_path / "model",
        model,
        rows,
        args={"width": 2},
        features=features,
        outputs=["logit"],
        postprocess="sigmoid",
        evaluation={"auc": 0.75},
        overwrite=True,
    )
    assert torch.get_num_threads() == threads
    assert (saved.inputs, saved.outputs) == ({"x": "float32 [2]"}, {"logit": "float32 []"})
    card = yaml.safe_load((saved.folder / "model.yaml").read_text())
    assert card == saved.card
    assert {*card["files"]} == {each.name for each in saved.folder.iterdir()} - {"model.yaml"}
    profile = bs.read_profile(saved.folder / "profile.parquet")
    kinds = {name: column.kind for name, column in profile.columns.items()}
    assert (kinds, profile.rows) == ({"a": "number", "b": "number", "score": "probability"}, 500)
    done = run_cli("run", job)
    assert done.exit_code == 0, done.output
    found = published(tmp_path / "out")
    with torch.inference_mode():
        logits = model(torch.from_numpy(features.encode(rows)["x"])).squeeze(1)
    assert found["score"].to_numpy() == pytest.approx(torch.sigmoid(logits).numpy(), abs=1e-6)


def test_types_and_shapes_are_found(net: Any, tmp_path: Path) -> None:
    """Of columns that are stacked, arrays, and lists of any length; two outputs get their names."""
    lists = [list(range(1, 2 + i % 5)) for i in range(20)]
    tokens = pa.table({"ids": lists, "mask": [[1.0] * len(each) for each in lists], "no": lists})
    arrays = {"x": np.random.default_rng(1).normal(size=(50, 2))}
    stacked = bs.save_model(tmp_path / "a", net.Net().eval(), ROWS, columns=COLUMNS)
    assert (stacked.inputs, stacked.outputs) == ({"x": "float32 [2]"}, {"score": "float32 []"})
    assert bs.save_model(tmp_path / "b", net.Tied().eval(), arrays).outputs == {
        "logit": "float32 []"
    }
    longer = {"max_length": 64}
    varying = bs.save_model(
        tmp_path / "c",
        net.Tokens().eval(),
        tokens,
        outputs=["vector", "mean"],
        inputs={"ids": {**longer, "pad": 1}, "mask": longer},
    )
    assert varying.inputs == {"ids": "int64 [null]", "mask": "float32 [null]"}
    assert varying.outputs == {"vector": "float32 [4]", "mean": "float32 []"}
    assert varying.card["inputs"]["ids"]["max_length"] == 64
    assert varying.golden_rows == 20
    assert pq.read_table(tmp_path / "a/golden.parquet").column_names == ["x", "score"]


def test_a_model_of_arrays_scores_a_job(net: Any, tmp_path: Path) -> None:
    """A sample has the shape that the network takes, and a job's rows a list of all its numbers."""
    job = write_job(tmp_path, {"model.inputs": None, "output.columns": ["id"]})
    rows = np.random.default_rng(2).normal(size=(500, 3, 4)).astype(np.float32)
    saved = bs.save_model(
        tmp_path / "model",
        net.Grid().eval(),
        {"x": rows},
        outputs=["logit"],
        postprocess="sigmoid",
        overwrite=True,
    )
    assert saved.inputs == {"x": "float32 [3, 4]"}
    lists = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), 12)
    table = pa.table({"id": np.arange(500), "x": lists})
    for shard in (tmp_path / "in").iterdir():
        shard.unlink()
    write_shard(tmp_path / "in/0.parquet", table)
    done = run_cli("run", job)
    assert done.exit_code == 0, done.output
    found = published(tmp_path / "out").sort_by("id")
    logits = (rows * np.arange(12).reshape(3, 4)).sum((1, 2)) / 66
    assert found["score"].to_numpy() == pytest.approx(1 / (1 + np.exp(-logits)), abs=1e-6)


def _local() -> nn.Module:
    class Local(nn.Module):
        pass

    return Local().eval()


def _traced(module: nn.Module) -> Any:
    return torch.jit.trace(module, torch.zeros(1, 2))


def _of_main() -> nn.Module:
    kind = type("OfMain", (nn.Module,), {"__module__": "__main__"})
    module: nn.Module = kind().eval()
    return module


def _broken(net: Any) -> nn.Module:
    module: nn.Module = net.Net().eval()
    with torch.no_grad():
        next(module.parameters()).fill_(torch.nan)
    return module


BAD_MODELS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "no network": (lambda _: len, "expected a torch.nn.Module"),
    "training": (lambda net: net.Net(), r"call model.eval\(\)"),
    "elsewhere": (lambda net: net.Net().eval().to("meta"), r"call model.cpu\(\)"),
    "compiled": (lambda net: _traced(net.Net().eval()), "given to torch.compile"),
    "in a function": (lambda _: _local(), "define it at the top of a file"),
    "in a notebook": (lambda _: _of_main(), "move it to the top of a file of its own"),
    "arguments": (lambda net: net.Sized(2).eval(), "missing a required argument: 'width'"),
    "bad weights": (_broken, "weights 'linear.weight' hold NaN"),
    "views": (lambda net: net.Overlapping().eval(), "memory of its own"),
    "NaN": (lambda net: net.Net(shift=float("nan")).eval(), "500 rows of 500 cannot be scored"),
    "bare": (lambda net: nn.Sequential(nn.Linear(2, 1)).eval(), "class of your own at the top"),
    "untold": (lambda net: net.Net(shift=1.0).eval(), "differ by 1 from .* Give the args"),
    "rows together": (lambda net: net.Centred().eval(), "Combine no rows in forward"),
    "outputs": (lambda net: net.Tied().eval(), "without 'score'"),
    "other files": (
        lambda net: net.Here().eval(),
        r"model folder .*/model: not written, since it .* temporary folder .*words\.txt",
    ),
}


@pytest.mark.parametrize("name", BAD_MODELS)
def test_a_model_that_cannot_be_saved_is_refused(name: str, net: Any, tmp_path: Path) -> None:
    """The message says what to do, and nothing is left of the folder."""
    make, words = BAD_MODELS[name]
    with pytest.raises(bs.InvalidError, match=words):
        bs.save_model(tmp_path / "model", make(net), ROWS, columns=COLUMNS, outputs=["score"])
    assert not list(tmp_path.iterdir())


def test_rows_together_are_found_in_a_sample_of_any_size(net: Any, tmp_path: Path) -> None:
    """A sample that is all golden rows is scored in two parts, too."""
    with pytest.raises(bs.InvalidError, match="Combine no rows in forward"):
        bs.save_model(tmp_path / "model", net.Centred().eval(), ROWS[:9], columns=COLUMNS)


class Rest(torch.nn.Module):
    """Takes its inputs without names."""

    def forward(self, *inputs: Any) -> Any:
        return inputs[0]


NULL_IN_LISTS = pa.array([[[1.0], [None]]] * 3, pa.list_(pa.list_(pa.float32(), 1), 2))
BAD_CALLS: dict[str, tuple[dict[str, Any], str]] = {
    "no rows": ({"sample": ROWS[:0]}, "has no rows"),
    "no table": ({"sample": 3}, "give a pandas DataFrame"),
    "no column": ({"columns": None}, r"no column 'x'.* give columns=\{'x'"),
    "another column": ({"columns": {"x": ["a", "c"]}}, "no column 'c'"),
    "texts": ({"columns": {"x": ["a", "who"]}}, "bs.fit_features"),
    "nulls": ({"sample": ROWS.assign(a=None, b=1)}, "column 'a'"),
    "lists with a null": (
        {"sample": pa.table({"x": NULL_IN_LISTS}), "columns": None},
        "sample: column 'x': .* holds 3 nulls; .* without nulls",
    ),
    "another shape": ({"inputs": {"x": {"shape": [3]}}}, "as many columns"),
    "a wrong key": ({"inputs": {"x": {"typ": "int8"}}}, "nearest: 'type'"),
    "another input": ({"inputs": {"y": {}}}, "the model has no input 'y'"),
    "a wrong width": ({"columns": {"x": ["a", "b", "b"]}}, "float32 .3. of 1,024 rows"),
    "an unknown step": ({"postprocess": "sigmoidd"}, "no such step sigmoidd; nearest: 'sigmoid'"),
    "a function": ({"postprocess": {"function": "p.py:f"}}, "belongs to the job"),
    "no JSON": ({"evaluation": {"auc": float("nan")}}, "finite numbers"),
    "another reference": ({"reference": ROWS[["a"]]}, "reference: has no column 'b'"),
    "no plain args": ({"args": {"width": 2, "shift": len}}, "texts, numbers, booleans"),
    "a list as args": ({"args": [2]}, "argument args: expected a dict or None, found a list"),
    "no output name": ({"outputs": [""]}, "'' cannot name an output"),
    "the version's name": ({"outputs": ["model_version"]}, "'model_version' cannot name"),
    "a name twice": ({"outputs": ["p", "p"]}, "names one twice"),
    "a remote folder": ({"folder": "s3://bucket/model"}, "expected a local folder"),
    "no path": ({"folder": "a\0b"}, "expected a path without null characters"),
    "a long path": ({"folder": "a" * 300}, "cannot be written .*File name too long"),
    "no columns": ({"columns": {"x": []}}, "'x' lists no column"),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_arguments_that_do_not_fit_are_refused(name: str, net: Any, tmp_path: Path) -> None:
    """The message names the argument, and nothing is left of the folder."""
    changed, words = BAD_CALLS[name]
    given = {"folder": tmp_path / "model", "sample": ROWS, "columns": COLUMNS, **changed}
    with pytest.raises(bs.InvalidError, match=words):
        bs.save_model(model=net.Net().eval(), **given)
    assert not list(tmp_path.iterdir())


def test_a_network_that_names_no_input_is_refused(tmp_path: Path) -> None:
    """The message says how forward names its inputs."""
    with pytest.raises(bs.InvalidError, match=r"names no argument .*forward\(self, x\)"):
        bs.save_model(tmp_path / "model", Rest().eval(), ROWS)


def test_a_folder_is_replaced_only_when_asked(net: Any, tmp_path: Path) -> None:
    """Only a model folder is replaced, whole; one that fails leaves the old one as it was."""
    model, folder = net.Net().eval(), tmp_path / "model"
    bs.save_model(folder, model, ROWS, columns=COLUMNS)
    before = read_tree(tmp_path)
    with pytest.raises(bs.InvalidError, match="overwrite=True"):
        bs.save_model(folder, model, ROWS, columns=COLUMNS)
    with pytest.raises(bs.InvalidError, match="Combine no rows"):
        bs.save_model(folder, net.Centred().eval(), ROWS, columns=COLUMNS, overwrite=True)
    assert read_tree(tmp_path) == before
    bs.save_model(folder, model, ROWS, columns=COLUMNS, overwrite=True)
    assert read_tree(tmp_path) == before
    (folder / "model.yaml").unlink()
    with pytest.raises(bs.InvalidError, match="is not a model folder"):
        bs.save_model(folder, model, ROWS, columns=COLUMNS, overwrite=True)
