"""A network in memory to a model folder whose card, golden rows and reference are found."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from batchscore.arguments import checks_arguments
from batchscore.columnar.tables import as_batch
from batchscore.commands.recognize import open_model_file
from batchscore.commands.sample_scores import (
    declared_outputs,
    golden_of,
    load_back,
    reference_of,
    score_all,
)
from batchscore.errors import BatchscoreError, InputError, ModelError, OutputError
from batchscore.job.file import checked_steps
from batchscore.job.steps.all_steps import AnyStep, UserFunction
from batchscore.messages.addresses import redacted_address
from batchscore.messages.wording import one_line, reason
from batchscore.models.backends.saving import Asked, Draft, best_of_search, saver_of
from batchscore.models.card import CARD, shape_text
from batchscore.models.features import Features
from batchscore.models.folder import write_model_folder
from batchscore.models.trained_types import trained_columns
from batchscore.stages.block import Block


@dataclass(frozen=True)
class SavedModel:
    """A model folder that was written.

    Args:
        folder: Where it is.
        inputs: Type and shape of each model input, without the batch.
        outputs: Type and shape of each output, as the network returned them.
        golden_rows: Rows whose scores each process compares before it scores.
        card: The whole card, as `model.yaml` holds it.
    """

    folder: Path
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    golden_rows: int
    card: Mapping[str, Any] = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """Returns all of it as JSON-able values."""
        return {
            "status": "saved",
            "exit_code": 0,
            "folder": str(self.folder),
            "inputs": dict(self.inputs),
            "outputs": dict(self.outputs),
            "golden_rows": self.golden_rows,
            "card": dict(self.card),
        }


@checks_arguments
def save_model(
    folder: str | os.PathLike[str],
    model: Any,
    sample: Any,
    *,
    name: str | None = None,
    version: str = "1",
    args: Mapping[str, Any] | None = None,
    features: Features | None = None,
    columns: Mapping[str, Sequence[str]] | None = None,
    inputs: Mapping[str, Mapping[str, Any]] | None = None,
    outputs: Sequence[str] = (),
    reference: Any = None,
    postprocess: Any = (),
    evaluation: Mapping[str, Any] | None = None,
    call: Mapping[str, Any] | None = None,
    tolerance: float = 1e-5,
    overwrite: bool = False,
) -> SavedModel:
    """Writes a network of torch or Keras, an ONNX model, or trees, as a model folder for jobs.

    The network is called on the sample as a run calls it. That shows the names, types and shapes
    of its inputs and outputs. It is then loaded from the folder, as a run loads it, and must give
    the same scores again. The folder appears in one step, or not at all.

    Args:
        folder: Local folder to write.
        model: A `torch.nn.Module` on the CPU, in eval mode. Its class lies at the top of a Python
            file, which is copied with the files next to it that it imports, or in an installed
            package. Or a Sequential or Functional model of Keras. Or a Booster of XGBoost or
            LightGBM, one of their sklearn wrappers, or a model of CatBoost, which need no more
            than some rows of their training. Or the path of a model file that describes itself,
            such as `.ubj` or `.onnx`. Of ONNX also the bytes of a file, or a ModelProto.
            Or a fitted estimator or Pipeline of scikit-learn, with such rows. Of a search, such as
            GridSearchCV, its best estimator is saved, of whichever library that is.
        sample: Some rows: a pandas, Arrow or Polars table, or a dict of NumPy arrays. With
            `features` or `columns` these are source columns, as a job reads them; otherwise a
            column for each argument of `forward`. Up to 256 of them become the golden rows, with
            the smallest and largest value of each column.
        name: The model's name; by default the folder's.
        version: The model's version, which each score's `model_version` says.
        args: Keyword arguments that the model's class is built with.
        features: Preprocessing that `fit_features` fitted, saved with the model.
        columns: Columns that make up each input, which the card records with their types.
        inputs: What the sample does not show of an input, by the card's keys, such as
            `{"ids": {"max_length": 512, "pad": 1}}`; or the text that training had in the place of
            null in a category of CatBoost: `{"colour": {"missing": "none"}}`.
        outputs: Names of the outputs, in the order that `forward` returns them. By default a dict
            names its own, and a single output is `score`. Of an ONNX model the outputs to write.
        reference: Rows like the sample's that drift is measured against, such as the training
            rows; by default the sample.
        postprocess: What the job will do to the outputs, as in the job file, such as `sigmoid`;
            the reference profile then holds these scores.
        evaluation: How the model was evaluated, saved as JSON.
        call: What of a model of trees is called, by the card's keys: `{"returns": "class"}`.
        tolerance: The largest difference of a score to its golden one that a run accepts.
        overwrite: Replaces a model folder that is there.

    Raises:
        ModelError: The model cannot be saved, or gives other scores once it is loaded.
        InputError: The sample, or another table, does not fit the model.
        OutputError: The folder is there already, or cannot be written.
    """
    target = require_new(os.fspath(folder), overwrite)
    asked = Asked(args, features, columns, inputs, outputs, call, sample)
    if isinstance(model, str | os.PathLike):
        saver, model = open_model_file(os.fspath(model))
    else:
        model = best_of_search(model)
        saver = saver_of(model)
    saver.require_savable(model)
    saver.refuse_unused(asked)
    card = {"name": name or target.name, "version": version, "tolerance": tolerance}
    with saver.scoring():
        rows = _rows(sample, "sample")
        draft = saver.draft(model, rows, asked)
        described, files = saver.described(model, draft, asked)
        if evaluation is not None:
            files["evaluation.json"] = _json(evaluation)
            card["evaluation"] = "evaluation.json"
        calls = saver.calls(model, rows, draft, asked)
        steps, rest = _steps(postprocess), rows
        if reference is not None:
            rest = _rows(reference, "reference")
        own = score_all(rows, draft, calls, "sample")
        card |= {**described, "outputs": declared_outputs(own, draft)}
        card["inputs"] = _with_columns(described["inputs"], draft, rows.schema)
        made = Sampled(rows, own, draft, rest, steps, saver.if_differs)
        return _written(target, card, files, made)


def _with_columns(inputs: Mapping[str, Any], draft: Draft, schema: pa.Schema) -> dict[str, Any]:
    """Returns what a card says of the inputs, with the columns that feed each if no features do."""
    if draft.features is not None:
        return dict(inputs)
    return {
        name: {**said, **trained_columns(schema, draft.columns[name])}
        for name, said in inputs.items()
    }


@dataclass(frozen=True)
class Sampled:
    """A sample with what the model made of it.

    Args:
        rows: The sample.
        own: Its outputs, by the model in memory.
        draft: What is known of the model.
        reference: Rows that drift is measured against.
        steps: What a job does to the outputs.
        if_differs: What to do if the model gives other scores once it is loaded.
    """

    rows: pa.RecordBatch
    own: Block
    draft: Draft
    reference: pa.RecordBatch
    steps: tuple[AnyStep, ...]
    if_differs: str


def _written(
    target: Path, card: dict[str, Any], files: dict[str, bytes], of: Sampled
) -> SavedModel:
    """Writes the folder, loads the model from it, and adds golden rows and reference."""
    with _replacing(target) as staging:
        write_model_folder(str(staging), card, files)
        loaded = load_back(staging, of.draft)
        golden = golden_of(of.rows, of.own, of.draft, loaded, card["tolerance"], of.if_differs)
        files["golden.parquet"] = _parquet(golden)
        files["profile.parquet"] = reference_of(
            of.reference, of.draft, loaded, card["outputs"], of.steps
        )
        card |= {"golden": "golden.parquet", "profile": "profile.parquet"}
        written = write_model_folder(str(staging), card, files)
    shown = written.model_dump(mode="json", exclude_none=True)
    kinds = {key: _shapes(shown[key]) for key in ("inputs", "outputs")}
    return SavedModel(target, kinds["inputs"], kinds["outputs"], golden.num_rows, shown)


def require_new(asked: str, overwrite: bool, how: str = "overwrite=True") -> Path:
    """Returns the folder to write.

    Args:
        asked: Its path.
        overwrite: Whether a model folder that is there is replaced.
        how: How a caller says so, for a message.

    Raises:
        OutputError: It may not be written.
    """
    if "://" in asked:
        raise OutputError(
            f"model folder {redacted_address(asked)}: expected a local folder; save it there, and "
            "copy the whole folder"
        )
    if "\0" in asked:
        raise OutputError(
            f"model folder {one_line(asked)}: expected a path without null characters"
        )
    target = Path(os.path.realpath(asked))
    try:
        _check_target(target, overwrite, how)
    except OSError as error:
        raise _unwritable(target, error) from error
    return target


def _check_target(target: Path, overwrite: bool, how: str) -> None:
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not (target / CARD).is_file():
        raise OutputError(
            f"model folder {target}: exists and is not a model folder, so it is never replaced; "
            "choose another name"
        )
    if not overwrite:
        raise OutputError(
            f"model folder {target}: exists already; choose another name, or replace it with {how}"
        )


@contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """Gives a folder to write, which takes the target's place if nothing fails."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".saving-", dir=target.parent) as staging:
            made, old = Path(staging) / target.name, Path(staging) / ".old"
            with _naming(target, staging):
                yield made
            if target.exists():
                target.rename(old)
            try:
                made.rename(target)
            except OSError:
                if old.exists():
                    old.rename(target)
                raise
    except OSError as error:
        raise _unwritable(target, error) from error


