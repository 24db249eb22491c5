"""The job file: its frozen model, its JSON Schema, and how a file becomes a checked job."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

from batchscore.errors import JobFileError
from batchscore.job.field_types import (
    CodePaths,
    JobName,
    ParameterName,
    Section,
)
from batchscore.job.parameters import (
    Location,
    Parameter,
    ParameterValue,
    Problem,
    is_secret,
    printable,
    read_parameters,
    shown,
    substitute,
)
from batchscore.job.problems import location_of, message_of
from batchscore.job.rules import (
    REFERENCE_WORDS,
    Checks,
    Drift,
    Notify,
    OnChange,
    Rejects,
    RowsCheck,
)
from batchscore.job.sections import (
    Explain,
    Input,
    ModelSection,
    Output,
    Preprocess,
    Runtime,
)
from batchscore.job.steps.all_steps import STEPS, AnyStep, Steps
from batchscore.job.steps.base import PostprocessStep
from batchscore.job.text import (
    absolute_address,
    folder_of,
    parse_yaml,
    read_job_file,
    shown_path,
)
from batchscore.messages.wording import type_of

MAX_PROBLEMS = 50
MAX_KEY_PARTS = 20


def expand_model(value: Any) -> Any:
    """Write out the short form of the model section, which is its path alone."""
    return {"path": value} if isinstance(value, str) else value


def _not_boolean(version: Any) -> Any:
    if isinstance(version, bool):  # which equals 1
        raise ValueError("expected 1")
    return version


class Job(Section):
    """A batch scoring job; `name`, `input.path`, `model` and `output.path` are all it needs."""

    batchscore: Annotated[Literal[1], BeforeValidator(_not_boolean)] = Field(
        default=1, description="The version of the job file's format."
    )
    name: JobName = Field(
        description="Names the job in its output and reports: letters, digits, `_`, `.` and `-`, "
        "at most 64. With the parameters it identifies a slice of the output, so a new name "
        "starts an empty slice."
    )
    params: dict[ParameterName, Parameter] = Field(
        default_factory=dict,
        description="The parameters that `--param name=value` must give, with their types. "
        "Elsewhere in the file `${date}`, `${date.month}` and `${date:%Y-%m-%d}` stand for their "
        "values.",
    )
    input: Input = Field(description="What to score.")
    model: Annotated[ModelSection, BeforeValidator(expand_model)] = Field(
        description="What to score with: a path, or a mapping."
    )
    preprocess: Preprocess | None = Field(
        default=None,
        description="A function of yours. Without one, the model folder's own features are "
        "used, or the columns as they are.",
    )
    postprocess: Steps = Field(
        default=(),
        description="A step or a list of them, done in order: a name (`sigmoid`) or a mapping of "
        "one name to its settings (`threshold: {at: 0.4}`). By default the scores are the model's "
        "outputs.",
    )
    code: CodePaths = Field(
        default=(),
        description="Files and folders that functions read, or import by a computed name, "
        "relative to the job file's folder: `[vocab.json, lists]`. If one of them "
        "changes, every row is scored again. Files that a function imports count "
        "too, and need no mention. A function that reads another file below that "
        "folder is refused. Readers in C++ or Rust, such as those of Arrow, Polars "
        "and DuckDB, are not seen: declare what they read.",
    )
    output: Output = Field(description="Where the scores go.")
    explain: Explain | None = Field(
        default=None,
        description="Adds reasons to the scores of trees and linear models; by default none.",
    )
    on_change: OnChange = Field(
        default=OnChange(),
        description="What to do if input or model changed since the slice was published.",
    )
    rejects: Rejects = Field(default=Rejects(), description="How many rows may be rejected.")
    checks: Checks = Field(default=Checks(), description="What must hold before publishing.")
    drift: Drift = Field(default=Drift(), description="How the data are compared with references.")
    runtime: Runtime = Field(default=Runtime(), description="Where the job runs.")
    notify: Notify | None = Field(
        default=None,
        description="Runs a program at a run's end, with the result as JSON; by default none.",
    )


def job_schema() -> dict[str, Any]:
    """Return the JSON Schema of a job file, short forms included."""
    schema = Job.model_json_schema()
    paths = schema["$defs"]["Input"]["properties"]["path"]
    paths["anyOf"] = [
        paths["items"],
        {key: paths.pop(key) for key in ("type", "items", "minItems")},
    ]
    properties = schema["properties"]
    model, steps = properties["model"], properties["postprocess"]
    model["anyOf"] = [{"$ref": model.pop("$ref")}, {"type": "string"}]
    step_forms = [_step_schema(name, kind) for name, kind in STEPS.items()]
    named = [name for name, kind in STEPS.items() if kind.by_name]
    schema["$defs"]["Step"] = {"anyOf": [{"enum": named}, *step_forms]}
    step = {"$ref": "#/$defs/Step"}
    properties["postprocess"] = {
        "title": "Postprocess",
        "description": steps["description"],
        "anyOf": [step, {"type": "array", "items": step}],
    }
    return schema


def _step_schema(name: str, kind: type[PostprocessStep]) -> dict[str, Any]:
    body: dict[str, Any] = {"$ref": f"#/$defs/{kind.__name__}"}
    if kind.short is not None:
        body = {"anyOf": [body, dict(_short_schema(kind, name))]}
    return {
        "type": "object",
        "properties": {name: body},
        "required": [name],
        "additionalProperties": False,
    }


def _short_schema(kind: type[PostprocessStep], name: str) -> dict[str, Any]:
    short: dict[str, Any] = kind.model_json_schema()["properties"][name]
    return {key: value for key, value in short.items() if key not in ("title", "description")}


@dataclass(frozen=True)
class LoadedJob:
    """A checked job and where it came from.

    Args:
        job: The job; its paths are absolute or fsspec addresses, its placeholders filled.
        params: The parameters' values.
        base: The job file's folder, absolute or an fsspec address; user code is found from here.
        source: The job file's path as it was given.
        text_sha256: SHA-256 of the file's bytes.
    """

    job: Job
    params: dict[str, ParameterValue]
    base: str
    source: str
    text_sha256: str


def load_job(path: str, params: Sequence[str] = (), overrides: Sequence[str] = ()) -> LoadedJob:
    """Read, fill in and check a job file.

    Args:
        path: A local path or an fsspec address.
        params: `name=value`, one for each parameter that the job declares.
        overrides: `dotted.key=YAML value`; a list item's key is its position. A relative path in
            one starts from the current directory, where it was typed, and not from the job file.

    Raises:
        JobFileError: The job file is wrong; the message has a line for each problem.
    """
    content = read_job_file(path)
    tree = _mapping(parse_yaml(content, shown_path(path)), shown_path(path))
    return _load(tree, _Origin(path, folder_of(path), content), params, overrides)


def declared_parameters(path: str, overrides: Sequence[str] = ()) -> dict[str, Parameter]:
    """Returns the parameters that a job declares, before anybody gives them values.

    Raises:
        JobFileError: The file cannot be read, or is no job file.
    """
    tree = _mapping(parse_yaml(read_job_file(path), shown_path(path)), shown_path(path))
    _apply_overrides(tree, overrides)
    declared = _declared(tree)
    if declared is None:
        load_job(path, (), overrides)  # says what is wrong with them
    return declared or {}


def load_embedded(
    job: str | Mapping[str, Any], params: Sequence[str] = (), overrides: Sequence[str] = ()
) -> LoadedJob:
    """Reads a job that scores another pipeline's rows, as `load_job` reads one that is run.

    It may lack `name`, `input.path` and `output.path`. The job that is returned has no paths of
    input and output, and nothing of its own for what only a run does.

    Args:
        job: Path or address of a job file; or its content, whose paths start from the current
            directory.

    Raises:
        JobFileError: The job is wrong; the message has a line for each problem.
    """
    content = read_job_file(job) if isinstance(job, str) else _as_json(job)
    path = job if isinstance(job, str) else ""
    origin = _Origin(path, folder_of(path) if path else os.getcwd(), content)
    tree = _mapping(parse_yaml(content, origin.source), origin.source)
    for section in ("input", "output"):
        body = tree.get(section, {})
        tree[section] = {**body, "path": _UNUSED} if isinstance(body, dict) else body
    loaded = _load({"name": _UNUSED, **tree}, origin, params, overrides)
    return replace(loaded, job=_embedded(loaded.job))


_OWN_RUNTIME = ("device", "precision", "compile", "micro_batch", "batch_rows")


def _embedded(job: Job) -> Job:
    """Returns a job without what only a run does: all of it travels in another's pipeline."""
    checks = {"rows": RowsCheck(), "unique": (), "fresh": {}}
    runtime = {key: getattr(job.runtime, key) for key in _OWN_RUNTIME}
    parts = {
        "input": job.input.model_copy(update={"path": (), "ready": None}),
        "output": job.output.model_copy(update={"path": ""}),
        "on_change": OnChange(),
        "rejects": Rejects(),
        "checks": job.checks.model_copy(update=checks),
        "drift": Drift(),
        "runtime": Runtime().model_copy(update=runtime),
        "notify": None,
    }
    return job.model_copy(update=parts)


