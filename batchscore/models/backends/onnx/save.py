"""Writes an ONNX model to a model folder: its file, and what is known of its inputs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from batchscore.columnar.array_type import Array
from batchscore.columnar.texts import TEXT
from batchscore.errors import InputError, ModelError, StepError
from batchscore.messages.wording import counted, nearest, one_line, reason, type_of
from batchscore.models.backends.calling import Calls
from batchscore.models.backends.facts import Facts, FileTensor, Inputs, Outputs
from batchscore.models.backends.onnx.backend import batch_of, facts_of_file
from batchscore.models.backends.onnx.model_file import read_model_file
from batchscore.models.backends.onnx.predictor import shaped
from batchscore.models.backends.onnx.scored import check_file
from batchscore.models.backends.onnx.sessions import open_session
from batchscore.models.backends.saving import MODEL_PROTO, Asked, Draft, Saver, draft_of_features
from batchscore.models.card import InputTensor
from batchscore.models.features import Features, dump_features
from batchscore.models.file_tensors import plain_features
from batchscore.models.trained_types import is_as_trained

_WEIGHTS = "model.onnx"


@dataclass(frozen=True)
class _Files:
    """A model's own files.

    Args:
        content: Bytes of the model.
        folder: Where its external data lies, if it came as a path.
    """

    content: bytes
    folder: Path | None


class OnnxSaver(Saver):
    """ONNX files, by their path, their content, or as a ModelProto."""

    unused = ("args", "call", "inputs")
    takes_paths = True

    def require_savable(self, model: Any) -> None:
        """Requires a model that a run would take."""
        given = _files(model)
        check_file(read_model_file(given.content), _names_near(given))

    def draft(self, model: Any, rows: pa.RecordBatch, asked: Asked) -> Draft:
        """Takes the inputs of the file; of the caller and the sample what columns they have."""
        facts = _facts(_files(model), asked.outputs)
        if asked.features is not None:
            return _with_features(asked.features, facts)
        names = [each.name for each in facts.taken]
        unknown = [name for name in asked.columns or {} if name not in names]
        if unknown:
            raise InputError(
                f"columns: the model has no input {unknown[0]!r}; {nearest(unknown[0], names)}"
            )
        sources = {each.name: _columns(each, rows, asked, facts) for each in facts.taken}
        kinds = {each.name: (each.dtype, sources[each.name]) for each in facts.taken}
        features = plain_features(kinds, facts) if facts.takes_gaps else None
        if features is not None:
            return _with_features(features, facts)
        declared = {each.name: _declared(each, sources[each.name], rows) for each in facts.taken}
        return Draft(sources, declared, None)

    def described(
        self, model: Any, draft: Draft, asked: Asked
    ) -> tuple[dict[str, Any], dict[str, bytes]]:
        """Returns the inputs, and the files of the model."""
        given = _files(model)
        content = {_WEIGHTS: given.content, **_external(given)}
        card: dict[str, Any] = {"format": "onnx", "weights": _WEIGHTS}
        card["inputs"] = {n: t.model_dump(exclude_unset=True) for n, t in draft.declared.items()}
        if draft.features is not None:
            content["preprocessing.json"] = dump_features(draft.features).encode()
            card["preprocessing"] = "preprocessing.json"
        return card, content

    def calls(self, model: Any, rows: pa.RecordBatch, draft: Draft, asked: Asked) -> Calls:
        """Returns onnxruntime's own call for all rows at once, or as many as the file fixes."""
        given = _files(model)
        facts = _facts(given, asked.outputs)
        path = None if given.folder is None else os.fspath(model)
        session = open_session(path or given.content, "cpu")
        return _OwnCalls(session, facts, batch_of(read_model_file(given.content)))


@dataclass(frozen=True)
class _OwnCalls:
    """Calls of onnxruntime as a person makes them."""

    session: Any
    facts: Facts
    batch: int | None
    late: bool = False

    def predict(self, inputs: Inputs, rows: int) -> Outputs:
        """Computes the outputs of all rows."""
        size = self.batch or rows
        made = [self._call(inputs, start, size) for start in range(0, rows, size)]
        joined = {n: np.concatenate([each[n] for each in made])[:rows] for n in made[0]}
        return lambda: joined

    def take_extra_seconds(self) -> float:
        """Returns 0: there are no other threads."""
        return 0.0

    def _call(self, inputs: Inputs, start: int, size: int) -> dict[str, Array]:
        given = {
            each.name: _part(inputs[each.name], each, start, size) for each in self.facts.taken
        }
        names = [each.name for each in self.facts.made]
        try:
            found = self.session.run(names, given)
        except Exception as error:  # its errors have no class in common
            raise StepError(f"onnxruntime failed: {one_line(error, 300)}") from error
        wrong = [n for n, a in zip(names, found, strict=True) if a.shape[:1] != (size,)]
        if wrong:
            raise StepError(
                f"output {wrong[0]!r} has another number of rows than the {size:,} given; export "
                "the model with one row of output for each row of input"
            )
        return {n: _as_row_value(a) for n, a in zip(names, found, strict=True)}


