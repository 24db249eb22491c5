"""A torch network in memory to what a model folder holds of it: code, weights, and its calls."""

from __future__ import annotations

import inspect
import json
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from batchscore.columnar.ragged import Varying
from batchscore.errors import ModelError
from batchscore.messages.wording import reason, type_of
from batchscore.models.backends.calling import Calls
from batchscore.models.backends.torch.forward import Forward
from batchscore.models.backends.torch.load import Network
from batchscore.models.imported import imported_files

_PLACES = ("stdlib", "platstdlib", "purelib", "platlib")


@dataclass(frozen=True)
class NetworkCode:
    """Where a network's class is found again.

    Args:
        architecture: `file.py:Class`, or `module:Class` of an installed package.
        sources: The files that hold the class, by name; none for an installed one.
    """

    architecture: str
    sources: Mapping[str, bytes]


@contextmanager
def keeping_threads() -> Iterator[None]:
    """Gives torch back the number of threads that it had: scoring sets it to one."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def require_savable(module: Any) -> None:
    """Checks that a network is one that can be saved: a plain one, in eval mode, on the CPU.

    Raises:
        ModelError: It is not; the message says what to do.
    """
    if not isinstance(module, torch.nn.Module):
        raise ModelError(
            f"model is {type_of(module)}; expected a torch.nn.Module, called with a tensor "
            "for each of its inputs"
        )
    if isinstance(module, torch.jit.ScriptModule) or hasattr(module, "_orig_mod"):
        raise ModelError(
            "model was compiled; save the network that was given to torch.compile or torch.jit"
        )
    if any(part.training for part in module.modules()):
        raise ModelError(
            "model is in training mode, in which dropout and batch norm give other scores; call "
            "model.eval() before saving it"
        )
    tensors = [*module.parameters(), *module.buffers()]
    device = next((each.device for each in tensors if each.device.type != "cpu"), None)
    if device is not None:
        raise ModelError(
            f"model is on {device}, and is saved from the CPU, which every machine has; call "
            "model.cpu() before saving it"
        )


def find_code(module: torch.nn.Module, args: Mapping[str, Any]) -> NetworkCode:
    """Returns where a network's class is defined, with the files that it needs.

    Args:
        args: Keyword arguments that the class is built with.

    Raises:
        ModelError: The class cannot be imported by another process, or not be built with `args`.
    """
    kind = type(module)
    if "<locals>" in kind.__qualname__ or "<lambda>" in kind.__qualname__:
        raise ModelError(
            f"model class {kind.__qualname__} is defined inside a function, where no other process "
            "finds it; define it at the top of a file, such as net.py"
        )
    if kind.__module__ == "__main__" or "." in kind.__qualname__:
        raise ModelError(
            f"model class {kind.__qualname__} is defined in a notebook, in the program itself, or "
            "in another class; move it to the top of a file of its own, such as net.py, and "
            "import it from there"
        )
    if kind.__module__.partition(".")[0] == "torch":
        raise ModelError(
            f"model is a bare {kind.__qualname__}, whose layers no file names; build the layers in "
            "the constructor of a class of your own at the top of a file, such as net.py, and save "
            "an instance of that class"
        )
    _check_args(kind, args)
    file = Path(str(getattr(sys.modules[kind.__module__], "__file__", None)))
    places = [Path(sysconfig.get_path(name)).resolve() for name in _PLACES]
    if any(file.resolve().is_relative_to(place) for place in places):
        return NetworkCode(f"{kind.__module__}:{kind.__name__}", {})
    return NetworkCode(f"{file.name}:{kind.__name__}", _sources(file))


def _check_args(kind: type[torch.nn.Module], args: Mapping[str, Any]) -> None:
    signature = inspect.signature(kind)
    try:
        signature.bind(**args)
        json.dumps(args, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ModelError(
            f"model class {kind.__qualname__}{signature} cannot be built again with args="
            f"{args} ({reason(error)}); give what its constructor was called with, made of "
            "texts, numbers, booleans, lists and dicts"
        ) from error


def _sources(file: Path) -> dict[str, bytes]:
    if file.suffix != ".py" or not file.is_file():
        raise ModelError(
            f"model class is defined in {file}, which is not a Python file; move it to a file "
            "such as net.py"
        )
    found = imported_files(str(file.parent), file.name)
    nested = next((name for name in found if "/" in name), None)
    if nested is not None:
        raise ModelError(
            f"{file} imports {nested}, and a model folder holds files without subfolders; put "
            f"what the network needs next to {file.name}, or install it as a package"
        )
    return found


def weights_of(module: torch.nn.Module) -> bytes:
    """Returns a network's state as a safetensors file; weights that are shared are stored once.

    Raises:
        ModelError: The state holds what is no dense tensor, a NaN, or parts of one another.
    """
    for name, tensor in module.state_dict().items():
        floats = isinstance(tensor, torch.Tensor) and tensor.is_floating_point()
        if floats and not torch.isfinite(tensor).all():
            raise ModelError(
                f"weights {name!r} hold NaN or infinity; save the network of an earlier epoch, or "
                "train with a lower learning rate"
            )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.safetensors"
        try:
            safetensors.torch.save_model(module, str(path))
        except Exception as error:  # safetensors raises errors of many classes
            raise ModelError(
                f"weights cannot be stored as safetensors ({reason(error)}); give each parameter "
                "and buffer memory of its own, as with .clone(), or share whole tensors"
            ) from error
        return path.read_bytes()


def float_type(module: torch.nn.Module) -> str:
    """Returns the type of a network's inputs that hold fractions: that of its first weights."""
    kinds = (each.dtype for each in module.parameters() if each.is_floating_point())
    name = str(next(kinds, torch.float32)).removeprefix("torch.")
    return name if name in ("float16", "float64") else "float32"


