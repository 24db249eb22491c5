"""Tests of what a model's configuration may name; no test here imports Keras."""

from __future__ import annotations

import copy
import io
import json
import zipfile
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.errors import ModelError
from batchscore.models.backends.keras.configuration import checked_configuration
from batchscore.models.backends.keras.model_file import read_keras_file

DENSE: dict[str, Any] = {
    "module": "keras.layers",
    "class_name": "Dense",
    "registered_name": None,
    "config": {
        "name": "dense",
        "units": 1,
        "activation": "relu",
        "kernel_initializer": {"class_name": "GlorotUniform", "config": {"seed": None}},
        "kernel_regularizer": {"class_name": "L2", "config": {"l2": 0.1}},
        "kernel_constraint": None,
    },
    "build_config": {"input_shape": [None, 2]},
}
INPUT: dict[str, Any] = {
    "module": "keras.layers",
    "class_name": "InputLayer",
    "registered_name": None,
    "config": {"batch_shape": [None, 2], "dtype": "float32", "name": "x"},
}
MODEL: dict[str, Any] = {
    "module": "keras",
    "class_name": "Sequential",
    "registered_name": None,
    "config": {"name": "model", "layers": [INPUT, DENSE]},
    "compile_config": {"optimizer": {"module": "os", "class_name": "system", "config": {}}},
}


def changed(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """Returns a model whose dense layer was changed."""
    model = copy.deepcopy(MODEL)
    change(model["config"]["layers"][1])
    return model


def setting(**settings: Any) -> Callable[[dict[str, Any]], object]:
    return lambda layer: layer["config"].update(settings)


def being(**keys: Any) -> Callable[[dict[str, Any]], object]:
    return lambda layer: layer.update(keys)


def archive(
    configuration: Any, weights: bytes | None = None, extra: dict[str, bytes] | None = None
) -> bytes:
    """Returns a `.keras` file."""
    made = io.BytesIO()
    text = configuration if isinstance(configuration, bytes) else json.dumps(configuration).encode()
    members = {
        "metadata.json": b'{"keras_version": "3.15.1"}',
        "config.json": text,
        "model.weights.h5": dense_weights() if weights is None else weights,
        **(extra or {}),
    }
    with zipfile.ZipFile(made, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return made.getvalue()


def hdf5(fill: Callable[[Any], object]) -> bytes:
    made = io.BytesIO()
    with h5py.File(made, "w") as file:
        fill(file)
    return made.getvalue()


def dense_weights() -> bytes:
    return hdf5(lambda file: file.create_dataset("layers/dense/vars/0", data=np.ones((2, 1))))


def test_what_scoring_does_not_need_is_taken_out() -> None:
    """First weights are zeros, and regularizers, constraints and optimizers are left out."""
    made = checked_configuration(MODEL)
    assert "compile_config" not in made
    own = made["config"]["layers"][1]["config"]
    assert own["kernel_initializer"] == {"class_name": "Zeros", "config": {}}
    assert own["kernel_regularizer"] is None
    assert (own["activation"], own["units"]) == ("relu", 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (being(class_name="Lambda"), r"names keras\.layers\.Lambda in .*runs code of the file"),
        (being(class_name="TFSMLayer"), "TFSMLayer.*runs code"),
        (being(class_name="TorchModuleWrapper"), "TorchModuleWrapper.*runs code"),
        (being(class_name="__lambda__"), "__lambda__.*runs code"),
        (being(class_name="function", config="system"), "function.*runs code"),
        (being(class_name="StringLookup"), "StringLookup.*needs TensorFlow"),
        (being(class_name="Mine"), "names keras.layers.Mine.*none of the layers"),
        (being(class_name=["Dense"]), "none that Keras writes"),
        (being(module="os"), r"names os\.Dense.*not the one of Keras's own"),
        (being(module="keras.src.layers.core.dense"), "not the one of Keras's own"),
        (being(registered_name="Mine>Dense"), "not the one of Keras's own"),
        (setting(activation="os.system"), "has the activation os.system, which is none of"),
        (setting(activation={"class_name": "function", "config": "mine"}), "activation mine"),
        (
            setting(activation={"class_name": "function", "config": "relu", "module": "os"}),
            r"activation os\.relu",
        ),
        (setting(kernel_initializer={"class_name": "Mine", "config": {}}), "initializer Mine"),
        (setting(kernel_regularizer="mine"), "regularizer mine"),
        (setting(kernel_constraint={"class_name": "__lambda__"}), "constraint __lambda__"),
        (setting(stateful=True), "'dense' .Dense. is stateful"),
        (setting(vocabulary="/etc/passwd"), "reads the file '/etc/passwd'"),
        (setting(layer={"class_name": "Lambda", "config": {}}), "names Lambda"),
        (setting(dtype={"class_name": "QuantizedDTypePolicy", "config": {}}), "QuantizedDType"),
        (setting(dtype={"class_name": "DTypePolicy", "config": {"name": "int8"}}), "with 'int8'"),
        (setting(x={"class_name": "__numpy__", "config": {"dtype": "S99"}}), "constant of 'S99'"),
        (setting(x={"class_name": "__tensor__", "config": {"dtype": "object"}}), "constant of"),
        (setting(time_major=True), "time before rows"),
    ],
)
def test_what_may_run_code_is_refused(
    change: Callable[[dict[str, Any]], object], message: str
) -> None:
    """So is what reads files, draws random numbers, or keeps something from row to row."""
    with pytest.raises(ModelError, match=message):
        read_keras_file(archive(changed(change)))


def test_a_layer_that_keras_2_calls_as_in_training_is_refused() -> None:
    """Its scores depend on chance there. Keras 3 scores without, whatever its file says."""
    model = changed(being(inbound_nodes=[{"kwargs": {"training": True}}]))
    with pytest.raises(ModelError, match="called with training=True also when Keras 2 scores"):
        checked_configuration(model, 2)
    (node,) = checked_configuration(model)["config"]["layers"][1]["inbound_nodes"]
    assert node == {"kwargs": {"training": False}}


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["class_name", "config", "module", "name", "activation", "layers", "dtype"]
            )
            | st.text(max_size=3),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.sampled_from(["config", "class_name", "module", "build_config", "name"]), _values)
