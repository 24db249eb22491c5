"""Write the sample shards of digits from the images that scikit-learn brings."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold

IMAGES_SHA256 = "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"
FOLDS, SEED = 5, 0
# Of 16 levels to 255: an image that other programs show, and that gives the levels again.
BRIGHTNESS = 15
SCHEMA = pa.schema([("id", pa.int32()), ("image", pa.binary()), ("digit", pa.int8())])


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Return a grey image as the content of a PNG file."""
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG", optimize=True)
    return content.getvalue()


def main(folder: Path) -> None:
    """Write digits/fold=0 to digits/fold=4 below `folder`."""
    digits = load_digits()
    levels = digits.images.astype(np.uint8)
    found = hashlib.sha256(levels.tobytes() + digits.target.astype(np.uint8).tobytes()).hexdigest()
    if found != IMAGES_SHA256:
        raise SystemExit(f"scikit-learn has other digits, of SHA-256 {found}: use version 1.9")
    images = [png(each) for each in levels * BRIGHTNESS]
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=SEED)
    for fold, (_, rows) in enumerate(folds.split(digits.data, digits.target)):
        columns = [rows, [images[row] for row in rows], digits.target[rows]]
        table = pa.table(
            [pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)], schema=SCHEMA
        )
        target = folder / f"digits/fold={fold}/part-0.parquet"
        target.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, target, compression="zstd", use_dictionary=False)


if __name__ == "__main__":
    main(Path(__file__).parent)
