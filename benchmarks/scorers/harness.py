"""What every peer is asked: to score the Parquet files of a folder, timed.

Runs in the peers' environments, so that it needs no more than Python.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

KEY = "key"
SCORE = "score"


@dataclass(frozen=True)
class Task:
    """What is to be scored.

    Args:
        source: Folder of Parquet shards.
        weights: Weights of the network, a safetensors file; next to it the same
            weights as torch saves them, `.pt`. Or a file of ONNX, XGBoost or LightGBM.
        network: The arguments that it is built with.
        target: Folder to write all columns and `score` into, as Parquet.
        features: The columns, in the model's order.
        batch_rows: Rows of a batch where the work asks for so many; None: as suits the peer.
        cores: How many there are.
        threads: Threads of the framework, where a peer calls the model once at a time.
    """

    source: str
    weights: str
    network: dict[str, Any]
    target: str
    features: list[str]
    batch_rows: int | None
    cores: int
    threads: int

    @property
    def shards(self) -> list[Path]:
        """The files to score, in order."""
        return sorted(Path(self.source).glob("*.parquet"))


def main(package: str, prepare: Callable[[Task], Callable[[], float | None]]) -> None:
    """Prepares, which is not timed, then scores; prints seconds and the package's version as JSON.

    Args:
        package: The package whose version is shown.
        prepare: Starts what has to be running and loads what scoring needs, then returns what
            scores. When that returns, all files are closed. Where more was started by it, it tells
            the time since the epoch when that was done, from which its seconds count.
    """
    score = prepare(Task(**json.loads(sys.argv[1])))
    start = time.time()
    began = score() or start
    seconds = time.time() - began
    print(json.dumps({"seconds": seconds, "version": version(package)}))
