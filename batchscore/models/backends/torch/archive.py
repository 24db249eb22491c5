"""Whether a weights file is whole and holds tensors alone, found within bounds, without torch."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import IO, Any

from batchscore.errors import ModelError
from batchscore.models.file_kinds import (
    HEAD_BYTES,
    is_called,
    is_safetensors,
    is_zipped,
    members,
    names_in_pickle,
)

_LOCAL_HEADER_BYTES = 30
_DATA = "data.pkl"
# What a pickle of tensors may name; of anything else it is an object's class.
_TENSOR_MODULES = ("torch", "collections", "_codecs")
_HARMLESS = {"__builtin__.set", "builtins.set"}
_STATE_DICT = "save the network's state_dict, as safetensors or with torch.save"


def check_archive(path: Path) -> None:
    """Raises ModelError where a `.pt` could unpack to more than its own bytes, or holds objects.

    torch.save stores tensors uncompressed, each once; torch maps them from where they lie.
    """
    if not is_zipped(path):
        return
    end = path.stat().st_size
    seen = set[str]()
    for info in sorted(members(path), key=lambda info: info.header_offset, reverse=True):
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise ModelError(
                f"weights {path}: member {info.filename!r} is compressed, from "
                f"{info.compress_size:,} to {info.file_size:,} bytes unpacked; torch.save "
                f"compresses nothing: {_STATE_DICT}"
            )
        if info.header_offset + _LOCAL_HEADER_BYTES + info.file_size > end or info.filename in seen:
            raise ModelError(
                f"weights {path}: member {info.filename!r} overlaps another one or appears twice, "
                f"so the file unpacks to more than it holds; {_STATE_DICT}"
            )
        seen.add(info.filename)
        end = info.header_offset


def objects_in(path: Path) -> list[str]:
    """Returns the classes and functions, other than those of tensors, that a `.pt` names."""
    with path.open("rb") as file:
        found = _globals_of_archive(file) if is_zipped(path) else list(names_in_pickle(file))
    others = {each for each in found if each.partition(".")[0] not in _TENSOR_MODULES}
    return sorted(others - _HARMLESS)


def _globals_of_archive(file: IO[bytes]) -> list[str]:
    with zipfile.ZipFile(file) as archive:
        found = next(each for each in archive.infolist() if is_called(each.filename, _DATA))
        if found.compress_type != zipfile.ZIP_STORED:
            raise zipfile.BadZipFile("torch.save compresses nothing")  # a text in it has no limit
        with archive.open(found) as member:
            return list(names_in_pickle(member))


def find_damage(path: Path) -> str | None:
    """Returns what is wrong with a file as a whole, such as one that was cut off; None if nothing.

    Only what a copy or a download does to a file is looked for; reading it finds the rest.
    """
    size = path.stat().st_size
    if not size:
        return "the file is empty"
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
        if is_safetensors(head):
            return _safetensors_damage(file, size)
    if is_zipped(path):
        whole = zipfile.is_zipfile(path)
        return (
            None
            if whole
            else "the end of the file was not found: it was cut off, or other bytes follow"
        )
    return _prefix(path) if zipfile.is_zipfile(path) else None


def _safetensors_damage(file: IO[bytes], size: int) -> str | None:
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    text = file.read(length)
    if len(text) < length:
        return f"the file was cut off at {size:,} bytes, within its index of {length:,}"
    try:
        index: dict[str, Any] = json.loads(text)
        ends = [entry["data_offsets"][1] for name, entry in index.items() if name != "__metadata__"]
        whole = 8 + length + max(ends, default=0)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None  # whoever reads the index says what is wrong with it
    if size < whole:
        return f"the file was cut off, it has {size:,} of {whole:,} bytes"
    return f"{size - whole:,} other bytes follow the tensors" if size > whole else None


def _prefix(path: Path) -> str | None:
    """Tells of bytes before an archive; the zip format allows them, torch does not."""
    starts = [info.header_offset for info in members(path)]
    if not starts:
        return None
    return f"{min(starts):,} other bytes precede the zip archive that torch.save wrote"
