"""Decodes images of digits to pixels, in the job and in training.

Suffixes: `_n` pixels of all images, one image after the other.
"""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

# Larger images are refused by their header, before anything is decoded.
MAX_SIDE = 28


def decode(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return `pixels`, a list of each image's own length: 0 for black to 1 for white."""
    images = [None if each is None else grey(each) for each in batch.column("image").to_pylist()]
    sizes = [0 if each is None else each.size for each in images]
    offsets = pa.array(np.cumsum([0, *sizes]), pa.int32())
    missing = pa.array([each is None for each in images], pa.bool_())
    known = [each.ravel() for each in images if each is not None]
    byte_n = np.concatenate([np.empty(0, np.uint8), *known])
    values = pa.array(byte_n.astype(np.float32) / np.float32(255))
    return pa.record_batch(
        [pa.ListArray.from_arrays(offsets, values, mask=missing)], names=["pixels"]
    )


def grey(content: bytes) -> NDArray[np.uint8]:
    """Return the pixels (height, width) of a PNG file.

    Raises:
        OSError, SyntaxError: It is no PNG file, or is damaged.
        ValueError: It is no grey image of 8 bits, or too large.
    """
    with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
        if image.mode != "L" or max(image.size) > MAX_SIDE:
            width, height = image.size
            raise ValueError(
                f"image of {width} x {height} pixels and mode {image.mode}; expected a grey one "
                f"of 8 bits, and at most {MAX_SIDE} x {MAX_SIDE}"
            )
        return np.asarray(image)
