"""What `batchscore init` does: a first job for data and a model, tried before it is written."""

from __future__ import annotations

import dataclasses
import itertools
import os
import posixpath
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from batchscore.commands.check import Checked, check_job
from batchscore.commands.first_guess import (
    DateFolders,
    Scores,
    date_folders,
    flat_columns,
    guess_key,
    guess_moments,
    guess_partitions,
    guess_scores,
    is_distinct,
)
from batchscore.commands.inspect_model import ModelFound, inspect_model
from batchscore.commands.job_text import FirstJob, job_text, literal
from batchscore.commands.profile import check_address
from batchscore.commands.sampled_rows import read_spread_rows
from batchscore.commands.save_file import parse_inputs
from batchscore.errors import ArgumentError, InputError, ModelError, OutputError
from batchscore.messages.addresses import holds_secret, redacted_address
from batchscore.messages.wording import counted, nearest, one_line, reason
from batchscore.plan.footers import Footer, read_footers
from batchscore.plan.listing import find_shards
from batchscore.storage.store import Store, is_local

JOB = "job.yaml"
_SAMPLE_ROWS = 20_000
_COUNTED_ROWS = 5_000_000
_NO_NAME = re.compile(r"[^A-Za-z0-9_.-]+")
_OUTPUT = "out"
_PLAIN_NAMES = ("model", "weights")
_MOST_UP = 2
"""Folders that a relative path may go up; a longer one says less than the whole path."""


@dataclass(frozen=True)
class JobToMake:
    """What a person gives for a first job.

    Args:
        data: Address of the Parquet data.
        model: Address of the model.
        folder: Folder of the job file.
        name: The job's name; None: that of the model.
        inputs: Columns of a model's input, as `NAME=COLUMN,COLUMN`.
        allow_code: Whether the job may load a model that can run code.
        max_rejects: The share of rows that the job may reject; None: the default.
    """

    data: str
    model: str
    folder: str = "."
    name: str | None = None
    inputs: Sequence[str] = ()
    allow_code: bool = False
    max_rejects: float | None = None


