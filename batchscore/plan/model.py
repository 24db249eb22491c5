"""A job's model section to a verified model, and its inputs to columns of the schema."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pyarrow as pa

from batchscore.columnar.arrays import is_list
from batchscore.columnar.ragged import Varying
from batchscore.columnar.texts import TEXT
from batchscore.errors import InputError, ModelError
from batchscore.job import InputSpec, Job, ModelSection
from batchscore.messages.wording import nearest, reason
from batchscore.models.backends.built_in import format_of
from batchscore.models.backends.registry import backend_of
from batchscore.models.features import check_schema
from batchscore.models.folder import (
    map_inputs,
    read_model_folder,
    refused_model,
    single_file_model,
)
from batchscore.models.inputs import ModelInput
from batchscore.models.loadable import Model, ModelOutput
from batchscore.models.trained_types import is_as_trained
from batchscore.plan.footers import Footer
from batchscore.stages.preprocess import InputColumns, check_kind
from batchscore.storage.remote import missing_bucket
from batchscore.storage.retries import REMEDIES
from batchscore.storage.store import Store


def resolve_model(section: ModelSection, base: str, code: Mapping[str, str] | None = None) -> Model:
    """Returns the model that a job names: a folder, or one weights file described in the job.

    Args:
        base: The job's folder.
        code: The files there that an architecture may import or read, with their SHA-256; by
            default those that it imports.

    Raises:
        ModelError: It is missing, damaged, not what its hashes say, or described in part only, or
            its framework is not installed.
    """
    model = _described(section, base, code)
    _check_allowed(section, model)
    backend_of(model.format).require()
    return model


def _check_allowed(section: ModelSection, model: Model) -> None:
    """Raises ModelError where a file could run code that the job does not allow."""
    if backend_of(model.format).files_run_code and not section.allow_code:
        raise ModelError(
            f"model {model.folder}/{model.weights}: loading a file of format {model.format!r} can "
            "run code that is in it; if you trust it as you trust a program, add to model: "
            "allow_code: true; otherwise save the model as ONNX or with its weights as safetensors"
        )


def _described(section: ModelSection, base: str, code: Mapping[str, str] | None) -> Model:
    form = section.format or _own_format(section.path)
    if form is None:
        _check_folder(section)
        model = read_model_folder(section.path)
        return map_inputs(model, {k: _folder_columns(k, v) for k, v in section.inputs.items()})
    return single_file_model(
        section.path,
        format=form,
        architecture=section.architecture,
        inputs=[_declared_input(name, given) for name, given in section.inputs.items()],
        outputs=[ModelOutput(k, v.type, tuple(v.shape)) for k, v in section.outputs.items()],
        base=base,
        code_files=code,
        architecture_args=section.architecture_args,
        sha256=section.sha256,
        version=section.version,
    )


def weights_facts(model: Model) -> dict[str, str]:
    """Returns what decides scores of a model today and did not in versions up to commit 020ad64.

    Those computed with weights of the file's own types. Nothing where that gives the same scores.
    """
    # It loads the model, which runs of this version's own outputs need not.
    earlier = backend_of(model.format).scores_as_earlier(model)
    return {} if earlier else {"types of weights": "cast to the architecture's"}


def _own_format(path: str) -> str | None:
    """Returns the format of a file that says itself what it reads; None for a folder."""
    form = format_of(path)
    if form is None:
        return None
    try:
        with Store(path).open(""):
            return form
    except IsADirectoryError:
        return None
    except FileNotFoundError as error:
        raise _missing(path, "file") from error
    except OSError as error:
        raise _unreadable(path, error) from error


def _check_folder(section: ModelSection) -> None:
    path = section.path
    try:
        with Store(path).open(""):
            raise refused_model(path)
    except IsADirectoryError:
        given = [name for name in ("sha256", "outputs", "version") if getattr(section, name)]
        if given:
            raise ModelError(
                f"model.{given[0]}: only for one model file, and {path} is a folder; leave it to "
                "the folder's model.yaml"
            ) from None
        return
    except FileNotFoundError as error:
        raise _missing(path, "folder") from error
    except OSError as error:
        raise _unreadable(path, error) from error


def _missing(path: str, kind: str) -> ModelError:
    missing = missing_bucket(path) or f"no such model {kind}; correct the path"
    return ModelError(f"model.path {path}: {missing}")


def _unreadable(path: str, error: OSError) -> ModelError:
    said = reason(error)
    remedy = "" if any(each in said for each in REMEDIES) else "; correct the path"
    return ModelError(f"model.path {path}: cannot be read ({said}){remedy}")


def _listed(given: str | Sequence[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


def _folder_columns(name: str, given: str | Sequence[str] | InputSpec) -> tuple[str, ...]:
    if isinstance(given, InputSpec) and given != InputSpec(columns=given.columns):
        raise ModelError(
            f"model.inputs.{name}: sets more than its columns, which only a weights file needs; a "
            "model folder's own model.yaml has the rest: leave it out, or change it there"
        )
    return _listed(_columns(given))


def _columns(given: str | Sequence[str] | InputSpec) -> str | Sequence[str]:
    return given.columns if isinstance(given, InputSpec) else given


def _declared_input(name: str, given: str | Sequence[str] | InputSpec) -> ModelInput:
    columns = _columns(given)
    shape = () if isinstance(columns, str) else (len(columns),)
    if not isinstance(given, InputSpec):
        return ModelInput(name, "float32", shape, _listed(columns))
    if shape not in ((), (1,)) and (given.max_length or given.type == TEXT):
        what = "max_length is for one list column" if given.max_length else "text is of one column"
        raise ModelError(f"model.inputs.{name}: {what}, found {len(columns)} columns")
    if given.max_length is None:
        kept = () if given.type == TEXT else shape
        return ModelInput(name, given.type, kept, _listed(columns), missing=given.missing)
    varying = Varying(given.max_length, given.pad, given.truncate)
    return ModelInput(name, given.type, (), _listed(columns), varying)


def model_inputs(
    job: Job, model: Model, schema: pa.Schema, footers: Sequence[Footer]
) -> tuple[InputColumns, ...]:
    """Returns the columns that model inputs are stacked from; none where features make them.

    Raises:
        InputError: A column has a type that the model cannot take.
    """
    if not footers:
        return ()
    if job.preprocess is None and model.features is not None:
        check_schema(model.features, schema)
        return ()
    if job.preprocess is not None:
        return tuple(_after_function(each, model, job) for each in model.inputs)
    return tuple(_from_columns(each, schema) for each in model.inputs)


def _after_function(each: ModelInput, model: Model, job: Job) -> InputColumns:
    made_of = each.columns if each.types and each.name not in job.model.inputs else ()
    columns = (each.name,) if model.features is not None or made_of else each.columns
    return InputColumns(
        each.name, each.dtype, each.shape, columns, each.varying, each.missing, made_of
    )


def _from_columns(each: ModelInput, schema: pa.Schema) -> InputColumns:
    for name in each.columns:
        if name not in schema.names:
            raise InputError(f"model input {each.name!r}: {nearest(name, schema.names)}")
        kind = schema.field(name).type
        _check_trained(each, name, kind)
        if each.dtype == TEXT:
            _check_text(each, name, kind)
        elif each.varying:
            _check_sequences(each, name, kind)
        else:
            _check_numbers(each, name, kind)
    shape = each.shape
    if len(each.columns) == 1 and not each.varying and not shape:
        shape = _own_shape(schema.field(each.columns[0]).type)
    return InputColumns(each.name, each.dtype, shape, each.columns, each.varying, each.missing)


def _check_trained(each: ModelInput, name: str, kind: pa.DataType) -> None:
    """Holds a column to the type that it had in training, where the card says it."""
    trained = each.types[each.columns.index(name)] if each.types else ""
    if each.types and not pa.types.is_null(kind) and not is_as_trained(kind, trained):
        raise InputError(
            f"model input {each.name!r}: column {name!r} is {kind}, and {trained} in training; "
            "name the column that holds it so, or cast it in preprocess.function"
        )


def _own_shape(kind: pa.DataType) -> tuple[int, ...]:
    return (kind.list_size,) if pa.types.is_fixed_size_list(kind) else ()


def _check_text(each: ModelInput, name: str, kind: pa.DataType) -> None:
    if not check_kind(kind, each.dtype):
        raise InputError(
            f"model input {each.name!r}: column {name!r} is {kind}, expected texts or whole "
            "numbers; cast it in preprocess.function"
        )


def _check_sequences(each: ModelInput, name: str, kind: pa.DataType) -> None:
    if not is_list(kind):
        raise InputError(
            f"model input {each.name!r}: column {name!r} is {kind}, expected a list of numbers "
            "per row, since the input is of varying length; make lists with preprocess.function"
        )
    if is_list(kind.value_type) != bool(each.shape):
        step = f"lists of {math.prod(each.shape)} numbers" if each.shape else "numbers"
        raise InputError(
            f"model input {each.name!r}: column {name!r} is {kind}, expected lists of {step}: "
            "correct the input's shape, or make such lists with preprocess.function"
        )
    _check_kind(each, name, kind, kind.value_type)


def _check_numbers(each: ModelInput, name: str, kind: pa.DataType) -> None:
    _check_kind(each, name, kind, kind)
    width = math.prod(each.shape)
    if len(each.columns) == 1 and width != 1 and not is_list(kind):
        raise InputError(
            f"model input {each.name!r}: takes {width:,} values per row, and column {name!r} has "
            f"one; give {width:,} columns, or one list column"
        )
    if is_list(kind) and (len(each.columns) > 1 or not (each.shape or _own_shape(kind))):
        raise InputError(
            f"model input {each.name!r}: column {name!r} is {kind}; a list must be the input's "
            "only column, and the model must say how long it is, or set max_length if that varies"
        )


def _check_kind(each: ModelInput, name: str, kind: pa.DataType, row: pa.DataType) -> None:
    """Holds a column of a kind to the input's type; `row` is what a row has, or a step of one."""
    inner = row.value_type if is_list(row) else row
    types = pa.types
    families = (types.is_integer, types.is_floating, types.is_boolean, types.is_decimal)
    if not any(family(inner) for family in families):
        raise InputError(
            f"model input {each.name!r}: column {name!r} is {kind}, expected numbers; "
            "encode it with preprocess.function, or with the model folder's preprocessing"
        )
    if not check_kind(row, each.dtype):
        raise InputError(
            f"model input {each.name!r}: column {name!r} is {kind}, and the input takes "
            f"{each.dtype}; declare another type, or cast it in preprocess.function"
        )
