"""References are decoded once a process, and nobody changes them."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from batchscore.drift.compare import compare_profiles
from batchscore.drift.findings import Rules
from batchscore.drift.profile_file import write_table
from batchscore.drift.sentences import sentences
from batchscore.drift.table import TableProfile
from batchscore.runs.profiles import ProfileFile, read_reference


def profile_of(first: int) -> TableProfile:
    """A profile with an aspect of each kind."""
    profile = TableProfile()
    numbers = range(first, first + 200)
    columns = {
        "number": [each / 7 for each in numbers],
        "text": [f"{each % 5}" for each in numbers],
        "flag": [each % 3 == 0 for each in numbers],
        "vector": [[float(each), 1.0] for each in numbers],
    }
    profile.update(pa.RecordBatch.from_pydict(columns))
    return profile


def test_a_reference_is_decoded_again_only_if_its_bytes_changed(tmp_path: Path) -> None:
    """A run that tries its reference and compares with it later decodes it once."""
    file = ProfileFile(str(tmp_path), "profile.parquet")
    (tmp_path / file.name).write_bytes(write_table(profile_of(0), {}))
    first = read_reference((file,))
    assert read_reference((file,)) is first
    (tmp_path / file.name).write_bytes(write_table(profile_of(100), {}))
    changed = read_reference((file,))
    assert changed.summary() == profile_of(100).summary() != first.summary()


def test_a_comparison_leaves_its_sides_as_they_were(tmp_path: Path) -> None:
    """What is remembered of a reference is what its file holds, also after comparisons."""
    data = write_table(profile_of(0), {})
    (tmp_path / "profile.parquet").write_bytes(data)
    before = read_reference((ProfileFile(str(tmp_path), "profile.parquet"),))
    for now in (profile_of(50), before):
        found = compare_profiles(before, now, Rules())
        assert found.aspects
        sentences(found, before, now, "the reference")
        before.summary()
    assert write_table(before, {}) == data
