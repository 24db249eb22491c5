"""A program of torch.export as it is called: in tiles of the rows that it takes."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _pytree

from batchscore.errors import ModelError
from batchscore.messages.wording import one_line, reason
from batchscore.models.backends.torch.exported import tile_rows
from batchscore.models.backends.torch.exported_file import ExportedFile
from batchscore.models.backends.torch.load import torch_version
from batchscore.models.backends.torch.plain_module import ModulePredictor
from batchscore.models.loadable import Model


@dataclass(frozen=True)
class ProgramCall:
    """Calls a program with tensors by name.

    Args:
        module: The program's module.
        form: How arguments are nested.
        found: What the file says.
        names: Names of the outputs, in its order.
    """

    module: Any
    form: Any
    found: ExportedFile
    names: tuple[str, ...]

    def __call__(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Returns what the program returns, by name."""
        flat = [self._shaped(tensors[each.name], each.shape) for each in self.found.inputs]
        args, named = _pytree.tree_unflatten(flat, self.form)
        parts, _ = _pytree.tree_flatten(self.module(*args, **named))
        return dict(zip(self.names, parts, strict=True))

    def _shaped(self, tensor: torch.Tensor, shape: Any) -> torch.Tensor:
        """Returns an input (rows, …) in the shape of the program, of the same numbers."""
        if tensor.dim() == len(shape) + 1 or shape.count(None) > 1:
            return tensor
        return tensor.reshape(len(tensor), *(-1 if size is None else size for size in shape))


def load_exported(
    model: Model, content: bytes, found: ExportedFile, device: str
) -> ModulePredictor:
    """Loads the bytes of a file.

    Raises:
        ModelError: The installed torch cannot read them, or is older than the one that wrote them.
    """
    where, here = f"{model.folder}/{model.weights}", torch_version()
    if _minor(found.version) > _minor(here):
        raise ModelError(
            f"{where}: the program was written by torch {found.version}, and {here} is installed, "
            f"which is older; install 'torch>={found.version.partition('+')[0]}'"
        )
    try:
        program = torch.export.load(io.BytesIO(content))
        module = program.module().to(device)
        form = program.call_spec.in_spec
    except Exception as error:  # torch raises what it likes
        raise ModelError(
            f"{where}: torch {here} cannot load it ({one_line(reason(error), 200)}); restore the "
            "file, or write it again with torch.export.save"
        ) from error
    names = call_names(found, tuple(each.name for each in model.outputs))
    call = ProgramCall(module, form, found, names)
    rows, is_fixed = tile_rows(found), found.rows is not None
    return ModulePredictor(model, call, device, rows, is_fixed, here)


def call_names(found: ExportedFile, declared: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the names of the outputs in the program's order: those declared, or its own.

    Raises:
        ModelError: More or fewer are declared.
    """
    own = tuple(each.name for each in found.outputs)
    if declared and len(declared) != len(own):
        raise ModelError(
            f"the program has outputs {', '.join(own)}, and {', '.join(declared)} are declared; "
            "declare each, in that order"
        )
    return own if not declared or {*own} == {*declared} else declared


def _minor(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
