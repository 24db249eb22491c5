"""What `model inspect` found, as lines of text."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import yaml

from batchscore.cli.render.results import count, size, table
from batchscore.messages.addresses import redacted_address
from batchscore.messages.wording import counted, one_line
from batchscore.models.backends.registry import backend_of
from batchscore.models.card import CardDumper, shape_text

if TYPE_CHECKING:
    from batchscore.commands.init_job import JobMade
    from batchscore.commands.inspect_model import InputColumn, ModelFound
    from batchscore.commands.save_file import FileToSave
    from batchscore.commands.save_model import SavedModel

_COLUMNS = 30
_CATEGORIES = 5
_FILES = 20


def inspected(found: ModelFound, every: bool) -> list[str]:
    """Returns what a model says of itself.

    Args:
        found: The model.
        every: Whether all columns and categories are shown.
    """
    model, facts = found.model, found.facts
    made_of = [f"{count(number)} {name}" for name, number in facts.counts.items()]
    said = [f"{name} {one_line(text, 200)}" for name, text in facts.said.items() if text]
    lines = [
        f"{one_line(redacted_address(found.address), 200)}   {_what(found)}",
        *_files(found),
        f"versions   {_versions(found)}",
        f"code       {_code(found)}",
        *([f"holds      {'; '.join([*made_of, *said])}"] if made_of or said else []),
        *(_line("input", place, each) for place, each in enumerate(_inputs(found))),
        *_columns(found.columns, every),
        *(
            _line("output", place, f"{one_line(o.name)} {o.dtype} {shape_text(o.shape)}")
            for place, o in enumerate(model.outputs)
        ),
        *_card(found),
        *(_line("missing", place, text) for place, text in enumerate(found.missing)),
    ]
    if not found.missing:
        lines.append("to score   nothing is missing")
    return [*lines, "", "In the job file:", "", *job_section(found.job)]


def _line(what: str, place: int, text: str) -> str:
    return f"{what if place == 0 else '':<10} {text}"


def _what(found: ModelFound) -> str:
    model, total = found.model, sum(found.bytes.values())
    if found.is_folder:
        title = f"model folder, {one_line(model.name)} {one_line(model.version)}"
        return f"{title}, {counted(len(model.sha256), 'file')}, {size(total)}"
    return f"{found.what or 'a model'}, {size(total)}"


def _files(found: ModelFound) -> list[str]:
    model = found.model
    form = f"{model.format}" + (f", {found.what}" if found.is_folder and found.what else "")
    lines = [f"format     {form}"]
    if not found.is_folder:
        return [*lines, f"sha256     {model.sha256[model.weights]}"]
    names = list(model.sha256)[:_FILES]
    rows = [(n, size(found.bytes.get(n, 0)), model.sha256[n]) for n in names]
    listed = table(("", "", ""), rows)[1:]
    more = len(model.sha256) - len(names)
    lines += [_line("files", place, text) for place, text in enumerate(listed)]
    return [*lines, *([_line("files", 1, f"and {counted(more, 'more file')}")] if more else [])]


def _versions(found: ModelFound) -> str:
    file = [f"{name} {version}" for name, version in found.facts.versions.items()]
    here = [f"{name} {version or 'not at all'}" for name, version in found.installed.items()]
    wrote = f"file: {', '.join(file)}; " if file else ""
    return f"{wrote}installed: {', '.join(here) or 'nothing is needed'}"


def _code(found: ModelFound) -> str:
    if not found.facts.runs_code:
        return "none: scoring runs no code of the file"
    if backend_of(found.model.format).files_run_code:
        return "can run: loading the file can run code that is in it, so a job has to allow that"
    if found.model.architecture:
        return f"runs: {one_line(found.model.architecture)} builds the network, when a job scores"
    return (
        "runs: code of yours builds the network, when a job scores; the file holds none that runs"
    )


def _inputs(found: ModelFound) -> list[str]:
    lines = []
    for each in found.model.inputs:
        shape = [*([None] if each.varying else []), *each.shape]
        text = f"{one_line(each.name)} {each.dtype} {shape_text(shape)}"
        width = math.prod(each.shape)
        if each.varying:
            text += f", at most {each.varying.max_length:,} steps"
        elif found.model.features is None and len(each.columns) == 1 < width:
            text += f"; a job may also give it {width:,} columns: model.inputs"
        lines.append(text)
    return lines


def _columns(columns: Sequence[InputColumn], every: bool) -> list[str]:
    if not columns:
        return []
    shown = columns if every else columns[:_COLUMNS]
    rows = [(one_line(each.name), each.kind, _categories(each, every)) for each in shown]
    lines = table(("", "", ""), rows, left=3)[1:]
    found = [_line("columns", 0, f"{count(len(columns))}, in this order:")]
    found += [_line("", 1, f"  {line}") for line in lines]
    more = len(columns) - len(shown)
    return [
        *found,
        *([_line("", 1, f"  and {count(more)} more; --all shows them")] if more else []),
    ]


def _categories(column: InputColumn, every: bool) -> str:
    values = column.categories
    if values is None:
        return ""
    shown = values if every else values[:_CATEGORIES]
    names = ", ".join(one_line(repr(value), 40) for value in shown)
    more = ", …" if len(shown) < len(values) else ""
    noun = "category" if len(values) == 1 else "categories"
    return f"{count(len(values))} {noun}: {names}{more}"


def _card(found: ModelFound) -> list[str]:
    if found.card is None:
        return []
    parts = [
        f"{name} {'yes' if there else 'no'}"
        for name, there in {
            "golden rows": found.card.golden,
            "drift reference": found.card.profile,
            "evaluation": found.card.evaluation,
        }.items()
    ]
    return [f"card       {', '.join(parts)}; tolerance {found.card.tolerance:g}"]


def job_section(section: Mapping[str, Any]) -> list[str]:
    """Returns the job file's section `model`, ready to paste."""
    keys = dict(section)
    value: Any = keys["path"] if set(keys) == {"path"} else keys
    text = yaml.dump({"model": value}, Dumper=CardDumper, sort_keys=False, allow_unicode=True)
    return text.rstrip("\n").split("\n")


