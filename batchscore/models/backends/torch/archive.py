"""What a weights file is and what types it holds, read within bounds, without torch."""

from __future__ import annotations

import codecs
import json
import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from batchscore.errors import ModelError

# A larger index is no index of weights; safetensors allows as much.
_INDEX_BYTES = 100 << 20
_HEAD_BYTES = 512
_LOCAL_HEADER_BYTES = 30
_ZIP = b"PK"
_DATA = "data.pkl"
_TORCH_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
# What a pickle of tensors may name; of anything else it is an object's class.
_TENSOR_MODULES = ("torch", "collections", "_codecs")
_HARMLESS = {"__builtin__.set", "builtins.set"}
SAFETENSORS, TORCH = "a safetensors file", "a file of torch.save"
_STATE_DICT = "save the network's state_dict, as safetensors or with torch.save"
AGAIN = "copy or download the file again, or save the weights again"
LFS = "a pointer of Git LFS, whose file is still to be fetched"
PAGE = "a web page or XML"

_BY_HEAD = (
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes (.h5)"),
    (b"GGUF", "a GGUF file"),
    (b"\x1f\x8b", "compressed with gzip"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd"),
    (b"\xfd7zXZ", "compressed with xz"),
    (b"BZh", "compressed with bzip2"),
    (b"version https://git-lfs", LFS),
    (b"<", PAGE),
    (b"tree\nversion", "a LightGBM model"),
    (b"{", "a JSON text"),
    (b"PAR1", "a Parquet file"),
    (b"\x93NUMPY", "a NumPy array"),
)
_BY_MEMBER = (
    ("constants.pkl", "a TorchScript archive, which holds code"),
    ("serialized_exported_program.json", "a program of torch.export (.pt2)"),
    ("models/model.json", "a program of torch.export (.pt2)"),
    ("archive_format", "a program of torch.export (.pt2)"),
    ("model.weights.h5", "a Keras model (.keras)"),
    ("schema.json", "a skops archive of a scikit-learn model"),
    ("[Content_Types].xml", "an Office document"),
)


def describe_file(path: Path) -> str | None:
    """Returns what a weights file is, by its first bytes and names in it; None if unknown."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    # First of all: it begins with a size, whose bytes may be those that begin another format.
    if _is_safetensors(head):
        return SAFETENSORS
    if head.startswith(_ZIP):
        return _describe_archive(path)
    text = head.removeprefix(codecs.BOM_UTF8).lstrip()
    for magic, what in _BY_HEAD:
        if head.startswith(magic) or text.startswith(magic):
            return what
    if head[257:262] == b"ustar":
        return "a tar archive, as torch wrote before 1.6 or NeMo does"
    if head[:1] == b"\x80":
        return TORCH if head.startswith(_TORCH_MAGIC) else _describe_pickle(path)
    # An ONNX model is a protobuf message: its version, then its producer or its graph.
    return "an ONNX model" if head[:1] == b"\x08" and head[2:3] in b"\x12\x1a\x22\x3a" else None


def _describe_archive(path: Path) -> str:
    names = [info.filename for info in _members(path)]
    for member, what in _BY_MEMBER:
        if any(_is_called(name, member) for name in names):
            return what
    if any(name.endswith(".npy") for name in names):
        return "a NumPy archive (.npz)"
    if any(_is_called(name, _DATA) for name in names):
        return TORCH
    return "a zip archive that torch.save did not write"


def _is_called(name: str, member: str) -> bool:
    """Tells whether a member of an archive has a name, in whichever folder."""
    return f"/{name}".endswith(f"/{member}")


def _describe_pickle(path: Path) -> str:
    with path.open("rb") as file:
        names = sorted({name.partition(".")[0] for name in _globals(file)})
    return f"a pickle of objects of {', '.join(names[:3])}" if names else "a pickle"


def is_zipped(path: Path) -> bool:
    """Tells whether a file is a zip archive, by its first bytes."""
    with path.open("rb") as file:
        return file.read(len(_ZIP)) == _ZIP


def check_archive(path: Path) -> None:
    """Raises ModelError where a `.pt` could unpack to more than its own bytes, or holds objects.

    torch.save stores tensors uncompressed, each once; torch maps them from where they lie.
    """
    if not is_zipped(path):
        return
    members, end = _members(path), path.stat().st_size
    seen = set[str]()
    for info in sorted(members, key=lambda info: info.header_offset, reverse=True):
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


def _members(path: Path) -> list[zipfile.ZipInfo]:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.infolist()
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
        raise ModelError(
            f"weights {path}: not readable as pt (a damaged zip archive: {error}); {AGAIN}"
        ) from error


def objects_in(path: Path) -> list[str]:
    """Returns the classes and functions, other than those of tensors, that a `.pt` names."""
    with path.open("rb") as file:
        found = _globals_of_archive(file) if is_zipped(path) else list(_globals(file))
    others = {each for each in found if each.partition(".")[0] not in _TENSOR_MODULES}
    return sorted(others - _HARMLESS)


def _globals_of_archive(file: IO[bytes]) -> list[str]:
    with zipfile.ZipFile(file) as archive:
        found = next(each for each in archive.infolist() if _is_called(each.filename, _DATA))
        if found.compress_type != zipfile.ZIP_STORED:
            raise zipfile.BadZipFile("torch.save compresses nothing")  # a text in it has no limit
        with archive.open(found) as member:
            return list(_globals(member))


def _globals(file: IO[bytes]) -> Iterator[str]:
    """Yields what a pickle imports, as module.name, without running any of it."""
    texts = list[str]()
    try:
        for operation, argument, position in pickletools.genops(file):
            if position is not None and position > _INDEX_BYTES:
                return
            if operation.name == "GLOBAL":
                yield str(argument).replace(" ", ".")
            elif operation.name == "STACK_GLOBAL" and len(texts) > 1:
                yield ".".join(texts[-2:])
            elif isinstance(argument, str):
                texts = [*texts[-1:], argument]
    except (ValueError, IndexError, UnicodeDecodeError):
        return  # the loading of a damaged file says what is wrong


def find_damage(path: Path) -> str | None:
    """Returns what is wrong with a file as a whole, such as one that was cut off; None if nothing.

    Only what a copy or a download does to a file is looked for; reading it finds the rest.
    """
    size = path.stat().st_size
    if not size:
        return "the file is empty"
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        if _is_safetensors(head):
            return _safetensors_damage(file, size)
    if head.startswith(_ZIP):
        whole = zipfile.is_zipfile(path)
        return (
            None
            if whole
            else "the end of the file was not found: it was cut off, or other bytes follow"
        )
    return _prefix(path) if zipfile.is_zipfile(path) else None


def _is_safetensors(head: bytes) -> bool:
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") < _INDEX_BYTES


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
    starts = [info.header_offset for info in _members(path)]
    if not starts:
        return None
    return f"{min(starts):,} other bytes precede the zip archive that torch.save wrote"
