"""The job file's sections on what may be published: changes, checks, rejects, drift."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from batchscore.job.field_types import (
    Address,
    Age,
    Columns,
    OneOrMore,
    Scalar,
    Section,
    Text,
    as_tuple,
    distinct,
    is_scalar,
)
from batchscore.job.parameters import shown


class OnChange(Section):
    """What a run does when something changed since the slice was last published.

    `hold` does nothing, publishes nothing, and ends with exit code 3 and the choices; with
    `--set on_change.…` a person chooses for one run.
    """

    model: Literal["rescore", "hold"] = Field(
        default="rescore",
        description="When the model, or anything else in the job that decides scores, changed "
        "(pre- and postprocessing, filters, code, columns, `runtime.precision`, `compile`, "
        "`kernels` and `micro_batch`, the version of torch, and those of NumPy, Arrow and pandas "
        "where the job's scores depend on them): `rescore` every row, or `hold`.",
    )
    removed_shards: Literal["hold", "remove"] = Field(
        default="hold",
        description="When shards whose rows are published are gone: `hold`, since it is most often "
        "a mistake upstream, or `remove` their rows from what is published.",
    )
    rewritten_shards: Literal["hold", "rescore"] = Field(
        default="hold",
        description="When shards whose rows are published were rewritten, or other shards took "
        "their place in their folder, as after a compaction: `hold`, or `rescore` them.",
    )
    late_shards: Literal["add", "hold"] = Field(
        default="add",
        description="When there are new shards: `add` scores them alone and publishes them with "
        "the others; or `hold`.",
    )
    explain: Literal["hold", "rescore"] = Field(
        default="hold",
        description="When `explain` changed, or is new, or is gone: `hold`, or `rescore` every "
        "row, since reasons are computed with the scores.",
    )


class RowsCheck(Section):
    """How many rows to expect, from the slice's own history or from the slices before it."""

    min_ratio: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="The smallest allowed ratio of rows, without filtered ones, to what is "
        "published of the slice. On the slice's first run the ratio is to the median "
        "of up to seven of the job's slices before it by name. Input of which half "
        "is missing is the most common failure. 0 never holds.",
    )
    max_ratio: float | None = Field(
        default=None,
        ge=1,
        description="The largest allowed ratio to the same rows; by default there is none.",
    )


