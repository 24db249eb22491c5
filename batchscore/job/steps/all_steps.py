"""The table of all postprocess steps. A new step is one line here, and its class."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Union

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    WrapSerializer,
)

from batchscore.job.field_types import BatchKind, FileFunction, one_or_more
from batchscore.job.steps.activations import Sigmoid, Softmax
from batchscore.job.steps.base import Kinds, PostprocessStep
from batchscore.job.steps.decisions import Labels, Threshold, TopK


class UserFunction(PostprocessStep):
    """A function of yours on all the outputs."""

    key: ClassVar[str] = "function"
    short: ClassVar[type | None] = str
    needs_numpy: ClassVar[bool] = True

    function: FileFunction = Field(
        description="`file.py:function`, the file in the job file's folder: takes a batch of the "
        "outputs so far and returns a batch of as many rows in the same order."
    )
    batch: BatchKind | None = Field(
        default=None,
        description="What the function takes: `arrow` (a RecordBatch) or `pandas` (a DataFrame). "
        "By default the annotation of its first argument decides; without one it is "
        "`arrow`.",
    )

    def kinds(self, kinds: Kinds) -> None:
        """The function decides."""

    def spell(self) -> dict[str, Any]:
        """Writes its settings out."""
        return {"function": self.function, "batch": self.batch}


STEPS: dict[str, type[PostprocessStep]] = {
    kind.key: kind for kind in (Sigmoid, Softmax, TopK, Threshold, Labels, UserFunction)
}


def _step_name(value: Any) -> str | None:
    if isinstance(value, PostprocessStep):
        return value.key
    if isinstance(value, Mapping) and len(value) == 1:
        return str(next(iter(value)))
    return value if isinstance(value, str) else None


def _step_body(kind: type[PostprocessStep], value: Any) -> Any:
    if isinstance(value, str):
        return {}
    if not isinstance(value, Mapping):
        return value
    ((name, body),) = value.items()
    if kind.short is not None and isinstance(body, kind.short):
        return {name: body}
    return {} if body is None else body


def _with_name(step: PostprocessStep, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
    # Without its name a sigmoid would be written, and hashed, as a softmax is.
    return {step.key: dump(step)}


def union_of(steps: Mapping[str, type[PostprocessStep]]) -> Any:
    """Returns the type that pydantic validates any of these steps as, by its name."""
    tagged = [
        Annotated[kind, BeforeValidator(partial(_step_body, kind)), Tag(name)]
        for name, kind in steps.items()
    ]
    return Annotated[
        Union[tuple(tagged)], Discriminator(_step_name), WrapSerializer(_with_name)  # noqa: UP007
    ]


if TYPE_CHECKING:
    AnyStep = PostprocessStep
else:
    AnyStep = union_of(STEPS)

Steps = Annotated[tuple[AnyStep, ...], BeforeValidator(one_or_more)]