def _as_json(job: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(job, default=_plain).encode()
    except (TypeError, ValueError) as error:
        raise JobFileError(f"the job: {error}; give texts, numbers, lists or dicts") from error
    except RecursionError as error:
        raise JobFileError("the job: is nested too deeply; give a dict as a file has it") from error


def _plain(value: Any) -> Any:
    """Returns a path or a date as a text, and any other mapping as a dict."""
    if isinstance(value, os.PathLike | date):
        return os.fspath(value) if isinstance(value, os.PathLike) else value.isoformat()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"found {type_of(value)}")


@dataclass(frozen=True)
class _Origin:
    """Where a job came from: its path, empty if it has none, its folder, and its bytes."""

    path: str
    base: str
    content: bytes

    @property
    def source(self) -> str:
        """What messages call it."""
        return shown_path(self.path) if self.path else "the job"


def _mapping(tree: Any, source: str) -> dict[str, Any]:
    if not isinstance(tree, dict):
        raise JobFileError(
            f"{source}: expected a mapping of job file keys, such as name: nightly, found "
            f"{shown(tree)}"
        )
    return tree


def _load(
    tree: dict[str, Any], origin: _Origin, params: Sequence[str], overrides: Sequence[str]
) -> LoadedJob:
    typed_here, lines = _apply_overrides(tree, overrides)
    declared = _declared(tree)
    values: dict[str, ParameterValue] = {}
    problems: list[Problem] = []
    filled = {key: value for key, value in tree.items() if key != "params"}
    if declared is not None:
        values, messages = read_parameters(declared, params)
        lines += messages
        filled, problems = substitute(filled, declared, values, _CONFINED)
    problems += _make_absolute(filled, origin.base, typed_here)
    unfilled = bool(lines or problems or declared is None)
    job, more = _checked(filled | {key: tree[key] for key in ("params",) if key in tree}, unfilled)
    lines += [_line(problem, origin.source, typed_here) for problem in problems + more]
    if job is None or lines:
        raise JobFileError(_without_secrets(lines, values))
    text_sha256 = hashlib.sha256(origin.content).hexdigest()
    return LoadedJob(job, values, origin.base, origin.path, text_sha256)


