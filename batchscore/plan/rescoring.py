"""Why published rows are scored again, in the words of a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from batchscore.messages.wording import counted
from batchscore.models.loadable import Model
from batchscore.plan.fingerprint import CODE, EXPLAIN, VERSION_OF
from batchscore.runs.manifest_parts import ModelFacts

_FILES = 3
# Facts whose texts a person can read; others are hashes, or spelled otherwise by some version.
_READABLE = ("runtime.", "scoring", "the model's tolerance", "types of weights", VERSION_OF)
_REASONS = f"{EXPLAIN}: columns"


def explain_facts(
    names: Sequence[str],
    facts: Mapping[str, str],
    before: Mapping[str, str],
    model: Model,
    model_before: ModelFacts,
) -> tuple[str, ...]:
    """Returns a phrase for each fact that differs: "code features.py changed", "model 1.0 to 1.1".

    Args:
        names: Names of the facts that differ.
        facts: Facts of today.
        before: Facts of what is published, in the same words.
        model: Model of today.
        model_before: What the manifest of what is published says of its model.
    """
    # If reasons are new or gone, so are the columns that they name.
    left = {"model", *([] if _REASONS in facts and _REASONS in before else [_REASONS])}
    found = [_explain(n, facts.get(n), before.get(n)) for n in names if n not in left]
    if "model" not in names:
        return tuple(found)
    known = any(name.startswith(CODE) for name in names)
    return (*_explain_model(model, model_before, known), *found)


def explain_work(
    changed: Sequence[str], forced: bool, rewritten: Sequence[str], lost: bool
) -> tuple[str, ...]:
    """Returns all reasons why a run scores rows again that are published.

    Args:
        changed: What decides scores and changed, in words.
        forced: Whether a person asked for it.
        rewritten: Shards that were rewritten or replaced.
        lost: Whether files of finished units are gone or damaged.
    """
    shards = [f"{counted(len(rewritten), 'shard')} rewritten"] if rewritten else []
    found = ["--rescore"] if forced else [*changed, *shards]
    return (*found, *(["files were lost or damaged"] if lost else []))


def _explain(name: str, now: str | None, then: str | None) -> str:
    if name == _REASONS:
        return "the columns that reasons may name changed"
    if name == EXPLAIN:
        return f"explain {then or 'off'} to {now or 'off'}"
    if name.startswith(CODE):
        return f"{name} {'is gone' if now is None else 'is new' if then is None else 'changed'}"
    if not name.startswith(_READABLE) or now is None:
        return f"{name} changed"
    label = name.removeprefix(VERSION_OF)
    return f"{label} {then} to {now}" if then is not None else f"{label}: {now}"


def _explain_model(model: Model, then: ModelFacts, known: bool) -> list[str]:
    """Says how a model differs; nothing if only code does, which has its own phrase."""
    old, new = then.version, model.version
    if then.name not in ("", model.name):
        return [f"model {then.name} {old} to {model.name} {new}"]
    if old not in ("", new):
        return [f"model {old} to {new}"]
    files = _changed_files(model, then.sha256)
    if files:
        shown = ", ".join(files[:_FILES]) + (", …" if len(files) > _FILES else "")
        return [f"model {new} has other files ({shown})"]
    return [] if known else [f"architecture, inputs or outputs of model {new} changed"]


def _changed_files(model: Model, before: Mapping[str, str]) -> list[str]:
    names = {*before, *model.sha256} - {*model.no_influence}
    return sorted(name for name in names if before.get(name) != model.sha256.get(name))
