"""Parameters of a job: their declared types, the values given, the placeholders that use them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from batchscore.messages.addresses import redacted_address, redacted_text
from batchscore.messages.wording import nearest

ParameterValue = str | int | float | bool | date
Location = tuple[str | int, ...]

SHOWN_CHARACTERS = 80
DATE_PARTS: dict[str, Callable[[date], int]] = {
    "year": lambda day: day.year,
    "month": lambda day: day.month,
    "day": lambda day: day.day,
    "isoweekday": date.isoweekday,
}
# Written out instead of strftime, whose result depends on the platform and the locale.
DATE_DIRECTIVES: dict[str, Callable[[date], str]] = {
    "%Y": lambda day: f"{day.year:04d}",
    "%m": lambda day: f"{day.month:02d}",
    "%d": lambda day: f"{day.day:02d}",
    "%y": lambda day: f"{day.year % 100:02d}",
    "%j": lambda day: f"{day.timetuple().tm_yday:03d}",
    "%u": lambda day: str(day.isoweekday()),
    "%G": lambda day: f"{day.isocalendar()[0]:04d}",
    "%V": lambda day: f"{day.isocalendar()[1]:02d}",
    "%%": lambda day: "%",
}

# The bounds keep the search linear on a text of a million "${".
_PLACEHOLDER = re.compile(
    r"\$\$\{"
    r"|\$\{(?P<name>[^${}.:]{0,64})(?:\.(?P<part>[^${}:]{0,64}))?(?::(?P<format>[^${}]{0,64}))?\}"
    r"|(?P<broken>\$\{)"
)
_DIRECTIVE = re.compile(r"%.?", re.DOTALL)
_NUMBER_FORMAT = {
    "integer": re.compile(r"0?[0-9]{0,2}d"),
    "number": re.compile(r"0?[0-9]{0,2}(\.[0-9]{1,2})?[efg]"),
}
_SECRET = re.compile(r"key|secret|token|password|passwd|credential|signature", re.IGNORECASE)


class Parameter(BaseModel):
    """One declared parameter; its value is given with `--param name=value` at each run."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    type: Literal["date", "string", "integer", "number", "boolean"] = Field(
        description="What `--param` accepts: `date` is YYYY-MM-DD, `integer` has 64 bits, "
        "`number` is finite, `boolean` is `true` or `false`. There are no default "
        "values, and no implicit today: a run names every value, so it can be "
        "repeated. Values are stored and shown in the slice's name, so do not use "
        "credentials."
    )


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in a job: where (keys and list positions) and what."""

    location: Location
    message: str


def read_parameters(
    declared: Mapping[str, Parameter], given: Sequence[str]
) -> tuple[dict[str, ParameterValue], list[str]]:
    """Read `name=value` texts as the declared types.

    Returns the values by name and one message for each parameter that is undeclared, missing,
    given twice, or not of its type; it never raises.
    """
    values: dict[str, ParameterValue] = {}
    messages: list[str] = []
    seen: set[str] = set()
    for item in given:
        name, equals, text = item.partition("=")
        try:
            if not equals:
                raise ValueError("expected name=value")
            if name not in declared:
                raise ValueError(f"the job declares no such parameter; {nearest(name, declared)}")
            if name in seen:
                raise ValueError("given twice; give it once")
            seen.add(name)
            values[name] = _parsed(name, text, declared[name].type)
        except ValueError as error:
            messages.append(f"--param {printable(name)}: {error}")
    for name in sorted(set(declared) - seen):
        kind = declared[name].type
        messages.append(f"--param {name}: missing; give --param {name}={_EXAMPLES[kind]} ({kind})")
    return values, messages


def substitute(
    tree: Any,
    declared: Mapping[str, Parameter],
    values: Mapping[str, ParameterValue],
    confined: frozenset[Location] = frozenset(),
) -> tuple[Any, list[Problem]]:
    """Put parameter values in place of `${…}` in every text of a tree of mappings and lists.

    A text that is one whole placeholder takes the value with its type, any other stays text;
    `$${` means a literal `${`; keys are left alone, and values are not searched again. At
    the `confined` locations a string value must be one path part. What cannot be filled stays
    as it was and, unless its parameter is declared and has merely no value, is a problem.
    """
    problems: list[Problem] = []

    def fill(node: Any, location: Location) -> Any:
        if isinstance(node, dict):
            return {key: fill(value, (*location, key)) for key, value in node.items()}
        if isinstance(node, list):
            return [fill(value, (*location, position)) for position, value in enumerate(node)]
        if not isinstance(node, str) or "${" not in node:
            return node
        try:
            return _filled(node, declared, values, location in confined)
        except ValueError as error:
            problems.append(Problem(location, str(error)))
        except _NoValueError:
            pass
        return node

    return fill(tree, ()), problems


def is_secret(name: str | int) -> bool:
    """Whether a key's name says that its value must not be shown."""
    return bool(_SECRET.search(str(name)))


def shown(value: Any, location: Location = ()) -> str:
    """Show a found value, as YAML spells it, in at most 80 characters without its secrets."""
    if any(map(is_secret, location)):
        return "a hidden value"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    text = repr(_redacted(value))
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"


def printable(name: str | int) -> str:
    """Show a key on one line of at most 80 characters; control characters are escaped."""
    text = str(name) if str(name).isprintable() and name != "" else repr(name)
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"


