"""The files of jobs/schedules: cron, systemd and Kubernetes do as they say with each exit code."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import yaml

import batchscore
from batchscore.errors import HeldError, InvalidError, RetryError
from tests.factory import run_json, write_job
from tests.pages import ROOT

FOLDER = ROOT / "jobs/schedules"
README = (FOLDER / "README.md").read_text()
IMAGE = f"registry.example.org/batchscore:{batchscore.__version__}"
FOR_PEOPLE = [InvalidError.exit_code, HeldError.exit_code]
SCRIPT = """#!/bin/sh
echo "$@" >> "{folder}/calls"
exit "$(sed -n "$(wc -l < "{folder}/calls")p" "{folder}/codes")"
"""


def nightly(folder: Path, codes: list[int], *arguments: str) -> tuple[int, list[str]]:
    """Return the exit code of the script, and its calls of a batchscore that ends with codes."""
    program = folder / "batchscore"
    program.write_text(SCRIPT.format(folder=folder))
    program.chmod(0o755)
    (folder / "codes").write_text("".join(f"{code}\n" for code in codes))
    given = {"BATCHSCORE_BIN": str(folder), "BATCHSCORE_PAUSE_SECONDS": "0"}
    command = ["sh", str(FOLDER / "nightly.sh"), *arguments]
    done = subprocess.run(command, env={**os.environ, **given, "BATCHSCORE_JOB": "job.yaml"})
    return done.returncode, (folder / "calls").read_text().splitlines()


@pytest.mark.parametrize(
    ("codes", "code", "calls"),
    [
        ([0], 0, 1),
        ([1, 0], 0, 2),
        ([1, 1, 1, 0], 1, 3),
        ([1, HeldError.exit_code], HeldError.exit_code, 2),
        *(([code], code, 1) for code in (*FOR_PEOPLE, RetryError.exit_code, 130, 143)),
    ],
)
def test_the_script_tries_again_what_may_pass(
    tmp_path: Path, codes: list[int], code: int, calls: int
) -> None:
    """A failure is tried three times at most; it ends with batchscore's own code."""
    found, made = nightly(tmp_path, codes, "2026-03-01")
    assert (found, len(made)) == (code, calls)
    assert set(made) == {"run job.yaml --param date=2026-03-01 --wait 2h"}


def test_the_script_scores_yesterday_by_default(tmp_path: Path) -> None:
    """The day is that of UTC; a test at midnight may see either."""
    now = datetime.now(timezone.utc)
    _, (made,) = nightly(tmp_path, [0])
    after = datetime.now(timezone.utc)
    assert made.split("date=")[1][:10] in {
        f"{each - timedelta(days=1):%F}" for each in (now, after)
    }


def test_the_script_runs_a_real_job(tmp_path: Path) -> None:
    """The day is published, and a second start changes nothing."""
    date = {"params": {"date": {"type": "date"}}}
    job = write_job(tmp_path, date)
    given = {"BATCHSCORE_BIN": str(Path(sys.executable).parent), "BATCHSCORE_JOB": str(job)}
    command = ["sh", str(FOLDER / "nightly.sh"), "2026-03-01"]
    done = subprocess.run(command, env={**os.environ, **given}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    again = run_json("run", job, "--param", "date=2026-03-01")
    assert again["status"] == "unchanged"


def test_the_lines_of_cron_are_whole() -> None:
    """Five fields, a user, and a command without %, which cron takes for the end of a line."""
    lines = (FOLDER / "flights.cron").read_text().splitlines()
    commands = [line for line in lines if line and not re.match(r"#|[A-Z]+=", line)]
    assert len(commands) == 2
    for line in commands:
        fields = line.split(maxsplit=6)
        assert all(re.fullmatch(r"\*|\d+", field) for field in fields[:5])
        assert fields[5] == "batchscore"
        assert "%" not in fields[6]
    assert commands[0].endswith("/nightly.sh")


def test_systemd_accepts_the_units() -> None:
    """`systemd-analyze verify` finds nothing, and the time is one that comes."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not installed")
    units = [str(FOLDER / f"batchscore-nightly.{kind}") for kind in ("service", "timer")]
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    time = re.findall(r"^OnCalendar=(.+)$", Path(units[1]).read_text(), re.MULTILINE)[0]
    done = subprocess.run(["systemd-analyze", "calendar", time], capture_output=True, text=True)
    assert "Next elapse" in done.stdout


def test_systemd_tries_again_what_may_pass() -> None:
    """What people decide is not started again; the command's $ and % are literal for systemd."""
    service = (FOLDER / "batchscore-nightly.service").read_text()
    kept = re.findall(r"^RestartPreventExitStatus=(.+)$", service, re.MULTILINE)[0]
    assert [int(code) for code in kept.split()] == FOR_PEOPLE
    command = re.findall(r"^ExecStart=(.+)$", service, re.MULTILINE)[0]
    assert (
        re.findall(r"(?<!\$)\$(?!\$)|(?<!%)%(?!%)", command.replace("$$", "").replace("%%", ""))
        == []
    )


def _jobs() -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return the spec of each Kubernetes Job with that of its pods."""
    job = yaml.safe_load((FOLDER / "job.yaml").read_text())["spec"]
    cron = yaml.safe_load((FOLDER / "cronjob.yaml").read_text())["spec"]["jobTemplate"]["spec"]
    return [(each, each["template"]["spec"]) for each in (job, cron)]


@pytest.mark.parametrize("number", [0, 1], ids=["job", "cronjob"])
def test_a_pod_may_do_no_more_than_it_must(number: int) -> None:
    """It is the image's user on a read-only root, with limits, and writes to its scratch alone."""
    spec, pod = _jobs()[number]
    dockerfile = (ROOT / "Dockerfile").read_text()
    user = int(re.findall(r"^USER (\d+)$", dockerfile, re.MULTILINE)[0])
    (container,) = pod["containers"]
    assert container["image"] == IMAGE
    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == user
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["resources"]["limits"]["memory"]
    mounts = {each["mountPath"]: each.get("readOnly", False) for each in container["volumeMounts"]}
    assert mounts == {"/job": True, "/scratch": False}
    assert re.search(r"^ENV HOME=/scratch TMPDIR=/scratch", dockerfile, re.MULTILINE)
    policy, disrupted = spec["podFailurePolicy"]["rules"]
    assert policy["action"] == "FailJob"
    assert policy["onExitCodes"]["values"] == FOR_PEOPLE
    assert policy["onExitCodes"]["containerName"] == container["name"]
    assert disrupted["action"] == "Ignore"
    assert "--wait" in str(container["args"])


def test_the_two_images_differ_in_extras_alone() -> None:
    """A change to one is made to the other too; extras are those of the package."""
    cpu, gpu = (
        [line for line in (ROOT / name).read_text().splitlines() if not line.startswith("#")]
        for name in ("Dockerfile", "Dockerfile.gpu")
    )
    differing = [pair for pair in zip(cpu, gpu, strict=True) if pair[0] != pair[1]]
    assert [pair[0].partition("=")[0] for pair in differing] == ["ARG EXTRAS"]
    project = (ROOT / "pyproject.toml").read_text()
    for line in (line for pair in differing for line in pair):
        for extra in line.partition("=")[2].split(","):
            assert re.search(f"^{extra} = ", project, re.MULTILINE), extra


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.iterdir()))
def test_the_page_names_each_file(name: str) -> None:
    """A newcomer learns what each file is for, and what of it was tried."""
    assert name == "README.md" or f"| `{name}` |" in README
