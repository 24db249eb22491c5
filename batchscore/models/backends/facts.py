"""What a model's backend declares, and what it is asked for: plain values, NumPy in and out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from batchscore.columnar.array_type import Array
from batchscore.columnar.ragged import Ragged, Varying
from batchscore.columnar.texts import Texts

# Rows of a call where nothing else is said.
TILE_ROWS = 1024
# The name of a single output that nobody named.
DEFAULT_OUTPUT = "score"
# The kernels that a framework chooses itself; a unit's record leaves them out.
DEFAULT_KERNELS = "default"

Numbers = Array | Ragged
"""A model input (rows, …) of numbers; if its rows differ in length it is `Ragged`."""

# What a model that explains its scores returns in place of them: (rows, entries), the base last,
# and (rows,).
CONTRIBUTIONS, RAW = "contributions", "raw"

Inputs = Mapping[str, Numbers | Texts]
"""Model inputs by name."""

NumberInputs = Mapping[str, Any]
"""Model inputs by name of a format that takes no texts: a card that declares some was refused."""

Outputs = Callable[[], dict[str, Array]]
"""Waits for a model's outputs, arrays (rows, …) by name; may be called again."""


@dataclass(frozen=True)
class OutputSpec:
    """A model output as declared: its name, NumPy type, and the shape of one row."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class FileColumn:
    """A column that a model was trained on, as its file names it.

    Args:
        name: Name of the column.
        categories: Its values in the order of their codes; None for numbers, and if the file does
            not list them.
        is_category: Whether it holds categories.
        is_text: Whether the model takes its values as texts, and encodes them itself.
        unseen: What becomes of another category: a null, a code of its own, or the row is rejected.
        nulls: What becomes of a row with a gap: the model takes it, or it is rejected.
    """

    name: str
    categories: tuple[str, ...] | tuple[int, ...] | None = None
    is_category: bool = False
    is_text: bool = False
    unseen: Literal["null", "own", "reject"] = "null"
    nulls: Literal["keep", "reject"] = "keep"


@dataclass(frozen=True)
class FileTensor:
    """An input or output as a model's file describes it.

    Args:
        name: Its name.
        dtype: Its NumPy type.
        shape: Shape of a row; None for a size that the file leaves open. None: it does not say.
        columns: The columns that an input is made of, where the file names them.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Facts:
    """What a model's files say of themselves, without being run.

    Args:
        inputs: Shape of a row of each input, by name; empty where the files do not say.
        outputs: The same of each output.
        versions: Versions that the files name, such as that of the library that wrote them.
        runs_code: Whether loading the model runs code of the files or of the job.
        columns: The columns that the one input is made of, in order; empty where the files do not
            name them.
        input_type: NumPy type of that input.
        taken: The inputs, where the files name each.
        made: The outputs, where they do; without those that the model's card leaves out.
        takes_gaps: Whether the model has a way of its own for numbers that are missing.
        takes_lengths: Whether rows of an input may differ in length, if the file leaves that open.
        casts: Whether the framework itself casts whole numbers to the type that an input has.
        declared: What the outputs are, where the files tell.
        counts: How many there are of what the model is made of, such as `trees` or `parameters`.
        said: What a person may want to know, by what it is.
    """

    inputs: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    outputs: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    runs_code: bool = False
    columns: tuple[FileColumn, ...] = ()
    input_type: str = "float32"
    taken: tuple[FileTensor, ...] = ()
    made: tuple[FileTensor, ...] = ()
    takes_gaps: bool = False
    takes_lengths: bool = False
    casts: bool = False
    declared: tuple[OutputSpec, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    said: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Promises:
    """What holds for every call of a loaded model.

    Args:
        tile: Rows of a call for which a row's bits depend on its inputs alone. None: any number of
            rows gives the same bits. Otherwise batchscore calls with exactly so many rows.
        reentrant: Whether several threads may call it at the same time.
        missing: What becomes of a row with a NaN among its inputs: the model takes it (`nan`), or
            the row is rejected and does not reach the model (`reject`).
        device: Where it computes.
        threads: Threads that one call uses at most.
        version: Version of the framework that computes.
        leaves_inputs: Whether it never writes into its inputs. Otherwise each call gets copies.
    """

    tile: int | None
    reentrant: bool
    missing: Literal["nan", "reject"]
    device: str
    threads: int
    version: str
    leaves_inputs: bool = False


@dataclass(frozen=True)
class Call:
    """How a run calls a model.

    Args:
        outputs: What is declared; empty: one output named `score`.
        device: Where it computes.
        threads: Threads that a worker has for it.
        rows: Rows of a call, if the backend sizes its calls.
        precision: What it computes with.
        compile: Whether it is compiled.
        kernels: The kernels that it computes with.
        batch_rows: Rows of the run's batches.
        varying: The inputs whose rows differ in length.
        halved: Receives how many times the rows of a call were halved, since memory ran out.
    """

    outputs: tuple[OutputSpec, ...] = ()
    device: str = "cpu"
    threads: int = 1
    rows: int = TILE_ROWS
    precision: str = "float32"
    compile: bool = False
    kernels: str = DEFAULT_KERNELS
    batch_rows: int = TILE_ROWS
    varying: Mapping[str, Varying] = field(default_factory=dict)
    halved: Callable[[int], None] = lambda halvings: None


@dataclass(frozen=True)
class KernelTrial:
    """What a model's calls took with each of its kernels.

    Args:
        seconds: CPU seconds of a call, by kernels; empty if there is no choice.
        rows: Rows of the call.
        why: Why some kernels cannot be used with the model; empty if all can.
    """

    seconds: Mapping[str, float] = field(default_factory=dict)
    rows: int = 0
    why: str = ""


@dataclass(frozen=True)
class Sample:
    """Rows from which a trial picks those that it scores again.

    Args:
        rows: How many there are.
        lengths_b: Steps of each row in inputs of varying length; None without such inputs.
        max_length: The most steps that such a row may have.
        call_rows: Rows of the run's calls.
        batch_rows: Rows of the run's batches.
    """

    rows: int
    lengths_b: Array | None
    max_length: int
    call_rows: int
    batch_rows: int


@dataclass(frozen=True)
class RowTrial:
    """What shows best whether a model's scores depend on their row alone.

    Args:
        places_n: Rows of the sample.
        sizes: Rows of a call; each is tried until one does not fail.
    """

    places_n: Array
    sizes: tuple[int, ...]
