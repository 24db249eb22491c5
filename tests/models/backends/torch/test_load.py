"""Test that weights become a network, or one clear error, and that no code hides in them."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from batchscore.errors import DeviceError, FunctionError, ModelError
from batchscore.models.backends.torch.load import load_network, resolve_device, visible_gpus
from batchscore.models.folder import read_model_folder
from tests.factory import NET, STATE, write_model, write_weights
from tests.models.backends.torch.networks import describe as single
from tests.models.backends.torch.networks import score

BUFFERED = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(2, 1)
        self.register_buffer("scale", torch.arange(1.0, 3.0), persistent=False)

    def forward(self, x):
        return self.linear(x * self.scale)
"""


def test_all_forms_of_the_same_weights_score_the_same(tmp_path: Path) -> None:
    """A model folder, a safetensors file and a .pt file of the same weights agree."""
    folder = read_model_folder(str(write_model(tmp_path / "model")))
    write_weights(tmp_path / "w.safetensors")
    digest = write_weights(tmp_path / "w.pt")
    plain = single(tmp_path, "w.safetensors")
    pickled = single(tmp_path, "w.pt", format="pt", sha256=digest)
    assert score(folder) == score(plain) == score(pickled) == [0.125, 0.625]


def test_the_older_form_of_pt_is_read(tmp_path: Path) -> None:
    """A .pt that is not a zip archive is read, too."""
    torch.save(STATE, tmp_path / "w.pt", _use_new_zipfile_serialization=False)
    model = single(tmp_path, "w.pt", format="pt", sha256=_sha(tmp_path / "w.pt"))
    assert score(model) == [0.125, 0.625]


def _sha(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


KEEPING = """
import time
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(2, 1)
        self.register_buffer("kept", torch.zeros(8, 2), persistent=False)
        self.seen = {}
        self.linear.register_forward_pre_hook(self.keep_for_a_while)
        self.linear.register_forward_hook(lambda m, i, out: self.seen.update(logit=out))

    def keep_for_a_while(self, module, inputs):
        self.kept.copy_(inputs[0])
        self.features = self.kept
        time.sleep(0.01)
        return (self.features,)

    def forward(self, x):
        self.linear(x)
        time.sleep(0.01)
        return self.seen["logit"]
"""


def test_threads_side_by_side_do_not_share_what_a_network_keeps(tmp_path: Path) -> None:
    """Attributes, buffers and what hooks keep are a thread's own; weights are there once."""
    write_weights(tmp_path / "w.safetensors")
    network = load_network(single(tmp_path, "w.safetensors", KEEPING), "cpu")
    assert network.threads(4) == 4
    tiles = [torch.full((8, 2), float(number)) for number in range(40)]

    def call(x: torch.Tensor) -> float:
        with torch.inference_mode():
            return float(network({"x": x})[0, 0])

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(call, tiles))
    assert found == [0.125 + 0.25 * number for number in range(40)]
    assert network.twins is not None
    own = network.twins.own()
    assert own is not network.module
    pairs = zip(own.parameters(), network.module.parameters(), strict=True)
    assert all(one.data_ptr() == other.data_ptr() for one, other in pairs)


SINGLE = NET + "\n\none = []\n\ndef make():\n    one or one.append(Net())\n    return one[0]\n"
RANDOM = BUFFERED.replace("torch.arange(1.0, 3.0)", "torch.rand(2)")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("net", "name"), [(SINGLE, "make"), (RANDOM, "Net")], ids=["one for all", "random"]
)
def test_a_network_that_has_no_twin_is_called_on_one_thread(
    tmp_path: Path, net: str, name: str
) -> None:
    """Where building it again gives the same parts or other numbers, threads never share it."""
    write_weights(tmp_path / "w.safetensors")
    model = single(tmp_path, "w.safetensors", net, architecture=f"net.py:{name}")
    network = load_network(model, "cpu")
    assert network.threads(4) == 1
    assert network.compiled(dynamic=False).threads(4) == 1


