"""How a process comes to a loaded model: what is loaded, and what is made of it afterwards."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace

from batchscore.models.loadable import Model


@dataclass(frozen=True)
class Recipe:
    """Makes a predictor, in each process that is asked for it.

    Args:
        key: Of the predictor; who asks with the same key shares it.
        model: What the card says, and where the files are.
        device: Where it computes.
        threads: Threads that one call may use.
        prove: Tries more than loading needs.
        steps: What is made of the loaded model, in order: `compiled`, `explained` or `again`,
            each with a key.
    """

    key: str
    model: Model
    device: str
    threads: int
    prove: bool
    steps: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> tuple[object, ...]:
        """Names the predictor among those of a process."""
        return (self.key, *self.steps)

    def then(self, step: str) -> Recipe:
        """Returns the recipe of what a step makes of this one's predictor, for nobody else."""
        return replace(self, steps=(*self.steps, (step, secrets.token_hex(8))))

    def before(self) -> Recipe:
        """Returns the recipe without its last step."""
        return replace(self, steps=self.steps[:-1])
