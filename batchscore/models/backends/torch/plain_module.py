"""A loaded torch module without code of ours around it, called in tiles or on a device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from batchscore.columnar.array_type import Array
from batchscore.columnar.ragged import Ragged
from batchscore.models.backends.facts import Call, Inputs, OutputSpec, Promises
from batchscore.models.backends.pace import WORTH_S, Pace
from batchscore.models.backends.protocol import Predictor
from batchscore.models.backends.torch.forward import Forward
from batchscore.models.backends.torch.load import describe_device
from batchscore.models.backends.torch.measure import find_rows, first_rows
from batchscore.models.backends.torch.micro_batch import MicroBatches
from batchscore.models.backends.torch.staging import Staging
from batchscore.models.loadable import Model


@dataclass(frozen=True)
class ModulePredictor(Predictor):
    """A module with the card that it was loaded by; several threads may call it.

    Args:
        model: What the card says.
        call: Takes tensors (rows, …) by input, returns what the module returns.
        device: Where it is.
        rows: Rows of a tile on the CPU.
        is_fixed: Whether the module takes so many rows and no other number.
        version: Of what computes.
    """

    model: Model
    call: Callable[[dict[str, torch.Tensor]], Any]
    device: str
    rows: int
    is_fixed: bool
    version: str

    @property
    def promises(self) -> Promises:
        """Tiles of one shape, one thread each."""
        return Promises(self.rows, True, "nan", self.device, 1, self.version)

    def __call__(self, inputs: Inputs) -> Mapping[str, Array]:
        """Returns the outputs of any number of rows, computed in tiles."""
        first = next(iter(inputs.values()))
        count = len(first.lengths_b if isinstance(first, Ragged) else first)
        return self._called_for(self.rows).predict(inputs, count)()

    def call_few(self, inputs: Inputs, rows: int) -> Mapping[str, Any]:
        """Returns the outputs of a few rows, in one call that is not filled up."""
        return self._called_for(rows).predict(inputs, rows)()

    def _called_for(self, rows: int) -> Forward:
        varying = {each.name: each.varying for each in self.model.inputs if each.varying}
        declared = self.model.outputs
        outputs = tuple(OutputSpec(each.name, each.dtype, each.shape) for each in declared)
        return self.called(Call(outputs, self.device, rows=rows, varying=varying))

    def called(self, call: Call) -> Forward:
        """Returns how a run calls the module: in micro-batches on a GPU, in tiles on the CPU."""
        begin = None
        if call.device.startswith("cuda"):
            name = f"model {self.model.name!r} on {describe_device(call.device)}"
            begin = MicroBatches(Staging(call.device), name, call.halved).begin
        return Forward(
            self.call,
            call.outputs,
            call.device,
            call.threads,
            self.rows if self.is_fixed else call.rows,
            call.precision,
            begin,
            call.varying,
            # One short tile tells nothing of long ones.
            pace=Pace(0.0 if call.varying else WORTH_S),
        )

    def best_rows(self, call: Call, inputs: Inputs, rows: int) -> int:
        """Returns the rows of the fastest call that fits into a GPU's memory."""
        if self.is_fixed:
            return self.rows
        return find_rows(self.called(call), inputs, rows, first_rows(inputs, rows))
