"""Builds a network of its architecture, without memory for weights that a file brings."""

from __future__ import annotations

import copy as copying
import random
import sys
import types
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from batchscore.errors import FunctionError, ModelError
from batchscore.messages.wording import reason
from batchscore.models.backends.torch.outside import (
    are_near,
    differences,
    hidden_module,
    numbers,
    outside,
    tensors,
)
from batchscore.models.backends.torch.sketch import Sketch, Zeros, are_held
from batchscore.models.backends.torch.weights import (
    Casts,
    State,
    copy,
    load,
    persistent,
    put,
    storages,
)
from batchscore.models.code import load_object
from batchscore.models.importing import Listed, guarding
from batchscore.models.installed import EXPECTED, require_importable
from batchscore.models.loadable import Model
from batchscore.models.verified import is_verified, load_verified

# To set so many weights takes less than a tenth of a second.
_FEW_NUMBERS = 1 << 22
# None that a network's own code is likely to set.
_SEED = 0x6B3F_91A5
_real: dict[tuple[str, str], list[Any]] = {}
"""Models, by identity and folder, whose sketch is no network to score with; and references to what
the sketch did not set."""
_starts: dict[tuple[Any, ...], Chance] = {}
"""What a model's code left of chance when it was imported, by model and edition."""
_default_types: dict[tuple[str, str], torch.dtype] = {}
"""The type of new floats before a model was first built."""


@dataclass
class Filled:
    """A network with its weights, what of them was cast to its types, and how many they are."""

    module: torch.nn.Module
    casts: Casts = field(default_factory=Casts)
    tensors: int = 0


@dataclass(frozen=True)
class Chance:
    """What the random numbers that are drawn next depend on."""

    torchs: bytes
    numpys: Any
    pythons: Any

    def set(self) -> None:
        """Lets the next random numbers depend on this."""
        torch.set_rng_state(torch.frombuffer(bytearray(self.torchs), dtype=torch.uint8))
        np.random.set_state(self.numpys)
        random.setstate(self.pythons)


def _chance() -> Chance:
    name, keys, *rest = np.random.get_state()
    numpys = (name, tuple(np.asarray(keys).tolist()), *rest)
    return Chance(torch.get_rng_state().numpy().tobytes(), numpys, random.getstate())


def _other_chance(edition: int) -> None:
    seed = _SEED + edition
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


