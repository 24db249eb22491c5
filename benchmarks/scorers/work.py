"""The work that peers are measured on: tables, models, and batchscore's jobs for them."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from safetensors.torch import save
from torch import nn

import batchscore as bs
from batchscore.models.folder import write_model_folder
from benchmarks.scorers import network, trees
from benchmarks.scorers.harness import KEY, SCORE
from benchmarks.scorers.network import Mlp, predict_columns

FEATURES = [f"f{index:02d}" for index in range(32)]
MODEL_ROWS = 20_000
GOLDEN_ROWS = 256
GROUP_ROWS = 131_072
WORDS, WORDS_A_TEXT = 1_000, 24
PART_ROWS = 8_192
WEIGHTS = "weights.safetensors"
ONNX = "model.onnx"


@dataclass(frozen=True)
class Work:
    """What is scored.

    Args:
        name: The name to ask for it by.
        title: What it is, for people.
        rows: Rows of all shards.
        shard_rows: Rows of each shard.
        sizes: Sizes of the network's layers.
        sleep_s: Seconds that the network sleeps at each call.
        texts: How many wide text columns there are.
        batch_rows: Rows of a batch, if the work says; else as suits the peer.
        heavy: Whether the model gains by several threads; small networks lose by them.
        few_rows: Rows of the part for peers that would take too long.
        form: What the model is: a network of torch or the same as ONNX, or trees.
    """

    name: str
    title: str
    rows: int
    shard_rows: int
    sizes: tuple[int, ...] = (32, 128, 64, 1)
    sleep_s: float = 0.0
    texts: int = 0
    batch_rows: int | None = None
    heavy: bool = False
    few_rows: int = 60_000
    form: Literal["torch", "onnx", "xgboost", "lightgbm"] = "torch"

    @property
    def is_trees(self) -> bool:
        """Whether the model is trees, which name their columns."""
        return self.form in trees.FILES

    @property
    def weights(self) -> str:
        """The model's file in its folder."""
        return {"torch": WEIGHTS, "onnx": ONNX, **trees.FILES}[self.form]

    @property
    def network(self) -> dict[str, Any]:
        """The arguments of the network."""
        return {"sizes": list(self.sizes), "sleep_s": self.sleep_s}


WORKS = (
    Work("mlp", "34 columns, MLP 32-128-64-1, 4 shards (decode-bound)", 2_000_000, 500_000),
    Work("onnx", "the same, the network as ONNX", 2_000_000, 500_000, form="onnx"),
    Work(
        "trees",
        "34 columns, 200 trees of XGBoost, 4 shards",
        *(2_000_000, 500_000),
        heavy=True,
        form="xgboost",
    ),
    Work(
        "lightgbm",
        "34 columns, 200 trees of LightGBM, 4 shards",
        *(2_000_000, 500_000),
        heavy=True,
        form="lightgbm",
    ),
    Work(
        "wide",
        "34 columns, MLP 32-2048-2048-1, 4 shards (compute-bound)",
        *(200_000, 50_000),
        sizes=(32, 2048, 2048, 1),
        heavy=True,
    ),
    Work("strings", "38 columns, 4 of them wide texts, 4 shards", 500_000, 125_000, texts=4),
    Work("shards", "34 columns, MLP 32-128-64-1, 1,000 shards", 2_000_000, 2_000),
    Work("slow", "ten batches of one second each", 10_240, 10_240, sleep_s=1.0, batch_rows=1_024),
)


def write_work(folder: Path, work: Work) -> None:
    """Writes shards (`in`; the first of them also `few`), `model` and `job.json` into a folder."""
    for name in ("in", "few"):
        (folder / name).mkdir()
    for first in range(0, work.rows, work.shard_rows):
        table = make_table(min(work.shard_rows, work.rows - first), first, work.texts)
        _write_shard(folder / f"in/{first:010d}.parquet", table)
        if first < work.few_rows:
            _write_shard(folder / f"few/{first:010d}.parquet", table[: work.few_rows - first])
    _write_model(folder / "model", work)
    (folder / "job.json").write_text(json.dumps(_job(work)))


def _write_shard(path: Path, table: pa.Table) -> None:
    """Writes pyarrow's default, Snappy, but without dictionaries on floats and texts."""
    pq.write_table(table, path, row_group_size=GROUP_ROWS, use_dictionary=["group"])


def make_table(rows: int, first: int, texts: int) -> pa.Table:
    """Returns keys from `first` on, a category of fifty values, 32 normal floats, and texts."""
    chance = np.random.default_rng(first)
    floats = {name: chance.standard_normal(rows, np.float32) for name in FEATURES}
    groups = pa.array([f"group {number}" for number in range(50)])
    return pa.table(
        {
            KEY: np.arange(first, first + rows),
            "group": groups.take(pa.array(chance.integers(0, 50, rows))),
            **floats,
            **{f"text{number}": _texts(chance, rows) for number in range(texts)},
        }
    )


def _texts(chance: np.random.Generator, rows: int) -> pa.Array:
    """Returns texts of 24 words out of a thousand, about 170 characters."""
    words = pa.array([f"w{number * 7919 % 100_003}x" for number in range(WORDS)])
    taken = [words.take(pa.array(chance.integers(0, WORDS, rows))) for _ in range(WORDS_A_TEXT)]
    return pc.binary_join_element_wise(*taken, " ")


