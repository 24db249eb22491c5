"""Tests of reading HDF5 without its library, by comparison with that library."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.errors import ModelError
from batchscore.models.backends.keras.hdf5 import read_hdf5
from batchscore.models.backends.keras.model_file import read_keras_file
from tests.models.backends.keras.test_configuration import hdf5

KERAS_2 = Path(__file__).parent / "files/keras2.h5"

_names = st.text("abcXYZ_09", min_size=1, max_size=12)
_shapes = st.lists(st.integers(0, 5), max_size=3)


@given(st.dictionaries(_names, st.dictionaries(_names, _shapes, max_size=40), max_size=20))
def test_it_finds_what_the_library_finds(groups: dict[str, dict[str, list[int]]]) -> None:
    """Groups of any number of members, datasets of any shape, and attributes."""

    def fill(file: Any) -> None:
        file.attrs["model_config"] = "long" * len(groups)
        for group, members in groups.items():
            for name, shape in members.items():
                file.create_dataset(f"{group}/{name}", data=np.zeros(shape, np.float32))

    found = read_hdf5(hdf5(fill))
    assert found.texts["model_config"] == b"long" * len(groups)
    assert found.datasets == {
        f"{group}/{name}": tuple(shape)
        for group, members in groups.items()
        for name, shape in members.items()
    }


def test_a_file_of_keras_2_is_read() -> None:
    """Its inputs, its output and the number of its weights are those that it was built with."""
    with h5py.File(KERAS_2) as file:
        sizes = list[int]()
        file["model_weights"].visititems(
            lambda _, each: sizes.append(each.size) if isinstance(each, h5py.Dataset) else None
        )
    found = read_keras_file(KERAS_2.read_bytes())
    assert found.parameters == sum(sizes)
    assert [(each.name, each.dtype, each.shape) for each in found.inputs] == [
        ("numbers", "float32", (6,)),
        ("ids", "int32", (5,)),
    ]
    assert found.structure.outputs == ("classes",)
    assert found.version == (2, 15, 0)


def _virtual(file: Any) -> None:
    layout = h5py.VirtualLayout((10**9,), "f4")
    layout[:] = h5py.VirtualSource("/etc/other.h5", "x", (10**9,))
    file.create_virtual_dataset("x", layout)


def _never_written(file: Any) -> None:
    file.create_dataset("x", (10**12,), "f4")


def _linked_again(file: Any) -> None:
    file["x"] = np.ones(3)
    file["y"] = file["x"]


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        (lambda file: file.update({"x": h5py.ExternalLink("/etc/passwd", "x")}), "of a newer form"),
        (lambda file: file.update({"x": h5py.SoftLink("/y")}), "a link in place of numbers"),
        (
            lambda file: file.create_dataset("x", (4,), "f4", external=[("/etc/passwd", 0, 16)]),
            "numbers that lie in other files",
        ),
        (_virtual, "damaged HDF5 file, or of a form that Keras does not write"),
        (lambda file: file.create_dataset("x", data=np.ones(99), chunks=(9,)), "in one piece"),
        (lambda file: file.create_dataset("x", data=np.ones(99), compression="gzip"), "compressed"),
        (lambda file: file.update({"x": np.array(["a"], h5py.string_dtype())}), "plain numbers"),
        (_never_written, "is not in the file"),
        (_linked_again, "is linked again"),
    ],
)
def test_what_keras_does_not_write_is_refused(fill: Any, message: str) -> None:
    """Nothing that leads to another file, or to more numbers than the file has bytes."""
    with pytest.raises(ModelError, match=message):
        read_hdf5(hdf5(fill))


def test_a_text_is_as_long_as_the_file_holds_it() -> None:
    """The library makes room for so many bytes before it looks: 4 GiB, of a file of a few kB."""
    text = h5py.string_dtype()
    content = hdf5(lambda file: file.attrs.create("names", ["first", "second"], dtype=text))
    heap = content.index(b"GCOL")
    place = content.index(struct.pack("<IQI", 5, heap, 2))
    spoilt = content[:place] + struct.pack("<I", 0xE0000000) + content[place + 4 :]
    assert read_hdf5(content).texts["names"] == b"first"
    with pytest.raises(ModelError, match="a text that is not in its heap"):
        read_hdf5(spoilt)


def test_an_attribute_is_as_large_as_the_file_holds_it() -> None:
    """Also one of a group, and one of plain numbers."""

    def fill(file: Any) -> None:
        file.create_group("a").attrs["sizes"] = np.full(3, 7, np.int64)

    content = hdf5(fill)
    place = content.index(struct.pack("<QQQ", 7, 7, 7)) - 16  # its size, and the largest
    counts = struct.unpack_from("<Q", content, place)
    spoilt = content[:place] + struct.pack("<Q", 1 << 40) + content[place + 8 :]
    assert counts == (3,)
    with pytest.raises(ModelError, match="'/a' has an attribute that is not in the file"):
        read_hdf5(spoilt)


def test_each_byte_may_be_zero() -> None:
    """Also one that says that a message is the shape of numbers, or their type."""
    content = hdf5(lambda file: file.update({"x": np.ones(3)}))
    messages = set[str]()
    for place in np.flatnonzero(np.frombuffer(content, np.uint8)):
        try:
            read_hdf5(content[:place] + b"\0" + content[place + 1 :])
        except ModelError as error:
            messages.add(str(error))
    assert any("'/x' has numbers without a shape, or a type" in each for each in messages)


def test_a_damaged_file_ends_in_a_message() -> None:
    """Whatever its bytes are, reading it ends, with what it holds or with a message."""
    content, rng = KERAS_2.read_bytes(), np.random.default_rng(3)
    ends = 0
    for _ in range(400):
        spoilt = bytearray(content)
        for place in rng.integers(0, 6_000, 3):
            spoilt[place] = int(rng.integers(256))
        try:
            read_keras_file(bytes(spoilt[: int(rng.integers(len(spoilt)))]))
        except ModelError:
            ends += 1
    assert ends > 100
