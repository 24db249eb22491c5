"""Writes the trained network as a model folder of each format, with the same weights."""

from __future__ import annotations

import logging
import os
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

import batchscore as bs
from batchscore.models.folder import write_model_folder

# Keras computes with torch; it reads this when it is imported.
os.environ["KERAS_BACKEND"] = "torch"
import keras

# They warn of a format that is legacy, and of operators that would need torchvision.
for each in ("absl", "torch.onnx._internal.exporter._registration"):
    logging.getLogger(each).setLevel(logging.ERROR)

VERSION = "1.0.0"
# Logits reach 33, so that the last bit of one is worth 4e-6.
TOLERANCE = 1e-4


def write_models(
    out: Path, net: nn.Module, images: NDArray[np.float32], evaluation: dict[str, Any]
) -> None:
    """Write the folders `safetensors`, `onnx`, `keras` and `h5`.

    Args:
        out: Where to write them.
        net: The trained network.
        images: Rows (b, 1, side, side) for golden rows and the reference of drift.
        evaluation: How the network was evaluated.
    """
    save = partial(
        bs.save_model,
        name="digits",
        version=VERSION,
        outputs=["logits"],
        postprocess="softmax",
        evaluation=evaluation,
        tolerance=TOLERANCE,
        overwrite=True,
    )
    first, last = {"pixels": images}, {"pixels": np.moveaxis(images, 1, 3)}
    side = images.shape[-1]
    save(out / "safetensors", net, first, args={"side": side})
    save(out / "onnx", as_onnx(net, side), first)
    network = as_keras(net, side)
    saved = save(out / "keras", network, last)
    write_h5(out / "h5", network, saved)
    print(f"wrote {out}")


def write_h5(folder: Path, network: keras.Model, saved: bs.SavedModel) -> None:
    """Write the folder of a `.keras` file again, with the older format in its place.

    `bs.save_model` saves Keras models as `.keras`, also those that came as `.h5`.
    """
    card = {key: saved.card[key] for key in saved.card.keys() - {"batchscore_model", "files"}}
    kept = saved.card["files"].keys() - {card["weights"]}
    files = {name: (saved.folder / name).read_bytes() for name in kept}
    with TemporaryDirectory() as place:
        file = Path(place, "model.h5")
        network.save(file)
        files[file.name] = file.read_bytes()
    write_model_folder(str(folder), card | {"weights": "model.h5"}, files)


def as_onnx(net: nn.Module, side: int) -> onnx.ModelProto:
    """Return the network as ONNX, for any number of rows."""
    rows = torch.export.Dim("rows", min=1)
    exported = torch.onnx.export(
        net,
        (torch.zeros(2, 1, side, side),),
        dynamo=True,
        input_names=["pixels"],
        output_names=["logits"],
        dynamic_shapes=({0: rows},),
        verbose=False,
    )
    assert exported is not None
    model = exported.model_proto
    # The exporter notes where in which file each node was made.
    for node in model.graph.node:
        del node.metadata_props[:]
    return model


def as_keras(net: nn.Module, side: int) -> keras.Model:
    """Return the network as Keras builds it, which has an image's channels last."""
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((side, side, 1), name="pixels"),
            layers.Conv2D(32, 3, padding="same", activation="relu", name="conv1"),
            layers.MaxPooling2D(name="pool1"),
            layers.Conv2D(64, 3, padding="same", activation="relu", name="conv2"),
            layers.MaxPooling2D(name="pool2"),
            layers.Conv2D(64, 3, padding="same", activation="relu", name="conv3"),
            layers.Flatten(name="flatten"),
            layers.Dense(64, activation="relu", name="dense1"),
            layers.Dense(10, name="logits"),
        ],
        name="digits",
    )
    own = {name: array.numpy() for name, array in net.state_dict().items()}
    for name in ("conv1", "conv2", "conv3"):
        # From (out, in, height, width).
        kernel = own[f"{name}.weight"].transpose(2, 3, 1, 0)
        model.get_layer(name).set_weights([kernel, own[f"{name}.bias"]])
    # torch flattens channels, height, width; Keras height, width, channels.
    width, _ = own["dense1.weight"].shape
    cells = own["dense1.weight"].reshape(width, 64, side // 4, side // 4)
    kernel = cells.transpose(2, 3, 1, 0).reshape(-1, width)
    model.get_layer("dense1").set_weights([kernel, own["dense1.bias"]])
    model.get_layer("logits").set_weights([own["dense2.weight"].T, own["dense2.bias"]])
    return model
