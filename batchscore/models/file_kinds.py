"""What a model file is, whoever wrote it: read within bounds, without running any of it."""

from __future__ import annotations

import codecs
import io
import pickletools
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from batchscore.errors import ModelError

# A larger index is no index of weights; safetensors allows as much.
INDEX_BYTES = 100 << 20
HEAD_BYTES = 512
_ZIP = b"PK"
_DATA = "data.pkl"
_TORCH_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_STOP = b"."
_CARRIERS = {"_codecs", "builtins", "collections", "copyreg", "dtype", "joblib", "ndarray", "numpy"}
_OLD_PICKLE_BYTES = 4 << 20
ZIP_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError),
    # A place before the file's start, and a member that says it is encrypted.
    *(ValueError, RuntimeError),
)
"""What `zipfile` raises for damaged archives, or for what no writer of models makes."""
AGAIN = "copy or download the file again, or save the weights again"

SAFETENSORS, TORCH = "a safetensors file", "a file of torch.save"
XGBOOST, LIGHTGBM, CATBOOST = "an XGBoost model", "a LightGBM model", "a CatBoost model"
ONNX, KERAS, HDF5 = "an ONNX model", "a Keras model (.keras)", "an HDF5 file, as Keras writes (.h5)"
TORCHSCRIPT = "a TorchScript archive, which holds code"
EXPORTED = "a program of torch.export (.pt2)"
SKOPS = "a skops archive of a scikit-learn model"
PICKLE = "a pickle"
JOBLIB = "compressed with zlib, as joblib writes"
LFS = "a pointer of Git LFS, whose file is still to be fetched"
PAGE = "a web page or XML"
PMML = "a PMML model"
HUGE = "a safetensors file that declares an index of more than 100 MB, which none has"

