"""Guesses what a first job says, from the names and some rows of a table and from a model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from batchscore.drift.profile_file import read_table
from batchscore.errors import RecordError
from batchscore.job.field_types import PARAMETER_NAME
from batchscore.models.loadable import Model, ModelOutput
from batchscore.models.model_files import open_folder, read_file

_ID = re.compile(r"(^|[_\W])(id|ids|key|uuid|guid|number|nr|no|code|pk)$|[a-z](Id|ID|Key)$", re.I)
_CAMEL = re.compile(r"[a-z](Id|ID|Key|UUID)$")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_LOGIT = re.compile(r"logits?$", re.I)
_MOST_FOLDERS = 200
_PROFILE_BYTES = 256 << 20


@dataclass(frozen=True)
class DateFolders:
    """Folders such as `date=2026-11-28` right below the data, of which a run scores one.

    Args:
        key: The key of the folders.
        parameter: The job's parameter.
        newest: The newest date.
        count: How many dates there are.
    """

    key: str
    parameter: str
    newest: str
    count: int


def date_folders(root: str, shards: Sequence[tuple[str, Mapping[str, Any]]]) -> DateFolders | None:
    """Returns the folders of dates that all shards lie in, if there are.

    Args:
        root: The folder of the data.
        shards: The path and hive keys of each shard.
    """
    first: set[str] = set()
    for path, _ in shards:
        inner = path.removeprefix(root.rstrip("/") + "/")
        if inner == path or "/" not in inner:
            return None
        first.add(inner.partition("/")[0])
    keys, values = {each.partition("=")[0] for each in first}, set[str]()
    for each in first:
        value = each.partition("=")[2]
        if not _DATE.fullmatch(value) or not _is_day(value):
            return None
        values.add(value)
    if len(keys) != 1:
        return None
    key = keys.pop()
    parameter = key if re.fullmatch(PARAMETER_NAME, key) else "date"
    return DateFolders(key, parameter, max(values), len(values))


def _is_day(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def flat_columns(schema: pa.Schema) -> list[str]:
    """Returns the columns that hold one value per row, which may be looked at for a key."""
    return [each.name for each in schema if not pa.types.is_nested(each.type)]


def guess_key(rows: pa.Table, read: Sequence[str], keys: Sequence[str]) -> str | None:
    """Returns the column that tells rows apart: by its values in some rows, and by its name.

    Args:
        rows: Some rows.
        read: Columns that the model reads, which seldom are a key.
        keys: Hive keys, which are none.
    """
    able = [n for n in rows.schema.names if n not in (*read, *keys) and _tells_apart(rows, n)]
    named = [name for name in able if _ID.search(name) or _CAMEL.search(name)]
    if named:
        return named[0]
    first = rows.schema.names[:1]
    return able[0] if able[:1] == first else None


def _tells_apart(rows: pa.Table, name: str) -> bool:
    column, kind = rows.column(name), rows.schema.field(name).type
    families = (pa.types.is_integer, pa.types.is_string, pa.types.is_large_string)
    if len(rows) < 2 or column.null_count or not any(family(kind) for family in families):
        return False
    return is_distinct(column)


def is_distinct(column: pa.ChunkedArray) -> bool:
    """Tells whether no value of a column appears twice."""
    return len(pc.value_counts(column)) == len(column)


def guess_moments(schema: pa.Schema, read: Sequence[str]) -> list[str]:
    """Returns the columns of dates and times, which say what a row is of."""
    kinds = (pa.types.is_date, pa.types.is_timestamp)
    return [f.name for f in schema if any(k(f.type) for k in kinds) and f.name not in read]


def guess_partitions(values: Mapping[str, set[Any]]) -> list[str]:
    """Returns the hive keys of the input that the output may have too: those with few values."""
    kept = [name for name, found in values.items() if len(found) > 1]
    folders = 1
    for name in kept:
        folders *= len(values[name])
    return kept if folders <= _MOST_FOLDERS else []


@dataclass(frozen=True)
class Scores:
    """What becomes of a model's outputs.

    Args:
        steps: Steps of `postprocess`.
        why: Why these; empty without steps.
        names: Names of the scores.
        are_probabilities: Whether all of them lie between 0 and 1.
    """

    steps: tuple[str, ...]
    why: str
    names: tuple[str, ...]
    are_probabilities: bool


def guess_scores(model: Model, outputs: Sequence[ModelOutput], call: str) -> Scores:
    """Returns what a job does to the outputs of a model.

    Args:
        model: The model.
        outputs: What it returns.
        call: What of it is called, in words; empty where there is no choice.
    """
    names = tuple(each.name for each in outputs) or ("score",)
    plain = Scores((), "", names, call.startswith("probability"))
    if len(outputs) != 1 or not outputs[0].dtype.startswith("float"):
        return plain
    output = outputs[0]
    step = "softmax" if len(output.shape) == 1 else "sigmoid"
    if len(output.shape) > 1 or output.shape == (1,):
        return plain
    renamed = {"logit": "score", "logits": "scores"}.get(output.name, output.name)
    known = _profiled(model)
    if output.name not in known and renamed in known:
        why = f"the model's drift reference has {renamed!r}, not {output.name!r}"
        return Scores((step,), why, (renamed,), True)
    if not known and _LOGIT.search(output.name):
        return Scores((step,), f"the output is named {output.name!r}", (renamed,), True)
    return plain


def _profiled(model: Model) -> set[str]:
    """Returns the columns of the reference in a model folder; none without one."""
    if model.profile is None:
        return set()
    try:
        content = read_file(open_folder(model.folder), model.profile, _PROFILE_BYTES)
        return {*read_table(content)[0].columns}
    except (RecordError, ValueError):
        return set()