def forward_inputs(module: torch.nn.Module) -> tuple[list[str], list[str]]:
    """Returns the names of what `forward` must be given, and of what it may be given."""
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    found = [p for p in inspect.signature(module.forward).parameters.values() if p.kind in kinds]
    needed = [each.name for each in found if each.default is inspect.Parameter.empty]
    return needed, [each.name for each in found if each.name not in needed]


def calls_in_memory(
    module: torch.nn.Module,
    inputs: Sequence[str],
    outputs: Sequence[str],
    varying: Mapping[str, Varying],
) -> Calls:
    """Returns how a run would call a network that lies in memory.

    Args:
        module: The network, on the CPU.
        inputs: Names of the model inputs.
        outputs: Names of what it returns, in its order; empty: a dict names its own, and a single
            tensor is the score.
        varying: The inputs whose rows differ in length.
    """
    network = Network(module, tuple(inputs), "cpu")

    def call(tensors: dict[str, torch.Tensor]) -> Any:
        return _named(network(tensors), outputs)

    return Forward(call, (), "cpu", 1, varying=varying)


def _named(result: Any, outputs: Sequence[str]) -> Any:
    if isinstance(result, dict):
        missing = [name for name in outputs if name not in result]
        if missing:
            raise ModelError(
                f"outputs: the model returned {list(result)}, without {missing[0]!r}; correct the "
                "names"
            )
        return {name: result[name] for name in outputs or result}
    if len({*outputs}) < len(outputs):
        raise ModelError(f"outputs: {[*outputs]} names one twice; give each a name of its own")
    parts = result if isinstance(result, tuple | list) else (result,)
    if len(parts) != len(outputs or (0,)):
        raise ModelError(
            f"outputs: the model returned {len(parts)}, and {len(outputs)} are named; give "
            "outputs, a list with the name of each in the order that forward returns them"
        )
    return dict(zip(outputs, parts, strict=True)) if outputs else parts[0]
