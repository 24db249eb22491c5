"""The steps after the model that a job file may name, a frozen model each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    WrapSerializer,
    model_validator,
)

from batchscore.job.fields import BatchKind, FileFunction, OneOrMore, Section, Text, one_or_more


class Step(Section):
    """A postprocess step on one of the outputs so far."""

    output: Text | None = Field(
        default=None, description="The output to work on; by default the only one there is."
    )


class Sigmoid(Step):
    """Replaces a logit by its probability, element by element."""

    name: Text | None = Field(
        default=None,
        description="The result's name; by default the output's own, but `score` for `logit` and "
        "`scores` for `logits`.",
    )


class Softmax(Step):
    """Replaces a row's logits, one for each class, by probabilities that add up to 1."""

    name: Text | None = Field(
        default=None,
        description="The result's name; by default the output's own, but `score` for `logit` and "
        "`scores` for `logits`.",
    )


class TopK(Step):
    """Replaces a row's class scores by its k best classes and their scores, best first."""

    k: int = Field(ge=1, description="How many classes to keep; at most as many as there are.")
    labels: OneOrMore | None = Field(
        default=None,
        description="A text for each class, in the model's order; by default the class's index.",
    )
    name: Text = Field(
        default="top", description="The results are named `<name>_labels` and `<name>_scores`."
    )

    @model_validator(mode="after")
    def _k_fits_the_labels(self) -> TopK:
        if self.labels is not None and self.k > len(self.labels):
            raise ValueError(f"k is {self.k}, and there are labels for {len(self.labels)}; lower k")
        return self


class Threshold(Step):
    """Adds a boolean: whether the score is at least `at`."""

    at: float = Field(description="The lowest score that counts as true, in the score's unit.")
    name: Text = Field(default="decision", description="The boolean's name.")


class Labels(Step):
    """Adds a text: of the best class for class scores, else of a boolean or integer class."""

    labels: OneOrMore = Field(
        description="A text for each class, in the model's order; for a boolean false, then true."
    )
    name: Text = Field(default="label", description="The text's name.")


class UserFunction(Section):
    """A function of yours on all the outputs."""

    function: FileFunction = Field(
        description="`file.py:function`, the file in the job file's folder: takes a batch of the "
        "outputs so far and returns a batch of as many rows in the same order."
    )
    batch: BatchKind | None = Field(
        default=None,
        description="What the function takes: `arrow` (a RecordBatch) or `pandas` (a DataFrame). "
        "The default goes by the annotation of its first argument, else `arrow`.",
    )


STEPS: dict[str, type[Section]] = {
    "sigmoid": Sigmoid,
    "softmax": Softmax,
    "top_k": TopK,
    "threshold": Threshold,
    "labels": Labels,
    "function": UserFunction,
}
_STEP_NAMES = {model: name for name, model in STEPS.items()}
# What a step may be given in place of a mapping: `labels: [a, b]`, `function: post.py:shape`.
SHORT_STEPS: dict[str, type[list[str]] | type[str]] = {"labels": list, "function": str}


def _step_name(value: Any) -> str | None:
    if isinstance(value, Section):
        return _STEP_NAMES.get(type(value))
    if isinstance(value, Mapping) and len(value) == 1:
        return str(next(iter(value)))
    return value if isinstance(value, str) else None


def _step_body(value: Any) -> Any:
    if isinstance(value, str):
        return {}
    if not isinstance(value, Mapping):
        return value
    ((name, body),) = value.items()
    if isinstance(body, SHORT_STEPS.get(name, ())):
        return {name: body}
    return {} if body is None else body


def _with_name(step: Section, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
    # Without its name a sigmoid would be written, and hashed, as a softmax is.
    return {_STEP_NAMES[type(step)]: dump(step)}


AnyStep = Annotated[
    Annotated[Sigmoid, BeforeValidator(_step_body), Tag("sigmoid")]
    | Annotated[Softmax, BeforeValidator(_step_body), Tag("softmax")]
    | Annotated[TopK, BeforeValidator(_step_body), Tag("top_k")]
    | Annotated[Threshold, BeforeValidator(_step_body), Tag("threshold")]
    | Annotated[Labels, BeforeValidator(_step_body), Tag("labels")]
    | Annotated[UserFunction, BeforeValidator(_step_body), Tag("function")],
    Discriminator(_step_name),
    WrapSerializer(_with_name),
]


Steps = Annotated[tuple[AnyStep, ...], BeforeValidator(one_or_more)]
