"""Turns what pydantic finds wrong in a model's files into a ModelError that names the remedy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import pydantic

from batchscore.errors import ModelError
from batchscore.messages.expectations import expectation
from batchscore.messages.wording import nearest

Checked = TypeVar("Checked", bound=pydantic.BaseModel)


class Frozen(pydantic.BaseModel):
    """A frozen model that refuses unknown keys and numbers that are not finite."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def validated(
    kind: type[Checked], found: Mapping[str, Any], what: str, remedy: str = ""
) -> Checked:
    """Returns what a model's file, or a caller, gives, as a model of its keys.

    Args:
        kind: The model.
        found: What was given.
        what: Names it in the message.
        remedy: What to do in addition to correcting each wrong key.

    Raises:
        ModelError: Names every wrong key, what was expected, and the nearest right key.
    """
    try:
        return kind.model_validate(found)
    except pydantic.ValidationError as error:
        problems = "; ".join(_problem(detail, kind) for detail in error.errors(include_url=False))
        rest = f". {remedy}" if remedy else ""
        raise ModelError(f"{what} is not valid: {problems}{rest}") from error


def _problem(detail: Any, kind: type[pydantic.BaseModel]) -> str:
    where = ".".join(str(part) for part in detail["loc"]) or "the whole"
    if detail["type"] == "missing":
        return f"{where}: missing"
    if detail["type"] == "value_error":
        return f"{where}: {detail['ctx']['error']}"
    if detail["type"] != "extra_forbidden":
        found = detail.get("ctx", {}).get("tag", detail["input"])
        return f"{where}: expected {expectation(detail)}, found {_short(found)}"
    known = _known_keys(kind, detail["loc"])
    return f"{where}: unknown key, {nearest(str(detail['loc'][-1]), known)}"


def _known_keys(kind: type[pydantic.BaseModel], loc: tuple[Any, ...]) -> list[str]:
    """Return the keys of the model that contains an unknown key at `loc`."""
    definitions = kind.model_json_schema()
    models = {kind.__name__: definitions, **definitions.get("$defs", {})}
    by_tag = {
        model["properties"]["kind"].get("const"): name
        for name, model in models.items()
        if "kind" in model.get("properties", {})
    }
    owner = kind.__name__
    for part in loc[:-1]:
        owner = by_tag.get(part) or _reference(models[owner], part) or owner
    return list(models[owner]["properties"])


def _reference(schema: Any, key: object) -> str | None:
    """Return the model that the property `key` holds, directly or as a mapping's values."""
    held = schema.get("properties", {}).get(key, {})
    address = held.get("$ref") or held.get("additionalProperties", {}).get("$ref")
    return str(address).rpartition("/")[2] if address else None


def _short(value: object) -> str:
    if isinstance(value, (dict, list, tuple, set)):
        return f"a {type(value).__name__} of {len(value)}"
    return repr(value)[:80]
