"""Small models of each format, whose files are damaged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from batchscore.models.card import Format
from batchscore.models.folder import single_file_model
from batchscore.models.inputs import ModelInput
from batchscore.models.loadable import Model, ModelOutput
from tests import boosters, factory, keras_models, onnx_models, pipelines


@dataclass(frozen=True)
class Form:
    """A format as one kind of file, and how to get models of it.

    Args:
        format: The format's name in a job file.
        ending: Ending of the files.
        names: The models whose files are damaged in turn.
        make: Writes them to a folder.
        table: Returns the rows of a model that names its columns.
    """

    format: Format
    ending: str
    names: tuple[str, ...]
    make: Callable[[Path], object]
    table: Callable[[str], Any] | None = None

    def model(self, path: Path, sha256: str | None = None) -> Model:
        """Returns the model of a file, as a job that names its path and hash describes it.

        Args:
            path: The file.
            sha256: The hash that the job names; by default the file's own.

        Raises:
            ModelError: The file is refused before a framework sees it.
        """
        own = (ModelInput("x", "float32", (2,), ("a", "b")),)
        is_torch = self.format in ("safetensors", "pt")
        return single_file_model(
            str(path),
            format=self.format,
            architecture="net.py:Net" if is_torch else None,
            inputs=own if is_torch else (),
            outputs=(ModelOutput("logit", "float32", ()),) if is_torch else (),
            base=str(path.parent),
            sha256=sha256 or factory.sha256(path),
        )


def _tensors(folder: Path) -> None:
    """Writes a network's code, and its weights in both formats."""
    (folder / "net.py").write_text(factory.LAYERS)
    state = factory.build_net().state_dict()
    for ending in ("pt", "safetensors"):
        factory.write_weights(folder / f"net.{ending}", state)


def _program(folder: Path) -> None:
    import torch

    rows = torch.export.Dim("rows", min=2)
    net = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    program = torch.export.export(net.eval(), (torch.randn(4, 3),), dynamic_shapes=({0: rows},))
    torch.export.save(program, folder / "net.pt2")


def _trees(framework: str) -> Callable[[Path], object]:
    return lambda folder: boosters.trained(framework, folder)


def _boosted_rows(_: str) -> Any:
    return boosters.for_catboost(boosters.make_frame())[:1_000]


def _pipeline_rows(name: str) -> Any:
    frame = pipelines.make_frame()
    return frame if name == "categories" else pipelines.rows_for(name, frame)


FORMS: Mapping[str, Form] = {
    "xgboost.ubj": Form(
        "xgboost", "ubj", ("binary", "many", "counts"), _trees("xgboost"), _boosted_rows
    ),
    "xgboost.json": Form(
        "xgboost", "json", ("binary", "many", "counts"), _trees("xgboost"), _boosted_rows
    ),
    "lightgbm": Form(
        "lightgbm", "txt", ("binary", "many", "counts"), _trees("lightgbm"), _boosted_rows
    ),
    "catboost": Form(
        "catboost", "cbm", ("binary", "many", "ctr", "hot"), _trees("catboost"), _boosted_rows
    ),
    "onnx": Form("onnx", "onnx", ("network", "forest", "texts"), onnx_models.made),
    "skops": Form(
        "sklearn",
        "skops",
        ("usual", "coded", "categories", "svc", "knn", "boosting"),
        pipelines.trained_pipelines,
        _pipeline_rows,
    ),
    "keras": Form("keras", "keras", ("mixed", "attended", "image"), keras_models.built),
    "h5": Form("keras", "h5", ("mixed", "image"), keras_models.built),
    "safetensors": Form("safetensors", "safetensors", ("net",), _tensors),
    "pt": Form("pt", "pt", ("net",), _tensors),
    "pt2": Form("pt2", "pt2", ("net",), _program),
}


def rows_of(form: Form, name: str) -> pa.RecordBatch | None:
    """Returns rows for a model that names its columns."""
    from batchscore.columnar.tables import as_batch

    return as_batch(form.table(name), "rows") if form.table else None
