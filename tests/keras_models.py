"""Networks of Keras that a process of its own builds, with Keras's own scores of some rows.

No test imports Keras for that: `python -m tests.keras_models FOLDER` does it once, as a person
would who knows nothing of batchscore.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batchscore.columnar.arrays import Array

ROOT = Path(__file__).parents[1]
ROWS = 2_000
BATCHES = (1, 7, 1024)
ALONE = 150
"""Rows that Keras scores one at a time."""
IN_H5 = ("mixed", "image")
"""Models without arithmetic between layers, and masks, which `.h5` files do not hold whole."""


def make_rows(rows: int = ROWS) -> dict[str, Array]:
    """Returns inputs of all models, by name."""
    rng = np.random.default_rng(5)
    return {
        "numbers": rng.normal(size=(rows, 6)).astype(np.float32),
        "ids": rng.integers(0, 11, (rows, 5)).astype(np.int32),
        "pixels": rng.random((rows, 8, 8, 1)).astype(np.float32),
        "steps": rng.normal(size=(rows, 4, 3)).astype(np.float32),
        "kind": rng.integers(0, 4, (rows, 1)).astype(np.int32),
    }


def make_table(rows: int = ROWS) -> pa.Table:
    """Returns a column for each number of `numbers`, and lists for others, also images."""
    made = make_rows(rows)
    columns: dict[str, Any] = {"id": np.arange(rows)}
    columns |= {f"n{place}": made["numbers"][:, place] for place in range(6)}
    for name in ("ids", "pixels", "steps"):
        flat = made[name].reshape(rows, -1)
        columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), flat.shape[1])
    return pa.table({**columns, "kind": made["kind"][:, 0].astype(np.int64)})


def write_table(path: Path) -> pa.Table:
    """Writes the rows as a person has them."""
    table = make_table()
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=700)
    return table


def build(keras: Any) -> dict[str, tuple[Any, list[str]]]:
    """Returns models by name, with the names of their inputs."""
    layers = keras.layers
    numbers = keras.Input((6,), name="numbers")
    ids = keras.Input((5,), dtype="int32", name="ids")
    x = layers.Dense(16, activation="relu", kernel_regularizer="l2")(numbers)
    x = layers.Dropout(0.3)(layers.BatchNormalization()(x))
    e = layers.Bidirectional(layers.LSTM(4))(layers.Embedding(11, 3)(ids))
    x = layers.Concatenate()([x, e, layers.LeakyReLU()(x)])
    amount = layers.Dense(1, name="amount")(x)
    classes = layers.Dense(3, activation="softmax", name="classes")(x)
    mixed = keras.Model([numbers, ids], [amount, classes])

    steps = keras.Input((4, 3), name="steps")
    kind = keras.Input((1,), dtype="int32", name="kind")
    normal = layers.Normalization()
    normal.adapt(make_rows()["steps"])
    s = layers.Conv1D(8, 2, padding="same", activation="gelu")(normal(steps))
    s = layers.LayerNormalization()(s + layers.MultiHeadAttention(2, 4)(s, s))
    s = layers.GlobalAveragePooling1D()(layers.GRU(5, return_sequences=True)(s))
    k = layers.CategoryEncoding(num_tokens=4, output_mode="one_hot")(kind)
    attended = keras.Model(
        {"steps": steps, "kind": kind},
        {"score": layers.Dense(1, activation="sigmoid")(layers.Concatenate()([s, k]))},
    )
    image = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="pixels"),
            layers.Rescaling(2.0, offset=-1.0),
            layers.RandomFlip(),
            layers.Conv2D(8, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(16, 3, padding="same", activation="relu"),
            layers.Flatten(),
            layers.Dense(10, activation="softmax"),
        ]
    )
    texts = keras.Input((None,), dtype="int32", name="ids")
    g = layers.GRU(6)(layers.Embedding(11, 4, mask_zero=True)(texts))
    lengths = keras.Model(texts, layers.Dense(1)(g))
    return {
        "mixed": (mixed, ["numbers", "ids"]),
        "attended": (attended, ["steps", "kind"]),
        "image": (image, ["pixels"]),
        "lengths": (lengths, ["ids"]),
    }


def write(folder: Path) -> None:
    """Writes the models as both kinds of files, and what `predict` makes of all rows."""
    import keras

    keras.utils.set_random_seed(8)
    rows, scores = make_rows(), dict[str, Array]()
    for name, (model, inputs) in build(keras).items():
        _vary(model)
        given: Any = {each: rows[each] for each in inputs}
        if name in IN_H5:
            model.save(folder / f"{name}.h5")
        if name != "attended":
            given = [*given.values()] if len(inputs) > 1 else given[inputs[0]]
        model.save(folder / f"{name}.keras")
        for size in BATCHES:
            some = _first(given, ALONE) if size == 1 else given
            made = model.predict(some, batch_size=size, verbose=0)
            if isinstance(made, dict):
                made = made["score"]
            parts = made if isinstance(made, list) else [made]
            scores |= {f"{name}-{size}-{place}": part for place, part in enumerate(parts)}
    np.savez(folder / "scores.npz", **scores)  # type: ignore[arg-type]


def _first(given: Any, rows: int) -> Any:
    if isinstance(given, dict):
        return {key: each[:rows] for key, each in given.items()}
    return [each[:rows] for each in given] if isinstance(given, list) else given[:rows]


def _vary(model: Any) -> None:
    """Gives each weight other numbers than those that it begins with, as training does."""
    rng = np.random.default_rng(4)
    for each in model.weights:
        value = np.asarray(each)
        if value.dtype.kind == "f" and value.ndim:
            each.assign(value + rng.random(value.shape).astype(value.dtype) * 0.1)


def built(folder: Path) -> Path:
    """Returns the folder with what a process of its own has built and scored."""
    environment = {**os.environ, "KERAS_BACKEND": "torch", "KERAS_HOME": str(folder / "home")}
    command = [sys.executable, "-m", "tests.keras_models", str(folder)]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    return folder


if __name__ == "__main__":
    write(Path(sys.argv[1]))
