"""Rows in calls of one size on a device, halved for good where its memory runs out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial

import torch

from batchscore.columnar.array_type import Array
from batchscore.errors import FailedError
from batchscore.messages.wording import reason
from batchscore.models.backends.facts import Inputs, Outputs
from batchscore.models.backends.torch.buckets import Tile, cut_tiles, halve_tile
from batchscore.models.backends.torch.forward import Forward
from batchscore.models.backends.torch.staging import Results, Staging

_FAILED = "CUDA error"
_WORDS = ("CUDA out of memory", "CUDA error: out of memory", "STATUS_ALLOC_FAILED")


class MicroBatches:
    """Puts rows through a network on one device, for one thread at a time.

    Args:
        staging: The device's buffers and streams.
        name: Name of the network and the device, for an error.
        on_halved: Called with how many times the rows of a call were halved since the beginning.
    """

    def __init__(self, staging: Staging, name: str, on_halved: Callable[[int], None]) -> None:
        self._staging, self._name, self._on_halved = staging, name, on_halved
        self._halvings = 0

    def begin(self, inputs: Inputs, rows: int, forward: Forward) -> Outputs:
        """Begins to put arrays (rows, …) through the network, and returns what waits for them.

        Each call has `forward.rows` rows, fewer where they are long, the last padded. Where memory
        runs out, the calls have half of it from there on, also in later blocks: no row is lost,
        and none goes twice.

        Raises:
            StepError: The network raised, or returned something of another shape, type or name.
            FailedError: Not even one row fits, or the device failed, now or when waited for.
        """
        results = Results(rows)
        size = max(1, forward.rows >> self._halvings)
        tiles = deque(cut_tiles(inputs, rows, size, forward.varying))
        while tiles:
            if self._fits(forward, inputs, tiles[0], results):
                tiles.popleft()
            else:
                self._halve()
                tiles = deque(half for tile in tiles for half in halve_tile(tile))
        return partial(self._wait, results, forward)

    def _wait(self, results: Results, forward: Forward) -> dict[str, Array]:
        try:
            return results.wait(forward)
        except RuntimeError as error:
            raise self._device_failed(error) from error

    def _fits(self, forward: Forward, inputs: Inputs, tile: Tile, results: Results) -> bool:
        try:
            self._staging.run(forward, inputs, tile, results)
        except Exception as error:
            if is_device_failure(error):
                raise self._device_failed(error) from error
            if not is_out_of_memory(error):
                raise
            if tile.rows == 1:
                raise FailedError(
                    f"{self._name}: one row alone does not fit into the device's memory; use a "
                    "smaller model, runtime.precision bf16, a device with more memory, or cpu"
                ) from error
            return False
        return True

    def _device_failed(self, error: BaseException) -> FailedError:
        return FailedError(
            f"{self._name}: the device failed ({reason(error)}) and cannot be used any more in "
            "this process. If a model input may be out of range, such as an index of an "
            "embedding, run on the cpu, which rejects such rows"
        )

    def _halve(self) -> None:
        # Outside of the handler, whose traceback would hold on to what the network had allocated.
        self._staging.clear()
        self._halvings += 1
        self._on_halved(self._halvings)


def is_out_of_memory(error: BaseException) -> bool:
    """Tells whether a device's memory ran out, also as the cause of another error."""
    return any(
        isinstance(each, torch.OutOfMemoryError)
        or (isinstance(each, RuntimeError) and any(word in str(each) for word in _WORDS))
        for each in _chain(error)
    )


def is_device_failure(error: BaseException) -> bool:
    """Tells whether CUDA failed for another reason, after which no call of the process succeeds.

    Then no row can be found guilty: all other rows would fail too.
    """
    failed = any(isinstance(each, RuntimeError) and _FAILED in str(each) for each in _chain(error))
    return failed and not is_out_of_memory(error)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
