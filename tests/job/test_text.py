"""Tests of reading a job file: hostile YAML, unreadable files, relative paths."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from batchscore.errors import JobFileError
from batchscore.job.text import MAX_BYTES, absolute_address, parse_yaml, read_job_file

TEXTS = st.text("abyn~:#é☃ '\"-*&!|>{}[],\n")
NUMBERS = st.integers(-(10**18) + 1, 10**18 - 1) | st.floats(allow_nan=False, allow_infinity=False)
SCALARS = st.none() | st.booleans() | st.dates() | NUMBERS | TEXTS


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: b: c", "job.yaml:1:5: not YAML"),
        ("a: [1", "job.yaml:1:6: not YAML"),
        ("a: 1\na: 2", "job.yaml:2:1: key a appears twice; keep one"),
        ("a: 1\n---\nb: 1", "not YAML"),
        ("1: a", "key 1 is not a text; write it in quotes"),
        ("[a]: 1", "is not a text"),
        ("a: !!python/object/apply:os.system [ls]", "an unknown tag"),
        ("a: [!=, 1]", "an unknown tag"),
        ("a: !!int x", "an unknown tag"),
        ("a: *b", "no anchor has that alias's name"),
        ("a: 2026-13-45", "no such date or time"),
        ("a: &a [*a]", "nested over 50 levels"),
        ("a: " + "[" * 60 + "]" * 60, "nested over 50 levels"),
        ("[" * 20_000, "nested over 50 levels"),
        ("a: \x07", "control characters"),
    ],
)
def test_refuses_what_is_not_a_job_files_yaml(text: str, message: str) -> None:
    """Broken, tagged, repeated, cyclic, deep or huge YAML is refused with its place."""
    with pytest.raises(JobFileError, match=re.escape(message)):
        parse_yaml(text, "job.yaml")


@pytest.mark.slow
def test_refuses_an_alias_bomb_at_once() -> None:
    """A small file that expands to a billion values is refused after a moment's work."""
    lines = ["a0: &a0 [x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    started = time.thread_time()
    with pytest.raises(JobFileError, match="over 100,000 values"):
        parse_yaml("\n".join(lines), "job.yaml")
    assert time.thread_time() - started < 5


def test_names_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """A job file that is not there, a folder, too big or unreachable is reported, with a remedy."""
    (tmp_path / "job.yaml").write_text("a: " + "x" * MAX_BYTES)
    with pytest.raises(JobFileError, match=r"no such job file: .*jobs\.yaml; nearest: 'job\.yaml'"):
        read_job_file(str(tmp_path / "jobs.yaml"))
    with pytest.raises(JobFileError, match="there is no such folder either"):
        read_job_file(str(tmp_path / "nowhere" / "job.yaml"))
    with pytest.raises(JobFileError, match=r"is a folder; name the job file in it"):
        read_job_file(str(tmp_path))
    with pytest.raises(JobFileError, match="over 1 MiB"):
        read_job_file(str(tmp_path / "job.yaml"))
    with pytest.raises(JobFileError, match="cannot be read"):
        read_job_file("nothing://x/job.yaml")
    with pytest.raises(JobFileError, match="cannot be read"):
        read_job_file("job\0.yaml")


def test_refuses_bytes_that_are_not_text() -> None:
    """Another encoding than UTF-8 is reported with the place; a byte order mark is fine."""
    with pytest.raises(JobFileError, match="byte 6 is not UTF-8"):
        parse_yaml(b"name: \xe9", "job.yaml")
    assert parse_yaml(b"\xef\xbb\xbfname: x", "job.yaml") == {"name": "x"}


@pytest.mark.parametrize(
    ("address", "base", "expected"),
    [
        ("in/*.parquet", "/jobs", "/jobs/in/*.parquet"),
        ("../in", "/jobs/a", "/jobs/in"),
        ("/data/", "s3://bucket/jobs", "/data"),
        ("gs://b/../x", "/jobs", "gs://b/../x"),
        ("../in", "s3://bucket/jobs", "s3://bucket/in"),
        ("in", "memory:///jobs", "memory:///jobs/in"),
        ("", "/jobs", ""),
    ],
)
def test_makes_paths_absolute(address: str, base: str, expected: str) -> None:
    """A relative path starts from the base, local or remote; a whole address stays."""
    assert absolute_address(address, base) == expected


def test_a_path_stays_in_its_bucket() -> None:
    """A relative path cannot climb from a job file's bucket into another."""
    with pytest.raises(ValueError, match="leaves s3://bucket; write the whole address"):
        absolute_address("../../bucket2/x", "s3://bucket/jobs")


@pytest.mark.slow
@given(st.recursive(SCALARS, lambda t: st.lists(t) | st.dictionaries(TEXTS, t), max_leaves=9))
def test_reads_what_is_written(value: object) -> None:
    """What a YAML writer writes is read as the same value."""
    assert parse_yaml(yaml.safe_dump(value, allow_unicode=True), "job.yaml") == value
