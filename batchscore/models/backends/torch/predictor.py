"""A loaded network as a predictor: NumPy arrays in and out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from batchscore.columnar.array_type import Array
from batchscore.columnar.ragged import Ragged
from batchscore.errors import ModelError
from batchscore.models.backends.facts import (
    DEFAULT_KERNELS,
    TILE_ROWS,
    Call,
    Inputs,
    KernelTrial,
    OutputSpec,
    Promises,
)
from batchscore.models.backends.pace import WORTH_S, Pace
from batchscore.models.backends.protocol import Predictor
from batchscore.models.backends.torch.forward import Forward
from batchscore.models.backends.torch.kernel_trial import time_kernels
from batchscore.models.backends.torch.load import Network, describe_device, torch_version
from batchscore.models.backends.torch.measure import find_rows, first_rows
from batchscore.models.backends.torch.micro_batch import MicroBatches
from batchscore.models.backends.torch.onednn import (
    PackedWeights,
    has_linear_layers,
    missing_onednn,
    with_onednn,
)
from batchscore.models.backends.torch.staging import Staging
from batchscore.models.loadable import Model

KERNELS = (DEFAULT_KERNELS, "onednn")


class _Altered:
    """A network's forms with other kernels than torch's own, each made when it is asked for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: dict[str, Network] = {}

    def of(self, kernels: str, network: Network) -> Network:
        """Returns the network with other kernels.

        Raises:
            ModelError: They cannot be used with it.
        """
        with self._lock:
            if kernels not in self._made:
                self._made[kernels] = _with_kernels(kernels, network)
            return self._made[kernels]

    def networks(self) -> list[Network]:
        """Returns those that were made so far."""
        with self._lock:
            return list(self._made.values())


def _with_kernels(kernels: str, network: Network) -> Network:
    why = "" if kernels in KERNELS else f"torch models know {' and '.join(KERNELS)}"
    why = why or missing_onednn()
    if not why and not has_linear_layers(network.module):
        why = "the network has no plain linear layer of float32"
    if why:
        raise ModelError(f"kernels {kernels} cannot be used: {why}")
    try:
        return network.altered(partial(with_onednn, packed=PackedWeights()))
    except ModelError as error:
        raise ModelError(f"kernels {kernels} cannot be used: {error}") from error


@dataclass(frozen=True)
class TorchPredictor(Predictor):
    """A network with the card that it was loaded by."""

    model: Model
    network: Network
    altered: _Altered = field(default_factory=_Altered, compare=False, repr=False)

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
        network, begin = self._network(call.kernels), None
        if call.device.startswith("cuda"):
            name = f"model {self.model.name!r} on {describe_device(call.device)}"
            begin = MicroBatches(Staging(call.device), name, call.halved).begin
        return Forward(
            network,
            call.outputs,
            call.device,
            network.threads(call.threads),
            call.rows,
            call.precision,
            begin,
            call.varying,
            # One short tile tells nothing of long ones.
            pace=Pace(0.0 if call.varying else WORTH_S),
        )

    def _network(self, kernels: str) -> Network:
        if kernels == DEFAULT_KERNELS:
            return self.network
        return self.altered.of(kernels, self.network)

    def compiled(self) -> TorchPredictor:
        """Returns the network compiled with its first call, once for rows of all lengths."""
        varying = any(each.varying for each in self.model.inputs)
        return TorchPredictor(self.model, self.network.compiled(dynamic=varying))

    def again(self) -> TorchPredictor:
        """Returns the network without what it kept of calls before, over the same weights."""
        return TorchPredictor(self.model, self.network.afresh())

    def enter(self) -> Callable[[], object] | None:
        """Returns what builds a thread's own network; None on a GPU, and without twins."""
        twins = self.network.twins
        if self.network.device != "cpu" or twins is None:
            return None
        return self._build_own if twins.possible() else None

    def _build_own(self) -> None:
        for network in (self.network, *self.altered.networks()):
            if network.twins is not None:
                network.twins.own()

    def best_rows(self, call: Call, inputs: Inputs, rows: int) -> int:
        """Returns the rows of the fastest call that fits into a GPU's memory."""
        return find_rows(self.called(call), inputs, rows, first_rows(inputs, rows))

    def try_kernels(self, call: Call, inputs: Inputs, rows: int) -> KernelTrial:
        """Times calls on one thread with each of the kernels that the network can use."""
        calls, why = {}, list[str]()
        for kernels in KERNELS:
            try:
                calls[kernels] = self.called(replace(call, threads=1, kernels=kernels))
            except ModelError as error:
                why.append(str(error))
        timed = time_kernels(calls, inputs, rows) if len(calls) > 1 else KernelTrial()
        return replace(timed, why="; ".join(why))


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