_UNUSED = "unused"
_PATHS: tuple[tuple[str, str], ...] = (
    ("input", "path"),
    ("model", "path"),
    ("output", "path"),
    ("drift", "reference"),
)
_CONFINED = frozenset({("output", "path"), ("output", "path", 0)})


def _apply_overrides(
    tree: dict[str, Any], overrides: Sequence[str]
) -> tuple[frozenset[Location], list[str]]:
    """Set the overrides in `tree`; returns the keys that were set, and what is wrong."""
    locations: set[Location] = set()
    lines: list[str] = []
    tree |= {"model": expand_model(tree["model"])} if "model" in tree else {}
    for override in overrides:
        key, equals, text = override.partition("=")
        source = f"--set {printable(key)}"
        try:
            if not equals:
                raise JobFileError(f"{source}: expected dotted.key=value")
            locations.add(_set(tree, key.split("."), parse_yaml(text, source), source))
        except JobFileError as error:
            lines.append(str(error))
    return frozenset(locations), lines


def _set(tree: dict[str, Any], parts: list[str], value: Any, source: str) -> Location:
    if len(parts) > MAX_KEY_PARTS:
        raise JobFileError(f"{source}: over {MAX_KEY_PARTS} parts; no key of a job has as many")
    node: Any = tree
    location: list[str | int] = []
    for part in parts:
        key = _key_in(node, part, source)
        location.append(key)
        if len(location) == len(parts):
            node[key] = expand_model(value) if location == ["model"] else value
            break
        if isinstance(node, dict) and node.get(key) is None:
            node[key] = {}
        node = node[key]
    return tuple(location)


