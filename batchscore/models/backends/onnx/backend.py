"""The ONNX backend as the registry knows it; onnxruntime is imported when it is needed."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from batchscore.columnar.texts import TEXT
from batchscore.errors import ModelError
from batchscore.messages.wording import counted, nearest
from batchscore.models.backends.facts import Call, Facts, FileTensor, OutputSpec
from batchscore.models.backends.onnx.model_file import OnnxFile, Tensor, read_model_file
from batchscore.models.backends.onnx.scored import check_file, check_input, check_output, takes_gaps
from batchscore.models.backends.protocol import Backend, Predictor
from batchscore.models.backends.tree_files import importing, naming_file, require_package
from batchscore.models.file_kinds import ONNX, describe_file
from batchscore.models.loadable import copy_verified, read_weights

if TYPE_CHECKING:
    from batchscore.models.loadable import Model

_GPU_ROWS = 8192
_COLUMNS = "columns"


class OnnxBackend(Backend):
    """ONNX files, `.onnx`, which name their inputs and outputs."""

    packages = ("onnxruntime",)
    unpinned = ("onnx",)
    names_tensors = True
    takes_texts = True
    other_devices = ("cuda",)
    is_fragile = True
    trial_values = (0.0,)
    usual_call = "a tile of the CPU"
    preloads = ("batchscore.models.backends.onnx.predictor",)

    def require(self) -> None:
        """Looks for onnxruntime, and does not import it."""
        require_package("onnxruntime", "onnx")

    def inspect(self, model: Model) -> Facts:
        """Returns what the file says, after a look at its graphs and operators."""
        return facts_of(described(model), model)

    def needed(self, model: Model) -> tuple[str, ...]:
        """Names the file, and those that hold its tensors."""
        return (model.weights, *described(model).external)

    def load(self, model: Model, device: str, threads: int = 1, prove: bool = False) -> Predictor:
        """Loads a private copy of the verified files; `threads` counts calls next to each other."""
        self.require()
        with importing("onnxruntime"):
            from batchscore.models.backends.onnx.predictor import OnnxPredictor
            from batchscore.models.backends.onnx.sessions import load_session

        found, hashes = described(model), self.needed(model)
        facts = facts_of(found, model)
        with tempfile.TemporaryDirectory(prefix="batchscore-onnx-") as folder:
            copy_verified(model, hashes, Path(folder))
            with naming_file(model):
                session = load_session(Path(folder) / model.weights, found, device)
        outputs = tuple(OutputSpec(each.name, each.dtype, each.shape) for each in model.outputs)
        return OnnxPredictor(session, facts.taken, outputs, batch_of(found), device)

    def prepare(self) -> None:
        """Imports onnxruntime and what calls it."""
        self.require()
        with importing("onnxruntime"):
            import batchscore.models.backends.onnx.predictor  # noqa: F401

    def resolve(self, asked: str) -> str:
        """Returns `cpu`, `cuda` or `cuda:N`; `auto` is a GPU where onnxruntime can use one."""
        self.require()
        with importing("onnxruntime"):
            from batchscore.models.backends.onnx.sessions import resolve_device

        return resolve_device(asked)

    def describe(self, device: str) -> str:
        """Returns a device with the GPU's name, or the CPU's instructions."""
        from batchscore.models.backends.onnx.sessions import describe_device

        return describe_device(device)

    def gpus(self, device: str) -> tuple[str, ...]:
        """Names the GPUs as CUDA_VISIBLE_DEVICES does."""
        from batchscore.models.backends.onnx.sessions import visible_gpus

        return visible_gpus(device)

    def known_rows(self, model: Model, call: Call) -> tuple[int | None, str]:
        """Returns the rows that the file fixes, or a tile."""
        batch = batch_of(described(model))
        if batch is not None:
            return batch, "the model's own batch"
        if call.device != "cpu":
            return min(_GPU_ROWS, call.batch_rows), "a tile of the GPU"
        return call.rows, self.usual_call


def described(model: Model) -> OnnxFile:
    """Returns what a model's file says, once it is known to be one that is scored.

    Raises:
        ModelError: It cannot be read, or is not scored; the message has its path.
    """
    with naming_file(model):
        found = _parsed(model, model.sha256[model.weights])
        check_file(found, {*model.sha256} - {model.weights, *model.no_influence})
        return found


_last: dict[str, OnnxFile] = {}


def _parsed(model: Model, sha256: str) -> OnnxFile:
    """Reads a file of known content; the last one is remembered."""
    if sha256 not in _last:
        content = read_weights(model)
        try:
            found = read_model_file(content)
        except ModelError as error:
            raise ModelError(f"{error}{_guess(content)}") from error
        _last.clear()
        _last[sha256] = found
    return _last[sha256]


def _guess(content: bytes) -> str:
    """Returns what a file seems to be that is no ONNX model, as the end of a message."""
    with tempfile.TemporaryDirectory(prefix="batchscore-onnx-") as folder:
        path = Path(folder) / "model"
        path.write_bytes(content)
        try:
            what = describe_file(path)
        except ModelError:
            what = "a damaged zip archive"
    return "" if what in (None, ONNX) else f". It looks like {what}"


def batch_of(found: OnnxFile) -> int | None:
    """Returns the rows of a call that a file fixes; None if it takes any number.

    Raises:
        ModelError: Its inputs differ in them.
    """
    sizes = {each.shape[0] for each in found.inputs if each.shape} - {None}
    if len(sizes) > 1:
        raise ModelError(
            f"its inputs have {' and '.join(map(str, sorted(filter(None, sizes))))} rows, which "
            "differ; export the model with one first dimension for all inputs"
        )
    return next(iter(sizes), None)


def facts_of(found: OnnxFile, model: Model) -> Facts:
    """Returns what a model's file says as all backends say it."""
    with naming_file(model):
        return facts_of_file(found, [each.name for each in model.outputs])


