"""How many weights a file holds, by its index alone: without torch, and nothing is unpickled."""

from __future__ import annotations

import json
import math
import pickletools
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from batchscore.errors import ModelError
from batchscore.models.backends.torch.archive import check_archive, find_damage
from batchscore.models.file_kinds import (
    AGAIN,
    INDEX_BYTES,
    SAFETENSORS,
    describe_file,
    is_called,
    is_zipped,
)
from batchscore.models.loadable import Model

_DATA = "data.pkl"
_STORAGES = {"FloatStorage": "float32", "DoubleStorage": "float64", "LongStorage": "int64"}
_TYPES = {"F32": "float32", "F64": "float64", "F16": "float16", "BF16": "bfloat16", "I64": "int64"}


@dataclass(frozen=True)
class Weights:
    """What a weights file holds.

    Args:
        parameters: How many numbers.
        tensors: How many tensors, or pieces of memory that tensors share.
        types: How many of these are of each type.
    """

    parameters: int
    tensors: int
    types: Mapping[str, int]


def count_weights(path: Path, model: Model) -> Weights:
    """Returns how many weights a local file holds.

    Args:
        path: A file of safetensors or torch.save.
        model: Whose address messages name.

    Raises:
        ModelError: It is damaged, or its index cannot be read.
    """
    damage = find_damage(path)
    if damage is not None:
        raise ModelError(f"weights {_named(model)}: {damage}; {AGAIN}")
    try:
        with path.open("rb") as file:
            if describe_file(path) == SAFETENSORS:
                found = [*_of_safetensors(file)]
            else:
                check_archive(path)
                found = [*_of_pickle(file, is_zipped(path))]
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise ModelError(
            f"weights {_named(model)}: their index cannot be read ({type(error).__name__}); {AGAIN}"
        ) from error
    types = Counter(kind for kind, _ in found)
    return Weights(sum(size for _, size in found), len(found), dict(types.most_common()))


def _named(model: Model) -> str:
    return f"{model.folder}/{model.weights}"


def _of_safetensors(file: IO[bytes]) -> Iterator[tuple[str, int]]:
    length = int.from_bytes(file.read(8), "little")
    if length > INDEX_BYTES:
        raise ValueError("an index of more than its bound")
    index: dict[str, Any] = json.loads(file.read(length))
    for name, entry in index.items():
        if name != "__metadata__":
            kind = str(entry["dtype"])
            yield _TYPES.get(kind, kind.lower()), math.prod(int(size) for size in entry["shape"])


def _of_pickle(file: IO[bytes], zipped: bool) -> Iterator[tuple[str, int]]:
    """Yields each storage that a `.pt` names, once: its type and how many numbers it holds."""
    if not zipped:
        # The form before torch 1.6: its mark, its version and facts of the machine come before.
        for _ in range(4):
            yield from _storages(file)
        return
    with zipfile.ZipFile(file) as archive:
        found = next(each for each in archive.infolist() if is_called(each.filename, _DATA))
        with archive.open(found) as member:
            yield from _storages(member)


def _storages(file: IO[bytes]) -> Iterator[tuple[str, int]]:
    """Yields what torch.save wrote of storages: ("storage", type, key, place, size)."""
    seen, memo, last = set[str](), dict[int, str](), ""
    key, kind, size = "", "", 0
    for operation, argument, position in pickletools.genops(file):
        if position is not None and position > INDEX_BYTES:
            return
        name, given = operation.name, cast(Any, argument)
        if name.endswith("BINPUT"):
            memo[given] = last
        last = memo.get(given, "") if name.endswith("BINGET") else ""
        if name == "GLOBAL":
            last = str(given).rpartition(" ")[2]
        if last.endswith("Storage"):
            kind = last
        if name.startswith("BINUNICODE") and str(given).isdigit():
            key = str(given)
        elif name.startswith(("BININT", "LONG")):
            size = int(given)
        elif name == "BINPERSID" and key not in seen:
            seen.add(key)
            yield _STORAGES.get(kind, kind.removesuffix("Storage").lower()), size
