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
from batchscore.models.backends.pace import Pace
from batchscore.models.backends.torch.precision import computing
from batchscore.models.backends.torch.tiles import run_tiles

Start = Callable[[Inputs, int, "Forward"], Outputs]
"""Begins to put arrays (rows, …) of as many rows through a network."""


@dataclass(frozen=True)
class Forward:
    """How a loaded network is called.

    Args:
        call: Takes tensors (rows, …) by model input, returns what the network returns.
        outputs: What was declared; empty: one unnamed tensor is taken as `score`.
        device: Where the tensors must be.
        threads: Tiles that run side by side on the CPU, at most; each uses one thread within.
        rows: Rows per network call; fewer where rows are long.
        precision: float32, tf32, bf16 or fp16.
        begin: Puts rows through the network on a device; None: in tiles on the CPU.
        varying: The model inputs whose rows have a length of their own.
        pace: Pace of the tiles, which says how many threads they are worth.
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
        """Returns the number that pads a row of an input beyond its own numbers."""
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
            StepError: The network raised.
        """
        try:
            with torch.inference_mode(), computing(self.device, self.precision):
                return self.call(tensors)
        except (BatchscoreError, KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:
            raise StepError(f"the model raised {type(error).__name__}: {reason(error)}") from error