def _key_in(node: Any, part: str, source: str) -> str | int:
    if isinstance(node, dict):
        return part
    if not isinstance(node, list):
        raise JobFileError(f"{source}: {part!r} would be a key of a value that is not a mapping")
    if not (part.isascii() and part.isdecimal() and len(part) < 7 and int(part) < len(node)):
        raise JobFileError(
            f"{source}: expected a position in a list of {len(node)}, found {printable(part)}; "
            "set the whole list to lengthen it"
        )
    return int(part)


def _declared(tree: dict[str, Any]) -> dict[str, Parameter] | None:
    """Return the declared parameters; None if they are wrong, as validating the job will say."""
    try:
        kinds = TypeAdapter(dict[ParameterName, Parameter])
        return kinds.validate_python(tree.get("params", {}), strict=True)
    except ValidationError:
        return None


def _make_absolute(
    tree: dict[str, Any], base: str, typed_here: frozenset[Location]
) -> list[Problem]:
    """Make the paths in `tree` absolute in place; returns those that cannot be."""
    problems: list[Problem] = []

    def absolute(value: Any, location: Location) -> Any:
        if isinstance(value, list):
            return [absolute(item, (*location, place)) for place, item in enumerate(value)]
        if location[0] == "drift" and isinstance(value, dict) and "file" in value:
            return {**value, "file": absolute(value["file"], (*location, "file"))}
        if not isinstance(value, str) or _is_no_path(value, location):
            return value
        start = os.getcwd() if _is_within(location, typed_here) else base
        try:
            return absolute_address(value, start)
        except ValueError as error:
            problems.append(Problem(location, str(error)))
            return value

    for section, key in _PATHS:
        body = tree.get(section)
        if isinstance(body, dict) and key in body:
            body[key] = absolute(body[key], (section, key))
    return problems


def _is_no_path(value: str, location: Location) -> bool:
    """Tells the words that may be in a reference's place, and an item that should be a mapping."""
    is_word = len(location) == 2 and value in REFERENCE_WORDS
    return location[0] == "drift" and (is_word or len(location) == 3)


def _is_within(location: Location, outer: Iterable[Location]) -> bool:
    return any(location[: len(start)] == start for start in outer)


def _checked(tree: dict[str, Any], unfilled: bool) -> tuple[Job | None, list[Problem]]:
    """Validates a job; if placeholders are `unfilled`, values that contain them are not judged."""
    try:
        return Job.model_validate(tree), []
    except ValidationError as error:
        details = error.errors(include_url=False)
    found: dict[Location, list[Any]] = {}
    for detail in details:
        sure = detail["type"] in ("missing", "extra_forbidden") or detail["loc"][0] == "params"
        if sure or not unfilled or "${" not in str(detail["input"]):
            found.setdefault(location_of(detail, tree), []).append(detail)
    # Of a union's complaints, the one that got further into the value is the one meant.
    outer = {location[:depth] for location in found for depth in range(len(location))}
    return None, [
        Problem(location, message_of(details, location, Job))
        for location, details in found.items()
        if location not in outer
    ]


def checked_steps(given: Any) -> tuple[AnyStep, ...]:
    """Returns postprocess steps that are given as a job file has them.

    Raises:
        JobFileError: They are wrong; the message is that of a job file.
    """
    steps = [*given] if isinstance(given, tuple) else given
    job, problems = _checked({**_LEAST_JOB, "postprocess": steps}, unfilled=False)
    if job is None:
        raise JobFileError("; ".join(_text(each) for each in problems))
    return job.postprocess


_LEAST_JOB = {"name": "x", **{key: {"path": "x"} for key in ("input", "model", "output")}}


def _line(problem: Problem, source: str, typed_here: frozenset[Location]) -> str:
    if _is_within(problem.location, typed_here):
        return f"--set {_text(problem)}"
    return f"{source}: {_text(problem)}"


def _text(problem: Problem) -> str:
    return f"{'.'.join(map(printable, problem.location))}: {problem.message}"


def _without_secrets(lines: list[str], values: dict[str, ParameterValue]) -> str:
    if len(lines) > MAX_PROBLEMS:
        lines = [*lines[:MAX_PROBLEMS], f"and {len(lines) - MAX_PROBLEMS} more"]
    text = "\n".join(lines)
    for secret in (str(value) for name, value in values.items() if is_secret(name)):
        # A value shown in part ends in "…", perhaps in the middle of the secret.
        for length in range(len(secret), 3, -1):
            text = text.replace(secret[:length] + ("…" if length < len(secret) else ""), "***")
    return text
