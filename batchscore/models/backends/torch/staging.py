"""Rows to a device, through the network and back, each on a stream of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from batchscore.columnar.array_type import Array
from batchscore.columnar.ragged import Ragged
from batchscore.models.backends.calling import cast_output
from batchscore.models.backends.facts import Inputs, NumberInputs
from batchscore.models.backends.torch.buckets import Tile, fill_tile, tile_shape
from batchscore.models.backends.torch.outputs import (
    find_output,
    name_outputs,
    require_alike,
    row_tensor,
)

if TYPE_CHECKING:
    from batchscore.models.backends.torch.forward import Forward

_SLOTS = 2


@dataclass
class _Slot:
    """Buffers of one call, tensors (rows, …) by model input.

    Args:
        host: Page-locked where there is a GPU, so that copies run next to everything else.
        device: What the network reads.
        copied: `host` has been read.
        free: `device` has been read.
    """

    host: dict[str, torch.Tensor]
    device: dict[str, torch.Tensor]
    copied: Any
    free: Any


@dataclass
class Results:
    """Outputs of some rows, on their way back to page-locked memory.

    Args:
        rows: Rows of all calls together.
        tensors: (rows, …) by output, call after call; made with the first.
        places: Places of each call's rows among all.
        filled: Rows of the calls so far.
        last: The last copy that was started.
    """

    rows: int
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    places: list[slice | Array] = field(default_factory=list)
    filled: int = 0
    last: Any = None

    def wait(self, forward: Forward) -> dict[str, Array]:
        """Waits for the copies, and returns the outputs by row, in their declared types."""
        if self.last is not None:
            self.last.synchronize()
        return {
            name: self._in_order(cast_output(tensor.numpy(), find_output(name, forward.outputs)))
            for name, tensor in self.tensors.items()
        }

    def _in_order(self, values: Array) -> Array:
        scattered = [places for places in self.places if not isinstance(places, slice)]
        if not scattered:
            return values
        ordered = np.empty_like(values)
        ordered[np.concatenate(scattered)] = values
        return ordered


class Staging:
    """Buffers on both sides of a device, and the streams between.

    Rows go in on one stream, the network runs on a second and outputs come back on a third; two
    sets of buffers take turns, so that one call's copies overlap with another's work. Nothing
    here waits for the network: that is for who needs the results. With the device `cpu` all of it
    happens at once, in the same order.
    """

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)
        self._module: Any = torch.get_device_module(self._device)
        self._pinned = self._device.type == "cuda"
        where = {"device": self._device} if self._pinned else {}
        self._in, self._compute, self._out = (self._module.Stream(**where) for _ in range(3))
        self._slots: dict[Any, list[_Slot]] = {}

    def run(self, forward: Forward, inputs: Inputs, tile: Tile, results: Results) -> None:
        """Puts a tile's rows through the network.

        Raises:
            StepError: The network raised, or returned something of another shape, type or name.
        """
        slot = self._next_slot(inputs, tile)
        self._send(slot, forward, inputs, tile)
        with self._module.stream(self._compute):
            self._compute.wait_event(slot.copied)
            named = name_outputs(forward.run(dict(slot.device)), forward.outputs)
            # Copies: a network may return its own buffer, into which it writes with the next call.
            made = {
                name: row_tensor(name, tensor, forward.outputs, tile.rows)[: tile.kept].clone()
                for name, tensor in named.items()
            }
        slot.free = self._mark(self._compute)
        self._out.wait_event(slot.free)
        self._fetch(made, tile.kept, results)
        results.last = self._mark(self._out)
        results.places.append(tile.places)
        results.filled += tile.kept

    def clear(self) -> None:
        """Waits for the device, and releases all of its memory that is not in use."""
        self._module.synchronize(self._device)
        self._slots.clear()
        if self._pinned:
            torch.cuda.empty_cache()

    def _next_slot(self, inputs: NumberInputs, tile: Tile) -> _Slot:
        key = tuple((name, v.dtype, tile_shape(v, tile)) for name, v in inputs.items())
        slots = self._slots.setdefault(key, [])
        if len(slots) < _SLOTS:
            slots.append(self._make_slot(inputs, tile))
        else:
            slots.append(slots.pop(0))
        slots[-1].copied.synchronize()
        return slots[-1]

    def _make_slot(self, inputs: NumberInputs, tile: Tile) -> _Slot:
        host = {
            name: torch.empty(
                tile_shape(values, tile), dtype=_torch_type(values), pin_memory=self._pinned
            )
            for name, values in inputs.items()
        }
        device = {name: torch.empty_like(t, device=self._device) for name, t in host.items()}
        return _Slot(host, device, self._event(), self._event())

    def _send(self, slot: _Slot, forward: Forward, inputs: NumberInputs, tile: Tile) -> None:
        for name, values in inputs.items():
            fill_tile(values, tile, forward.pad(name), slot.host[name].numpy())
        with self._module.stream(self._in):
            self._in.wait_event(slot.free)
            for name, host in slot.host.items():
                slot.device[name].copy_(host, non_blocking=True)
        slot.copied = self._mark(self._in)

    def _fetch(self, made: Mapping[str, torch.Tensor], kept: int, results: Results) -> None:
        require_alike(results.tensors or made, made)
        with self._module.stream(self._out):
            for name, tensor in made.items():
                if name not in results.tensors:
                    results.tensors[name] = torch.empty(
                        (results.rows, *tensor.shape[1:]),
                        dtype=tensor.dtype,
                        pin_memory=self._pinned,
                    )
                into = results.tensors[name][results.filled : results.filled + kept]
                into.copy_(tensor, non_blocking=True)
                if tensor.is_cuda:
                    # It was allocated for another stream, which could give it away too early.
                    tensor.record_stream(self._out)

    def _mark(self, stream: Any) -> Any:
        """Returns an event that a stream reaches once all that it was given is done."""
        event = self._event()
        event.record(stream)
        return event

    def _event(self) -> Any:
        # A GPU's, to be waited for asleep: waiting awake would take a core from the other stages.
        return torch.cuda.Event(blocking=True) if self._pinned else self._module.Event()


def _torch_type(values: Array | Ragged) -> torch.dtype:
    return torch.from_numpy(np.empty(0, values.dtype)).dtype
