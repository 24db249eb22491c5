"""What the job file's sections are made of: their base, and the types of their fields."""

from __future__ import annotations

import math
import posixpath
import re
from collections import Counter
from datetime import date, datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
)

from batchscore.job.parameters import shown
from batchscore.messages.addresses import holds_credential, holds_secret
from batchscore.messages.wording import nearest

OPERATORS = ("==", "=", "!=", "<", ">", "<=", ">=", "in", "not in")

Scalar = str | int | float | bool | date | datetime
Condition = tuple[str, str, Scalar | tuple[Scalar, ...]]


class Section(BaseModel):
    """A part of the job file: frozen, without unknown keys, and strict about types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def as_tuple(value: Any) -> Any:
    """Returns a YAML list as a tuple, and anything else as it is."""
    return tuple(value) if isinstance(value, list) else value


def one_or_more(value: Any) -> Any:
    """Returns a list as a tuple, and a single value as a tuple of one."""
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def distinct(values: tuple[str, ...]) -> tuple[str, ...]:
    """Returns texts of which none is there twice; ValueError where one is."""
    repeated = sorted(value for value, count in Counter(values).items() if count > 1)
    if repeated:
        raise ValueError(f"{', '.join(map(shown, repeated[:5]))} appears more than once; keep one")
    return values


def _function_file(reference: str) -> str:
    if ".." in reference.partition(":")[0].split("/"):
        raise ValueError(
            f"expected a file in the job file's folder or below, found {shown(reference)}; "
            "move the file there"
        )
    return reference


def _below_the_job(path: str) -> str:
    parts = posixpath.normpath(path).split("/")
    if path.startswith(("/", "~")) or "://" in path or parts[0] in ("..", "."):
        raise ValueError(
            f"expected a file or folder below the job file's folder, found {shown(path)}; "
            "move it there"
        )
    return "/".join(parts)


def _conditions(value: Any) -> tuple[tuple[Condition, ...], ...]:
    """Read pyarrow's filters, one list of conditions or several, as several."""
    if not isinstance(value, list | tuple) or not all(isinstance(v, list | tuple) for v in value):
        raise ValueError(
            f"expected a list of [column, operator, value], found {shown(value)}; "
            "a single condition needs two pairs of brackets"
        )
    single = any(item and not isinstance(item[0], list | tuple) for item in value)
    groups = ([value] if single else value) if value else ()
    if any(len(group) == 0 for group in groups):
        raise ValueError("a list of conditions is empty; remove it or give one")
    return tuple(tuple(_condition(item) for item in group) for group in groups)


def _condition(item: Any) -> Condition:
    if not isinstance(item, list | tuple) or len(item) != 3:
        raise ValueError(f"expected [column, operator, value], found {shown(item)}")
    column, operator, value = item
    if not isinstance(column, str) or not column:
        raise ValueError(f"expected a column's name, found {shown(column)}")
    if not isinstance(operator, str) or operator not in OPERATORS:
        raise ValueError(
            f"column {shown(column)}: no such operator {shown(operator)}; "
            f"{nearest(str(operator), OPERATORS)}"
        )
    if operator not in ("in", "not in"):
        return column, operator, _scalar(column, operator, value)
    if not isinstance(value, list | tuple) or not value:
        raise ValueError(f"column {shown(column)}: {operator!r} needs a list of one or more values")
    return column, operator, tuple(_scalar(column, operator, item) for item in value)


def is_scalar(value: Any) -> bool:
    """Tells whether a value is one that a column can be compared with."""
    known = isinstance(value, str | int | float | date)
    return known and not (isinstance(value, float) and not math.isfinite(value))


def _scalar(column: str, operator: str, value: Any) -> Scalar:
    if not is_scalar(value):
        found = shown(value, (column,))
        raise ValueError(
            f"column {shown(column)}: {operator!r} compares with a text, number, boolean or date, "
            f"found {found}"
        )
    scalar: Scalar = value
    return scalar


_CONDITION_SCHEMA = {
    "type": "array",
    "prefixItems": [{"type": "string"}, {"enum": list(OPERATORS)}, {}],
    "minItems": 3,
    "maxItems": 3,
}
_CONDITIONS_SCHEMA = {"type": "array", "items": _CONDITION_SCHEMA}
_FILTERS_SCHEMA = {"anyOf": [_CONDITIONS_SCHEMA, {"type": "array", "items": _CONDITIONS_SCHEMA}]}

