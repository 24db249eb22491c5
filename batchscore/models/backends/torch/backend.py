"""The torch backend as the registry knows it; torch itself is imported when it is needed."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING

from batchscore.models.backends.facts import (
    DEFAULT_KERNELS,
    Call,
    Facts,
    KernelTrial,
    RowTrial,
    Sample,
)
from batchscore.models.backends.protocol import Backend, Predictor
from batchscore.models.backends.tree_files import importing
from batchscore.models.loadable import localize

if TYPE_CHECKING:
    from batchscore.models.loadable import Model

_ROOM = "batchscore.models.backends.torch"


class TorchBackend(Backend):
    """Weights files (`safetensors`, `pt`), and code that builds the network that they go into."""

    packages: tuple[str, ...] = ("torch",)
    unpinned: tuple[str, ...] = ("safetensors",)
    needs_architecture = True
    other_devices = ("cuda",)
    precisions = ("float32", "tf32", "bf16", "fp16")
    compiles = True
    # `predictor.py` has them too; it imports torch.
    kernels: tuple[str, ...] = (DEFAULT_KERNELS, "onednn")
    # Buckets has it too, with the reason; here no more of torch's modules are imported.
    row_group = 64
    usual_call = "a tile of the CPU"
    preloads: tuple[str, ...] = (f"{_ROOM}.preloaded",)

    def load(self, model: Model, device: str, threads: int = 1, prove: bool = False) -> Predictor:
        """Loads the weights; `threads` counts tiles next to each other, and a tile has one."""
        with importing("torch"):
            from batchscore.models.backends.torch.load import load_network
            from batchscore.models.backends.torch.predictor import TorchPredictor

        return TorchPredictor(model, load_network(model, device, prove))

    def inspect(self, model: Model) -> Facts:
        """Says that the architecture's code runs; inputs and outputs are in the card alone."""
        return Facts(runs_code=True)

    def examine(self, model: Model) -> Facts:
        """Adds how many weights the file holds, and of which types."""
        from batchscore.models.backends.torch.counting import count_weights

        found = count_weights(localize(model) / model.weights, model)
        types = ", ".join(f"{count:,} of {kind}" for kind, count in found.types.items())
        counts = {"parameters": found.parameters, "tensors": found.tensors}
        return replace(self.inspect(model), counts=counts, said={"tensors": types})

    def prepare(self) -> None:
        """Imports torch and what calls it."""
        from batchscore.models.backends.torch.lean_import import import_torch

        with importing("torch"):
            import_torch()
            import_module(f"{_ROOM}.predictor")

    def resolve(self, asked: str) -> str:
        """Returns `cpu`, `cuda` or `cuda:N`; `auto` is a GPU if there is one."""
        with importing("torch"):
            from batchscore.models.backends.torch.load import resolve_device

        return resolve_device(asked)

    def describe(self, device: str) -> str:
        """Returns a device with the GPU's name, or the CPU's instructions."""
        from batchscore.models.backends.torch.load import describe_device

        return describe_device(device)

    def gpus(self, device: str) -> tuple[str, ...]:
        """Names the GPUs as CUDA_VISIBLE_DEVICES does."""
        from batchscore.models.backends.torch.load import visible_gpus

        return visible_gpus(device)

    def release(self, device: str) -> None:
        """Returns GPU memory that this process does not use."""
        from batchscore.models.backends.torch.measure import release_memory

        release_memory(device)

    def scores_as_earlier(self, model: Model) -> bool:
        """Tells whether casting weights to the network's types leaves scores as they were."""
        from batchscore.models.backends.torch.earlier import scores_as_earlier

        return scores_as_earlier(model)

    def known_rows(self, model: Model, call: Call) -> tuple[int | None, str]:
        """Returns a tile on the CPU; on a GPU what an earlier run found, or None."""
        if not call.device.startswith("cuda"):
            return call.rows, self.usual_call
        from batchscore.models.backends.torch.predictor import call_key
        from batchscore.models.backends.torch.tuning import remembered_rows

        return remembered_rows(call_key(model, call), call.batch_rows), (
            "remembered from an earlier run"
        )

    def remember_rows(self, model: Model, call: Call, rows: int) -> None:
        """Writes the rows to the user's cache folder."""
        from batchscore.models.backends.torch.predictor import call_key
        from batchscore.models.backends.torch.tuning import remember_rows

        remember_rows(call_key(model, call), rows)

    def known_kernels(self, model: Model, call: Call) -> KernelTrial | None:
        """Reads what the user's cache folder remembers of the model, this machine and torch."""
        from batchscore.models.backends.torch.kernel_trial import recall_trial

        return recall_trial(model, call, self.kernels)

    def remember_kernels(self, model: Model, call: Call, trial: KernelTrial) -> None:
        """Writes a trial to the user's cache folder."""
        from batchscore.models.backends.torch.kernel_trial import remember_trial

        remember_trial(model, call, self.kernels, trial)

    def trial(self, sample: Sample) -> RowTrial:
        """Returns rows that fill a tile or two of one shape, which is smaller than the run's."""
        from batchscore.models.backends.torch.trial_rows import pick

        return pick(sample)


BACKEND = TorchBackend()
