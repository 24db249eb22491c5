"""Engines by name: those of other packages run jobs, and one that is missing is an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchscore.engines.jobs import cancel_job, job_state
from batchscore.engines.registry import find_engine
from batchscore.errors import JobFileError
from batchscore.job import load_job
from batchscore.plan import make_plan
from batchscore.runs.submission import Submission
from tests import factory

MODULE = '''"""An engine that notes what it is asked for, and runs pipelines as `direct` does."""

from batchscore.engines.direct import DirectEngine


class Engine(DirectEngine):
    name = "noting"
    experimental = True
    asked = []

    def parse_flags(self, flags):
        self.asked.append(("parse_flags", *flags))

    def start_workers(self, plan):
        self.asked.append(("start_workers", plan.workers))

    def submit(self, build, plan, flags):
        self.asked.append(("submit", *flags))
        return super().submit(build, plan, flags)
'''


def install(folder: Path, name: str, value: str) -> None:
    """Make a folder of `sys.path` hold a package that offers an engine."""
    facts = folder / f"{name}_engine-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-engine\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(f"[batchscore.engines]\n{name} = {value}\n")


def test_a_package_adds_an_engine_by_an_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A job that names it is validated, placed and run by it, with options of file and command."""
    (tmp_path / "noting.py").write_text(MODULE)
    install(tmp_path, "noting", "noting:Engine")
    monkeypatch.syspath_prepend(tmp_path)
    options = {"engine": "noting", "options": {"experiments": ["a"]}}
    job = factory.write_job(tmp_path, {"runtime": options})
    manifest = factory.run_json("run", job, "--", "--no_auth")
    assert (manifest["status"], manifest["engine"]) == ("published", "noting")
    flags = ("--experiments=a", "--no_auth")
    parsed = [("parse_flags", *flags)] * 2
    assert find_engine("noting").engine.asked == [  # type: ignore[attr-defined]
        *(parsed[0], ("start_workers", 1), parsed[1], ("submit", *flags), parsed[1])
    ]
    assert "runtime.engine noting is experimental" in caplog.text


def test_jobs_of_an_engine_that_does_not_tell_of_them_are_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine of another package needs no method for them; one that is not installed has none."""
    (tmp_path / "plain.py").write_text(
        "class Engine:\n    name = 'plain'\n    experimental = False\n\n"
        "    def parse_flags(self, *_): ...\n\n"
        "    place = start_workers = submit = parse_flags\n"
    )
    install(tmp_path, "plain", "plain:Engine")
    monkeypatch.syspath_prepend(tmp_path)
    plan = make_plan(load_job(str(factory.write_job(tmp_path))))
    assert find_engine("plain").submission(plan, ()) is None
    for engine in ("plain", "direct", "absent"):
        assert job_state(Submission(engine, "a")) == "unknown"
        assert not cancel_job(Submission(engine, "a"))


def test_an_unknown_engine_is_named_with_the_known_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message lists the engines of batchscore and those of other packages."""
    install(tmp_path, "noting", "noting:Engine")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        JobFileError,
        match=r"one of direct, flink, prism, spark, dataflow, (.*, )?noting, found 'flnk'",
    ):
        find_engine("flnk")


def test_an_engine_that_cannot_be_imported_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names the entry point and why it fails."""
    install(tmp_path, "broken", "no_such_module:Engine")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(JobFileError, match=r"runtime.engine broken.*No module named"):
        find_engine("broken")


def test_an_object_that_is_no_engine_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names what it lacks, before any work."""
    install(tmp_path, "half", "collections:Counter")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(JobFileError, match=r"Counter is not an engine: it lacks name, .*, submit;"):
        find_engine("half")


@pytest.mark.parametrize("method", ["parse_flags", "place", "start_workers", "submit"])
def test_an_engine_that_raises_is_named_by_the_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """The run ends with exit code 1 and one line with entry point, method and cause."""
    module = f"raising_{method}"
    (tmp_path / f"{module}.py").write_text(
        "from batchscore.engines.direct import DirectEngine\n\n\n"
        "class Engine(DirectEngine):\n    name = 'raising'\n\n"
        f"    def {method}(self, *given):\n        raise KeyError('region')\n"
    )
    install(tmp_path, "raising", f"{module}:Engine")
    monkeypatch.syspath_prepend(tmp_path)
    job = factory.write_job(tmp_path, {"runtime": {"engine": "raising"}})
    ended = factory.run_cli("run", job)
    assert ended.exit_code == 1
    blamed = f"raising: {method} of {module}:Engine failed with KeyError: 'region'"
    assert blamed in ended.stderr
