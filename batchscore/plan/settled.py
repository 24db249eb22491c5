"""How a model is called, as one plan found it, for other plans that score with the same model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from batchscore.job import LoadedJob, ModelSection
from batchscore.models.loadable import Model
from batchscore.plan.plan import Plan
from batchscore.worker.spec import Execution

# A plan's own, whatever another one found.
_OWN = ("alone", "batch_rows", "workers")


@dataclass(frozen=True)
class Settled:
    """How a model is called, and what that was found for.

    Args:
        section: The job's section of the model.
        model: The model.
        asked: How the plan was to score before.
        execution: How it scores.
        choices: What was chosen, and why.
        inference: How the model is called, for manifests.
        gpus: GPUs that workers may share out.
    """

    section: ModelSection
    model: Model
    asked: Execution
    execution: Execution
    choices: Mapping[str, str]
    inference: Mapping[str, Any]
    gpus: tuple[str, ...]

    def model_of(self, loaded: LoadedJob) -> Model | None:
        """Returns the model of another job; None if that may have another one."""
        return self.model if loaded.job.model == self.section else None

    def fits(self, plan: Plan) -> bool:
        """Tells whether a plan would come to the same."""
        asked, found = _for_any_rows(plan.spec.execution), self.asked
        if asked.kernels == self.execution.kernels:
            found = replace(found, kernels=asked.kernels)
        return plan.spec.scoring.model.identity == self.model.identity and asked == found

    def applied(self, plan: Plan) -> Plan:
        """Returns a plan that scores as was found."""
        own = plan.spec.execution
        execution = replace(self.execution, max_rejects=own.max_rejects, fresh=own.fresh)
        return replace(
            plan,
            spec=replace(plan.spec, execution=execution),
            choices={**self.choices, **plan.choices},
            inference=dict(self.inference),
            gpus=self.gpus,
        )


def settled_by(before: Plan, after: Plan) -> Settled:
    """Returns what trying a plan's model has found.

    Args:
        before: The plan as it was made.
        after: The plan, once model and functions were tried.
    """
    return Settled(
        section=before.loaded.job.model,
        model=after.spec.scoring.model,
        asked=_for_any_rows(before.spec.execution),
        execution=after.spec.execution,
        choices={key: why for key, why in after.choices.items() if key not in _OWN},
        inference=after.inference,
        gpus=after.gpus,
    )


def _for_any_rows(execution: Execution) -> Execution:
    """Returns an execution without what depends on the rows of one plan."""
    return replace(execution, max_rejects=0, fresh=True)
