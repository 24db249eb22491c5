"""The sections of the job file, a frozen model each, with what is checked within one section."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from datetime import date, datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    StringConstraints,
    Tag,
    WithJsonSchema,
    WrapSerializer,
    model_validator,
)

from batchscore.job.parameters import redacted_address, shown
from batchscore.wording import nearest

OPERATORS = ("==", "=", "!=", "<", ">", "<=", ">=", "in", "not in")

Scalar = str | int | float | bool | date | datetime
Condition = tuple[str, str, Scalar | tuple[Scalar, ...]]


class Section(BaseModel):
    """A part of the job file: frozen, without unknown keys, and strict about types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _one_or_more(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _distinct(values: tuple[str, ...]) -> tuple[str, ...]:
    repeated = sorted(value for value, count in Counter(values).items() if count > 1)
    if repeated:
        raise ValueError(f"{', '.join(map(shown, repeated[:5]))} is there more than once; keep one")
    return values


def _function_file(reference: str) -> str:
    if ".." in reference.partition(":")[0].split("/"):
        raise ValueError(
            f"expected a file in the job file's folder or below, found {shown(reference)}; "
            "move the file there"
        )
    return reference


def _conditions(value: Any) -> tuple[tuple[Condition, ...], ...]:
    """Read pyarrow's filters, one list of conditions or several, as several."""
    if not isinstance(value, list | tuple) or not all(isinstance(v, list | tuple) for v in value):
        raise ValueError(
            f"expected a list of [column, operator, value], found {shown(value)}; "
            "a single condition needs two pairs of brackets"
        )
    single = any(item and not isinstance(item[0], list | tuple) for item in value)
    groups = ([value] if single else value) if value else ()
    if any(len(group) == 0 for group in groups):
        raise ValueError("a list of conditions is empty; remove it or give one")
    return tuple(tuple(_condition(item) for item in group) for group in groups)


def _condition(item: Any) -> Condition:
    if not isinstance(item, list | tuple) or len(item) != 3:
        raise ValueError(f"expected [column, operator, value], found {shown(item)}")
    column, operator, value = item
    if not isinstance(column, str) or not column:
        raise ValueError(f"expected a column's name, found {shown(column)}")
    if not isinstance(operator, str) or operator not in OPERATORS:
        raise ValueError(
            f"column {shown(column)}: no such operator {shown(operator)}; "
            f"{nearest(str(operator), OPERATORS)}"
        )
    if operator not in ("in", "not in"):
        return column, operator, _scalar(column, operator, value)
    if not isinstance(value, list | tuple) or not value:
        raise ValueError(f"column {shown(column)}: {operator!r} needs a list of one or more values")
    return column, operator, tuple(_scalar(column, operator, item) for item in value)


def _scalar(column: str, operator: str, value: Any) -> Scalar:
    known = isinstance(value, str | int | float | date)
    if not known or (isinstance(value, float) and not math.isfinite(value)):
        found = shown(value, (column,))
        raise ValueError(
            f"column {shown(column)}: {operator!r} compares with a text, number, boolean or date, "
            f"found {found}"
        )
    scalar: Scalar = value
    return scalar


_CONDITION_SCHEMA = {
    "type": "array",
    "prefixItems": [{"type": "string"}, {"enum": list(OPERATORS)}, {}],
    "minItems": 3,
    "maxItems": 3,
}
_CONDITIONS_SCHEMA = {"type": "array", "items": _CONDITION_SCHEMA}
_FILTERS_SCHEMA = {"anyOf": [_CONDITIONS_SCHEMA, {"type": "array", "items": _CONDITIONS_SCHEMA}]}

# A pattern and what an error says was expected in its place.
NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
PARAMETER_NAME = r"^[A-Za-z_][A-Za-z0-9_]*$"
ADDRESS = r"^[^\x00-\x1f\x7f]+$"
FILE_FUNCTION = r"^[A-Za-z0-9_][A-Za-z0-9_./-]*\.py:[A-Za-z_][A-Za-z0-9_]*$"
SHA256 = r"^[0-9a-f]{64}$"
DEVICE = r"^(auto|cpu|cuda(:[0-9]{1,3})?)$"
PATTERN_MEANINGS = {
    NAME: "a name of letters, digits, '_', '.' and '-'",
    PARAMETER_NAME: "a name of letters, digits and '_'",
    ADDRESS: "a path or address without control characters",
    FILE_FUNCTION: "'file.py:name', the file in the job file's folder or below",
    SHA256: "64 hexadecimal digits in lower case",
    DEVICE: "'auto', 'cpu', 'cuda' or 'cuda:N'",
}

JobName = Annotated[str, StringConstraints(pattern=NAME, max_length=64)]
ParameterName = Annotated[str, StringConstraints(pattern=PARAMETER_NAME, max_length=64)]


def _without_credentials(address: str) -> str:
    if redacted_address(address) != address:
        raise ValueError(
            "holds a user, password or key, which manifests and logs would show; give them by the "
            "environment, or by fsspec's own configuration files"
        )
    return address


Address = Annotated[str, StringConstraints(pattern=ADDRESS), AfterValidator(_without_credentials)]
Addresses = Annotated[tuple[Address, ...], Field(min_length=1), BeforeValidator(_one_or_more)]
Filters = Annotated[
    tuple[tuple[Condition, ...], ...],
    BeforeValidator(_conditions),
    WithJsonSchema(_FILTERS_SCHEMA),
]
Text = Annotated[str, StringConstraints(min_length=1)]
Columns = Annotated[tuple[Text, ...], BeforeValidator(_as_tuple), AfterValidator(_distinct)]
OneOrMore = Annotated[
    tuple[Text, ...],
    Field(min_length=1),
    BeforeValidator(_as_tuple),
    AfterValidator(_distinct),
]
FileFunction = Annotated[
    str, StringConstraints(pattern=FILE_FUNCTION), AfterValidator(_function_file)
]
BatchKind = Literal["arrow", "pandas"]


class Input(Section):
    """The Parquet shards to score, and which of their rows."""

    path: Addresses = Field(
        description="A file, glob, hive directory (`month=9/…`), or a list of them; local, or any "
        "fsspec address. A relative path starts from the job file's folder."
    )
    filters: Filters = Field(
        default=(),
        description="Rows to keep, in pyarrow's form: a list of `[column, operator, value]` that "
        "must all hold, or a list of such lists of which one must hold. Operators: "
        f"{' '.join(f'`{operator}`' for operator in OPERATORS)}; `in` and `not in` take a list. "
        "They skip whole row groups where statistics allow; rows left out are counted as filtered.",
    )
    allow_empty: bool = Field(
        default=False,
        description="Whether no rows to score is a result, published as `empty` (exit 0). Off, "
        "since it is most often a mistake upstream: no shard at all is an error then (exit 2), and "
        "a filter that keeps no row holds the run (exit 3).",
    )
    ready: Address | None = Field(
        default=None,
        description="A marker file, such as `_SUCCESS`, that must exist before the input is read; "
        "without it the run ends with exit code 4, to be tried again later. A relative one is "
        "looked for in the folder that `path` names.",
    )
    on_bad_shard: Literal["fail", "quarantine"] = Field(
        default="fail",
        description="What becomes of a shard that cannot be read, or is removed or rewritten while "
        "the run reads: `fail` the run, or `quarantine` the shard: its rows are left out, it is "
        "listed and counted, and the next run takes it up once it was mended.",
    )
    max_bad_shards: int = Field(
        default=10,
        ge=1,
        description="How many shards `quarantine` may leave out; one more fails the run.",
    )


class TensorSpec(Section):
    """The type and shape of one model output."""

    type: Literal["float16", "float32", "float64", "int32", "int64", "bool"] = Field(
        description="The type of its numbers, as the model returns them."
    )
    shape: Annotated[tuple[Annotated[int, Field(ge=1)], ...], BeforeValidator(_as_tuple)] = Field(
        default=(),
        description="Its shape for one row, without the batch dimension: `[]` is one number a row, "
        "`[3]` three.",
    )


class InputSpec(Section):
    """The columns of one model input, and the type that the network takes."""

    columns: Text | OneOrMore = Field(description="The column, or the columns in order.")
    type: Literal["float32", "float64", "int32", "int64", "bool"] = Field(
        default="float32",
        description="The type of its numbers, as the network takes them; `int64` for what an "
        "embedding looks up.",
    )


class ModelSection(Section):
    """The model; in short just its path. All but `path` and `inputs` is for one weights file."""

    path: Address = Field(
        description="A model folder (with `model.yaml`) or one weights file, local or any fsspec "
        "address. A relative path starts from the job file's folder."
    )
    inputs: dict[Text, Text | OneOrMore | InputSpec] = Field(
        default_factory=dict,
        description="Each model input's column, or columns in order. For a model folder only where "
        "they differ from what its `model.yaml` says; required for a weights file, where a mapping "
        "of `columns` and `type` makes it another type than float32. The columns are those after "
        "`preprocess`. A list of columns makes a vector a row; a single name makes a number, or a "
        "vector where the column holds lists of one fixed size.",
    )
    format: Literal["safetensors", "pt"] | None = Field(
        default=None,
        description="The format of one weights file, which makes `architecture`, `sha256` and "
        "`inputs` required; a model folder has it in `model.yaml`. `pt` is read as weights only, "
        "nothing is unpickled.",
    )
    architecture: FileFunction | None = Field(
        default=None,
        description="What builds the module that the weights go into: `file.py:Name`, the file in "
        "the job file's folder. Needs `format`.",
    )
    architecture_args: dict[Text, JsonValue] = Field(
        default_factory=dict,
        description="Keyword arguments of `architecture`; plain values only. Needs `format`.",
    )
    sha256: Annotated[str, StringConstraints(pattern=SHA256)] | None = Field(
        default=None,
        description="The weights file's SHA-256, 64 hexadecimal digits; weights that differ are "
        "not loaded. Needs `format`.",
    )
    outputs: dict[Text, TensorSpec] = Field(
        default_factory=dict,
        description="Name, type and shape of each output, in the order that the module returns "
        "them; none given means one output, `score`, of the shape that the module returns. Needs "
        "`format`.",
    )
    version: Text | None = Field(
        default=None,
        description="The version written beside each score (`model_version`); by default the "
        "first 12 digits of `sha256`. Needs `format`.",
    )

    @model_validator(mode="after")
    def _one_file_is_described_whole(self) -> ModelSection:
        described = ("architecture", "architecture_args", "sha256", "outputs", "version")
        given = [name for name in described if getattr(self, name)]
        if self.format is None and given:
            raise ValueError(
                f"{', '.join(given)}: only for one weights file; add format, or leave them to the "
                "folder's model.yaml"
            )
        needed = [name for name in ("architecture", "sha256", "inputs") if not getattr(self, name)]
        if self.format is not None and needed:
            raise ValueError(f"a weights file with a format also needs {', '.join(needed)}")
        return self


class Preprocess(Section):
    """A function of yours between the input's columns and the model's."""

    function: FileFunction = Field(
        description="`file.py:function`, the file in the job file's folder: takes a batch and "
        "returns a batch of as many rows in the same order."
    )
    batch: BatchKind | None = Field(
        default=None,
        description="What the function takes: `arrow` (a RecordBatch) or `pandas` (a DataFrame). "
        "The default goes by the annotation of its first argument, else `arrow`, which copies "
        "nothing.",
    )
    columns: Columns | None = Field(
        default=None,
        description="The input columns that the function reads; by default all. Naming them lets "
        "the reader skip the others, unless `output.columns` needs them.",
    )


class Step(Section):
    """A postprocess step on one of the outputs so far."""

    output: Text | None = Field(
        default=None, description="The output to work on; by default the only one there is."
    )


class Sigmoid(Step):
    """Replaces a logit by its probability, element by element."""

    name: Text | None = Field(
        default=None,
        description="The result's name; by default the output's own, but `score` for `logit` and "
        "`scores` for `logits`.",
    )


class Softmax(Step):
    """Replaces a row's logits, one for each class, by probabilities that add up to 1."""

    name: Text | None = Field(
        default=None,
        description="The result's name; by default the output's own, but `score` for `logit` and "
        "`scores` for `logits`.",
    )


class TopK(Step):
    """Replaces a row's class scores by its k best classes and their scores, best first."""

    k: int = Field(ge=1, description="How many classes to keep; at most as many as there are.")
    labels: OneOrMore | None = Field(
        default=None,
        description="A text for each class, in the model's order; by default the class's index.",
    )
    name: Text = Field(
        default="top", description="The results are named `<name>_labels` and `<name>_scores`."
    )

    @model_validator(mode="after")
    def _k_fits_the_labels(self) -> TopK:
        if self.labels is not None and self.k > len(self.labels):
            raise ValueError(f"k is {self.k}, but there are {len(self.labels)} labels; lower k")
        return self


class Threshold(Step):
    """Adds a boolean: whether the score is at least `at`."""

    at: float = Field(description="The lowest score that counts as true, in the score's unit.")
    name: Text = Field(default="decision", description="The boolean's name.")


class Labels(Step):
    """Adds a text: of the best class for class scores, else of a boolean or integer class."""

    labels: OneOrMore = Field(
        description="A text for each class, in the model's order; for a boolean false, then true."
    )
    name: Text = Field(default="label", description="The text's name.")


class UserFunction(Section):
    """A function of yours on all the outputs."""

    function: FileFunction = Field(
        description="`file.py:function`, the file in the job file's folder: takes a batch of the "
        "outputs so far and returns a batch of as many rows in the same order."
    )
    batch: BatchKind | None = Field(
        default=None,
        description="What the function takes: `arrow` (a RecordBatch) or `pandas` (a DataFrame). "
        "The default goes by the annotation of its first argument, else `arrow`.",
    )


STEPS: dict[str, type[Section]] = {
    "sigmoid": Sigmoid,
    "softmax": Softmax,
    "top_k": TopK,
    "threshold": Threshold,
    "labels": Labels,
    "function": UserFunction,
}
_STEP_NAMES = {model: name for name, model in STEPS.items()}
# What a step may be given in place of a mapping: `labels: [a, b]`, `function: post.py:shape`.
SHORT_STEPS: dict[str, type[list[str]] | type[str]] = {"labels": list, "function": str}


def _step_name(value: Any) -> str | None:
    if isinstance(value, Section):
        return _STEP_NAMES.get(type(value))
    if isinstance(value, Mapping) and len(value) == 1:
        return str(next(iter(value)))
    return value if isinstance(value, str) else None


def _step_body(value: Any) -> Any:
    if isinstance(value, str):
        return {}
    if not isinstance(value, Mapping):
        return value
    ((name, body),) = value.items()
    if isinstance(body, SHORT_STEPS.get(name, ())):
        return {name: body}
    return {} if body is None else body


def _with_name(step: Section, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
    # Without its name a sigmoid would be written, and hashed, as a softmax is.
    return {_STEP_NAMES[type(step)]: dump(step)}


AnyStep = Annotated[
    Annotated[Sigmoid, BeforeValidator(_step_body), Tag("sigmoid")]
    | Annotated[Softmax, BeforeValidator(_step_body), Tag("softmax")]
    | Annotated[TopK, BeforeValidator(_step_body), Tag("top_k")]
    | Annotated[Threshold, BeforeValidator(_step_body), Tag("threshold")]
    | Annotated[Labels, BeforeValidator(_step_body), Tag("labels")]
    | Annotated[UserFunction, BeforeValidator(_step_body), Tag("function")],
    Discriminator(_step_name),
    WrapSerializer(_with_name),
]


Steps = Annotated[tuple[AnyStep, ...], BeforeValidator(_one_or_more)]


class Output(Section):
    """Where the scored rows are published, and in what form."""

    path: Address = Field(
        description="The folder to publish into, local or any fsspec address; it may hold earlier "
        "runs. A relative path starts from the job file's folder. A string parameter in it must "
        "be one plain path part, without `/`, `\\`, `:` or `..`."
    )
    columns: Columns | None = Field(
        default=None,
        description="Input columns passed through untouched beside the scores; by default all, "
        "`[]` none.",
    )
    partition_by: Columns = Field(
        default=(),
        description="Columns whose values become folders (`month=9/`) and leave the files. Each "
        "value makes files of its own, so choose columns with few.",
    )
    retention_days: int = Field(
        default=14,
        ge=0,
        description="How many days replaced files are kept, during which a run can be rolled back.",
    )


class OnChange(Section):
    """What a run does when something changed since the slice was last published.

    `hold` does nothing, publishes nothing, and ends with exit code 3 and the choices; with
    `--set on_change.…` a person chooses for one run.
    """

    model: Literal["rescore", "hold"] = Field(
        default="rescore",
        description="When the model, or anything else in the job that decides scores, changed "
        "(pre- and postprocessing, filters, code, columns, versions of torch, Arrow and NumPy): "
        "`rescore` every row, or `hold`.",
    )
    removed_shards: Literal["hold", "remove"] = Field(
        default="hold",
        description="When shards whose rows are published are gone: `hold`, since it is most often "
        "a mistake upstream, or `remove` their rows from what is published.",
    )
    rewritten_shards: Literal["hold", "rescore"] = Field(
        default="hold",
        description="When shards whose rows are published were written anew, or others stand in "
        "their folder in their place, as after a compaction: `hold`, or `rescore` them.",
    )
    late_shards: Literal["add", "hold"] = Field(
        default="add",
        description="When there are new shards: `add` scores them alone and publishes them beside "
        "the others; or `hold`.",
    )


class RowsCheck(Section):
    """How many rows are to be expected: the slice's own, or those of the slices before it."""

    min_ratio: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="The least rows, filtered ones not counted, against what is published of the "
        "slice; on its first run against the median of the job's slices before it by name, seven "
        "at most. Half-empty input is the commonest bad night; 0 never holds.",
    )
    max_ratio: float | None = Field(
        default=None, ge=1, description="The most rows against the same; by default any number."
    )


Bounds = Annotated[tuple[float, float], BeforeValidator(_as_tuple)]


def _ordered(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError(f"expected [smallest, largest], found {shown(list(bounds))}")
    return bounds


ScoreRange = Annotated[Bounds, AfterValidator(_ordered)]


class Checks(Section):
    """What must hold before anything is published; else the run is held (exit 3)."""

    rows: RowsCheck = Field(default=RowsCheck(), description="The volume.")
    unique: Columns = Field(
        default=(),
        description="Columns that together name a row: no two published rows of the slice may "
        "agree in all of them. Each must be among what is written.",
    )
    score_range: ScoreRange | dict[Text, ScoreRange] | None = Field(
        default=None,
        description="`[smallest, largest]` allowed for every score that is a number, or a mapping "
        "of score columns to such pairs.",
    )


class Rejects(Section):
    """How many rows may fail before the run is held back."""

    max_ratio: float = Field(
        default=0.001,
        ge=0,
        le=1,
        description="The largest share of rejected rows, of those not filtered, that is still "
        "published; over it the run fails (exit 1). One in a thousand lets stray bad rows pass and "
        "stops a broken column; 0 allows none. The run stops early once it cannot be met.",
    )
    max_rows: int | None = Field(
        default=None,
        ge=0,
        description="The most rejected rows, beside `max_ratio`; by default any number.",
    )


class Runtime(Section):
    """On what the job runs; changes nothing in the result."""

    engine: Literal["direct"] = Field(
        default="direct", description="The Beam engine; `direct` is this machine."
    )
    device: Annotated[str, StringConstraints(pattern=DEVICE)] = Field(
        default="auto",
        description="`cpu`, `cuda`, `cuda:N`, or `auto`: a GPU where there is one. A GPU asked for "
        "that is not there is an error, never a slow run.",
    )
    workers: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        default="auto",
        description="How many worker processes; `auto` goes by cores, memory and units. Each has "
        "the model and some batches of `batch_rows` in memory.",
    )
    batch_rows: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        default="auto",
        description="Rows read and scored at a time, the bound of a worker's memory; `auto` goes "
        "by the width of a row.",
    )
