"""What a drift measure declares, and what it finds before that is judged."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

from batchscore.drift.categorical import EXACT
from batchscore.drift.findings import NO_THRESHOLDS, Shares, Thresholds

GROUP = f"group the values to at most {EXACT:,}, such as by a prefix"

Kind = Literal["nulls", "numbers", "categories", "vectors"]


class Sides(Protocol):
    """The two samples of one aspect, aligned, with what several measures compute from them."""

    kind: ClassVar[Kind]

    @property
    def too_few(self) -> bool:
        """Whether a side has too few values for any measure."""
        ...


@dataclass(frozen=True)
class Difference:
    """One measured difference before it is judged.

    A measure may find several, for example one for each category. Its worst decides.

    Args:
        value: The effect. None where it is not defined, for example without values.
        floor: What noise alone may reach at a level, in the effect's unit. Infinite where it may
            reach anything; None where there is no test against noise.
        chance: The chance, at most, that noise alone reaches the effect, where a test knows that
            better than the floor.
        low: Certified lower bound of the effect. If there is one, it is judged.
        high: Certified upper bound, or about how large the effect may be.
        estimate: Whether the value is an estimate between `low` and `high`, and is judged itself.
        detail: As `Measure.detail`.
        shares: As `Measure.shares`.
        warns: Whether it also warns below the threshold, if it is more than noise.
        aside: Whether others judge the same fact. Then only thresholds of the column judge it.
        name: As `Measure.name`; `differences` sets it.
    """

    value: float | None
    floor: Callable[[float], float] | None = None
    chance: float | None = None
    low: float | None = None
    high: float | None = None
    estimate: bool = False
    detail: str = ""
    shares: Shares | None = None
    warns: bool = False
    aside: bool = False
    name: str = ""

    @property
    def effect(self) -> float | None:
        """The effect that is compared with the thresholds."""
        return self.value if self.low is None or self.estimate else self.low

    def is_beyond_noise(self, alpha: float) -> bool:
        """Returns whether the effect is more than noise at the level `alpha`."""
        if self.chance is not None:
            return self.chance <= alpha
        if self.floor is None or not self.effect:
            return False
        return self.effect >= self.floor(alpha)


@dataclass(frozen=True)
class MeasureSpec:
    """All that the package knows of one measure; nothing else names it.

    Job file, `compare`, verdicts, sentences, report and docs/drift.md read this declaration.

    Args:
        name: Names it in the job file, in `--threshold` and in results.
        kinds: The kinds of sides that it compares.
        find: Computes the differences of two sides; may find none.
        label: Its name in the report.
        meaning: What it is, in the report.
        tested: Whether a test separates its effect from noise. Otherwise it is only shown.
        defaults: The thresholds that judge it unless the job has others.
        most: The largest possible effect.
        decides: Whether it sees the whole distribution. An aspect has too few data if none of
            its measures that decide can.
        words: Its name in a sentence, before the effect.
        changed: Says in a sentence what changed, given the shares and the reference's name.
        below: Says why it warned below its threshold.
        power: The power of a distance that it grows with; 2 for squares.
        of_places: Whether it compares where numbers lie. Of a rate that is the rate again.
        of_clock: Whether it compares times of day. These are judged of timestamps, too, which move
            by design.
        remedy: What to do where it is known too coarsely to judge.
        samples: What it compares, in docs/drift.md.
        noise: When its effect is more than noise, in docs/drift.md.
    """

    name: str
    kinds: tuple[Kind, ...]
    find: Callable[[Any], Iterable[Difference]]
    label: str
    meaning: str
    tested: bool = False
    defaults: Thresholds = NO_THRESHOLDS
    most: float = math.inf
    decides: bool = False
    words: str = ""
    changed: Callable[[Shares, str], str] | None = None
    below: Callable[[Shares], str] | None = None
    power: int = 1
    of_places: bool = False
    of_clock: bool = False
    remedy: str = ""
    samples: str = ""
    noise: str = ""

    @property
    def of_nulls(self) -> bool:
        """Whether it compares how many values are missing, and not the values."""
        return self.kinds == ("nulls",)
