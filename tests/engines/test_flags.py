"""Beam options as flags: those of a job file, and what of them is refused."""

from __future__ import annotations

import pytest

from batchscore.engines.direct import DirectEngine
from batchscore.engines.flags import as_flags, parse_flags
from batchscore.engines.flink import FlinkEngine
from batchscore.errors import JobFileError


def test_options_of_beam_are_passed_on() -> None:
    """A flag that Beam knows is set."""
    assert parse_flags(["--direct_runner_bundle_repeat=2"], {}).direct_runner_bundle_repeat == 2


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--direct_runner_bundel_repeat=2", ("--direct_runner_bundel_repeat=2", "no such option")),
        ("--direct_runner_bundle=2", ("--direct_runner_bundle=2", "no such option")),
        ("--direct_num_workers=4", ("direct_num_workers", "runtime.workers")),
        ("--runner=FlinkRunner", ("runner", "runtime.engine")),
        ("--direct_runner_bundle_repeat=many", ("direct_runner_bundle_repeat=many",)),
        ("--flink_master=f:1", ("--flink_master", "Beam's Flink runner, and the engine is direct")),
        ("--parallelism=3", ("--parallelism", "take it out of runtime.options")),
        ("--job_endpoint=f:1", ("--job_endpoint", "runners with a job server")),
    ],
)
def test_other_options_are_errors(flag: str, words: tuple[str, ...]) -> None:
    """A flag that Beam does not know, cuts short, or that the job file sets, is named."""
    with pytest.raises(JobFileError) as caught:
        DirectEngine().parse_flags([flag])
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize("flag", ["--spark_version=3", "--direct_test_splits={}"])
def test_flink_takes_no_option_of_another_runner(flag: str) -> None:
    """It would ignore them in silence."""
    with pytest.raises(JobFileError, match=r"and the engine is flink, which would ignore it"):
        FlinkEngine().parse_flags(["--job_endpoint=f:1", flag])


def test_options_of_a_job_file_become_flags() -> None:
    """A text, a number, a switch and a list are what Beam reads them as."""
    flags = as_flags(
        {
            "environment_type": "EXTERNAL",
            "parallelism": 3,
            "streaming": True,
            "flink_submit_uber_jar": False,
            "experiments": ("a", "b=1"),
        }
    )
    found = parse_flags(flags, {})
    assert (found.environment_type, found.parallelism) == ("EXTERNAL", 3)
    assert (found.streaming, found.flink_submit_uber_jar) == (True, False)
    assert found.experiments == ["a", "b=1"]