class Blueprint:
    """How one model's network is built, as often as it is asked for.

    Args:
        model: Model that is built.
        folder: Where its files lie.
        sources: The Python files of a model folder; empty for one weights file.
        edition: Edition of their modules; the next is taken if the network is built for real.
    """

    def __init__(
        self, model: Model, folder: Path, sources: Mapping[str, bytes], edition: int = 0
    ) -> None:
        self._model, self._folder, self._sources = model, folder, sources
        self._edition = edition
        self._key = (model.identity, str(folder))
        self._sketches = self._copies = False

    def fill(self, read: Callable[[], State], keep: torch.dtype | None = None) -> Filled:
        """Returns a network with these weights: in place of its own ones, or copied into them.

        It is sketched first: weights that are replaced are not initialized, and take no memory.
        If its code computes with its first weights, or keeps them elsewhere, it is built for real.

        Args:
            read: Returns the weights, each time as the file holds them: a network may change them
                in their place when it loads them.
            keep: A type of numbers that is not cast.

        Raises:
            ModelError: It cannot be built, keeps weights out of torch's sight, or they do not fit.
        """
        state = read()
        filled = None if self._key in _real else self._sketched(state, keep)
        if filled is None and self._sketches:
            raise ModelError(
                f"architecture {self._model.architecture}: reuses parts of a network that it "
                "built before; build all parts in the constructor, new ones for each network"
            )
        self._sketches = filled is not None
        if filled is None:
            filled = self._for_real(read, keep)
        _ready(filled.module)
        return replace(filled, tensors=len(state))

    def fill_uncast(self, state: State) -> torch.nn.Module:
        """Returns a network with these weights in place of its own, of whichever types they are.

        Raises:
            ModelError: It cannot be built, or the weights do not fit.
        """
        module = self._build(4)
        load(module, state, self._model, assign=True)
        return _ready(module)

    def check_repeatable(
        self,
        module: torch.nn.Module,
        read: Callable[[], State],
        probe: Callable[[torch.nn.Module], Any],
    ) -> None:
        """Raises ModelError where another process would build a network of other numbers.

        Numbers that do not change what the network gives for a few inputs are allowed. A small
        network is also built without a sketch, which does not see all that a constructor may do.

        Args:
            module: Module that was built.
            read: Returns its weights.
            probe: Calls a network with a few inputs.
        """
        few = sum(each.numel() for each in persistent(module).values()) <= _FEW_NUMBERS
        try:
            again = self._again(2, few)
            kept = outside(again)
            arrays = differences(kept, outside(self._again(3, False))) if kept else []
        except (ModelError, FunctionError):
            return  # it cannot be built from what was never set, or not imported again
        found = arrays or differences(numbers(module), numbers(again))
        if found and not self._gives_the_same(module, read, probe, unknown=not arrays):
            raise ModelError(
                f"architecture {self._model.architecture}: {found[0]} holds other numbers each "
                "time that the network is built, and is not in the weights file, so scores would "
                "differ between processes. Register it with register_buffer and save it with the "
                "weights, or seed its random numbers there, as with torch.manual_seed"
            )

    def _again(self, edition: int, real: bool) -> torch.nn.Module:
        """Returns a network of this edition of its code; what it left unset is zero."""
        real = real or self._key in _real
        modes = [Zeros()] if real else [Zeros(), Sketch(draws=True)]
        return self._by_other_chance(edition, *modes)

    def _by_other_chance(
        self, edition: int, *modes: AbstractContextManager[Any]
    ) -> torch.nn.Module:
        """Returns a network of which all that it does not seed before it draws is another.

        Where it seeds only afterwards, the next one would draw the same again.
        """
        before = _chance()
        _other_chance(edition)
        try:
            return self._build(edition, *modes)
        finally:
            before.set()

    def _gives_the_same(
        self,
        module: torch.nn.Module,
        read: Callable[[], State],
        probe: Callable[[torch.nn.Module], Any],
        unknown: bool,
    ) -> bool:
        """Tells whether networks that were built again give what the first one gives.

        Args:
            unknown: What is returned where that cannot be known.
        """
        try:
            given = [[*tensors(probe(module))]]
            for edition in (2, 3):
                again = self._by_other_chance(edition)
                copy(again, read(), self._model)
                given.append([*tensors(probe(again.eval()))])
        except Exception:
            return unknown
        return bool(given[0]) and all(are_near(given[0], each) for each in given[1:])

    def _sketched(self, state: State, keep: torch.dtype | None) -> Filled | None:
        sketch = Sketch()
        filled = self._filled_sketch(sketch, state, keep)
        if filled is None and not self._sketches:
            _real[self._key] = sketch.unset
        return filled

    def _filled_sketch(
        self, sketch: Sketch, state: State, keep: torch.dtype | None
    ) -> Filled | None:
        try:
            module = self._build(self._edition, sketch)
            _refuse_hidden(module, self._model)
            before = storages(persistent(module).values())
            casts = put(module, state, self._model, keep)
        except _HiddenError:
            raise
        except ModelError:
            return None
        if sketch.was_read or are_held([*before, *sketch.unset]):
            return None
        return Filled(module, casts)

    def _for_real(self, read: Callable[[], State], keep: torch.dtype | None) -> Filled:
        # What the sketch left in variables of its file is not this edition's.
        module = self._build(self._edition + 1)
        _refuse_hidden(module, self._model)
        if not self._copies:
            before = storages(persistent(module).values())
            casts = put(module, read(), self._model, keep)
            if not are_held(before):
                return Filled(module, casts)
            self._copies = True
            module = self._build(self._edition + 1)
        return Filled(module, copy(module, read(), self._model))

    def _build(self, edition: int, *modes: AbstractContextManager[Any]) -> torch.nn.Module:
        model, before = self._model, _chance()
        architecture = self._architecture(edition)
        self._start_alike(edition, before)
        try:
            with ExitStack() as stack:
                # A thread builds its own as it scores, where gradients are off.
                stack.enter_context(torch.inference_mode(False))
                stack.enter_context(torch.enable_grad())
                for mode in (torch.device("cpu"), *modes):
                    stack.enter_context(mode)
                stack.enter_context(guarding(Path(model.code or "/").resolve()))
                # An architecture may change the lists that it is given.
                module = architecture(**copying.deepcopy(dict(model.architecture_args)))
        except FunctionError:
            raise
        except Exception as error:
            raise ModelError(
                f"architecture {model.architecture}: could not be built with "
                f"{dict(model.architecture_args)} ({type(error).__name__}: {reason(error)}); "
                "correct architecture_args"
            ) from error
        if not isinstance(module, torch.nn.Module):
            raise ModelError(
                f"architecture {model.architecture}: is of type {type(module).__name__}; "
                "expected a torch.nn.Module"
            )
        return module

    def _start_alike(self, edition: int, before: Chance) -> None:
        """Sets chance and types as they were when its code was imported: code may seed it once."""
        after = _chance()
        if after != before or (*self._key, 0) in _starts:
            _starts.setdefault((*self._key, edition), after)
        start = _starts.get((*self._key, edition))
        if start is not None:
            start.set()
        torch.set_default_dtype(_default_types.setdefault(self._key, torch.get_default_dtype()))

    def _architecture(self, edition: int) -> Callable[..., Any]:
        """Returns what builds the network, of an edition of its code or else of the first one.

        Code may enter a name where only one may be, as `torch.library` has it, and then cannot be
        imported twice. Its first modules serve if they keep nothing of a sketch.
        """
        try:
            return self._imported(edition)
        except FunctionError:
            if edition == self._edition or are_held(_real.get(self._key, [])):
                raise
            return self._imported(self._edition)

    def _imported(self, edition: int) -> Callable[..., Any]:
        model = self._model
        name = model.architecture
        if model.code is None and name.partition(":")[0].endswith(".py"):
            found = load_verified(name, self._folder, self._sources, edition)
        else:
            require_importable(name)
            found = load_object(name, model.code or "/", Listed(model.code_files), edition)
        return require_architecture(found, name, model.code)