def _part(values: Any, each: FileTensor, start: int, size: int) -> Array:
    """Returns the rows of a call; those beyond the last repeat it."""
    places_n = np.minimum(np.arange(start, start + size), len(values) - 1)
    return shaped(values[places_n], each, size)


def _as_row_value(array: Array) -> Array:
    """Returns an output as a run has it: of types that a table has, without a last 1."""
    wider = {"float16": "float32", "uint16": "int32", "uint32": "int64", "uint64": "int64"}
    kept = array.astype(wider.get(str(array.dtype), array.dtype), copy=False)
    return kept[..., 0] if kept.ndim > 1 and kept.shape[-1] == 1 else kept


def _files(model: Any) -> _Files:
    if isinstance(model, bytes):
        return _Files(model, None)
    if isinstance(model, str | os.PathLike):
        path = Path(model)
        try:
            return _Files(path.read_bytes(), path.parent)
        except OSError as error:
            raise ModelError(
                f"model {path}: cannot be read ({reason(error)}); correct the path"
            ) from error
    proto = getattr(model, MODEL_PROTO, model)
    try:
        return _Files(bytes(proto.SerializeToString()), None)
    except Exception as error:  # protobuf raises for 2 GiB, and for any other object
        raise ModelError(
            f"model is {type_of(model)}, which cannot be written ({reason(error)}); give the path "
            "of an .onnx file, its bytes, an onnx.ModelProto, or what torch.onnx.export returns"
        ) from error


def _facts(given: _Files, outputs: Sequence[str]) -> Facts:
    """Returns what a model's file says; of its outputs those that are named, or all."""
    found = read_model_file(given.content)
    return facts_of_file(found, outputs)


def _names_near(given: _Files) -> list[str]:
    return [] if given.folder is None else [each.name for each in given.folder.iterdir()]


def _external(given: _Files) -> Mapping[str, bytes]:
    """Returns the files with the model's tensors, each a plain file next to it."""
    made = {}
    for name in read_model_file(given.content).external:
        assert given.folder is not None
        path = given.folder / name
        if path.is_symlink() or not path.is_file():
            raise ModelError(f"model: its tensors lie in {path}, which is no plain file; copy it")
        made[name] = path.read_bytes()
    return made


def _columns(each: FileTensor, rows: pa.RecordBatch, asked: Asked, facts: Facts) -> tuple[str, ...]:
    """Returns the columns of an input: as asked, by its name, or all of the sample's in order."""
    names = rows.schema.names
    open_sizes = None in (each.shape or ())
    width = int(np.prod([size or 1 for size in each.shape or ()], dtype=np.int64))
    if each.name in (asked.columns or {}):
        return tuple((asked.columns or {})[each.name])
    if each.columns:
        return each.columns
    if each.name in names:
        return (each.name,)
    if len(facts.taken) == 1 and (len(names) == width or open_sizes):
        return tuple(names)
    example = {each.name: [*names[: min(width, 3)]]}
    raise InputError(
        f"columns: the model's input {each.name!r} takes {counted(width, 'value')} per row, and "
        f"the sample has no column of its name; name them in the order of training, such as "
        f"columns={example}"
    )


def _declared(each: FileTensor, columns: Sequence[str], rows: pa.RecordBatch) -> InputTensor:
    _require_texts(each, columns, rows)
    sizes = tuple(len(columns) if size is None else size for size in each.shape or ())
    if len(columns) == 1 and None in (each.shape or ()):
        kind = rows.schema.field(columns[0]).type if columns[0] in rows.schema.names else None
        sizes = (kind.list_size,) if kind and pa.types.is_fixed_size_list(kind) else sizes
    shape = () if sizes == (1,) else sizes
    return InputTensor(type=each.dtype, shape=shape)  # type: ignore[arg-type]


def _require_texts(each: FileTensor, columns: Sequence[str], rows: pa.RecordBatch) -> None:
    """Raises InputError where a column of other values than texts would fill an input of texts."""
    for name in columns if each.dtype == TEXT and {*columns} <= {*rows.schema.names} else ():
        kind = rows.schema.field(name).type
        if not is_as_trained(kind, TEXT):
            raise InputError(
                f"sample: column {name!r} is {kind}, and the model's input {each.name!r} takes "
                "texts; give rows of the training's types"
            )


def _with_features(features: Features, facts: Facts) -> Draft:
    missing = [each.name for each in facts.taken if each.name not in features.inputs]
    if missing:
        raise InputError(
            f"features: make no input {missing[0]!r}, which the model takes; "
            f"{nearest(missing[0], features.inputs)}"
        )
    return draft_of_features(features)


SAVER = OnnxSaver()