def saved(found: SavedModel, asked: FileToSave, program: str) -> list[str]:
    """Returns what was written, and what comes next.

    Args:
        found: The folder.
        asked: What it was made of.
        program: How batchscore is started.
    """
    card = found.card
    rows = [f"{count(number)} of {what}" for what, number in asked.read.items()]
    folder = shlex.quote(str(found.folder))
    return [
        f"SAVED {found.folder}   {one_line(card['name'])} {one_line(card['version'])}",
        f"files      {', '.join(['model.yaml', *card['files']])}",
        f"rows       {', '.join(rows)}",
        *(_line("input", n, f"{one_line(k)} {v}") for n, (k, v) in enumerate(found.inputs.items())),
        *(
            _line("output", n, f"{one_line(k)} {v}")
            for n, (k, v) in enumerate(found.outputs.items())
        ),
        f"golden     {counted(found.golden_rows, 'row')} with the framework's own scores",
        f"next       {program} init PARQUET {folder}",
    ]


def created(found: JobMade, commands: Sequence[str]) -> list[str]:
    """Returns what a job file came to, what was assumed, and what comes next.

    Args:
        found: The job file.
        commands: The next commands.
    """
    plan, rehearsal = found.checked.plan, found.checked.rehearsal
    shards = f"{counted(len(plan.shards), 'shard')}, {size(plan.input_bytes)}"
    rows = counted(sum(each.rows for each in plan.shards), "row")
    model = plan.spec.scoring.model
    lines = [
        f"CREATED {found.path}   {one_line(found.job.name)}",
        f"input      {one_line(found.job.data, 200)}, {rows} in {shards}",
        f"model      {one_line(model.name)} {one_line(model.version)}, {model.format}",
        *(
            _line("assumed", n, one_line(text.removeprefix("Assumed: "), 300))
            for n, text in enumerate(found.assumed)
        ),
    ]
    if rehearsal is not None:
        example = "  ".join(f"{k}={_short(v)}" for k, v in rehearsal.example.items())
        lines.append(
            f"check      OK, {count(rehearsal.scored)} of {counted(rehearsal.rows, 'row')} scored; "
            f"the first row: {example}"
        )
    return [*lines, *(_line("next", n, each) for n, each in enumerate(commands))]


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else one_line(value)