def _write_model(folder: Path, work: Work) -> None:
    """Writes a model folder with random weights, golden rows and a reference profile."""
    table = make_table(MODEL_ROWS, work.rows, work.texts).drop_columns([KEY])
    if work.is_trees:
        sample = table.select(FEATURES)
        bs.save_model(folder, _fit(work, table), sample[:GOLDEN_ROWS], reference=table)
        return
    net = make_model(work)
    card = {
        "name": work.name,
        "version": "1",
        **_format(work),
        "inputs": {"x": {"type": "float32", "shape": [len(FEATURES)]}},
        "outputs": {"logit": {"type": "float32", "shape": []}},
        "golden": "golden.parquet",
        "profile": "profile.parquet",
    }
    files = {
        **_files(net, work),
        "golden.parquet": _golden(net, table[:GOLDEN_ROWS]),
        "profile.parquet": _profile(net, table),
    }
    write_model_folder(str(folder), card, files)
    torch.save(net.state_dict(), folder / "weights.pt")


def _fit(work: Work, table: pa.Table) -> Any:
    return trees.fit(work.form, table.select(FEATURES))


def make_model(work: Work) -> Mlp:
    """Returns the network with its random weights, the same ones each time."""
    torch.manual_seed(0)
    return Mlp(work.sizes)


def _format(work: Work) -> dict[str, Any]:
    if work.form == "onnx":
        return {"format": "onnx", "weights": ONNX}
    return {
        "format": "safetensors",
        "weights": WEIGHTS,
        "architecture": "network.py:Mlp",
        "architecture_args": work.network,
    }


def _files(net: Mlp, work: Work) -> dict[str, bytes]:
    if work.form == "onnx":
        return {ONNX: to_onnx(net)}
    code = Path(network.__file__).read_bytes()
    return {WEIGHTS: save(dict(net.state_dict())), "network.py": code}


def to_onnx(net: Mlp) -> bytes:
    """Returns a network as an ONNX file of an input `x` and an output `logit`."""
    from onnx import TensorProto, helper, numpy_helper

    state = {name: tensor.numpy() for name, tensor in net.state_dict().items()}
    linear = [name for name, layer in net.named_children() if isinstance(layer, nn.Linear)]
    nodes, before = [], "x"
    for place, name in enumerate(linear):
        made = "logit" if name == linear[-1] else f"sum{place}"
        given = [before, f"{name}.weight", f"{name}.bias"]
        nodes.append(helper.make_node("Gemm", given, [made], transB=1))
        if name != linear[-1]:
            before = f"kept{place}"
            nodes.append(helper.make_node("Relu", [made], [before]))
    ends = (("x", state[f"{linear[0]}.weight"].shape[1]), ("logit", 1))
    inputs, outputs = (
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width])]
        for name, width in ends
    )
    tensors = [numpy_helper.from_array(each, name) for name, each in state.items()]
    graph = helper.make_graph(nodes, "mlp", inputs, outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    model.ir_version = 10
    return bytes(model.SerializeToString())


def _golden(net: Mlp, table: pa.Table) -> bytes:
    """Returns a file of model inputs with the logits that are known for them."""
    values_bf = np.stack([table[name].to_numpy() for name in FEATURES], axis=1)
    with torch.inference_mode():
        logits_b = net(torch.from_numpy(values_bf)).numpy()
    inputs = pa.FixedSizeListArray.from_arrays(values_bf.ravel(), len(FEATURES))
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"x": inputs, "logit": logits_b}), sink)
    return bytes(sink.getvalue())


def _profile(net: Mlp, table: pa.Table) -> bytes:
    """Returns the stored profile of a table with its scores."""
    scored = table.append_column(SCORE, pa.array(_scores(net, table)))
    with tempfile.TemporaryDirectory() as home:
        path = Path(home) / "profile.parquet"
        bs.write_profile(bs.profile(scored, probabilities=[SCORE]), path)
        return path.read_bytes()


def known_scores(folder: Path, work: Work) -> Any:
    """Returns the scores (b,) of all rows of a written work, by key."""
    shards = sorted((folder / "in").glob("*.parquet"))
    tables = (pq.read_table(each, columns=FEATURES) for each in shards)
    if work.is_trees:
        # Training gives the same trees each time.
        model = _fit(work, make_table(MODEL_ROWS, work.rows, work.texts))
        return np.concatenate([model.predict_proba(each.to_pandas())[:, 1] for each in tables])
    net = make_model(work)
    return np.concatenate([_scores(net, each) for each in tables])


def _scores(net: nn.Module, table: pa.Table) -> Any:
    parts = [table[first : first + PART_ROWS] for first in range(0, len(table), PART_ROWS)]
    columns = [[part[name].to_numpy() for name in FEATURES] for part in parts]
    return np.concatenate([predict_columns(net, each) for each in columns])


def _job(work: Work) -> dict[str, Any]:
    """Returns the job, with every check that there is; the model's profile is the reference."""
    network = {"inputs": {"x": FEATURES}}
    return {
        "batchscore": 1,
        "name": work.name,
        "input": {"path": "in"},
        "model": {"path": "model", **({} if work.is_trees else network)},
        **({} if work.is_trees else {"postprocess": "sigmoid"}),
        "output": {"path": "out"},
        "checks": {"unique": [KEY], "score_range": [0, 1]},
        "drift": {"reference": "model"},
        "runtime": {"batch_rows": work.batch_rows or "auto"},
    }