def test_buffers_that_are_no_weights_are_computed(tmp_path: Path) -> None:
    """A buffer that the weights do not hold has its values, not the emptiness of a meta tensor."""
    write_weights(tmp_path / "w.safetensors")
    assert score(single(tmp_path, "w.safetensors", BUFFERED)) == [-0.375, -0.375]


def test_a_network_is_ready_to_infer(tmp_path: Path) -> None:
    """It is in evaluation mode, and keeps no gradients."""
    network = load_network(read_model_folder(str(write_model(tmp_path))), "cpu")
    assert not network.module.training
    assert not any(p.requires_grad for p in network.module.parameters())


class _Bomb:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, ("exploded",)


def test_weights_that_would_run_code_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A .pt with more than tensors is refused, and what hides in it does not run."""
    monkeypatch.chdir(tmp_path)
    torch.save({"linear.weight": _Bomb()}, tmp_path / "w.pt")
    model = single(tmp_path, "w.pt", format="pt", sha256=_sha(tmp_path / "w.pt"))
    with pytest.raises(ModelError, match="could run code"):
        load_network(model, "cpu")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"linear.weight": torch.zeros(1, 2)}, "linear.bias"),
        ({**STATE, "more": torch.zeros(1)}, "more"),
        ({**STATE, "linear.weight": torch.zeros(1, 3)}, "size mismatch"),
    ],
    ids=["missing", "unexpected", "shape"],
)
def test_weights_that_do_not_fit_are_named(
    tmp_path: Path, state: dict[str, torch.Tensor], words: str
) -> None:
    """The error names what is missing, too much or of another shape."""
    safetensors.torch.save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match=words):
        load_network(single(tmp_path, "w.safetensors"), "cpu")


@pytest.mark.parametrize(
    ("net", "error", "words"),
    [
        ("Net = 1", ModelError, "is the int; expected a class or a function"),
        ("Net = dict", ModelError, "is the type dict of module builtins; expected a class"),
        ("Net = lambda: {}", ModelError, "is of type dict; expected a torch.nn.Module"),
        ("def Net(): 1 / 0", ModelError, "could not be built.*ZeroDivisionError"),
        ("import nosuchmodule", FunctionError, "nosuchmodule"),
        ("def", FunctionError, "not valid Python"),
        (NET.replace("x: torch.Tensor)", "x, y)"), ModelError, "cannot be called"),
    ],
    ids=["number", "dict", "no module", "error", "import", "syntax", "arguments"],
)
def test_architectures_that_cannot_be_used(
    tmp_path: Path, net: str, error: type[Exception], words: str
) -> None:
    """An architecture that is no module, does not build, or takes other inputs is an error."""
    write_weights(tmp_path / "w.safetensors")
    with pytest.raises(error, match=words):
        load_network(single(tmp_path, "w.safetensors", net), "cpu")


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` takes a GPU where there is one; one that is not there is an error, not a slow run."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert (resolve_device("auto"), resolve_device("cpu")) == ("cpu", "cpu")
    with pytest.raises(DeviceError, match="has 0 usable GPUs"):
        resolve_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert (resolve_device("auto"), resolve_device("cuda:1")) == ("cuda", "cuda:1")
    with pytest.raises(DeviceError, match="'cuda:2'"):
        resolve_device("cuda:2")


@pytest.mark.parametrize(
    ("device", "listed", "expected"),
    [
        ("cpu", None, ()),
        ("cuda", None, ("0", "1")),
        ("cuda", "", ("0", "1")),
        ("cuda", "3,1", ("3", "1")),
        ("cuda", "GPU-8f, GPU-2c", ("GPU-8f", "GPU-2c")),
        ("cuda", "2,9,7", ("2", "9")),
        ("cuda:1", "3,1", ("cuda:1",)),
    ],
)
def test_gpus_have_the_names_that_cuda_knows(
    device: str, listed: str | None, expected: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list that is set already is respected; of a device that was named there is one."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if listed is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    assert visible_gpus(device) == expected