def facts_of_file(found: OnnxFile, outputs: Sequence[str]) -> Facts:
    """Returns what a file says; of its outputs those that are named, or all.

    Raises:
        ModelError: An input or output is not of numbers, or there is no output of a name.
    """
    taken = tuple(_taken(each, found) for each in found.inputs)
    made = tuple(_made(each) for each in _chosen(found.outputs, outputs))
    _check_names(taken, made)
    batch = batch_of(found)
    shapes = {each.name: each.shape or () for each in taken}
    flat = {name: shape for name, shape in shapes.items() if len(shape) < 2}
    return Facts(
        inputs={n: tuple(filter(None, s)) for n, s in flat.items() if None not in s},
        versions={f"opset of {name or 'ai.onnx'}": str(v) for name, v in found.opsets.items()},
        taken=taken,
        made=made,
        takes_gaps=takes_gaps(found),
        counts={"parameters": found.parameters, "nodes": found.nodes},
        said={
            "producer": found.producer,
            "batch": "any" if batch is None else counted(batch, "row"),
            "external data": ", ".join(found.external) or "none",
        },
    )


def _taken(each: Tensor, found: OnnxFile) -> FileTensor:
    check_input(each)
    assert each.shape is not None
    columns = _named_columns(found) if len(found.inputs) == 1 else ()
    kind = TEXT if each.kind == "string" else each.kind
    return FileTensor(each.name, kind, each.shape[1:], columns)


def _named_columns(found: OnnxFile) -> tuple[str, ...]:
    """Returns the columns that the file's metadata names, as a list in JSON."""
    try:
        names = json.loads(found.metadata.get(_COLUMNS, "[]"))
    except (ValueError, RecursionError):
        return ()
    is_list = isinstance(names, list) and all(isinstance(each, str) for each in names)
    return tuple(names) if is_list else ()


def _chosen(outputs: Sequence[Tensor], names: Sequence[str]) -> Sequence[Tensor]:
    """Returns the outputs of some names; all if none is named."""
    known = {each.name: each for each in outputs}
    for name in names:
        if name not in known:
            raise ModelError(f"the file has no output {name!r}; {nearest(name, known)}")
    return [known[name] for name in names] or outputs


def _made(each: Tensor) -> FileTensor:
    check_output(each)
    return FileTensor(each.name, each.kind, each.shape[1:] if each.shape else None)


def _check_names(taken: Sequence[FileTensor], made: Sequence[FileTensor]) -> None:
    for what, tensors in (("input", taken), ("output", made)):
        names = [each.name for each in tensors]
        double = next((name for name in names if not name or names.count(name) > 1), None)
        if double is not None:
            raise ModelError(
                f"its graph has {what} {double!r} twice, or one without a name; export it again"
            )


BACKEND = OnnxBackend()
