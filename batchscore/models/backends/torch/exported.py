"""Programs of torch.export as the registry knows them: loading one can run code of its file."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from batchscore.models.backends.facts import DEFAULT_KERNELS, TILE_ROWS, Call, Facts, KernelTrial
from batchscore.models.backends.protocol import Predictor
from batchscore.models.backends.torch.backend import TorchBackend
from batchscore.models.backends.torch.exported_file import ExportedFile, read_exported
from batchscore.models.backends.tree_files import naming_file
from batchscore.models.loadable import read_weights

if TYPE_CHECKING:
    from batchscore.models.loadable import Model


class ExportedBackend(TorchBackend):
    """Files of torch.export.save, `.pt2`."""

    unpinned = ()
    needs_architecture = False
    names_tensors = True
    files_run_code = True
    is_fragile = True
    trial_values = (0.0, 1.0)
    compiles = False
    kernels = (DEFAULT_KERNELS,)

    def inspect(self, model: Model) -> Facts:
        """Returns what the file says, and that loading it can run code."""
        found = described(read_weights(model), model)
        rows = str(found.rows) if found.rows else f"up to {found.most}" if found.most else "any"
        return Facts(
            versions={"torch": found.version},
            runs_code=True,
            taken=found.inputs,
            made=found.outputs,
            casts=True,
            counts={"parameters": found.parameters, "operators": len(found.operators)},
            said={"rows a call": rows},
        )

    def examine(self, model: Model) -> Facts:
        """Returns the same, since it is all that the file says."""
        return self.inspect(model)

    def load(self, model: Model, device: str, threads: int = 1, prove: bool = False) -> Predictor:
        """Loads the program; `threads` counts tiles next to each other, and a tile has one."""
        self.prepare()
        from batchscore.models.backends.torch.exported_predictor import load_exported

        content = read_weights(model)
        return load_exported(model, content, described(content, model), device)

    def prepare(self) -> None:
        """Imports torch and what calls it."""
        super().prepare()
        import_module("batchscore.models.backends.torch.exported_predictor")

    def scores_as_earlier(self, model: Model) -> bool:
        """Tells that no earlier version scored such a model."""
        return True

    def known_rows(self, model: Model, call: Call) -> tuple[int | None, str]:
        """Returns the rows that the program takes, or else what other torch models have."""
        found = described(read_weights(model), model)
        if found.rows is not None:
            return found.rows, "the only number that the program takes"
        if call.device == "cpu" and call.rows == TILE_ROWS:
            return tile_rows(found), self.usual_call
        return super().known_rows(model, call)

    def known_kernels(self, model: Model, call: Call) -> KernelTrial | None:
        """Tells that there is no choice."""
        return None


def tile_rows(found: ExportedFile) -> int:
    """Returns the rows of a tile on the CPU."""
    if found.rows is not None:
        return found.rows
    return TILE_ROWS if found.most is None else min(TILE_ROWS, found.most)


def described(content: bytes, model: Model) -> ExportedFile:
    """Returns what a file's content says; ModelError with its path where it cannot be loaded."""
    with naming_file(model):
        return read_exported(content)


BACKEND = ExportedBackend()
