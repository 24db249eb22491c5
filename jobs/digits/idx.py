"""Reads the files of MNIST: a header of sizes, then bytes, packed with gzip or not."""

from __future__ import annotations

import gzip
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

UNSIGNED_BYTES = 8


def read_split(folder: Path, name: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return images (b, height, width) and digits (b,) of `train` or `t10k`."""
    images = read_idx(find(folder, f"{name}-images", 3), 3)
    digits = read_idx(find(folder, f"{name}-labels", 1), 1)
    if len(images) != len(digits):
        raise ValueError(f"{folder}: {len(images)} images and {len(digits)} labels of {name}")
    return images, digits


def find(folder: Path, name: str, dimensions: int) -> Path:
    """Return the path of a file, by either of the names that are in use, packed or not."""
    names = [f"{name}{dot}idx{dimensions}-ubyte{end}" for dot in "-." for end in ("", ".gz")]
    found = [folder / each for each in names if (folder / each).is_file()]
    if not found:
        raise FileNotFoundError(f"{folder}: has none of {', '.join(names)}")
    return found[0]


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Return the bytes of a file as an array of as many dimensions; ValueError for another file."""
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    header = 4 + 4 * dimensions
    if len(content) < header or content[:4] != bytes([0, 0, UNSIGNED_BYTES, dimensions]):
        raise ValueError(f"{path}: is no idx file of bytes in {dimensions} dimensions")
    shape = np.frombuffer(content[4:header], ">u4").astype(int).tolist()
    if len(content) - header != math.prod(shape):
        raise ValueError(f"{path}: has {len(content) - header} bytes for {shape}; get it again")
    return np.frombuffer(content[header:], np.uint8).reshape(shape)