def _unwritable(target: Path, error: OSError) -> OutputError:
    return OutputError(
        f"model folder {one_line(target, 200)}: cannot be written ({reason(error)}); make room, or "
        "choose a folder that you may write to"
    )


@contextmanager
def _naming(target: Path, staging: str) -> Iterator[None]:
    """Names the folder that was asked for in an error that names the temporary one."""
    try:
        yield
    except BatchscoreError as error:
        if staging not in str(error):
            raise
        raise ModelError(
            f"model folder {target}: not written, since it failed when it was loaded from the "
            f"temporary folder {staging}: {error}"
        ) from error


def _rows(data: Any, what: str) -> pa.RecordBatch:
    batch = as_batch(data, what)
    if not batch.num_rows:
        raise InputError(f"{what}: has no rows; give some rows like those that a job will score")
    return batch


def _json(evaluation: Mapping[str, Any]) -> bytes:
    try:
        return (json.dumps(evaluation, indent=2, allow_nan=False) + "\n").encode()
    except (TypeError, ValueError) as error:
        raise InputError(
            f"evaluation: cannot be written as JSON ({reason(error)}); give texts, finite numbers, "
            "lists and dicts"
        ) from error


def _steps(given: Any) -> tuple[AnyStep, ...]:
    steps = checked_steps(given)
    if any(isinstance(step, UserFunction) for step in steps):
        raise InputError(
            "postprocess: a function belongs to the job, not to the model; leave it out, and give "
            "the job's drift.reference a profile of published scores"
        )
    return steps


def _parquet(rows: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_batches([rows]).replace_schema_metadata(None), sink)
    return bytes(sink.getvalue().to_pybytes())


def _shapes(declared: Mapping[str, Any]) -> dict[str, str]:
    return {name: f"{each['type']} {shape_text(each['shape'])}" for name, each in declared.items()}