def require_architecture(found: object, reference: str, base: str | None) -> Callable[..., Any]:
    """Returns what a reference named, where it may be called: nothing else of an import is.

    That is a class or a function that the model's own files define, or a torch.nn.Module.

    Raises:
        ModelError: It is something else, as what a file imported of another module.
    """
    if isinstance(found, type) and (issubclass(found, torch.nn.Module) or _is_own(found, base)):
        return found
    if isinstance(found, types.FunctionType) and _is_own(found, base):
        return found
    what = f"the {type(found).__name__} {getattr(found, '__name__', '')}".strip()
    where = getattr(found, "__module__", None)
    raise ModelError(
        f"architecture {reference}: is {what}{f' of module {where}' if where else ''}; {EXPECTED}"
    )


def _is_own(found: Any, base: str | None) -> bool:
    """Tells whether a class or function is of a model's verified files, or of files below `base`.

    A decorator of another library keeps the name of the module that it is used in.
    """
    module = str(found.__module__)
    if base is None:
        return is_verified(module)
    code = getattr(found, "__code__", None)
    files = [getattr(sys.modules.get(module), "__file__", None), getattr(code, "co_filename", None)]
    below = [Path(file) for file in files if file and "site-packages" not in Path(file).parts]
    return any(path.is_relative_to(Path(base).resolve()) for path in below)


def _ready(module: torch.nn.Module) -> torch.nn.Module:
    return module.eval().requires_grad_(False)


def _refuse_hidden(module: torch.nn.Module, model: Model) -> None:
    hidden = hidden_module(module)
    if hidden is not None:
        raise _HiddenError(
            f"architecture {model.architecture}: {hidden} is a module that torch does not know, "
            "so its weights are in no state_dict; keep such modules in torch.nn.ModuleList or "
            "torch.nn.ModuleDict, and save the weights again"
        )


class _HiddenError(ModelError):
    """A module with weights is kept where torch does not look for it."""
