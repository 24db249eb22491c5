"""torch is imported without what few networks need, and stays complete for code that needs it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

pytestmark = pytest.mark.slow

# Prints which operators have kernels for tensors without data, and what torch offers. "lean" does
# so in a fork for each way in which code may come to need what was left out.
OFFER = """
import json, os, sys

if sys.argv[1] == "lean":
    from batchscore.models.backends.torch.lean_import import import_torch
    import_torch()
import torch

FAMILY = ("torch._meta_registrations", "torch._decomp", "torch._prims", "torch._refs")

def offer():
    every = sorted(torch._C._dispatch_get_all_op_names())
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    modules = [sys.modules[each] for each in FAMILY if each in sys.modules]
    return {
        "kernels": [each for each in every if has(each, "Meta")],
        "operators": every,
        "names": sorted(dir(torch)),
        # Each module is there once, under its name and as an attribute of torch.
        "same": [vars(torch)[each.__name__.rpartition(".")[2]] is each for each in modules],
        "homes": [each.__spec__.origin for each in modules],
    }

def made():
    q, r = torch.linalg.qr(torch.empty(3, 4, device="meta"))
    assert (q.shape, r.shape) == ((3, 3), (3, 4))

def moved():
    weights = torch.nn.Linear(3, 4).to("meta").weight
    assert torch.linalg.qr(weights).R.shape == (3, 3)

def in_modes():
    class Seen(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            seen.append(function)
            return function(*args, **(kwargs or {}))
    seen = []
    with Seen():
        torch.ones(2, device="meta")
    assert seen == [torch.ones], seen

def imported():
    import torch._refs.linalg as linalg
    assert sys.modules["torch._refs"].linalg is linalg

def looked_for():
    from importlib.util import find_spec
    assert find_spec("torch._decomp").origin.endswith("torch/_decomp/__init__.py")

def asked():
    assert torch._decomp.decomposition_table

def operator_asked():
    assert torch.ops.prims.convert_element_type.default.name() == "prims::convert_element_type"

def operator_looked_for():
    assert hasattr(torch.ops.rngprims, "philox_rand")

def made_functional():
    # In place, torch tries it with tensors on meta that it makes in C++.
    found = torch.func.functionalize(lambda x: x.clone().nan_to_num_())(torch.tensor([torch.nan]))
    assert found.item() == 0

def replaced():
    library = torch.library.Library("aten", "IMPL")
    library.impl("linalg_qr", lambda a, mode="reduced": (a.new_empty(5), a.new_empty(6)), "Meta")
    q, r = torch.linalg.qr(torch.empty(3, 4, device="meta"))
    assert (q.shape, r.shape) == ((5,), (6,))

def of_the_compiler():
    import torch.fx.experimental.symbolic_shapes

def in_fork(way):
    reading, writing = os.pipe()
    if os.fork():
        os.close(writing)
        with open(reading) as file:
            return json.load(file)
    way()
    with open(writing, "w") as file:
        json.dump(offer(), file)
    os._exit(0)

if sys.argv[1] == "lean":
    left_out = [each for each in FAMILY if each in sys.modules]
    ways = (
        made, moved, in_modes, imported, looked_for, asked, operator_asked, operator_looked_for,
        made_functional, replaced, of_the_compiler,
    )
    found = {way.__name__: in_fork(way) for way in ways}
    print(json.dumps({"imported": left_out, "names": sorted(dir(torch)), "ways": found}))
else:
    print(json.dumps(offer()))
"""


def offer(how: str) -> Any:
    """What a process has that imported torch in one of two ways."""
    done = subprocess.run(
        [sys.executable, "-c", OFFER, how], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def test_what_is_left_out_is_there_for_whoever_needs_it() -> None:
    """However code comes to need it, torch then has the operators and kernels that it always has.

    It fails where another torch is installed than leaving out was tested with.
    """
    full, lean = offer("full"), offer("lean")
    assert lean["imported"] == []
    assert lean["names"] == full["names"]
    assert len(full["homes"]) == 4
    assert all(full["same"])
    for way, found in lean["ways"].items():
        if way in ("of_the_compiler", "made_functional"):  # they register more by themselves
            assert set(found["kernels"]) >= set(full["kernels"]), way
        else:
            assert found == full, way


def test_random_numbers_of_its_own_need_nothing_that_is_left_out() -> None:
    """A network may draw from a generator of its own, with the numbers of a full import."""
    numbers = []
    for lean in ("import_torch()", "None"):
        code = (
            "from batchscore.models.backends.torch.lean_import import import_torch\n"
            f"{lean}\nimport torch\n"
            "print(torch.rand(3, generator=torch.Generator().manual_seed(5)).tolist())"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        numbers.append(done.stdout or done.stderr)
    assert numbers[0] == numbers[1]
    assert numbers[0].startswith("[0.")


def test_another_torch_is_imported_in_full() -> None:
    """A version that leaving out was not tested with is imported as torch itself does it."""
    program = (
        "import sys; from batchscore.models.backends.torch import lean_import as lean; "
        "lean.TESTED = '2.0'; lean.import_torch(); print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
