"""Test that a weights file of another kind is named, and that none unpacks to more than it is."""

from __future__ import annotations

import gzip
import json
import math
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch

from batchscore.errors import ModelError
from batchscore.models.backends.torch.load import load_network
from tests.factory import STATE, sha256, write_weights
from tests.models.backends.torch.networks import describe, score


class Net(torch.nn.Module):
    """A network of this file, for a pickle of the whole of it."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return a logit a row."""
        logit: torch.Tensor = self.linear(x)
        return logit


def load(path: Path, form: str = "pt") -> None:
    """Load a file as the weights of a network."""
    load_network(describe(path.parent, path.name, format=form, sha256=sha256(path)), "cpu")


def _zip(path: Path, *names: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")


def _hdf5(path: Path) -> None:
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(600))


def _npz(path: Path) -> None:
    np.savez(path.with_suffix(".npz"), a=np.zeros(2))
    path.with_suffix(".npz").rename(path)


def _onnx(path: Path) -> None:
    # ir_version 8, producer_name "pytorch", and a graph, as the format's protobuf says.
    path.write_bytes(b"\x08\x08\x12\x07pytorch" + b"\x3a\x02\x12\x00")


def _torchscript(path: Path) -> None:
    torch.jit.trace(Net().eval(), torch.zeros(1, 2)).save(str(path))


def _exported(path: Path) -> None:
    torch.export.save(torch.export.export(Net().eval(), (torch.zeros(1, 2),)), path)


def _checkpoint(path: Path) -> None:
    torch.save({"epoch": 3, "model": STATE}, path)