def _pair(value: Any, expected: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise PydanticCustomError("pair", expected)
    return tuple(value)


def _bounds(value: Any) -> Any:
    return _pair(value, "[smallest, largest]")


def _ordered(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError(f"expected [smallest, largest], found {shown(list(bounds))}")
    return bounds


ScoreRange = Annotated[tuple[float, float], BeforeValidator(_bounds), AfterValidator(_ordered)]


def _values(value: Any) -> Any:
    if not isinstance(value, list | tuple) or not value:
        raise PydanticCustomError("values", "a list of one or more values")
    for each in value:
        if not is_scalar(each):
            raise ValueError(
                f"expected texts, numbers, booleans or dates, found {shown(each)}; a null always "
                "passes, and not_null forbids it"
            )
    return tuple(value)


_VALUES = [{"type": kind} for kind in ("string", "number", "boolean")]
Values = Annotated[
    tuple[Scalar, ...],
    BeforeValidator(_values),
    WithJsonSchema({"type": "array", "items": {"anyOf": _VALUES}, "minItems": 1}),
]


class Checks(Section):
    """What must be true before anything is published. Otherwise the run is held (exit 3)."""

    rows: RowsCheck = Field(default=RowsCheck(), description="The volume.")
    unique: Columns = Field(
        default=(),
        description="Columns that together name a row: no two published rows of the slice may "
        "agree in all of them. Each must be among what is written.",
    )
    score_range: ScoreRange | dict[Text, ScoreRange] | None = Field(
        default=None,
        description="`[smallest, largest]` allowed for every score that is a number, or a mapping "
        "of score columns to such pairs. A name that no score of numbers has is refused before any "
        "work.",
    )
    not_null: Columns = Field(
        default=(),
        description="Columns of the input, or scores, that are null in no scored row. NaN is a "
        "number, and no null.",
    )
    accepted: dict[Text, Values] = Field(
        default_factory=dict,
        description="The values that a column of the input, or a score, may have in scored rows: "
        "`status: [open, closed]`. They are compared exactly, as filters are. A null passes; "
        "`not_null` forbids it.",
    )
    fresh: dict[Text, Age] = Field(
        default_factory=dict,
        description="How old the newest value of a column of dates or timestamps may be, in "
        "minutes, hours or days: `updated_at: 26h`. The age is taken at the end of the day of the "
        "`date` parameter in UTC, of several the latest, and without one at the run's start. A "
        "date is its midnight, and a timestamp without a zone is in UTC. A later value passes. "
        "Without any value the run is held.",
    )


class Rejects(Section):
    """How many rows may be rejected before the run fails."""

    max_ratio: float = Field(
        default=0.001,
        ge=0,
        le=1,
        description="The largest share of rejected rows, of rows that are not filtered, that is"
        " still published. Above it the run fails (exit 1), as early as that is "
        "certain. One in a thousand lets stray bad rows pass and stops a broken "
        "column. 0 allows none.",
    )
    max_rows: int | None = Field(
        default=None,
        ge=0,
        description="The most rejected rows, in addition to `max_ratio`; by default there is no "
        "limit.",
    )


class EarlierRuns(Section):
    """What ran before, as a reference: one run, or the last ones of the job merged."""

    run: Text | None = Field(default=None, description="One run of the output, by its name.")
    last: Annotated[int, Field(ge=1, le=366)] | None = Field(
        default=None,
        description="How many published slices before this one, by date, are merged. If there "
        "are fewer, all of them are. Needs a parameter of type `date`.",
    )
    same_weekday: bool = Field(
        default=False, description="Only slices of the same day of the week count for `last`."
    )

    @model_validator(mode="after")
    def _one_way(self) -> EarlierRuns:
        if (self.run is None) == (self.last is None):
            raise ValueError("expected either run or last")
        if self.same_weekday and self.last is None:
            raise ValueError("same_weekday needs last")
        return self


def _true(value: Any) -> Any:
    if value is not True:
        raise ValueError(f"expected true, found {shown(value)}; leave the key out instead")
    return value


_Chosen = Annotated[Literal[True], BeforeValidator(_true)] | None
_SOURCES = ("model", "previous", "file", "run", "last")


class ListedReference(Section):
    """One of several references, and what a verdict of `fail` against it does.

    Each has exactly one of `model`, `previous`, `file`, `run` and `last`.
    """

    model: _Chosen = Field(
        default=None, description="`true`: the profile in the model folder, written by training."
    )
    previous: _Chosen = Field(
        default=None,
        description="`true`: what is published of the slice before this one by date, or of this "
        "one.",
    )
    file: Address | None = Field(
        default=None,
        description="A file that `batchscore profile` wrote. A relative path starts from the job "
        "file's folder.",
    )
    run: Text | None = Field(default=None, description="One run of the output, by its name.")
    last: Annotated[int, Field(ge=1, le=366)] | None = Field(
        default=None,
        description="How many published slices before this one, by date, are merged. Needs a "
        "parameter of type `date`.",
    )
    same_weekday: bool = Field(
        default=False, description="Only slices of the same day of the week count for `last`."
    )
    on_fail: Literal["hold", "warn", "off"] | None = Field(
        default=None,
        description="What a verdict of `fail` against this reference does: `hold` or `warn` as "
        "`drift.on_fail` says, which is the default. With `off` the comparison is shown, and "
        "never holds or warns.",
    )

    @model_validator(mode="after")
    def _one_source(self) -> ListedReference:
        given = [name for name in _SOURCES if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"expected exactly one of {', '.join(_SOURCES)}, found "
                f"{' and '.join(given) or 'none'}"
            )
        if self.same_weekday and self.last is None:
            raise ValueError("same_weekday needs last")
        return self


def _different(listed: tuple[ListedReference, ...]) -> tuple[ListedReference, ...]:
    sources = [each.model_dump(exclude={"on_fail"}, exclude_defaults=True) for each in listed]
    for place, source in enumerate(sources):
        if source in sources[:place]:
            raise ValueError(
                f"items {sources.index(source)} and {place} are the same reference "
                f"({shown(source)}); keep one"
            )
    return listed


Status = Literal["published", "empty", "unchanged", "held", "failed", "invalid", "retry"]


def _program(command: tuple[str, ...]) -> tuple[str, ...]:
    if not command[0] or any("\0" in part for part in command):
        raise ValueError(f"expected [program, argument, …], found {shown(list(command))}")
    return command


class Notify(Section):
    """A program that `batchscore run` starts at its end, with the result as JSON.

    See docs/watching.md.
    """

    command: Annotated[
        tuple[str, ...],
        Field(min_length=1),
        BeforeValidator(as_tuple),
        AfterValidator(_program),
    ] = Field(
        description="`[program, argument, …]`: started without a shell, with the document that "
        "`--json` prints on standard input, for 60 s at most. A name without `/` is looked for on "
        "PATH; a relative path starts from the job file's folder. Its failure is a warning.",
    )
    on: Annotated[
        tuple[Status, ...],
        Field(min_length=1),
        BeforeValidator(as_tuple),
        AfterValidator(distinct),
    ] = Field(
        default=("held", "failed"),
        description="The statuses that it is started for, as `--json` names them.",
    )


REFERENCE_WORDS = ("model", "previous")
ListedReferences = Annotated[
    tuple[ListedReference, ...],
    Field(min_length=1),
    BeforeValidator(as_tuple),
    AfterValidator(_different),
]
_Effect = Annotated[float, Field(gt=0)] | None


def _effects(value: Any) -> Any:
    return (None, None) if value is None else _pair(value, "[warn, fail]")


def _rising(pair: tuple[float | None, float | None]) -> tuple[float | None, float | None]:
    warn, fail = pair
    if warn is not None and fail is not None and warn > fail:
        raise ValueError(f"expected [warn, fail], found {shown([warn, fail])}")
    return pair


_Effects = tuple[_Effect, _Effect]
Effects = Annotated[
    _Effects,
    BeforeValidator(_effects, json_schema_input_type=_Effects | None),
    AfterValidator(_rising),
]


def _day(value: Any) -> Any:
    if isinstance(value, str):
        return date.fromisoformat(value)
    return value


Day = Annotated[date, BeforeValidator(_day, json_schema_input_type=date)]


class Mute(Section):
    """A column whose drift is known and does not count until a day."""

    column: Text = Field(description="The column: one that is read, or a score.")
    until: Day = Field(
        description="The last day on which it does not count: the day of the `date` parameter, of "
        "several the first, and without one the day on which the run starts, in UTC.",
    )
    why: Text = Field(description="Why, for who reads the manifest later.")


def _muted_once(mutes: tuple[Mute, ...]) -> tuple[Mute, ...]:
    names = [each.column for each in mutes]
    for place, name in enumerate(names):
        if name in names[:place]:
            raise ValueError(f"column {shown(name)} is muted twice; keep one")
    return mutes


class Drift(Section):
    """How the run's rows and scores are compared with references; see docs/drift.md."""

    reference: Address | EarlierRuns | ListedReferences = Field(
        default="model",
        description="`model`: the profile in the model folder, written by training; `previous`: "
        "what is published of the slice before this one by date, or of this one; a "
        "file that `batchscore profile` wrote (a relative path starts from the job "
        "file's folder); or earlier runs. If the model folder has a profile, the run "
        "is compared with it too, since slow drift does not show against yesterday. "
        "A list of references, each with an `on_fail` of its own, names all that the "
        "run is compared with. Without a reference the run is profiled, and says so.",
    )
    on_fail: Literal["hold", "warn"] = Field(
        default="hold",
        description="What a verdict of `fail` does: `hold` publishes nothing (exit 3), `warn` "
        "publishes and says so. A listed reference may have its own.",
    )
    alpha: float = Field(
        default=0.001,
        gt=0,
        le=0.1,
        description="The largest probability that noise alone warns or fails anywhere in the run.",
    )
    columns: OneOrMore | None = Field(
        default=None,
        description="The columns whose drift counts; by default what the model reads and the "
        "scores. Others are profiled and shown.",
    )
    thresholds: dict[Text, Effects] = Field(
        default_factory=dict,
        description="`measure: [warn, fail]` in place of the defaults, for all columns; `null` "
        "never. For example `psi: [0.1, 0.25]`, `null_rate: [0.01, null]`, `tail: null`.",
    )
    column_thresholds: dict[Text, dict[Text, Effects]] = Field(
        default_factory=dict,
        description="The same by column: `distance: {psi: [0.2, 0.5]}`.",
    )
    mute: Annotated[tuple[Mute, ...], BeforeValidator(as_tuple), AfterValidator(_muted_once)] = (
        Field(
            default=(),
            description="Columns whose drift is known: `[{column: …, until: YYYY-MM-DD, why: …}]`. "
            "They are compared and shown, and do not count. The manifest keeps each with its "
            "verdict.",
        )
    )
    repeated: Literal["warn", "hold", "off"] = Field(
        default="warn",
        description="What a night does whose profile equals that of one of the last three slices "
        "before it by date, bit for bit, as if its file were delivered again: `warn` says so, "
        "`hold` publishes nothing (exit 3).",
    )
    learn: int = Field(
        default=0,
        ge=0,
        le=366,
        description="How many nights the job is watched first: until so many slices before this "
        "one by date are published, a verdict of `fail` only warns, and the run says so. Of a job "
        "without a date, runs of the slice that published count.",
    )