class _NoValueError(Exception):
    """A declared parameter has no value; that was reported where parameters are read."""


# USER:PASSWORD@ of an address without a scheme.
_USER = re.compile(r"^[^\s:/]*:(?!//)\S*@")
_EXAMPLES = {
    "date": "2026-11-20",
    "string": "text",
    "integer": "7",
    "number": "0.5",
    "boolean": "true",
}
_FORMS = {
    "date": re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}"),
    "string": re.compile(r"[^\x00-\x1f\x7f]*"),
    "integer": re.compile(r"[+-]?[0-9]{1,19}"),
    "number": re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?"),
    "boolean": re.compile(r"true|false"),
}
_READERS: dict[str, Callable[[str], ParameterValue]] = {
    "date": date.fromisoformat,
    "string": str,
    "integer": int,
    "number": float,
    "boolean": "true".__eq__,
}


def _parsed(name: str, text: str, kind: str) -> ParameterValue:
    expected = f"expected a {kind} such as {_EXAMPLES[kind]}, found {shown(text, (name,))}"
    if not _FORMS[kind].fullmatch(text):
        raise ValueError(expected)
    try:
        value = _READERS[kind](text)
    except ValueError:
        raise ValueError(expected) from None
    if kind == "integer" and not -(2**63) <= int(text) < 2**63:
        raise ValueError(f"{expected}, which does not fit 64 bits")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{expected}, which is not finite")
    return value


def _filled(
    text: str,
    declared: Mapping[str, Parameter],
    values: Mapping[str, ParameterValue],
    confined: bool,
) -> ParameterValue:
    def value_of(match: re.Match[str]) -> ParameterValue:
        return "${" if match[0] == "$${" else _resolved(match, declared, values, confined)

    whole = _PLACEHOLDER.fullmatch(text)
    if whole:
        return value_of(whole)
    return _PLACEHOLDER.sub(lambda match: _text(value_of(match)), text)


def _resolved(
    match: re.Match[str],
    declared: Mapping[str, Parameter],
    values: Mapping[str, ParameterValue],
    confined: bool,
) -> ParameterValue:
    name, part, form = match["name"], match["part"], match["format"]
    if match["broken"]:
        raise ValueError(
            "a placeholder is '${name}', '${name.part}' or '${name:format}'; found another '${'; "
            "write '$${' for the text '${'"
        )
    if name not in declared:
        hint = nearest(name, declared)
        raise ValueError(
            f"{match[0]!r}: the job declares no such parameter; {hint}: declare it under params, "
            "or correct the name"
        )
    if part is not None and form is not None:
        raise ValueError(f"{match[0]!r}: takes a part or a format, not both")
    if name not in values:
        raise _NoValueError
    value, kind = values[name], declared[name].type
    if part is not None:
        return _date_part(match[0], value, part)
    if form is not None:
        return _formatted(match[0], value, kind, form)
    if confined and isinstance(value, str):
        _check_path_part(match[0], name, value)
    return value


def _date_part(placeholder: str, value: ParameterValue, part: str) -> int:
    if not isinstance(value, date):
        raise ValueError(f"{placeholder!r}: only a date has parts; write it without '.{part}'")
    if part not in DATE_PARTS:
        raise ValueError(f"{placeholder!r}: a date has no such part; {nearest(part, DATE_PARTS)}")
    return DATE_PARTS[part](value)


def _formatted(placeholder: str, value: ParameterValue, kind: str, form: str) -> str:
    if isinstance(value, date):
        return _formatted_date(placeholder, value, form)
    if kind not in _NUMBER_FORMAT:
        raise ValueError(f"{placeholder!r}: a {kind} takes no format; write it without ':{form}'")
    if not _NUMBER_FORMAT[kind].fullmatch(form):
        example = "03d" if kind == "integer" else ".2f"
        raise ValueError(f"{placeholder!r}: not a format of a {kind}; expected one like {example}")
    return format(value, form)


def _formatted_date(placeholder: str, day: date, form: str) -> str:
    directives = _DIRECTIVE.findall(form)
    unknown = [directive for directive in directives if directive not in DATE_DIRECTIVES]
    if unknown or not directives:
        raise ValueError(
            f"{placeholder!r}: not a format of a date; expected text with "
            f"{' '.join(DATE_DIRECTIVES)}, such as %Y-%m-%d"
        )
    return _DIRECTIVE.sub(lambda match: DATE_DIRECTIVES[match[0]](day), form)


def _check_path_part(placeholder: str, name: str, value: str) -> None:
    # Values of nothing but dots are refused so that two of them cannot make a "..".
    if re.search(r"[/\\:]|\.\.", value) or not value.strip("."):
        raise ValueError(
            f"{placeholder!r}: a string parameter in an output path must be one plain path part, "
            f"without '/', '\\', ':' or '..'; found {shown(value, (name,))}; to write elsewhere, "
            "give --set output.path=…"
        )


def _text(value: ParameterValue) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _redacted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: "***" if is_secret(key) else _redacted(value[key]) for key in value}
    if isinstance(value, list | tuple):
        return [_redacted(item) for item in value]
    if not isinstance(value, str):
        return value
    return _USER.sub("***@", redacted_text(redacted_address(value)))
