"""The steps that make scores of model inputs, with reasons where the job asks for them."""

from __future__ import annotations

from functools import partial

from batchscore.models.backends.facts import CONTRIBUTIONS, RAW, Call, OutputSpec
from batchscore.models.backends.protocol import Predictor
from batchscore.stages.block import Block
from batchscore.stages.reasons import Explaining, explain
from batchscore.worker.scoring import (
    BlockStep,
    call_of,
    infer_step,
    late_infer_step,
    postprocess_step,
    rejecting,
)
from batchscore.worker.spec import Spec


def infer_steps(spec: Spec, predictor: Predictor, late: bool = False) -> BlockStep:
    """Returns the step that calls the model; with all behind it up to reasons, if these are asked.

    Reasons need the model and its inputs, and the scores that they are of. So one step keeps the
    inputs until the scores are there.

    Args:
        late: Whether results may be pending behind it.
    """
    made = late_infer_step(spec, predictor) if late else infer_step(spec, predictor)
    if spec.scoring.reasons is None:
        return made
    return _Explained(spec, spec.scoring.reasons, predictor, made)


def after_steps(spec: Spec) -> BlockStep:
    """Returns the step behind it: postprocessing, or nothing where it is done already."""
    return postprocess_step(spec) if spec.scoring.reasons is None else _unchanged


def _unchanged(block: Block) -> Block:
    return block


class _Explained:
    """Makes scores and their reasons of model inputs."""

    def __init__(
        self, spec: Spec, wanted: Explaining, predictor: Predictor, infer: BlockStep
    ) -> None:
        self._spec, self._wanted, self._infer = spec, wanted, infer
        self._postprocess = postprocess_step(spec)
        self._calls = predictor.explaining().called(_call(spec, len(wanted.columns) + 1))

    def __call__(self, block: Block) -> Block:
        step = partial(explain, given=block, wanted=self._wanted, calls=self._calls)
        return rejecting(self._spec, "explain", step)(self._postprocess(self._infer(block)))


def _call(spec: Spec, entries: int) -> Call:
    """Returns how a run calls what explains its scores: a row at a time may be asked for."""
    asked = call_of(spec)
    outputs = (OutputSpec(CONTRIBUTIONS, "float64", (entries,)), OutputSpec(RAW, "float64", ()))
    return Call(outputs, asked.device, asked.threads, batch_rows=asked.batch_rows)
