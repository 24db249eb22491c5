"""The sections of the job file on input, model, code, output and runtime, a frozen model each."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, JsonValue, StringConstraints, model_validator

from batchscore.job.dataflow_section import Dataflow
from batchscore.job.field_types import (
    DEVICE,
    FORMAT,
    OPERATORS,
    SHA256,
    Address,
    Addresses,
    Age,
    BatchKind,
    Columns,
    DataAddress,
    Endpoint,
    FileFunction,
    Filters,
    OneOrMore,
    Section,
    Text,
    WebEndpoint,
    as_tuple,
)


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
        "They skip whole row groups where statistics allow; rows left out are counted as filtered. "
        "Values are compared exactly, as [types](types.md) says.",
    )
    int96: Literal["ns", "us"] = Field(
        default="ns",
        description="The unit that INT96 timestamps, as old Spark, Hive and Impala write them, are "
        "read in. `ns` holds the years 1678 to 2261, and a value beyond them is an error. `us` "
        "holds all years and cuts off digits below a microsecond, as Spark and DuckDB do.",
    )
    hive_types: dict[Text, Literal["string", "integer"]] = Field(
        default_factory=dict,
        description="The type of hive keys, `string` or `integer`, such as `{zip: string}`. By "
        "default a key keeps the type that the output was published with. On a new output it is "
        "an integer if all its values are whole numbers, without leading zeros unless they have "
        "two digits (`month=01`), and else a string. Two spellings of one integer (`02139` and "
        "`2139`) are an error until the key is declared, except on an output that has two as one "
        "already.",
    )
    allow_empty: bool = Field(
        default=False,
        description="Whether a run without rows to score is published as `empty` (exit 0). By "
        "default it is not, since it is most often a mistake upstream: without a "
        "shard it is an error (exit 2), and a filter that keeps no row holds the "
        "run (exit 3).",
    )
    ready: DataAddress | None = Field(
        default=None,
        description="A marker file, such as `_SUCCESS`, that must exist before the input is "
        "read. Without it the run ends with exit code 4: try again later. A "
        "relative path starts from the folder that `path` names.",
    )
    on_bad_shard: Literal["fail", "quarantine"] = Field(
        default="fail",
        description="What to do about a shard that cannot be read, or that is removed or "
        "rewritten while the run reads. `fail` fails the run. `quarantine` leaves "
        "the shard's rows out, lists and counts them; the next run scores the shard"
        " once it is fixed.",
    )
    max_bad_shards: int = Field(
        default=10,
        ge=1,
        description="The most shards that `quarantine` may leave out. One more fails the run.",
    )


class TensorSpec(Section):
    """The type and shape of one model output."""

    type: Literal["float16", "float32", "float64", "int32", "int64", "bool"] = Field(
        description="The type of its numbers, as the model returns them."
    )
    shape: Annotated[tuple[Annotated[int, Field(ge=1)], ...], BeforeValidator(as_tuple)] = Field(
        default=(),
        description="Its shape for one row, without the batch dimension: `[]` is one number per "
        "row, `[3]` is three.",
    )


class InputSpec(Section):
    """The columns of one model input, and the type that the network takes."""

    columns: Text | OneOrMore = Field(description="The column, or the columns in order.")
    type: Literal["float32", "float64", "int32", "int64", "bool", "text"] = Field(
        default="float32",
        description="The type of its numbers, as the network takes them; `int64` for what an "
        "embedding looks up. `text` is for a model that takes texts as they are, one column each.",
    )
    max_length: Annotated[int, Field(ge=1, lt=1 << 31, strict=True)] | None = Field(
        default=None,
        description="The most numbers that a row may have. Each row is then a list of its own "
        "length, such as the tokens of a text. A longer row is rejected. The network "
        "gets rows of similar length together, padded to `[rows, length]`.",
    )
    pad: int | float = Field(
        default=0,
        description="The number that pads a row at its end, of the input's type. Needs "
        "`max_length`.",
    )
    truncate: bool = Field(
        default=False,
        description="Whether a row that is longer keeps its first `max_length` numbers instead of "
        "being rejected. Needs `max_length`.",
    )

    missing: Text | None = Field(
        default=None,
        description="The text that training had in the place of null, for a `text`. Otherwise a "
        "row with a null is rejected.",
    )

    @model_validator(mode="after")
    def _missing_is_of_texts(self) -> InputSpec:
        if self.missing is not None and self.type != "text":
            raise ValueError("missing is for texts; add type: text")
        return self

    @model_validator(mode="after")
    def _pad_and_truncate_are_of_varying_length(self) -> InputSpec:
        if self.max_length is None and (self.pad or self.truncate):
            raise ValueError("pad and truncate are for rows of varying length; add max_length")
        return self


# Formats, and endings, of files that say themselves what they read: `models/backends/built_in.py`.
_SELF_DESCRIBED = ("catboost", "keras", "lightgbm", "onnx", "pt2", "sklearn", "xgboost")
_SELF_DESCRIBED_ENDINGS = (
    ".cbm",
    ".h5",
    ".json",
    ".keras",
    ".onnx",
    ".pt2",
    ".skops",
    ".txt",
    ".ubj",
)


class ModelSection(Section):
    """The model, or only its path. Keys but `path` and `inputs` are for a single weights file."""

    path: Address = Field(
        description="A model folder (with `model.yaml`) or one model file, local or any fsspec "
        "address. A relative path starts from the job file's folder."
    )
    inputs: dict[Text, Text | OneOrMore | InputSpec] = Field(
        default_factory=dict,
        description="Each model input's column, or columns in order. For a model folder only "
        "where they differ from what its `model.yaml` says; required for a weights "
        "file, where a mapping of `columns` and `type` makes it another type than "
        "float32. The columns are those after `preprocess`. A list of columns makes "
        "a vector per row. A single name makes a number, or a vector if the column "
        "holds lists of one fixed size. Lists of varying length need a `max_length`.",
    )
    format: Annotated[str, StringConstraints(pattern=FORMAT)] | None = Field(
        default=None,
        description="The format of one weights file, which makes `sha256` and `inputs` required; a "
        "model folder has it in `model.yaml`. `safetensors` and `pt` are built in, and need an "
        "`architecture`; `pt` is read as weights only, nothing is unpickled. `xgboost`, "
        "`lightgbm`, `catboost`, `onnx`, `keras` and `sklearn` need the path alone, and are the "
        "default for a path that ends in `.ubj` or `.json`, in `.txt`, in `.cbm`, in `.onnx`, in "
        "`.keras` or `.h5`, and in `.skops`. `pt2`, for a path that ends in `.pt2`, also "
        "needs `sha256` and `allow_code`. Other packages may bring further formats.",
    )
    architecture: FileFunction | None = Field(
        default=None,
        description="What builds the module that the weights go into: `file.py:Name`, the file in "
        "the job file's folder. Required for the formats `safetensors` and `pt`.",
    )
    architecture_args: dict[Text, JsonValue] = Field(
        default_factory=dict,
        description="Keyword arguments of `architecture`; plain values only. Needs `format`.",
    )
    sha256: Annotated[str, StringConstraints(pattern=SHA256)] | None = Field(
        default=None,
        description="The weights file's SHA-256, 64 hexadecimal digits; weights that differ are "
        "not loaded. Needs `format`, or a file that describes itself.",
    )
    outputs: dict[Text, TensorSpec] = Field(
        default_factory=dict,
        description="Name, type and shape of each output, in the order that the module returns "
        "them; none given means one output, `score`, of the shape that the module returns. Needs "
        "`format`, or a file that describes itself.",
    )
    allow_code: bool = Field(
        default=False,
        description="Whether loading the model may run code of its file. Only `pt2`, programs of "
        "`torch.export`, can do so, and no such file is loaded without it. Set it for files that "
        "you trust as you trust a program.",
    )
    version: Text | None = Field(
        default=None,
        description="The version written next to each score (`model_version`); by default the "
        "first 12 digits of `sha256`. Needs `format`, or a file that describes itself.",
    )

    @model_validator(mode="after")
    def _one_file_is_described_whole(self) -> ModelSection:
        described = ["architecture", "architecture_args"]
        if not self.path.lower().endswith(_SELF_DESCRIBED_ENDINGS):
            described += ["sha256", "outputs", "version"]
        given = [name for name in described if getattr(self, name)]
        if self.format is None and given:
            raise ValueError(
                f"{', '.join(given)}: only for one weights file; add format, or leave them to the "
                "folder's model.yaml"
            )
        needed = [name for name in ("sha256", "inputs") if not getattr(self, name)]
        if self.format not in (None, *_SELF_DESCRIBED) and needed:
            raise ValueError(f"a weights file with a format also needs {', '.join(needed)}")
        return self


class Preprocess(Section):
    """A function of yours between the input's columns and the model's."""

    function: FileFunction = Field(
        description="`file.py:function`, the file in the job file's folder: takes a batch and "
        "returns a batch of as many rows in the same order. For a model that names its columns it "
        "returns these columns by name, in any order and next to any others, and they are encoded "
        "as without a function; or a list column with the name of the model's input, which is "
        "taken as it is."
    )
    batch: BatchKind | None = Field(
        default=None,
        description="What the function takes: `arrow` (a RecordBatch) or `pandas` (a DataFrame). "
        "By default the annotation of its first argument decides; without one it is "
        "`arrow`, which copies nothing.",
    )
    columns: Columns | None = Field(
        default=None,
        description="The input columns that the function reads; by default all. Naming them lets "
        "the reader skip the others, unless `output.columns` needs them.",
    )


class Explain(Section):
    """Why a row has its score, next to it: the columns that moved it most, and by how much.

    The column `reasons` is a list of (column, contribution). Contributions are of the raw score,
    which is what the model makes before it turns it into a probability. They and the model's base
    add up to it. Reasons name only columns that are published, or listed here.
    """

    top: int = Field(default=3, ge=1, le=100, description="The most columns that a row names.")
    above: float | None = Field(
        default=None,
        description="Explains the rows whose score is above it; others have null. By default all "
        "rows are explained. Of a vector of scores the largest counts.",
    )
    score: Text | None = Field(
        default=None,
        description="The score that `above` is compared with; needed if several hold numbers.",
    )
    columns: Columns | None = Field(
        default=None,
        description="The columns that reasons may name, whether or not they are published; by "
        "default those of `output.columns` and `output.partition_by`.",
    )


class Output(Section):
    """Where the scored rows are published, and in what form."""

    path: Address = Field(
        description="The folder to publish into, local or any fsspec address; it may hold earlier "
        "runs. A relative path starts from the job file's folder. A string parameter in it must "
        "be one plain path part, without `/`, `\\`, `:` or `..`."
    )
    columns: Columns | None = Field(
        default=None,
        description="Input columns passed through unchanged next to the scores; by default all, "
        "`[]` none.",
    )
    partition_by: Columns = Field(
        default=(),
        description="Columns whose values become folders (`month=9/`) and leave the files. Each "
        "value makes files of its own, so choose columns with few.",
    )
    compression: Literal["auto", "zstd", "snappy", "none"] = Field(
        default="auto",
        description="How columns are compressed. `auto` takes `zstd` for a column where that makes "
        "files much smaller than `snappy` does, as of JSON and ascending numbers, and else "
        "`snappy`, as of sentences. `zstd` makes the smallest files; of sentences `snappy` makes "
        "files half as large again, for half the CPU time. Whatever the choice, a column that "
        "would not become a tenth smaller is not compressed. A change rescores nothing: files that "
        "are published stay as they are, new ones have the new "
        "compression, and readers read both. See [output](output.md#compression).",
    )
    retention_days: int = Field(
        default=14,
        ge=0,
        description="How many days replaced files are kept. For so long a run can be rolled back.",
    )


class Flink(Section):
    """The cluster that `runtime.engine: flink` uses; other engines ignore this section.

    Addresses are HOST:PORT. An option of `runtime.options` with the same meaning comes first.
    """

    job_service: Endpoint | None = Field(
        default=None, description="Where Beam's job server listens: `flink-jobs:8099`."
    )
    rest: WebEndpoint | None = Field(
        default=None,
        description="Where Flink's REST interface listens: `flink:8081`. A run then asks it for "
        "slots, TaskManagers and version before any work.",
    )
    parallelism: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        default="auto",
        description="How many units are scored at the same time, each by a Python process with one "
        "thread. `auto` is all slots of the cluster that `rest` names; without `rest` it is "
        "`runtime.workers`, or 1.",
    )
    pool: Endpoint | None = Field(
        default=None,
        description="Where each TaskManager finds a pool of Python workers, as seen from the "
        "TaskManager: `localhost:50000`.",
    )
    container: Text | None = Field(
        default=None,
        description="In place of `pool`: an image with batchscore in it, of which each TaskManager "
        "starts a container.",
    )

    @model_validator(mode="after")
    def _workers_come_from_one_place(self) -> Flink:
        if self.pool is not None and self.container is not None:
            raise ValueError("pool and container exclude each other; keep one")
        return self


class Runtime(Section):
    """On what the job runs.

    `precision`, `compile`, `kernels` and `micro_batch` change scores a little. They stay within
    the model's tolerance, and what was scored with others is scored again.
    """

    engine: Text = Field(
        default="direct",
        description="What runs the pipeline: `direct`, this machine; `flink`, a Flink cluster; "
        "`prism` or `spark`, through a job server of Beam; `dataflow`, Google Cloud Dataflow, "
        "never run on the service; these four are experimental; or an engine that an installed "
        "package offers. "
        "[Operations](operations.md#engines) says what each needs.",
    )
    options: dict[Text, str | int | float | bool | OneOrMore] = Field(
        default_factory=dict,
        description="Options of Beam for the engine, without the `--`, such as `{job_endpoint: "
        "flink:8099}`. `true` is an option without a value, and a list gives an option several "
        "times. Options on the command line come after these.",
    )
    flink: Flink = Field(default=Flink(), description="The cluster of the engine `flink`.")
    dataflow: Dataflow = Field(
        default=Dataflow(), description="Project and VMs of the engine `dataflow`."
    )
    device: Annotated[str, StringConstraints(pattern=DEVICE)] = Field(
        default="auto",
        description="`cpu`, `cuda`, `cuda:N`, or `auto`: a GPU if the machine has one. If a GPU"
        " is asked for and does not exist, that is an error, never a slow run on "
        "the CPU. On `flink` and `dataflow` the workers' machines need the GPU, the launcher's "
        "does not, and `auto` is the CPU.",
    )
    precision: Literal["float32", "tf32", "bf16", "fp16"] = Field(
        default="float32",
        description="What the network computes with: `float32`; `tf32`, on GPUs only; or `bf16`"
        " or `fp16`, for operations that torch's autocast considers safe. Other "
        "than float32 is refused (exit 2) if the golden rows or a sample of the "
        "input differ from float32 by more than the model's `tolerance`.",
    )
    compile: bool = Field(
        default=False,
        description="Whether the network is compiled (`torch.compile`). That takes time at each"
        " start. Scores must stay within the model's `tolerance`.",
    )
    kernels: Literal["default", "fastest"] = Field(
        default="default",
        description="What computes the network on the CPU: `default`, the kernels that torch "
        "chooses; or `fastest`. That tries oneDNN for linear layers at the start of a run, for "
        "about a second, and remembers the times for the model, processor and version of torch. "
        "Other kernels are chosen only if they are at least 1.1 times as fast and the golden rows "
        "and a sample of the input stay within the model's `tolerance`. A slice keeps the choice "
        "of its first run. On a GPU, or with `compile` or another `precision`, it is as `default`.",
    )
    micro_batch: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        default="auto",
        description="Rows per network call. `auto` is 1,024 on the CPU. On a GPU it is the "
        "fastest size that a short search finds within half of the free memory, "
        "remembered for the model, GPU and version of torch. If the GPU runs out of"
        " memory, the size is halved and no row is lost. Lower it on the CPU if "
        "rows are very wide, such as images: 1, or a multiple of 64.",
    )
    workers: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        default="auto",
        description="How many worker processes. On the CPU `auto` compares how long each number "
        "would take, by rows, shards, units and cores, and takes the smallest that is about as "
        "fast as any. One worker and its model's process keep two cores busy, so more pay on "
        "more cores, or for many small shards. On GPUs it is one per GPU. Each worker holds some "
        "batches of `batch_rows` in memory, and the model too if that has no process of its own.",
    )
    batch_rows: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        default="auto",
        description="Rows read and scored at a time. This bounds a worker's memory. `auto` "
        "depends on the width of a row.",
    )
    model_process: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="Whether the model is in a process of its own, which all workers of a machine "
        "share. If the model crashes, rows that crash it alone are rejected, and the run goes on. "
        "`batchscore check` says what `auto` chooses, and why. Scores do not depend on it.",
    )
    model_timeout: Age = Field(
        default="30m",
        description="How long a model's process may take for its answer to one batch, and for "
        "loading the model, in minutes, hours or days: `90m`. After that the process is killed, "
        "and the row on which the model hangs is rejected. If the model never answered, or does "
        "not load, the run fails. It can be resumed.",
    )
