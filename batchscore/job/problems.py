"""What pydantic finds wrong in a job file, in the file's words: where, and what was expected."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from batchscore.job.dataflow_section import Dataflow
from batchscore.job.field_types import PATTERN_MEANINGS
from batchscore.job.parameters import Location, Parameter, printable, shown
from batchscore.job.rules import (
    Checks,
    Drift,
    EarlierRuns,
    ListedReference,
    Mute,
    Notify,
    OnChange,
    Rejects,
    RowsCheck,
)
from batchscore.job.sections import (
    Explain,
    Flink,
    Input,
    InputSpec,
    ModelSection,
    Output,
    Preprocess,
    Runtime,
    TensorSpec,
)
from batchscore.job.steps.all_steps import STEPS
from batchscore.messages.expectations import expectation
from batchscore.messages.wording import nearest

_REQUIRED = ("name", "input", "model", "output")


def location_of(detail: Any, tree: Any) -> Location:
    """Returns where in the file it is, without the names of union members and short forms."""
    kept: list[str | int] = []
    node = tree
    for part in detail["loc"]:
        if isinstance(node, list):
            inside = isinstance(part, int) and part < len(node)
        else:
            inside = isinstance(node, dict) and part in node
        if inside:
            node = node[part]
            kept.append(part)
    if detail["type"] == "missing":
        kept.append(detail["loc"][-1])
    return tuple(kept)


_STEP = (
    "a step's name, or a mapping of one name to its settings, such as {top_k: {k: 3}}; several "
    "steps are a list"
)


def message_of(details: list[Any], location: Location, job: type[BaseModel]) -> str:
    """Returns what is wrong at one place of a file, and what was expected there.

    Args:
        details: What pydantic says of it.
        location: Where it is in the file.
        job: The model of the whole file.
    """
    first = details[0]
    context = first.get("ctx", {})
    if location == ("batchscore",):
        found = shown(first["input"])
        return f"expected 1, the format that this batchscore reads, found {found}; upgrade it"
    if first["type"] == "missing":
        return f"missing; {_needing(first['loc'])} needs it"
    if first["type"] == "extra_forbidden":
        outer = first["loc"][:-1]
        known = (_model_at(outer) if outer else job).model_fields
        return f"unknown key; {nearest(str(first['loc'][-1]), known)}"
    if first["type"] == "union_tag_invalid":
        return f"no such step {printable(context['tag'])}; {nearest(context['tag'], STEPS)}"
    for detail in details:
        if detail["type"] == "value_error":
            return str(detail["ctx"]["error"])
    expected = dict.fromkeys(map(_expected, details))
    return f"expected {' or '.join(expected)}, found {shown(first['input'], location)}"


def _needing(loc: tuple[str | int, ...]) -> str:
    """Returns what needs the key at pydantic's own location."""
    if loc[0] == "postprocess":
        return f"{{{printable(loc[2])}: {{{loc[-1]}: …}}}}"
    return "a job" if loc[0] in _REQUIRED else ".".join(map(printable, loc[:-1]))


def _expected(detail: Any) -> str:
    context = detail.get("ctx", {})
    if detail["type"] == "model_type":
        return f"a mapping with keys such as {_first_keys(_model_at(detail['loc']))}"
    if "pattern" in context:
        return PATTERN_MEANINGS[context["pattern"]]
    return _STEP if detail["type"] == "union_tag_not_found" else expectation(detail)


def _first_keys(model: type[BaseModel]) -> str:
    fields = model.model_fields
    return ", ".join([name for name in fields if fields[name].is_required()] or [*fields][:3])


def _model_at(loc: tuple[str | int, ...]) -> type[BaseModel]:
    """Returns the model that validates the value at pydantic's own location."""
    if loc[0] == "params":
        return Parameter
    if loc[0] == "postprocess":
        return STEPS[str(loc[2])]
    if loc[:2] == ("drift", "reference") and any(isinstance(part, int) for part in loc):
        return ListedReference
    sections: dict[str, type[BaseModel]] = {
        "input": Input,
        "model": ModelSection,
        "model.inputs": InputSpec,
        "model.outputs": TensorSpec,
        "preprocess": Preprocess,
        "output": Output,
        "explain": Explain,
        "on_change": OnChange,
        "rejects": Rejects,
        "checks": Checks,
        "checks.rows": RowsCheck,
        "drift": Drift,
        "drift.reference": EarlierRuns,
        "drift.mute": Mute,
        "runtime": Runtime,
        "runtime.flink": Flink,
        "runtime.dataflow": Dataflow,
        "notify": Notify,
    }
    return sections.get(".".join(map(str, loc[:2]))) or sections[str(loc[0])]
