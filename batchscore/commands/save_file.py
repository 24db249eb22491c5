"""What `batchscore model save` does: `bs.save_model` of a model file and of rows in Parquet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from batchscore.commands.inspect_model import inspect_model
from batchscore.commands.sampled_rows import read_spread_rows
from batchscore.commands.save_model import SavedModel, require_new, save_model
from batchscore.errors import ArgumentError, InputError, ModelError
from batchscore.job.text import parse_yaml
from batchscore.messages.wording import nearest, one_line

SAMPLE_ROWS = 100_000


@dataclass(frozen=True)
class FileToSave:
    """What a person says of a model file and its folder.

    Args:
        path: The model file.
        folder: The folder to write.
        sample: Address of rows that the model was trained on.
        reference: Address of the rows that drift is measured against; None: the sample.
        rows: The most rows that are read of each.
        name: The model's name; None: that of the folder.
        version: Its version.
        inputs: The columns of an input, as `NAME=COLUMN,COLUMN`.
        outputs: Names of the outputs.
        call: What of the model is called, as `KEY=VALUE`.
        missing: What training had in the place of null in a column of texts, as `COLUMN=TEXT`.
        postprocess: What the job will do to the outputs, as in the job file.
        tolerance: The largest difference of a score to its golden one.
        overwrite: Whether a model folder that is there is replaced.
    """

    path: str
    folder: str
    sample: str
    reference: str | None = None
    rows: int = SAMPLE_ROWS
    name: str | None = None
    version: str = "1"
    inputs: Sequence[str] = ()
    outputs: Sequence[str] = ()
    call: Sequence[str] = ()
    missing: Sequence[str] = ()
    postprocess: Sequence[str] = ()
    tolerance: float = 1e-5
    overwrite: bool = False
    read: dict[str, int] = field(default_factory=dict)


def save_file(asked: FileToSave) -> SavedModel:
    """Writes the model folder of a model file.

    Raises:
        ModelError: The file cannot be saved, or gives other scores once it is loaded again.
        InputError: The rows do not fit the model.
        OutputError: The folder is there already, or cannot be written.
    """
    require_new(asked.folder, asked.overwrite, "--overwrite")
    columns = parse_inputs(asked.inputs)
    _require_named(asked, columns)
    sample = _rows(asked, asked.sample, "--sample", columns)
    reference = None
    if asked.reference is not None:
        reference = _rows(asked, asked.reference, "--reference", columns)
    return save_model(
        asked.folder,
        asked.path,
        sample,
        name=asked.name,
        version=asked.version,
        columns=columns or None,
        inputs=_missing(asked.missing) or None,
        outputs=list(asked.outputs),
        reference=reference,
        postprocess=[parse_yaml(each, "--postprocess") for each in asked.postprocess],
        call=_pairs(asked.call) or None,
        tolerance=asked.tolerance,
        overwrite=asked.overwrite,
    )


def _require_named(asked: FileToSave, columns: Mapping[str, Sequence[str]]) -> None:
    """Raises ModelError where neither the file nor the caller names the columns."""
    found = inspect_model(asked.path)
    if found.is_folder:
        raise ModelError(
            f"model {asked.path}: is a model folder already, which needs no saving; the order is: "
            "batchscore init PARQUET MODEL"
        )
    unnamed = [name for name in found.job.get("inputs", ()) if name not in columns]
    if unnamed and found.model.format not in ("safetensors", "pt"):
        raise ModelError(
            f"model {asked.path}: the file does not name the columns of input {unnamed[0]!r}; give "
            f"them in the order of training: --inputs {unnamed[0]}=A,B,C"
        )


def parse_inputs(given: Sequence[str]) -> dict[str, list[str]]:
    """Returns the columns of each input, from `NAME=COLUMN,COLUMN`."""
    found: dict[str, list[str]] = {}
    for text in given:
        name, equals, columns = text.partition("=")
        if not equals or not name or not all(columns.split(",")):
            raise ArgumentError(
                f"--inputs {one_line(text)}: expected NAME=COLUMN,COLUMN such as features=age,plan"
            )
        found[name] = columns.split(",")
    return found


def _missing(given: Sequence[str]) -> dict[str, dict[str, str]]:
    """Returns what stands for null in each column, from `COLUMN=TEXT`."""
    found = {}
    for text in given:
        column, equals, missing = text.partition("=")
        if not equals or not column:
            raise ArgumentError(
                f"--missing {one_line(text)}: expected COLUMN=TEXT such as plan=none"
            )
        found[column] = {"missing": missing}
    return found


def _pairs(given: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals:
            raise ArgumentError(
                f"--call {one_line(text)}: expected KEY=VALUE such as returns=class"
            )
        found[key] = parse_yaml(value, f"--call {one_line(key)}")
    return found


def _rows(asked: FileToSave, address: str, what: str, columns: Mapping[str, Sequence[str]]) -> Any:
    """Returns the rows of some data, with the columns that the model reads."""
    known_columns = inspect_model(asked.path).columns
    wanted = [column for each in columns.values() for column in each]
    wanted = wanted or [each.name for each in known_columns]
    inputs = {each.name: each.input for each in known_columns}

    def choose(names: Sequence[str]) -> Sequence[str]:
        if not wanted:
            return names
        # LightGBM writes `_` for a blank.
        known = {name.replace(" ", "_"): name for name in names} | {name: name for name in names}
        for name in wanted:
            if name not in known:
                raise InputError(
                    f"{what} {one_line(address)}: has no column {name!r}, which the model reads; "
                    f"{nearest(name, names)}. Name the column so, or say which columns make the "
                    f"input: --inputs {inputs.get(name, 'NAME')}=A,B,C"
                )
        return [*dict.fromkeys(known[name] for name in wanted)]

    found = read_spread_rows(address, what, asked.rows, choose)
    asked.read[what] = len(found)
    return found
