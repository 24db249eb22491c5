"""Assert the law that every accumulator of a profile keeps."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import pyarrow as pa

from batchscore.drift.column import Hint
from batchscore.drift.profile_file import write_table
from batchscore.drift.table import TableProfile

Hints = Mapping[str, Hint]


def profile_of(batches: Sequence[pa.RecordBatch], hints: Hints | None = None) -> TableProfile:
    """Return the profile of batches taken one after the other."""
    profile = TableProfile(hints=hints or {})
    for batch in batches:
        profile.update(batch)
    return profile


def content(profile: TableProfile) -> bytes:
    """Return the bytes that may not depend on how the data were split."""
    return write_table(profile, {}, extra=False)


def assert_canonical(
    batches: Sequence[pa.RecordBatch], seed: int, hints: Hints | None = None
) -> None:
    """In sequence = merged = shuffled and merged in a random tree, bit for bit."""
    expected = content(profile_of(batches, hints))
    merged = TableProfile.empty()
    for batch in batches:
        merged.merge(profile_of([batch], hints))
    assert content(merged) == expected
    chance = random.Random(seed)
    nodes = [TableProfile.empty(), *(profile_of([batch], hints) for batch in batches)]
    while len(nodes) > 1:
        chance.shuffle(nodes)
        nodes[-2].merge(nodes.pop())
    assert content(nodes[0]) == expected
    shuffled = list(batches)
    chance.shuffle(shuffled)
    assert content(profile_of(shuffled, hints)) == expected
