"""The card of a model folder, `model.yaml`: what it may say, read and written."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import pydantic
import yaml

from batchscore.columnar.ragged import Varying
from batchscore.columnar.texts import TEXT
from batchscore.errors import ModelError
from batchscore.messages.wording import counted, one_line
from batchscore.models.inputs import ModelInput
from batchscore.models.validate import Frozen

CARD = "model.yaml"
DType = Literal["float16", "float32", "float64", "int8", "uint8", "int16", "int32", "int64", "bool"]
InputType = DType | Literal["text"]
Size = Annotated[int, pydantic.Field(ge=1)]
Format = Annotated[str, pydantic.StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]


def _plain_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", name) or name == CARD:
        raise ValueError(
            f"{name!r} is not a plain file name (letters, digits, '_', '-', '.') in the folder"
        )
    return name


FileName = Annotated[str, pydantic.AfterValidator(_plain_name)]
Sha256 = Annotated[str, pydantic.StringConstraints(pattern="^[0-9a-f]{64}$")]
Reference = Annotated[str, pydantic.StringConstraints(pattern=r"^[^:/\\]+:[A-Za-z_][A-Za-z0-9_]*$")]


class InputTensor(Frozen):
    """One model input: its type, and its shape without the batch ([] is a scalar).

    A shape that begins with null has a length of each row's own, `max_length` at most. Rows are
    padded with `pad`; one that is longer is rejected, or cut off where `truncate` is true. A text
    has the shape [], and a row without one is rejected unless `missing` takes its place.
    `columns` and their `types` are those of the sample that the model was saved with.
    """

    type: InputType
    shape: tuple[Size | None, ...] = ()
    max_length: Annotated[int, pydantic.Field(ge=1, lt=1 << 31, strict=True)] | None = None
    pad: int | float | None = None
    truncate: bool | None = None
    missing: str | None = None
    columns: tuple[str, ...] | None = None
    types: tuple[str, ...] | None = None

    @pydantic.model_validator(mode="after")
    def _columns_fit(self) -> InputTensor:
        found, width = len(self.columns or ()), math.prod(size or 1 for size in self.shape)
        wanted = {1} if None in self.shape else {1, width}
        if self.columns is not None and found not in wanted:
            raise ValueError(
                f"columns: found {counted(found, 'column')} for shape {shape_text(self.shape)}; "
                f"expected {' or '.join(map(str, sorted(wanted)))}"
            )
        if len(self.types or ()) not in {0, found}:
            raise ValueError("types: expected the type of each of columns")
        return self

    @pydantic.model_validator(mode="after")
    def _null_and_max_length_go_together(self) -> InputTensor:
        if self.missing is not None and self.type != TEXT:
            raise ValueError(f"missing: only for type text; found {self.type}")
        if self.type == TEXT and self.shape:
            raise ValueError(f"an input of type text has shape []; found {shape_text(self.shape)}")
        if None in self.shape[1:]:
            raise ValueError(f"only the first number of shape {shape_text(self.shape)} may be null")
        given = [
            name for name in ("max_length", "pad", "truncate") if name in self.model_fields_set
        ]
        if given and None not in self.shape:
            raise ValueError(
                f"{', '.join(given)}: only for a shape that begins with null, such as [null]; "
                f"found {shape_text(self.shape)}"
            )
        if self.max_length is None and None in self.shape:
            raise ValueError(
                f"shape {shape_text(self.shape)} needs max_length, the most steps of a row: add it"
            )
        return self


def shape_text(shape: Sequence[int | None]) -> str:
    """Returns a shape as a card shows it."""
    return f"[{', '.join('null' if size is None else str(size) for size in shape)}]"


class OutputTensor(Frozen):
    """One model output: its type, and its shape without the batch ([] is a scalar)."""

    type: DType
    shape: tuple[Size, ...] = ()


class ModelCall(Frozen):
    """What of a model is called, where its format leaves a choice.

    `iterations` are the first boosting round, and the one after the last.
    """

    returns: Literal["value", "raw", "probability", "class"]
    positive: Literal[0, 1] | None = None
    iterations: tuple[int, int] | None = None


class ModelCard(Frozen):
    """What `model.yaml` says. `tolerance` is the largest difference allowed to the golden scores.

    `format` chooses the backend; `architecture` is the code that builds the model, if the backend
    needs some. `profile` is the reference that drift is measured against; `files` holds every
    file's SHA-256.
    """

    batchscore_model: Literal[1]
    name: Annotated[str, pydantic.Field(min_length=1)]
    version: Annotated[str, pydantic.Field(min_length=1)]
    format: Format
    weights: FileName
    architecture: Reference | None = None
    architecture_args: Annotated[dict[str, Any], pydantic.Field(default_factory=dict)]
    call: ModelCall | None = None
    preprocessing: FileName | None = None
    inputs: Annotated[dict[str, InputTensor], pydantic.Field(min_length=1)]
    outputs: Annotated[dict[str, OutputTensor], pydantic.Field(min_length=1)]
    golden: FileName | None = None
    evaluation: FileName | None = None
    profile: FileName | None = None
    tolerance: Annotated[float, pydantic.Field(ge=0)] = 1e-5
    files: dict[FileName, Sha256]


def model_input(name: str, declared: InputTensor, columns: tuple[str, ...]) -> ModelInput:
    """Returns a declared input with the columns that feed it."""
    shape = tuple(size for size in declared.shape if size is not None)
    types = declared.types or ()
    if declared.max_length is None:
        kind, missing = declared.type, declared.missing
        return ModelInput(name, kind, shape, columns, missing=missing, types=types)
    varying = Varying(declared.max_length, declared.pad or 0, bool(declared.truncate))
    return ModelInput(name, declared.type, shape, columns, varying, types=types)


class CardDumper(yaml.SafeDumper):
    """Writes mappings a key a line, and lists, which are shapes, in one line."""

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> Any:
        """Return a list in one line."""
        return super().represent_sequence(tag, sequence, flow_style=True)


def parse_card(text: bytes) -> dict[str, Any]:
    """Return a card's keys and values. Raises ModelError: it is no YAML, or has a key twice."""
    try:
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
            raise ModelError(f"{CARD} uses a YAML alias, which is not allowed; write it out")
        _refuse_duplicates(yaml.compose(text, Loader=yaml.SafeLoader))
        card = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ModelError(f"{CARD} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(card, dict) or not all(isinstance(key, str) for key in card):
        raise ModelError(f"{CARD} must hold keys and values, found {type(card).__name__}")
    return card


def _refuse_duplicates(node: yaml.Node | None) -> None:
    """Raise ModelError where a mapping has a key twice, of which YAML would take the last."""
    if isinstance(node, yaml.SequenceNode):
        for each in node.value:
            _refuse_duplicates(each)
    if not isinstance(node, yaml.MappingNode):
        return
    seen = set[tuple[str, str]]()
    for key, value in node.value:
        found = (str(key.tag), str(key.value))
        if found in seen:
            raise ModelError(
                f"{CARD}, line {key.start_mark.line + 1}: key {one_line(repr(key.value))} appears "
                "twice; keep one"
            )
        seen.add(found)
        _refuse_duplicates(value)