def test_any_configuration_is_read_or_refused(key: str, value: Any) -> None:
    """Whatever it holds, it ends in facts or in a message."""
    for change in (being(**{key: value}), setting(**{key: value})):
        with suppress(ModelError):
            read_keras_file(archive(changed(change)))
    with suppress(ModelError):
        read_keras_file(archive({**MODEL, key: value}))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04junk", "damaged archive of Keras"),
        (archive(b"{"), "its configuration is no JSON"),
        (archive(b"[" * 200_000), "its configuration is no JSON"),
        (archive({"class_name": "Mine", "module": "mine"}), "of 'Mine', and expected was"),
        (archive([1]), "of 'list', and expected was"),
        (archive(MODEL, extra={"more.pkl": b""}), "the archive holds metadata.json"),
        (archive(MODEL, extra={"assets/a/vocabulary.txt": b"x"}), "it holds 'assets/a/vocab"),
        (archive(MODEL, weights=b"junk"), "no HDF5 file"),
    ],
)
def test_other_archives_are_refused(content: bytes, message: str) -> None:
    """Each ends in one message."""
    with pytest.raises(ModelError, match=message):
        read_keras_file(content)


def test_a_damaged_directory_is_refused() -> None:
    """A place before the file's start, and a member that says it is encrypted."""
    content = archive(MODEL)
    entry, end = content.index(b"PK\x01\x02"), content.index(b"PK\x05\x06")
    for place, byte in ((entry + 8, 1), (end + 19, 0x7F)):
        spoilt = content[:place] + bytes([byte]) + content[place + 1 :]
        with pytest.raises(ModelError, match="damaged archive of Keras"):
            read_keras_file(spoilt)


def test_a_zip_bomb_is_not_unpacked() -> None:
    """Keras compresses nothing, so a compressed member is refused before it is read."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as file:
        for name in ("metadata.json", "config.json", "model.weights.h5"):
            file.writestr(name, b" " * 10_000_000)
    with pytest.raises(ModelError, match=r"metadata\.json is compressed, or declared larger"):
        read_keras_file(made.getvalue())


def test_many_levels_are_refused() -> None:
    """A configuration within configurations takes no memory or time that grows with its depth."""
    inner: Any = 1
    for _ in range(500):
        inner = {"class_name": "Dense", "config": {"a": inner}}
    with pytest.raises(ModelError, match="more than 100 levels"):
        checked_configuration(changed(setting(x=inner)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": "string"}, "takes texts, which only layers with TensorFlow read"),
        ({"dtype": "complex64"}, "is of 'complex64'"),
        ({"batch_shape": [None, -1]}, "does not say what the model's inputs and outputs are"),
        ({"batch_shape": "xy"}, "does not say what the model's inputs and outputs are"),
    ],
)
def test_inputs_that_no_table_fills_are_refused(change: dict[str, Any], message: str) -> None:
    """The message names the input."""
    model = copy.deepcopy(MODEL)
    model["config"]["layers"][0]["config"].update(change)
    with pytest.raises(ModelError, match=message):
        read_keras_file(archive(model))
