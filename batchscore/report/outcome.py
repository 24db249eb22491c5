"""A run's result in a sentence, and the commands that a person may want next."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from batchscore.messages.wording import one_line
from batchscore.report.formats import moment
from batchscore.runs.manifest_model import Manifest
from batchscore.runs.manifest_parts import Decision

_NOTHING = "nothing was published; earlier results are unchanged."
_HELD = f"Held: {_NOTHING} A person decides: look, then release it or discard it."
_HELD_EARLY = (
    f"Held before anything was scored: {_NOTHING} The failed check says what to do; then run the "
    "job again."
)
_OUTCOMES = {
    "failed": f"The run failed: {_NOTHING} Fix what the error or the failed check names, then run "
    "the job again; finished units are not scored again.",
    "empty": "There was nothing to score, so the slice is published without rows.",
    "discarded": f"The run was discarded: {_NOTHING}",
    "revoked": "The run was undone: what was published before it is published again.",
}
_DECISIONS = ("released", "discarded", "rollback", "revoked")


@dataclass(frozen=True)
class Command:
    """A command that a person may want next.

    Args:
        purpose: What it does.
        command: The command as a person types it; placeholders are in capitals.
    """

    purpose: str
    command: str


def outcome_of(manifest: Manifest) -> str:
    """Returns a run's result and what it means; empty if the run just published."""
    if manifest.status == "held":
        return _HELD if _scored(manifest) else _HELD_EARLY
    return _OUTCOMES.get(manifest.status, "")


def decisions_of(manifest: Manifest) -> list[str]:
    """Returns who released, discarded or undid a run, when, and why."""
    found = ((name, manifest.decision(name)) for name in _DECISIONS)
    return [one_line(f"{name} by {_decided(each)}", 300) for name, each in found if each]


def steps_of(manifest: Manifest, where: str) -> list[Command]:
    """Returns what may be done about a run.

    Args:
        manifest: Manifest of the run.
        where: The address of its output.
    """
    return [*_steps(manifest, shlex.quote(where), shlex.quote(manifest.run))]


def _steps(manifest: Manifest, where: str, run: str) -> Iterator[Command]:
    yield Command("look", f"batchscore show {where} {run}")
    if manifest.status == "held" and _scored(manifest):
        yield Command("publish it all the same", f"batchscore release {where} {run} --reason WHY")
        yield Command("drop it, to be scored again", f"batchscore discard {where} {run}")
    if manifest.status == "published":
        yield Command("follow a row", f"batchscore trace {where} COLUMN=VALUE")
        yield Command("undo it", f"batchscore rollback {where} --undo {run}")


def _decided(decision: Decision) -> str:
    why = f": {decision.reason}" if decision.reason else ""
    return f"{decision.by} at {moment(decision.at)} UTC{why}"


def _scored(manifest: Manifest) -> bool:
    return manifest.units is not None
