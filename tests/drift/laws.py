"""Assert the law that every accumulator of a profile keeps."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pyarrow as pa

from batchscore.drift.profile import TableProfile
from batchscore.drift.storage import write_table


def profile_of(batches: Sequence[pa.RecordBatch]) -> TableProfile:
    """Return the profile of batches taken one after the other."""
    profile = TableProfile.empty()
    for batch in batches:
        profile.update(batch)
    return profile


def assert_canonical(batches: Sequence[pa.RecordBatch], seed: int) -> None:
    """In sequence = merged = shuffled and merged in a random tree, bit for bit."""
    expected = write_table(profile_of(batches), {})
    merged = TableProfile.empty()
    for batch in batches:
        merged.merge(profile_of([batch]))
    assert write_table(merged, {}) == expected
    chance = random.Random(seed)
    nodes = [TableProfile.empty(), *(profile_of([batch]) for batch in batches)]
    while len(nodes) > 1:
        chance.shuffle(nodes)
        nodes[-2].merge(nodes.pop())
    assert write_table(nodes[0], {}) == expected
    shuffled = list(batches)
    chance.shuffle(shuffled)
    assert write_table(profile_of(shuffled), {}) == expected
