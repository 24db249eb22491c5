"""What a model file of Keras says of itself, without Keras: `.keras`, a zip archive, and `.h5`."""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from batchscore.errors import ModelError
from batchscore.messages.wording import one_line
from batchscore.models.backends.facts import FileTensor
from batchscore.models.backends.keras.configuration import checked_configuration
from batchscore.models.backends.keras.hdf5 import SIGNATURE, Contents, read_hdf5
from batchscore.models.backends.keras.structure import Structure, structure_of
from batchscore.models.file_kinds import ZIP_DAMAGE

CONFIGURATION, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
_ZIP = b"PK\x03\x04"
_CONFIGURATION_BYTES = 64 << 20
_AGAIN = "restore the file, or save the model again with model.save"
_PICKLE = b"\x80"


@dataclass(frozen=True)
class KerasFile:
    """What a file says.

    Args:
        version: Of the Keras that wrote it.
        is_legacy: Whether it is an `.h5` file.
        configuration: The model's, as Keras is to see it.
        structure: Its inputs and outputs.
        parameters: Numbers among its weights.
    """

    version: tuple[int, ...]
    is_legacy: bool
    configuration: Mapping[str, Any]
    structure: Structure
    parameters: int

    @property
    def inputs(self) -> tuple[FileTensor, ...]:
        """Its inputs, in its order."""
        return self.structure.inputs


def read_keras_file(content: bytes) -> KerasFile:
    """Returns what the bytes of a model file say, once all of it was checked.

    Raises:
        ModelError: It is no model of Keras, damaged, or holds what may run code.
    """
    if content.startswith(_ZIP):
        return _archive(content)
    if content.startswith(SIGNATURE):
        return _legacy(content)
    looks = " (it looks like a pickle)" if content.startswith(_PICKLE) else ""
    raise ModelError(
        f"no model of Keras: it begins with {content[:8]!r}{looks}; expected what model.save "
        "writes to a name that ends in .keras or .h5"
    )


def weights_of(content: bytes) -> bytes:
    """Returns the HDF5 file in a `.keras` archive that was checked."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return archive.read(WEIGHTS)


def _archive(content: bytes) -> KerasFile:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            _check_members(archive.infolist(), len(content))
            given, said = _json(archive.read(CONFIGURATION)), _json(archive.read(METADATA))
            held = read_hdf5(archive.read(WEIGHTS))
    except (*ZIP_DAMAGE, KeyError) as error:
        raise ModelError(f"damaged archive of Keras ({one_line(error, 100)}); {_AGAIN}") from error
    version = _version(said.get("keras_version") if isinstance(said, dict) else None)
    if version < (3,):
        raise ModelError(
            f"written by Keras {_dotted(version)}, whose .keras files Keras 3 does not read; save "
            "it there with model.save('model.h5')"
        )
    return _described(given, version, held, False)


def _check_members(members: list[zipfile.ZipInfo], size: int) -> None:
    names = [each.filename for each in members]
    if sorted(names) != [CONFIGURATION, METADATA, WEIGHTS]:
        extra = next((name for name in names if name.startswith("assets/")), None)
        if extra:
            raise ModelError(
                f"it holds {one_line(extra, 80)!r}, such as a vocabulary, which only layers with "
                "TensorFlow read; look values up in the table, or with bs.fit_features"
            )
        raise ModelError(
            f"no model of Keras: the archive holds {one_line(', '.join(names[:5]), 120)}; expected "
            f"{CONFIGURATION}, {METADATA} and {WEIGHTS}"
        )
    for each in members:
        limit = size if each.filename == WEIGHTS else _CONFIGURATION_BYTES
        if each.compress_type != zipfile.ZIP_STORED or each.file_size > min(limit, size):
            raise ModelError(
                f"{each.filename} is compressed, or declared larger than its file, and Keras "
                f"compresses nothing; {_AGAIN}"
            )


def _legacy(content: bytes) -> KerasFile:
    held = read_hdf5(content)
    if "model_config" not in held.texts:
        raise ModelError(
            "it holds weights without the model, as model.save_weights writes; save all of it: "
            "model.save('model.keras')"
        )
    version = _version(held.texts.get("keras_version", b"").decode(errors="replace"))
    return _described(_json(held.texts["model_config"]), version, held, True)


def _described(given: Any, version: tuple[int, ...], held: Contents, is_legacy: bool) -> KerasFile:
    configuration = checked_configuration(given, version[0])
    weights = {
        path: shape
        for path, shape in held.datasets.items()
        if not path.startswith("optimizer") and "/seed_generator" not in path
    }
    return KerasFile(
        version,
        is_legacy,
        configuration,
        structure_of(configuration),
        sum(map(math.prod, weights.values())),
    )


def _json(text: bytes) -> Any:
    if len(text) > _CONFIGURATION_BYTES:
        raise ModelError(f"its configuration has {len(text):,} bytes, and 64 MiB are the most")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        why = one_line(error, 80)
        raise ModelError(f"its configuration is no JSON ({why}); {_AGAIN}") from error


def _version(text: Any) -> tuple[int, ...]:
    parts = text.split(".")[:3] if isinstance(text, str) else []
    numbers = tuple(int(part) for part in parts if part.isdecimal() and len(part) < 6)
    if len(numbers) < 2:
        raise ModelError(f"it does not say which version of Keras wrote it; {_AGAIN}")
    return numbers


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
