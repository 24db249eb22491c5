"""Writes a program of torch.export in memory to a model folder, with its own scores of a sample."""

from __future__ import annotations

import io
from contextlib import AbstractContextManager
from typing import Any

import pyarrow as pa
import torch

from batchscore.errors import ModelError
from batchscore.messages.wording import reason, type_of
from batchscore.models.backends.calling import Calls
from batchscore.models.backends.saving import Asked, Draft, Saver
from batchscore.models.backends.tensor_saving import draft_of_tensors, tensor_card
from batchscore.models.backends.torch.exported import tile_rows
from batchscore.models.backends.torch.exported_file import read_exported
from batchscore.models.backends.torch.exported_predictor import ProgramCall, call_names
from batchscore.models.backends.torch.forward import Forward
from batchscore.models.backends.torch.save import keeping_threads

_WEIGHTS = "program.pt2"


class ExportedSaver(Saver):
    """What torch.export.export returns, as `.pt2` files."""

    unused = ("args", "call")

    def scoring(self) -> AbstractContextManager[None]:
        """Returns what gives torch its threads back."""
        return keeping_threads()

    def require_savable(self, model: Any) -> None:
        """Requires a program whose inputs are rows."""
        if not isinstance(model, torch.export.ExportedProgram):
            raise ModelError(f"model is {type_of(model)}; expected a torch.export.ExportedProgram")
        read_exported(_content(model))

    def draft(self, model: Any, rows: pa.RecordBatch, asked: Asked) -> Draft:
        """Takes the inputs of the program, and the columns that fill them."""
        return draft_of_tensors(read_exported(_content(model)).inputs, rows, asked)

    def described(
        self, model: Any, draft: Draft, asked: Asked
    ) -> tuple[dict[str, Any], dict[str, bytes]]:
        """Returns the inputs, and the file."""
        return tensor_card("pt2", _WEIGHTS, _content(model), draft)

    def calls(self, model: Any, rows: pa.RecordBatch, draft: Draft, asked: Asked) -> Calls:
        """Returns calls of the program itself, of as many rows as it takes."""
        found = read_exported(_content(model))
        names = call_names(found, tuple(asked.outputs))
        call = ProgramCall(model.module(), model.call_spec.in_spec, found, names)
        return Forward(call, (), "cpu", 1, rows=tile_rows(found))


def _content(model: Any) -> bytes:
    made = io.BytesIO()
    try:
        torch.export.save(model, made)
    except Exception as error:  # torch raises what it likes
        raise ModelError(
            f"model cannot be written by torch.export.save ({reason(error)})"
        ) from error
    return made.getvalue()


SAVER = ExportedSaver()
