"""What Beam asks of options and methods again and again is answered once, and the same."""

from __future__ import annotations

from types import MethodType

import pytest
from apache_beam import DoFn
from apache_beam.options.pipeline_options import (
    DirectOptions,
    PipelineOptions,
    StandardOptions,
    TypeOptions,
)
from apache_beam.transforms import core, userstate
from apache_beam.transforms.userstate import BagStateSpec

from batchscore.engines.quick_graph import quick_options, quick_signatures
from batchscore.system.beam_import import Coder

FLAGS = ["--direct_num_workers=3", "--no_type_check_strictness", "--streaming"]
BAG = BagStateSpec("bag", Coder())


class Stateless(DoFn):
    """Methods with and without defaults."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def process(self, element: int, stamp: object = DoFn.TimestampParam) -> list[int]:
        """Returns the element."""
        return [element]


class Stateful(Stateless):
    """Overrides a method with another signature."""

    def process(self, element: int, bag: object = DoFn.StateParam(BAG)) -> list[int]:
        """Returns the element."""
        return [element]


def test_views_are_made_once_and_share_their_values() -> None:
    """Each view has the values of Beam's own; a value that is set in one is set in all."""
    quick, plain = quick_options(FLAGS), PipelineOptions(FLAGS)
    for kind in (DirectOptions, StandardOptions, TypeOptions):
        assert quick.view_as(kind) is quick.view_as(kind)
        view, beams = quick.view_as(kind), plain.view_as(kind)
        assert [(n, getattr(view, n)) for n in view._visible_option_list()] == [
            (n, getattr(beams, n)) for n in beams._visible_option_list()
        ]
    assert quick.get_all_options() == plain.get_all_options()
    quick.view_as(StandardOptions).streaming = False
    assert quick.view_as(TypeOptions).view_as(StandardOptions).streaming is False


def test_signatures_are_those_of_beam() -> None:
    """Of methods and functions, those that override others too; a caller may change its lists."""
    functions = [
        *(each.process for each in (Stateless(), Stateful(), Stateless())),
        Stateful().start_bundle,
        Stateful.process,
        lambda element, stamp=DoFn.TimestampParam: element,
    ]
    expected = [core.get_function_args_defaults(each) for each in functions]
    with quick_signatures():
        for _ in range(2):
            found = [core.get_function_args_defaults(each) for each in functions]
            assert found == expected
            for names, defaults in found:
                names.clear()
                defaults.clear()
        assert not userstate.is_stateful_dofn(Stateless())
        stateful = Stateful()
        for _ in range(2):
            states, timers = userstate.get_dofn_specs(stateful)
            assert (states, timers) == ({BAG}, set())
            states.clear()
        del stateful
        # Each may get the number of the one before it, which has ended.
        assert [userstate.is_stateful_dofn(kind()) for kind in (Stateless, Stateful) * 3] == [
            False,
            True,
        ] * 3


def test_a_signature_is_taken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beam looks at all methods of a step many times for each run."""
    asked = list[MethodType]()
    beams = vars(core)["get_signature"]

    def counted(method: MethodType) -> object:
        asked.append(method)
        return beams(method)

    monkeypatch.setattr(core, "get_signature", counted)
    with quick_signatures():
        for _ in range(3):
            userstate.get_dofn_specs(Stateless())
    assert len(asked) == len({each.__func__ for each in asked}) > 5


def test_a_step_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beam asks for the state of one DoFn when it is made, translated and run."""
    step, looks = Stateless(), list[object]()

    def listed(looked_at: object) -> list[str]:
        looks.append(looked_at)
        return ["process"]

    monkeypatch.setattr(Stateless, "__dir__", listed)
    with quick_signatures():
        for _ in range(3):
            userstate.validate_stateful_dofn(step)
    assert looks == [step]


def test_beams_own_is_there_after_an_error() -> None:
    """A process that runs other pipelines has Beam as it was."""
    before, beams_specs = core.get_function_args_defaults, userstate.get_dofn_specs
    with pytest.raises(KeyError), quick_signatures():
        assert core.get_function_args_defaults is not before
        assert userstate.get_dofn_specs is not beams_specs
        raise KeyError
    assert core.get_function_args_defaults is before
    assert userstate.get_dofn_specs is beams_specs