# A pattern and what an error says was expected in its place.
NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
PARAMETER_NAME = r"^[A-Za-z_][A-Za-z0-9_]*$"
ADDRESS = r"^[^\x00-\x1f\x7f]+$"
FILE_FUNCTION = r"^[A-Za-z0-9_][A-Za-z0-9_./-]*\.py:[A-Za-z_][A-Za-z0-9_]*$"
FORMAT = r"^[a-z0-9][a-z0-9_.-]{0,63}$"
SHA256 = r"^[0-9a-f]{64}$"
DEVICE = r"^(auto|cpu|cuda(:[0-9]{1,3})?)$"
_PORT = "([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
_HOST_AND_PORT = f"[A-Za-z0-9_.-]+:{_PORT}"
ENDPOINT = f"^{_HOST_AND_PORT}$"
WEB_ENDPOINT = rf"^(https?://[^\s@?#]+|{_HOST_AND_PORT})$"
PATTERN_MEANINGS = {
    ENDPOINT: "HOST:PORT",
    WEB_ENDPOINT: "HOST:PORT, or an address that begins with http:// or https:// and has neither "
    "user nor query",
    FORMAT: "the name of a format in lower case, such as safetensors",
    NAME: "a name of letters, digits, '_', '.' and '-'",
    PARAMETER_NAME: "a name of letters, digits and '_'",
    ADDRESS: "a path or address without control characters",
    FILE_FUNCTION: "'file.py:name', the file in the job file's folder or below",
    SHA256: "64 hexadecimal digits in lower case",
    DEVICE: "'auto', 'cpu', 'cuda' or 'cuda:N'",
}

JobName = Annotated[str, StringConstraints(pattern=NAME, max_length=64)]
ParameterName = Annotated[str, StringConstraints(pattern=PARAMETER_NAME, max_length=64)]


def _without_credentials(address: str) -> str:
    if holds_secret(address):
        raise ValueError(
            "holds a user, password or key, or a query that may be one, which manifests would "
            f"show; {_GIVE}"
        )
    return address


def _without_named_credentials(address: str) -> str:
    if holds_credential(address):
        raise ValueError(f"holds a user, password or key, or a query that may be one; {_GIVE}")
    return address


_GIVE = "give it in the environment, or in fsspec's own configuration files"
Address = Annotated[str, StringConstraints(pattern=ADDRESS), AfterValidator(_without_credentials)]
# A query may be part of it, such as that of a service that exports a table.
DataAddress = Annotated[
    str, StringConstraints(pattern=ADDRESS), AfterValidator(_without_named_credentials)
]
Addresses = Annotated[tuple[DataAddress, ...], Field(min_length=1), BeforeValidator(one_or_more)]
Filters = Annotated[
    tuple[tuple[Condition, ...], ...],
    BeforeValidator(_conditions),
    WithJsonSchema(_FILTERS_SCHEMA),
]
Text = Annotated[str, StringConstraints(min_length=1)]
Endpoint = Annotated[str, StringConstraints(pattern=ENDPOINT)]
WebEndpoint = Annotated[str, StringConstraints(pattern=WEB_ENDPOINT)]
Columns = Annotated[tuple[Text, ...], BeforeValidator(as_tuple), AfterValidator(distinct)]
OneOrMore = Annotated[
    tuple[Text, ...],
    Field(min_length=1),
    BeforeValidator(as_tuple),
    AfterValidator(distinct),
]
FileFunction = Annotated[
    str, StringConstraints(pattern=FILE_FUNCTION), AfterValidator(_function_file)
]
CodePaths = Annotated[
    tuple[Annotated[Text, AfterValidator(_below_the_job)], ...],
    BeforeValidator(as_tuple),
    AfterValidator(distinct),
]
BatchKind = Literal["arrow", "pandas"]


_AGE = re.compile(r"([1-9][0-9]{0,5})([mhd])")
_SECONDS = {"m": 60, "h": 3600, "d": 86_400}


def read_age(given: Any) -> str:
    """Returns an age such as `26h` as it was given; ValueError if it is none."""
    if not isinstance(given, str) or not _AGE.fullmatch(given):
        raise ValueError(
            f"expected minutes, hours or days, such as 90m, 26h or 2d, found {shown(given)}"
        )
    return given


Age = Annotated[Text, BeforeValidator(read_age)]


def age_seconds(age: str) -> int:
    """Returns the seconds of an age such as `26h`."""
    return int(age[:-1]) * _SECONDS[age[-1]]
