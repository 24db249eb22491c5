"""What every backend passes: a row's scores depend on nothing but the row.

To try a backend of your own, write a `Case` for a model of its format, and call each of `CHECKS`
with it, as `test_conformance.py` does for batchscore's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat

import numpy as np

from batchscore.columnar.arrays import Array
from batchscore.columnar.texts import Texts
from batchscore.models.backends.calling import Calls
from batchscore.models.backends.facts import DEFAULT_KERNELS, Call, Inputs, OutputSpec
from batchscore.models.backends.protocol import Predictor
from batchscore.models.backends.registry import backend_of
from batchscore.models.loadable import Model
from batchscore.models.process.memory import parts_of

_THREADS = 4


@dataclass(frozen=True)
class Case:
    """A model, rows for it, and what its framework makes of them.

    Args:
        model: As `read_model_folder` returns it.
        inputs: Arrays (rows, …), or texts, by name, of at least 40 rows.
        expected: Calls the framework itself.
        tolerance: The largest difference to what that returns.
        kernels: What the model computes with.
    """

    model: Model
    inputs: Mapping[str, Array | Texts]
    expected: Callable[[Inputs], Mapping[str, Array]]
    tolerance: float = 1e-6
    kernels: str = DEFAULT_KERNELS

    @property
    def rows(self) -> int:
        """Returns the number of rows."""
        return len(next(iter(self.inputs.values())))


def load(case: Case) -> Predictor:
    """Loads the model to the CPU."""
    return backend_of(case.model.format).load(case.model, "cpu")


def calls_of(case: Case, predictor: Predictor, threads: int = 1) -> Calls:
    """Returns the model as a run calls it, by default but for threads and kernels."""
    declared = case.model.outputs
    outputs = tuple(OutputSpec(each.name, each.dtype, each.shape) for each in declared)
    return predictor.called(Call(outputs, threads=threads, kernels=case.kernels))


def predict(calls: Calls, case: Case, places_n: Array) -> dict[str, Array]:
    """Returns the outputs of some rows, in the order given."""
    given = {name: values[places_n] for name, values in case.inputs.items()}
    return calls.predict(given, len(places_n))()


def _all(case: Case) -> Array:
    return np.arange(case.rows, dtype=np.int64)


def _require_same(
    case: Case, calls: Calls, places_n: Array, known: Mapping[str, Array] | None = None
) -> None:
    """Compares the bits of some rows with those that they have among all rows."""
    known = known or predict(calls, case, _all(case))
    made = predict(calls, case, places_n)
    for name, array in known.items():
        assert made[name].tobytes() == array[places_n].tobytes(), name


def check_declared(case: Case) -> None:
    """Outputs have the declared names, order, types and shapes, one row for each row given."""
    made = predict(calls_of(case, load(case)), case, _all(case))
    found = [(name, str(a.dtype), a.shape) for name, a in made.items()]
    assert found == [(o.name, o.dtype, (case.rows, *o.shape)) for o in case.model.outputs]


def check_framework(case: Case) -> None:
    """Outputs are those of the framework's own call."""
    made = predict(calls_of(case, load(case)), case, _all(case))
    for name, expected in case.expected(case.inputs).items():
        np.testing.assert_allclose(made[name], expected, rtol=0, atol=case.tolerance)


def check_called_itself(case: Case) -> None:
    """A predictor that is called without a run's settings gives the framework's outputs too."""
    for name, expected in case.expected(case.inputs).items():
        found = load(case)(case.inputs)[name]
        np.testing.assert_allclose(found, expected, rtol=0, atol=case.tolerance)


def check_twice(case: Case) -> None:
    """A second call gives the same bits."""
    _require_same(case, calls_of(case, load(case)), _all(case))


def check_alone(case: Case) -> None:
    """A row has the same bits when it is the only one."""
    calls = calls_of(case, load(case))
    for place in (0, case.rows // 2, case.rows - 1):
        _require_same(case, calls, np.array([place]))


def check_shuffled(case: Case) -> None:
    """A row has the same bits at another place."""
    shuffled_n = np.random.default_rng(1).permutation(case.rows)
    _require_same(case, calls_of(case, load(case)), shuffled_n)


def check_other_rows(case: Case) -> None:
    """A row has the same bits next to other rows, and next to copies of itself."""
    calls = calls_of(case, load(case))
    _require_same(case, calls, _all(case)[::3])
    _require_same(case, calls, np.repeat(_all(case)[:7], 5))


def check_loaded_again(case: Case) -> None:
    """A model that is loaded again gives the same bits, whatever the first one was called for."""
    known = predict(calls_of(case, load(case)), case, _all(case))
    first = load(case)
    predict(calls_of(case, first), case, _all(case)[:5])
    for predictor in (load(case), first.again() or load(case)):
        _require_same(case, calls_of(case, predictor), _all(case)[::-1], known)


def check_threads(case: Case) -> None:
    """A reentrant predictor gives several threads the bits that it gives one."""
    predictor = load(case)
    calls = calls_of(case, predictor, _THREADS)
    known = predict(calls_of(case, load(case)), case, _all(case))
    if predictor.promises.reentrant:
        orders = [np.random.default_rng(seed).permutation(case.rows) for seed in range(_THREADS)]
        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(_require_same, repeat(case), repeat(calls), orders, repeat(known)))
    else:
        _require_same(case, calls, _all(case), known)


def check_inputs_are_kept(case: Case) -> None:
    """The arrays that are passed in keep their values."""
    before = [array.copy() for _, _, array in parts_of(case.inputs)]
    predict(calls_of(case, load(case)), case, _all(case))
    for known, (_, _, array) in zip(before, parts_of(case.inputs), strict=True):
        np.testing.assert_array_equal(array, known)


def check_facts(case: Case) -> None:
    """What the files say agrees with the card, and the device is the one that was asked for."""
    facts, promises = backend_of(case.model.format).inspect(case.model), load(case).promises
    shapes = {each.name: each.shape for each in case.model.inputs}
    assert {name: shapes[name] for name in facts.inputs} == dict(facts.inputs)
    assert promises.device == "cpu"
    assert promises.version


CHECKS = (
    check_declared,
    check_framework,
    check_called_itself,
    check_twice,
    check_alone,
    check_shuffled,
    check_other_rows,
    check_loaded_again,
    check_threads,
    check_inputs_are_kept,
    check_facts,
)
