"""A loaded network as a predictor: NumPy arrays in and out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from batchscore.columnar.arrays import Array
from batchscore.columnar.ragged import Ragged
from batchscore.models.backends.facts import TILE_ROWS, Call, Inputs, OutputSpec, Promises
from batchscore.models.backends.protocol import Predictor
from batchscore.models.backends.torch.forward import Forward
from batchscore.models.backends.torch.load import Network, describe_device, torch_version
from batchscore.models.backends.torch.measure import find_rows, first_rows
from batchscore.models.backends.torch.micro_batch import MicroBatches
from batchscore.models.backends.torch.pace import WORTH_S, Pace
from batchscore.models.backends.torch.staging import Staging
from batchscore.models.folder import Model


@dataclass(frozen=True)
class TorchPredictor(Predictor):
    """A network with the card that it was loaded by."""

    model: Model
    network: Network

    @property
    def promises(self) -> Promises:
        """Tiles of one shape, one thread each; several threads where twins are possible."""
        twins = self.network.twins
        reentrant = twins is not None and twins.possible()
        device = self.network.device
        return Promises(TILE_ROWS, reentrant, "nan", device, 1, torch_version())

    @property
    def takes_missing(self) -> bool:
        """A network may take them; what `promises` finds out takes longer than this."""
        return True

    @property
    def notes(self) -> Mapping[str, str]:
        """Says which weights were cast to the architecture's types."""
        return {"weights": self.network.casts} if self.network.casts else {}

    def __call__(self, inputs: Inputs) -> Mapping[str, Array]:
        """Returns the outputs of any number of rows, computed in tiles."""
        varying = {each.name: each.varying for each in self.model.inputs if each.varying}
        declared = self.model.outputs
        outputs = tuple(OutputSpec(each.name, each.dtype, each.shape) for each in declared)
        first = next(iter(inputs.values()))
        rows = len(first.lengths_b if isinstance(first, Ragged) else first)
        call = Call(outputs, self.network.device, varying=varying)
        return self.called(call).predict(inputs, rows)()

    def called(self, call: Call) -> Forward:
        """Returns how a run calls the network: in micro-batches on a GPU, in tiles on the CPU."""
        begin = None
        if call.device.startswith("cuda"):
            name = f"model {self.model.name!r} on {describe_device(call.device)}"
            begin = MicroBatches(Staging(call.device), name, call.halved).begin
        return Forward(
            self.network,
            call.outputs,
            call.device,
            self.network.threads(call.threads),
            call.rows,
            call.precision,
            begin,
            call.varying,
            # One short tile tells nothing of long ones.
            pace=Pace(0.0 if call.varying else WORTH_S),
        )

    def compiled(self) -> TorchPredictor:
        """Returns the network compiled with its first call, once for rows of all lengths."""
        varying = any(each.varying for each in self.model.inputs)
        return replace(self, network=self.network.compiled(dynamic=varying))

    def again(self) -> TorchPredictor:
        """Returns the network without what it kept of calls before, over the same weights."""
        return replace(self, network=self.network.afresh())

    def enter(self) -> Callable[[], object] | None:
        """Returns what builds a thread's own network; None on a GPU, and without twins."""
        twins = self.network.twins
        if self.network.device != "cpu" or twins is None:
            return None
        return twins.own if twins.possible() else None

    def best_rows(self, call: Call, inputs: Inputs, rows: int) -> int:
        """Returns the rows of the fastest call that fits into a GPU's memory."""
        return find_rows(self.called(call), inputs, rows, first_rows(inputs, rows))


def call_key(model: Model, call: Call) -> str:
    """Names all that the best number of rows a call depends on."""
    return " | ".join(
        [
            model.identity,
            describe_device(call.device),
            f"torch {torch_version()}",
            call.precision,
            "compiled" if call.compile else "not compiled",
            f"batches of {call.batch_rows}",
        ]
    )