_FORMATS = {
    SAFETENSORS: "safetensors",
    TORCH: "pt",
    XGBOOST: "xgboost",
    LIGHTGBM: "lightgbm",
    CATBOOST: "catboost",
    ONNX: "onnx",
    KERAS: "keras",
    HDF5: "keras",
    SKOPS: "sklearn",
    EXPORTED: "pt2",
}
_BY_HEAD = (
    (b"\x89HDF\r\n\x1a\n", HDF5),
    (b"GGUF", "a GGUF file"),
    (b"CBM1", CATBOOST),
    (b"{L\x00\x00\x00\x00", XGBOOST),
    (b"\x1f\x8b", "compressed with gzip"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd"),
    (b"\xfd7zXZ", "compressed with xz"),
    (b"BZh", "compressed with bzip2"),
    (b"\x78\x01", JOBLIB),
    (b"\x78\x5e", JOBLIB),
    (b"\x78\x9c", JOBLIB),
    (b"\x78\xda", JOBLIB),
    (b"version https://git-lfs", LFS),
    (b"<", PAGE),
    (b"tree\nversion", LIGHTGBM),
    (b"tree\r\nversion", LIGHTGBM),
    (b"{", "a JSON text"),
    (b"PAR1", "a Parquet file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"binf", "an XGBoost model of the binary format before 3.1"),
)
_BY_MEMBER = (
    ("constants.pkl", TORCHSCRIPT),
    ("serialized_exported_program.json", EXPORTED),
    ("models/model.json", EXPORTED),
    ("archive_format", EXPORTED),
    ("model.weights.h5", KERAS),
    ("schema.json", SKOPS),
    ("[Content_Types].xml", "an Office document"),
)


def describe_file(path: Path) -> str | None:
    """Returns what a file is, by its first bytes and names in it; None if unknown."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    # First of all: it begins with a size, whose bytes may be those that begin another format.
    if is_safetensors(head):
        return SAFETENSORS
    if head.startswith(_ZIP):
        return _describe_archive(path)
    text = head.removeprefix(codecs.BOM_UTF8).lstrip()
    if text.startswith(b"{") and b'"learner"' in text:
        return XGBOOST
    if text.startswith(b"<") and b"<PMML" in text:
        return PMML
    for magic, what in _BY_HEAD:
        if head.startswith(magic) or text.startswith(magic):
            return what
    if head[257:262] == b"ustar":
        return "a tar archive, as torch wrote before 1.6 or NeMo does"
    if head[:1] == b"\x80":
        return TORCH if head.startswith(_TORCH_MAGIC) else _describe_pickle(path)
    # An ONNX model is a protobuf message: its version, then its producer or its graph.
    if head[:1] == b"\x08" and head[2:3] in b"\x12\x1a\x22\x3a":
        return ONNX
    if head[8:9] == b"{" and head[9:10] in b'"}':
        return HUGE
    return _describe_pickle(path) if _is_old_pickle(path) else None


def format_by_content(what: str | None) -> str | None:
    """Returns the format that a file is of, by what `describe_file` found; None for any other."""
    return _FORMATS.get(what or "")


def _describe_archive(path: Path) -> str:
    names = [info.filename for info in members(path)]
    for member, what in _BY_MEMBER:
        if any(is_called(name, member) for name in names):
            return what
    if any(name.endswith(".npy") for name in names):
        return "a NumPy archive (.npz)"
    if any(is_called(name, _DATA) for name in names):
        return TORCH
    return "a zip archive that torch.save did not write"


def is_called(name: str, member: str) -> bool:
    """Tells whether a member of an archive has a name, in whichever folder."""
    return f"/{name}".endswith(f"/{member}")


def _describe_pickle(path: Path) -> str:
    """Names what its objects are of, in their order; what carries them only where nothing else."""
    with path.open("rb") as file:
        names = [*dict.fromkeys(name.partition(".")[0] for name in names_in_pickle(file))]
    shown = [name for name in names if name not in _CARRIERS] or names
    return f"{PICKLE} of objects of {', '.join(shown[:3])}" if names else PICKLE


def _is_old_pickle(path: Path) -> bool:
    """Tells whether a file is a pickle of the first protocols, which begin with any operation."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(size - 1, 0))
        if size > _OLD_PICKLE_BYTES or file.read() != _STOP:
            return False
        file.seek(0)
        try:
            pickletools.dis(file, _Nowhere())  # which follows the stack
            return file.tell() == size
        except Exception:  # whatever a text that is none makes of it
            return False


class _Nowhere(io.StringIO):
    """Takes a text, and keeps none of it."""

    def write(self, text: str, /) -> int:
        """Returns the length of the text."""
        return len(text)


def is_zipped(path: Path) -> bool:
    """Tells whether a file is a zip archive, by its first bytes."""
    with path.open("rb") as file:
        return file.read(len(_ZIP)) == _ZIP


def members(path: Path) -> list[zipfile.ZipInfo]:
    """Returns what a zip archive holds; ModelError where it is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.infolist()
    except ZIP_DAMAGE as error:
        raise ModelError(f"{path}: is a damaged zip archive ({error}); {AGAIN}") from error


def names_in_pickle(file: IO[bytes]) -> Iterator[str]:
    """Yields what a pickle imports, as module.name, without running any of it."""
    texts = list[str]()
    try:
        for operation, argument, position in pickletools.genops(file):
            if position is not None and position > INDEX_BYTES:
                return
            if operation.name == "GLOBAL":
                yield str(argument).replace(" ", ".")
            elif operation.name == "STACK_GLOBAL" and len(texts) > 1:
                yield ".".join(texts[-2:])
            elif isinstance(argument, str):
                texts = [*texts[-1:], argument]
    except (ValueError, IndexError, UnicodeDecodeError):
        return  # the loading of a damaged file says what is wrong


def is_safetensors(head: bytes) -> bool:
    """Tells whether a file is of safetensors, by its first bytes."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") < INDEX_BYTES