@dataclass(frozen=True)
class JobMade:
    """A job file that was written, and passed the check.

    Args:
        path: Where it is.
        job: What it says.
        checked: What the check found.
        params: Parameters that a run needs, as `NAME=VALUE`.
        assumed: What was assumed, each a sentence.
    """

    path: str
    job: FirstJob
    checked: Checked = field(repr=False)
    params: tuple[str, ...]
    assumed: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON-able values."""
        return {
            "status": "created",
            "exit_code": 0,
            "job": self.path,
            "params": list(self.params),
            "assumed": list(self.assumed),
            "check": self.checked.to_json(),
        }


def init_job(asked: JobToMake) -> JobMade:
    """Writes a first job for data and a model; nothing, if it would not pass the check.

    Raises:
        InputError: The data are not there, or lack a column of the model.
        ModelError: The model cannot be scored, or something is missing; the message says what.
        OutputError: There is a job file already, or the folder cannot be written.
        BatchscoreError: What else the check finds.
    """
    target = _target(asked.folder)
    found = inspect_model(asked.model)
    inputs = parse_inputs(asked.inputs)
    _require_complete(found, inputs, asked.allow_code)
    footers = _footers(asked.data)
    job = _guessed(asked, found, inputs, footers)
    params = () if job.parameter is None else (f"{job.parameter}={job.example}",)
    checked = _checked(job, params)
    written = dataclasses.replace(job, **_relative(job, target))
    _write(target, job_text(written))
    assumed = tuple(text.replace("\n", " ") for text in job.notes.values() if text)
    return JobMade(_joined(target, JOB), written, checked, params, assumed)


def _target(folder: str) -> str:
    if holds_secret(folder):
        raise OutputError(f"{redacted_address(folder)}: expected a folder, without credentials")
    folder = os.path.abspath(folder) if is_local(folder) else folder.rstrip("/")
    try:
        there = Store(folder).exists(JOB)
    except OSError as error:
        raise _unwritable(folder, error) from error
    if there:
        raise OutputError(
            f"{_joined(folder, JOB)}: there is a job file already, which is never replaced; name "
            "another folder with -o, or move that file away"
        )
    return folder


def _joined(folder: str, name: str) -> str:
    return posixpath.join(folder, name)


def _unwritable(folder: str, error: OSError) -> OutputError:
    return OutputError(
        f"folder {one_line(folder, 200)}: the job file cannot be written ({reason(error)}); name a "
        "folder that you may write to with -o"
    )


def _write(folder: str, text: str) -> None:
    try:
        made = Store(folder).create_new(JOB, text.encode())
    except OSError as error:
        raise _unwritable(folder, error) from error
    if not made:
        raise OutputError(
            f"{_joined(folder, JOB)}: somebody else wrote a job file meanwhile; look at it"
        )


def _require_complete(
    found: ModelFound, inputs: Mapping[str, Sequence[str]], allow_code: bool
) -> None:
    """Raises ModelError where a job needs more than a path, and nobody gave it."""
    given = [*(["model.inputs"] if inputs else []), *(["model.allow_code"] if allow_code else [])]
    lacks = [text for text in found.missing if not any(key in text for key in given)]
    if found.model.format in ("safetensors", "pt") and not found.is_folder:
        raise ModelError(
            f"model {found.address}: is {found.what}, which holds weights and no code that builds "
            "the network; write a model folder with bs.save_model('model', network, sample=rows) "
            "in Python, and name the folder"
        )
    if lacks:
        text = lacks[0].replace(
            "give model.inputs as {features: [...]}", "give --inputs features=A,B,C"
        )
        if "model.allow_code" in text:
            text = (
                "loading it can run code that is in it; if you trust it as you trust a program, "
                "give --allow-code"
            )
        raise ModelError(f"model {found.address}: {text}")
    for name in inputs:
        known = [each.name for each in found.model.inputs]
        if name not in known:
            raise ModelError(
                f"--inputs {one_line(name)}: the model has no such input; {nearest(name, known)}"
            )


def _footers(address: str) -> list[Footer]:
    check_address(address)
    found = find_shards([address], allow_empty=True)
    if not found:
        raise InputError(
            f"{one_line(address)}: no file found; give the address of a Parquet file, a glob, or a "
            "folder of such files"
        )
    return read_footers(found).good


def _guessed(
    asked: JobToMake,
    found: ModelFound,
    inputs: Mapping[str, Sequence[str]],
    footers: Sequence[Footer],
) -> FirstJob:
    """Returns the job as far as names, some rows and the model tell."""
    schema, notes = footers[0].schema, dict[str, str]()
    inputs = inputs or _spaced(found, schema)
    read = _read_columns(asked, found, inputs, schema)
    found = _renamed(found, read)
    data = os.path.abspath(asked.data) if is_local(asked.data) else asked.data
    dates = _dates(data, footers)
    part = data if dates is None else f"{data.rstrip('/')}/{dates.key}={dates.newest}"
    keys = [name for name, _ in footers[0].shard.keys]
    sample = read_spread_rows(part, "input", _SAMPLE_ROWS, lambda _: flat_columns(schema))
    key = guess_key(sample, read, keys)
    scores = guess_scores(found.model, found.model.outputs, found.facts.said.get("call", ""))
    by = [dates.key] if dates else guess_partitions(_key_values(footers))
    columns = _carried(schema, key, by, read, scores)
    unique = _counted_key(part, key, notes)
    _note_all(notes, found, dates, scores, by)
    _note_columns(notes, unique, key, columns, schema)
    has_reference = found.card is not None and found.card.profile is not None
    return FirstJob(
        name=_name(asked, found),
        data=_address(data, dates),
        model=_model(found, inputs, asked.allow_code),
        output=_output_folder(asked),
        parameter=dates.parameter if dates else None,
        example=dates.newest if dates else "",
        steps=scores.steps,
        unique=unique,
        range_is_checked=scores.are_probabilities,
        max_rejects=asked.max_rejects,
        reference=None if has_reference else "previous",
        columns=columns,
        partition_by=by,
        notes=notes,
    )


def _read_columns(
    asked: JobToMake, found: ModelFound, inputs: Mapping[str, Sequence[str]], schema: pa.Schema
) -> list[str]:
    """Returns the columns that the model reads; InputError where the data lack one."""
    read = [column for each in inputs.values() for column in each]
    read = read or [*dict.fromkeys(each.name for each in found.columns)]
    _check_columns(asked, found, read, schema)
    return read


def _dates(data: str, footers: Sequence[Footer]) -> DateFolders | None:
    root = os.path.realpath(data) if is_local(data) else data
    return date_folders(root, [(each.shard.path, dict(each.shard.keys)) for each in footers])


def _spaced(found: ModelFound, schema: pa.Schema) -> dict[str, list[str]]:
    """Returns the columns of an input that have a blank where LightGBM wrote `_`, if some do."""
    names = [each.name for each in found.columns]
    given = {name.replace(" ", "_"): name for name in schema.names}
    given |= {name: name for name in schema.names}
    is_plain = not found.is_folder and found.model.format == "lightgbm"
    if not is_plain or {*names} <= {*schema.names} or not {*names} <= {*given}:
        return {}
    return {found.columns[0].input: [given[name] for name in names]}


def _renamed(found: ModelFound, read: Sequence[str]) -> ModelFound:
    """Returns a model file whose score has another name than each column that the model reads."""
    outputs = found.model.outputs
    if found.is_folder or len(outputs) != 1 or outputs[0].name not in read:
        return found
    name = next(each for each in _free_names() if each not in read)
    own = {"type": outputs[0].dtype, "shape": list(outputs[0].shape)}
    renamed = (dataclasses.replace(outputs[0], name=name),)
    model = dataclasses.replace(found.model, outputs=renamed)
    return dataclasses.replace(found, model=model, job={**found.job, "outputs": {name: own}})


def _free_names() -> Iterator[str]:
    yield "prediction"
    yield from (f"prediction_{number}" for number in itertools.count(2))


def _check_columns(
    asked: JobToMake, found: ModelFound, read: Sequence[str], schema: pa.Schema
) -> None:
    lacks = [name for name in read if name not in schema.names]
    if not lacks:
        return
    more = f", nor {counted(len(lacks) - 1, 'other column')}" if len(lacks) > 1 else ""
    inputs = {each.name: each.input for each in found.columns}
    own = inputs.get(lacks[0])
    how = ""
    if own is not None and found.model.features is None:
        how = f", or say which columns make input {own!r}: --inputs {own}=A,B,C"
    raise InputError(
        f"{one_line(asked.data)}: has no column {lacks[0]!r}{more}, which the model reads; "
        f"{nearest(lacks[0], schema.names)}. Name the column so in the data{how}"
    )


def _key_values(footers: Sequence[Footer]) -> dict[str, set[Any]]:
    values: dict[str, set[Any]] = {}
    for footer in footers:
        for name, value in footer.shard.keys:
            values.setdefault(name, set()).add(value)
    return values


def _carried(
    schema: pa.Schema, key: str | None, by: Sequence[str], read: Sequence[str], scores: Scores
) -> list[str] | None:
    """Returns the columns that are written next to the scores; None for all."""
    clashes = {*scores.names, "model_version"} & {*schema.names}
    if key is None and not clashes:
        return None
    if key is None:
        return [name for name in schema.names if name not in clashes]
    found = [key, *guess_moments(schema, ()), *by]
    return [*dict.fromkeys(name for name in found if name not in clashes and name not in by)]


def _counted_key(part: str, key: str | None, notes: dict[str, str]) -> list[str]:
    """Returns the key if no value of it appears twice in all rows of a run."""
    if key is None:
        return []
    every = read_spread_rows(part, "input", _COUNTED_ROWS + 1, lambda _: [key])
    column = every.column(key)
    if len(every) > _COUNTED_ROWS or column.null_count or not is_distinct(column):
        return []
    notes["unique"] = (
        f"Assumed: {key!r} identifies a row, since {counted(len(every), 'row')} have as many values"
    )
    return [key]


def _note_all(
    notes: dict[str, str],
    found: ModelFound,
    dates: DateFolders | None,
    scores: Scores,
    by: Sequence[str],
) -> None:
    if dates is not None:
        folders = counted(dates.count, "folder")
        notes["params"] = (
            f"Assumed: a run scores one of the {folders} {one_line(dates.key)}=…: "
            f"--param {dates.parameter}={dates.newest}"
        )
    if not found.is_folder:
        notes["model"] = "The file of this SHA-256 is scored, and no other"
    if scores.steps:
        notes["postprocess"] = f"Assumed: probabilities are wanted, since {scores.why}"
    if scores.are_probabilities:
        notes["score_range"] = "Assumed: scores are probabilities"
    if found.card is not None and found.card.profile is not None:
        notes["drift"] = "Drift is measured against the reference in the model folder"
    else:
        notes["drift"] = (
            "The model has no drift reference, so runs are compared with what was published before;"
            "\nbatchscore model save writes a model folder with a reference"
        )
    if by:
        notes["partition_by"] = "Assumed: the output has the folders of the input"


def _note_columns(
    notes: dict[str, str],
    unique: Sequence[str],
    key: str | None,
    columns: Sequence[str] | None,
    schema: pa.Schema,
) -> None:
    if not unique:
        notes["key"] = (
            "No column is known to identify a row, so no key is checked; if one should,\nadd "
            "checks: {unique: [COLUMN]}"
        )
    if columns is not None and key is not None:
        notes["columns"] = (
            "Assumed: these columns go with the scores, the key and dates; leave it out for all"
        )
    elif columns is not None:
        left = ", ".join(one_line(repr(name)) for name in schema.names if name not in columns)
        notes["columns"] = f"All columns but {left}, which the output has of its own"


def _name(asked: JobToMake, found: ModelFound) -> str:
    if asked.name is not None:
        if _NO_NAME.search(asked.name) or not asked.name:
            raise ArgumentError(
                f"--name {one_line(asked.name)}: expected letters, digits, '_', '.' and '-', such "
                "as churn"
            )
        return asked.name
    own = found.model.name
    if own in _PLAIN_NAMES and not found.is_folder:
        own = posixpath.basename(posixpath.dirname(str(found.job["path"]))) or own
    name = _NO_NAME.sub("_", own).strip("_.-")[:64]
    return name or "job"


def _address(data: str, dates: DateFolders | None) -> str:
    if dates is None:
        return literal(data)
    return f"{literal(data.rstrip('/'))}/{dates.key}=${{{dates.parameter}}}"


def _model(
    found: ModelFound, inputs: Mapping[str, Sequence[str]], allow_code: bool
) -> dict[str, Any]:
    keys = {key: value for key, value in found.job.items() if key != "inputs"}
    keys["path"] = literal(str(keys["path"]))
    if allow_code:
        keys["allow_code"] = True
    if inputs:
        keys["inputs"] = {name: list(columns) for name, columns in inputs.items()}
    return keys


def _output_folder(asked: JobToMake) -> str:
    folder = os.path.abspath(asked.folder) if is_local(asked.folder) else asked.folder
    return literal(_joined(folder, _OUTPUT))


def _checked(job: FirstJob, params: Sequence[str]) -> Checked:
    """Checks the job with absolute paths, in a folder that goes again."""
    with tempfile.TemporaryDirectory(prefix="batchscore-init-") as folder:
        path = Path(folder) / JOB
        path.write_text(job_text(job), encoding="utf-8")
        checked = check_job(str(path), params, (), probe=False)
    if checked.status == "ok":
        return checked
    details = "; ".join(f"{each.name}: {each.detail}" for each in checked.failed)
    why = details or "no row is left to score"
    may_reject = {each.name for each in checked.failed} == {"rejects"}
    more = ", or let the job reject such rows: --max-rejects 0.05" if may_reject else ""
    raise InputError(
        f"no job file was written, since a run would end as {checked.status}: {why}. Correct the "
        f"data or the model, and try again{more}"
    )


def _relative(job: FirstJob, folder: str) -> dict[str, Any]:
    """Returns the addresses of a job as its file says them: local ones start from its folder."""
    if not is_local(folder):
        return {}

    def from_here(address: str) -> str:
        if "://" in address or not os.path.isabs(address):
            return address
        relative = os.path.relpath(address, folder)
        return address if relative.startswith("../" * (_MOST_UP + 1)) else relative

    model = {**job.model, "path": from_here(str(job.model["path"]))}
    return {"data": from_here(job.data), "model": model, "output": from_here(job.output)}
