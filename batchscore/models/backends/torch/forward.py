"""How a loaded network is called, and with what precision."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from batchscore.columnar.ragged import Varying
from batchscore.errors import BatchscoreError, StepError
from batchscore.messages.wording import reason
from batchscore.models.backends.facts import TILE_ROWS, Inputs, Outputs, OutputSpec
from batchscore.models.backends.torch.pace import Pace
from batchscore.models.backends.torch.precision import computing
from batchscore.models.backends.torch.tiles import run_tiles

Start = Callable[[Inputs, int, "Forward"], Outputs]
"""Begins to put arrays (rows, …) of as many rows through a network."""


@dataclass(frozen=True)
class Forward:
    """How a loaded network is called.

    Args:
        call: takes tensors (rows, …) by model input, returns what the network returns.
        outputs: what was declared; empty: one unnamed tensor is taken as `score`.
        device: where the tensors must be.
        threads: tiles that run side by side on the CPU, at most; each uses one thread within.
        rows: that the network sees at once, in every call; fewer where rows are long.
        precision: float32, tf32, bf16 or fp16.
        begin: puts rows through the network on a device; None: in tiles on the CPU.
        varying: the model inputs whose rows have a length of their own.
        pace: of the tiles, which says how many threads they are worth.
    """

    call: Callable[[dict[str, torch.Tensor]], Any]
    outputs: tuple[OutputSpec, ...]
    device: str
    threads: int
    rows: int = TILE_ROWS
    precision: str = "float32"
    begin: Start | None = None
    varying: Mapping[str, Varying] = field(default_factory=dict)
    pace: Pace = field(default_factory=Pace)

    def pad(self, name: str) -> float:
        """Returns what stands beyond a row's own numbers in an input."""
        return self.varying[name].pad if name in self.varying else 0

    @property
    def late(self) -> bool:
        """Whether a device computes while the caller goes on."""
        return self.begin is not None

    def predict(self, inputs: Inputs, rows: int) -> Outputs:
        """Starts to put arrays (rows, …) through the network, on a device or in tiles on the CPU.

        Each call has `self.rows` rows, the last filled up by its last row. On the CPU a row's bits
        depend on nothing but its inputs, whatever the block's size and the number of threads.
        """
        if self.begin is not None:
            return self.begin(inputs, rows, self)
        made = run_tiles(inputs, rows, self)
        return lambda: made

    def take_extra_seconds(self) -> float:
        """Returns the seconds of threads next to the caller's, and sets their count to zero."""
        return self.pace.take_others_s()

    def run(self, tensors: dict[str, torch.Tensor]) -> Any:
        """Calls the network on tensors that lie on its device.

        Raises:
            StepError: the network raised.
        """
        try:
            with torch.inference_mode(), computing(self.device, self.precision):
                return self.call(tensors)
        except (BatchscoreError, KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:
            raise StepError(f"the model raised {type(error).__name__}: {reason(error)}") from error