FOREIGN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "TorchScript": (_torchscript, "are a TorchScript archive, which holds code.*save_model"),
    "torch.export": (_exported, r"are a program of torch\.export"),
    "a whole module": (lambda p: torch.save(Net(), p), r"objects of tests\.models\.\S*Net"),
    "a whole module, old form": (
        lambda p: torch.save(Net(), p, _use_new_zipfile_serialization=False),
        "more than tensors.*save_model",
    ),
    "a checkpoint": (_checkpoint, "'epoch' is of type int.*not a checkpoint that holds one"),
    "a list": (lambda p: torch.save([STATE], p), "hold a list; expected a state_dict"),
    "HDF5": (_hdf5, r"are an HDF5 file, as Keras writes"),
    "Keras": (lambda p: _zip(p, "config.json", "model.weights.h5"), "are a Keras model"),
    "skops": (lambda p: _zip(p, "schema.json"), "are a skops archive"),
    "a zip": (lambda p: _zip(p, "notes.txt"), "zip archive that torch.save did not write"),
    "ONNX": (_onnx, "are an ONNX model"),
    "pickle": (lambda p: p.write_bytes(pickle.dumps(Path("x"))), "are a pickle of objects of path"),
    "plain pickle": (lambda p: p.write_bytes(pickle.dumps([1])), "are a pickle; expected"),
    "LightGBM": (lambda p: p.write_text("tree\nversion=v4\n"), "are a LightGBM model"),
    "JSON": (lambda p: p.write_text('{"layers": {}}'), "are a JSON text"),
    "XGBoost": (lambda p: p.write_text('{"learner": {}}'), "are an XGBoost model"),
    "Git LFS": (lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\n"), "Git LFS"),
    "Parquet": (lambda p: pq.write_table(pa.table({"a": [1]}), p), "are a Parquet file"),
    "NumPy": (_npz, r"are a NumPy archive \(\.npz\)"),
    "safetensors": (
        lambda p: p.write_bytes(safetensors.torch.save(STATE)),
        "are a safetensors file.*set format: safetensors",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(("write", "says"), FOREIGN.values(), ids=FOREIGN.keys())
def test_a_file_of_another_kind_is_named(
    tmp_path: Path, write: Callable[[Path], Any], says: str
) -> None:
    """The message says what the file is and what to save, and never to load it without checks."""
    write(tmp_path / "w.pt")
    with pytest.raises(ModelError, match=says) as caught:
        load(tmp_path / "w.pt")
    assert "weights_only" not in str(caught.value)
    assert "safe_globals" not in str(caught.value)


def test_a_pt_that_is_called_safetensors_is_named(tmp_path: Path) -> None:
    """The message for a file of torch.save says which format to set."""
    torch.save(STATE, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"are a file of torch\.save.*set format: pt"):
        load(tmp_path / "w.pt", "safetensors")


@pytest.mark.parametrize("size", [0x4B50, 0x3C, 0x7B], ids=["PK", "<", "{"])
def test_a_safetensors_file_may_begin_as_another_format(tmp_path: Path, size: int) -> None:
    """The size of its index comes first, and its bytes may be those that begin a zip archive."""
    places = {"linear.weight": (0, [1, 2]), "linear.bias": (8, [1])}
    index = {
        name: {
            "dtype": "F32",
            "shape": shape,
            "data_offsets": [start, start + 4 * math.prod(shape)],
        }
        for name, (start, shape) in places.items()
    }
    numbers = b"".join(STATE[name].numpy().tobytes() for name in places)
    text = json.dumps(index).encode()
    size += 256 * (size < len(text))
    content = size.to_bytes(8, "little") + text.ljust(size) + numbers
    (tmp_path / "w.safetensors").write_bytes(content)
    assert score(describe(tmp_path, "w.safetensors")) == [0.125, 0.625]


def _rewrite(path: Path, compression: int) -> None:
    torch.save(STATE, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressed_weights_are_refused(tmp_path: Path, compression: int) -> None:
    """torch.save compresses nothing, so what is compressed is refused before it is unpacked."""
    _rewrite(tmp_path / "w.pt", compression)
    with pytest.raises(ModelError, match=r"is compressed.*save"):
        load(tmp_path / "w.pt")


def test_an_archive_that_was_written_again_uncompressed_is_read(tmp_path: Path) -> None:
    """The rules are about size alone: another program's uncompressed zip is weights as well."""
    _rewrite(tmp_path / "w.pt", zipfile.ZIP_STORED)
    model = describe(tmp_path, "w.pt", format="pt", sha256=sha256(tmp_path / "w.pt"))
    assert score(model) == [0.125, 0.625]


def _overlap(path: Path) -> None:
    """Write an archive in which each member of the index is the one great member."""
    torch.save(STATE, path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/data/0" + "x" * 8, bytes(1 << 16))
        great = archive.infolist()[-1]
        for place in range(64):
            copy = zipfile.ZipInfo(f"archive/data/{place:09d}")
            for name in ("header_offset", "file_size", "compress_size", "CRC"):
                setattr(copy, name, getattr(great, name))
            archive.filelist.append(copy)
            archive.NameToInfo[copy.filename] = copy


def test_members_that_share_bytes_are_refused(tmp_path: Path) -> None:
    """An index that gives one part of the file many names unpacks to more than the file."""
    _overlap(tmp_path / "w.pt")
    with zipfile.ZipFile(tmp_path / "w.pt") as archive:
        unpacked = sum(info.file_size for info in archive.infolist())
    assert unpacked > 32 * (tmp_path / "w.pt").stat().st_size
    with pytest.raises(ModelError, match=r"overlaps another one.*unpacks to more"):
        load(tmp_path / "w.pt")


def test_a_member_beyond_the_file_is_refused(tmp_path: Path) -> None:
    """A size in the index that the file does not hold is refused before memory is asked for."""
    torch.save(STATE, tmp_path / "w.pt")
    content = bytearray((tmp_path / "w.pt").read_bytes())
    entry = content.index(b"PK\x01\x02")
    struct.pack_into("<II", content, entry + 20, 1 << 31, 1 << 31)
    (tmp_path / "w.pt").write_bytes(bytes(content))
    with pytest.raises(ModelError, match=r"overlaps another one|damaged zip"):
        load(tmp_path / "w.pt")


def test_a_tensor_that_is_larger_than_the_file_is_not_cast(tmp_path: Path) -> None:
    """One number that is to appear 2**50 times, in another type, is refused for its shape."""
    wide = torch.zeros(1, dtype=torch.float64).expand(1 << 50)
    torch.save({**STATE, "linear.bias": wide}, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"size mismatch for linear\.bias"):
        load(tmp_path / "w.pt")


@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_tensors_without_numbers_are_refused(tmp_path: Path) -> None:
    """A tensor of torch's device `meta`, a sparse one or a quantized one is no weight."""
    bias = STATE["linear.bias"]
    whole = torch.quantize_per_tensor(bias, 0.1, 0, torch.qint8)
    for other, says in [(bias.to("meta"), "meta"), (bias.to_sparse(), "sparse"), (whole, "qint8")]:
        torch.save({**STATE, "linear.bias": other}, tmp_path / "w.pt")
        with pytest.raises(ModelError, match=f"'linear.bias' has no plain numbers.*{says}"):
            load(tmp_path / "w.pt")


PAGE = b"\xef\xbb\xbf\n <!DOCTYPE html><title>Sign in</title>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n"
DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda whole: b"", "the file is empty; copy or download"),
    "cut off": (lambda whole: whole[:-30], "(the file|it) was cut off.*; copy or download"),
    "cut off early": (lambda whole: whole[:60], "(the file|it) was cut off.*; copy or download"),
    "compressed": (gzip.compress, "compressed with gzip.*unpack it"),
    "a web page": (lambda whole: PAGE, "a web page.*download the file itself.*login"),
    "a pointer": (lambda whole: POINTER, "a pointer of Git LFS.*git lfs pull"),
    "noise": (lambda whole: b"noise" * 9, r"the file begins with b'noisenoise.*copy or download"),
    "noise before it": (lambda whole: b"noise" + whole, "noise|5 other bytes precede"),
}


@pytest.mark.parametrize("form", ["safetensors", "pt"])
@pytest.mark.parametrize(("damage", "says"), DAMAGE.values(), ids=DAMAGE.keys())
def test_what_a_copy_or_download_did_to_a_file_is_named(
    tmp_path: Path, form: str, damage: Callable[[bytes], bytes], says: str
) -> None:
    """The message says what became of the file, and how to get it whole."""
    path = tmp_path / f"w.{form}"
    write_weights(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ModelError, match=says):
        load(path, form)


def test_bytes_around_weights_are_named(tmp_path: Path) -> None:
    """The number of bytes that precede a zip archive, or follow tensors, is in the message."""
    write_weights(tmp_path / "w.pt")
    (tmp_path / "w.pt").write_bytes(b"HTTP/1.1 200 OK" + (tmp_path / "w.pt").read_bytes())
    with pytest.raises(ModelError, match="15 other bytes precede the zip archive"):
        load(tmp_path / "w.pt")
    write_weights(tmp_path / "w.safetensors")
    with (tmp_path / "w.safetensors").open("ab") as file:
        file.write(b"end")
    with pytest.raises(ModelError, match="3 other bytes follow the tensors"):
        load(tmp_path / "w.safetensors", "safetensors")


@pytest.mark.parametrize("index", [b"[", b"[]", b'{"a": [1]}', b'{"a": {}}', b"{" * 100_000])
def test_a_damaged_index_is_refused(tmp_path: Path, index: bytes) -> None:
    """Whatever is wrong with it, the message says that the file is not readable."""
    (tmp_path / "w.safetensors").write_bytes(len(index).to_bytes(8, "little") + index)
    with pytest.raises(ModelError, match="not readable as safetensors"):
        load(tmp_path / "w.safetensors", "safetensors")
