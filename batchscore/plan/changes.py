"""What changed since a slice was last published, and whether the job lets a run go on with it."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from batchscore.job import OnChange
from batchscore.messages.wording import counted, of_count
from batchscore.plan.fingerprint import EXPLAIN, VERSION_OF
from batchscore.runs.checks import Check
from batchscore.units.unit import Piece, Shard


@dataclass(frozen=True)
class Changes:
    """Differences to what is published; shards by path.

    Args:
        score: What decides scores and differs, as a person would call it.
        removed: Shards with published rows that are gone.
        rewritten: Shards with published rows that were rewritten, or are gone from a folder in
            which others took their place.
        late: Shards of which no row is published yet, those among `replacements` left out.
        replacements: Shards that are in place of rewritten ones.
        rows_before: Rows of what is gone or rewritten, filtered and rejected ones counted.
        rows_after: Rows of what is in place of what was rewritten.
        reasons: What decides scores and differs, a phrase each.
    """

    score: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    rewritten: tuple[str, ...] = ()
    late: tuple[str, ...] = ()
    replacements: tuple[str, ...] = ()
    rows_before: int = 0
    rows_after: int = 0
    reasons: tuple[str, ...] = ()


def changed_facts(facts: Mapping[str, str], before: Mapping[str, str]) -> tuple[str, ...]:
    """Names what decides scores and differs; the version of a package that is not needed does not.

    Args:
        facts: All that scores depend on, by name.
        before: The same of an earlier run, in the same words.
    """
    counted = {k: v for k, v in before.items() if k in facts or not k.startswith(VERSION_OF)}
    return tuple(sorted(k for k in {*facts, *counted} if facts.get(k) != counted.get(k)))


def find_changes(
    score: tuple[str, ...],
    pieces: Iterable[Piece],
    pieces_before: Iterable[Piece],
    shards: Iterable[Shard],
) -> Changes:
    """Compares what is to be scored with what is published.

    Args:
        score: What decides scores and differs, as `changed_facts` names it.
        pieces: Row groups that are to be scored.
        pieces_before: Row groups whose rows are published, without those of bad shards.
        shards: All of the input; those whose rows are filtered are neither gone nor late.
    """
    now, before = _rows_by_shard(pieces), _rows_by_shard(pieces_before)
    marks = {shard.path: (shard.size, shard.mark) for shard in shards}
    paths_before = {shard.path for shard in before}
    gone = {shard.path for shard in before if shard.path not in marks}
    new = {shard.path for shard in now} - paths_before
    # As after a compaction: some files left a folder, and others came into it.
    swapped = {posixpath.dirname(p) for p in gone} & {posixpath.dirname(p) for p in new}
    left = {path for path in gone if posixpath.dirname(path) in swapped}
    came = {path for path in new if posixpath.dirname(path) in swapped}
    edited = {s.path for s in before if marks.get(s.path, (s.size, s.mark)) != (s.size, s.mark)}
    lost = gone | edited
    return Changes(
        score=score,
        removed=tuple(sorted(gone - left)),
        rewritten=tuple(sorted(edited | left)),
        late=tuple(sorted(new - came)),
        replacements=tuple(sorted(came | edited)),
        rows_before=sum(rows for shard, rows in before.items() if shard.path in lost),
        rows_after=sum(rows for shard, rows in now.items() if shard.path in came | edited),
    )


def _rows_by_shard(pieces: Iterable[Piece]) -> dict[Shard, int]:
    rows: dict[Shard, int] = {}
    for piece in pieces:
        rows[piece.shard] = rows.get(piece.shard, 0) + piece.rows
    return rows


def judge_changes(changes: Changes, on_change: OnChange, work: str) -> list[Check]:
    """Returns a check for each kind of change that there is; one that the job holds is not passed.

    Args:
        work: What scoring would cost, in words.
    """
    reasons = [name for name in changes.score if name.startswith(EXPLAIN)]
    others = [name for name in changes.score if name not in reasons]
    phrases = _name_reasons(changes.reasons)
    kinds = (
        ("explain", reasons, on_change.explain, "rescore", phrases),
        ("model", others, on_change.model, "rescore", phrases),
        (
            "removed_shards",
            changes.removed,
            on_change.removed_shards,
            "remove",
            f"{_some(changes.removed)} gone; {of_count(len(changes.removed), 'its', 'their')} "
            "published rows would be removed",
        ),
        (
            "rewritten_shards",
            changes.rewritten,
            on_change.rewritten_shards,
            "rescore",
            f"{_some(changes.rewritten)} rewritten{_replaced(len(changes.replacements))}; of all "
            f"that changed or is gone, {counted(changes.rows_before, 'row')} "
            f"{of_count(changes.rows_before, 'is', 'are')} published; "
            f"{changes.rows_after:,} would take their place",
        ),
        ("late_shards", changes.late, on_change.late_shards, "add", f"{_some(changes.late)} new"),
    )
    return [
        _check(name, action != "hold", f"{what}: {work}", choice)
        for name, found, action, choice, what in kinds
        if found
    ]


def _check(kind: str, passed: bool, what: str, choice: str) -> Check:
    key = f"on_change.{kind}"
    remedy = "" if passed else f"; to allow it once: --set {key}={choice}"
    return Check(key, passed, f"{what}{remedy}", "held")


def _name_reasons(reasons: tuple[str, ...]) -> str:
    shown = "; ".join(reasons[:5]) + ("; …" if len(reasons) > 5 else "")
    return f"{shown}, so every row would be scored again"


def _replaced(others: int) -> str:
    return f" or replaced by {counted(others, 'other')} in the same folder" if others else ""


def _some(paths: tuple[str, ...]) -> str:
    names = ", ".join(paths[:3]) + (", …" if len(paths) > 3 else "")
    return f"{counted(len(paths), 'shard')} ({names}) {of_count(len(paths), 'is', 'are')}"
