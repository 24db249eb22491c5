"""The text of a first job file, with comments that say what was assumed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_PLAIN = re.compile(r"[A-Za-z_./][A-Za-z0-9_./-]*")
_RESERVED = {"null", "true", "false", "yes", "no", "on", "off", "y", "n", "nan", "inf"}


@dataclass(frozen=True)
class FirstJob:
    """What a first job says; addresses are absolute.

    Args:
        name: Name of the job.
        data: Address of the input; a date's folder has the parameter in its place.
        model: Keys of the section `model`.
        parameter: The job's parameter of a date, or None.
        example: A value of it.
        steps: Steps of `postprocess`.
        unique: The key that is checked.
        range_is_checked: Whether scores have to lie between 0 and 1.
        max_rejects: `rejects.max_ratio`; None: the default.
        reference: `drift.reference`; None: that of the model folder.
        output: Address of the output.
        columns: Columns that are carried over; None: all.
        partition_by: Columns that become folders.
        notes: By key of the job file, why it says so.
    """

    name: str
    data: str
    model: Mapping[str, Any]
    output: str
    parameter: str | None = None
    example: str = ""
    steps: Sequence[str] = ()
    unique: Sequence[str] = ()
    range_is_checked: bool = False
    max_rejects: float | None = None
    reference: str | None = None
    columns: Sequence[str] | None = None
    partition_by: Sequence[str] = ()
    notes: Mapping[str, str] = field(default_factory=dict)


def flow(value: Any) -> str:
    """Returns a value in one line of YAML, as the job file's reader reads it."""
    if isinstance(value, str):
        plain = _PLAIN.fullmatch(value) and value.lower() not in _RESERVED
        return value if plain and not value.startswith(("-", "...")) else _quoted(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{flow(key)}: {flow(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(flow, value)) + "]"
    return json.dumps(value)


def _quoted(text: str) -> str:
    # JSON's escapes are YAML's, but for characters that take two of them.
    escaped = json.dumps(text, ensure_ascii=False)
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in escaped)


def literal(text: str) -> str:
    """Returns a text that stands for itself, though `${` begins a placeholder."""
    return text.replace("${", "$${")


def job_text(job: FirstJob) -> str:
    """Returns the text of the job file."""
    lines = [
        "# A batchscore job, written by `batchscore init`: a first guess, to be corrected.",
        "# `batchscore check` tries it and writes nothing. docs/job-file.md has every key.",
        f"name: {flow(job.name)}",
    ]
    if job.parameter is not None:
        lines += _note(job, "params")
        lines += [f"params: {{{job.parameter}: {{type: date}}}}"]
    lines += ["", "input:", *_note(job, "input", 2), f"  path: {flow(job.data)}"]
    lines += ["", *_note(job, "model"), *_model(job.model)]
    if job.steps:
        steps = job.steps[0] if len(job.steps) == 1 else list(job.steps)
        lines += ["", *_note(job, "postprocess"), f"postprocess: {flow(steps)}"]
    if job.max_rejects is not None:
        lines += ["", f"rejects: {{max_ratio: {job.max_rejects}}}"]
    lines += ["", *_checks(job), *_drift(job), *_output(job)]
    return "\n".join(lines) + "\n"


def _note(job: FirstJob, key: str, indent: int = 0) -> list[str]:
    text = job.notes.get(key, "")
    return [f"{' ' * indent}# {line}" for line in text.split("\n")] if text else []


def _model(keys: Mapping[str, Any]) -> list[str]:
    if {*keys} == {"path"}:
        return [f"model: {flow(keys['path'])}"]
    return ["model:", *(f"  {key}: {flow(value)}" for key, value in keys.items())]


def _checks(job: FirstJob) -> list[str]:
    lines = []
    if job.unique:
        lines += [*_note(job, "unique", 2), f"  unique: {flow(list(job.unique))}"]
    if job.range_is_checked:
        lines += [*_note(job, "score_range", 2), "  score_range: [0, 1]"]
    lines = [*_note(job, "key"), *(["checks:", *lines] if lines else [])]
    return [*lines, ""] if lines else []


def _drift(job: FirstJob) -> list[str]:
    note = _note(job, "drift")
    if job.reference is None:
        return [*note, ""] if note else []
    return [*note, f"drift: {{reference: {job.reference}}}", ""]


def _output(job: FirstJob) -> list[str]:
    lines = ["output:", f"  path: {flow(job.output)}"]
    if job.columns is not None:
        lines += [*_note(job, "columns", 2), f"  columns: {flow(list(job.columns))}"]
    if job.partition_by:
        lines += [
            *_note(job, "partition_by", 2),
            f"  partition_by: {flow(list(job.partition_by))}",
        ]
    return lines
