"""Test that what the README and docs/drift.md show is true: it is run, here, in their order."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner

import batchscore as bs
from batchscore.cli import cli
from batchscore.job import Job
from batchscore.job.text import parse_yaml
from batchscore.models.folder import read_model_folder

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
DRIFT = (ROOT / "docs/drift.md").read_text(encoding="utf-8")
OPERATIONS = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
MODEL = ROOT / "jobs/flight_delays/model"


def blocks(language: str, page: str = README) -> list[str]:
    """Returns a page's code blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", page, re.S)


def sessions() -> list[tuple[str, list[str]]]:
    """Returns each command of the README's sessions with the lines that it is said to print."""
    found: list[tuple[str, list[str]]] = []
    for line in "".join(blocks("console")).splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return found


def shape(line: str) -> str:
    """Returns a line without what differs from run to run; the equation of rows stays as it is."""
    line = re.sub(r"\s+", " ", line.strip())
    if line.startswith("read "):
        return line
    line = line.replace(".venv/bin/", "")
    line = re.sub(r"\b\d{8}-[0-9a-f]{4}\b", "RUN", line)
    line = re.sub(r"\b[0-9a-f]{16}\b", "UNIT", line)
    line = re.sub(r"limited by .*|^help .*|in \S+/data$|\S+@\S+", "…", line)
    line = re.sub(r"\S*/?data/samples/", "data/samples/", line)
    return re.sub(r"\d{4}-\d\d-\d\dT[\d:.+]+|[\d.,]*\d[kM]?", "#", line)


def arguments(command: str) -> list[str] | None:
    """Returns a batchscore command's arguments, the Makefile's for `make demo`; else None."""
    if command == "make demo":
        recipe = re.search(r"^demo:.*\n\t\$\(BIN\)/(.*)$", (ROOT / "Makefile").read_text(), re.M)
        assert recipe is not None
        command = recipe[1]
    words = shlex.split(command)
    return words[1:] if words[0] == "batchscore" else None


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that holds what the README's commands need, and is the current one."""
    shutil.copytree(ROOT / "jobs", tmp_path / "jobs")
    (tmp_path / "data").symlink_to(ROOT / "data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_the_sessions_and_the_code_do_what_the_readme_says(clone: Path) -> None:
    """Every command ends as shown and prints the lines shown; what it wrote is read as shown."""
    for command, expected in sessions():
        words = arguments(command)
        if words is None:
            continue
        done = CliRunner().invoke(cli, words)
        refused = expected[:1] and expected[0].startswith(("FAIL", "HELD"))
        assert done.exit_code == (3 if refused else 0), done.output
        printed = [shape(line) for line in done.output.splitlines()]
        assert [shape(line) for line in expected if shape(line) not in printed] == []
    for code in blocks("python"):
        names: dict[str, object] = {}
        exec(code, names)
        if isinstance(result := names.get("result"), bs.RunResult):
            assert (result.status, result.rows.scored) == ("unchanged", 994)
        elif "late" in names:
            assert len(names["late"].fetchall()) == 3  # type: ignore[attr-defined]
        else:
            assert names["failed"] == ["arr_delay", "dep_delay", "tailnum"]


@pytest.mark.slow
def test_the_page_on_python_says_what_is_returned(
    clone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The code of docs/python.md runs, and prints what the page shows."""
    page = (ROOT / "docs/python.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    exec("".join(blocks("python", page)), names)
    assert [capsys.readouterr().out] == blocks("text", page)
    assert (names["found"].status, names["again"].status) == ("ok", "unchanged")
    assert names["again"].files == names["result"].files
    assert names["again"].files[0].startswith(f"{clone}/out/python/data/")


def test_each_session_is_one_that_is_run() -> None:
    """All commands are batchscore's own, but for the tests' own `make test`."""
    others = [command for command, _ in sessions() if arguments(command) is None]
    assert others == ["make test"]


def test_the_job_shown_is_the_job_that_is_run() -> None:
    """The README's job file says what jobs/flight_delays/job_day.yaml says."""
    shown = yaml.safe_load(blocks("yaml")[0])
    file = yaml.safe_load((ROOT / "jobs/flight_delays/job_day.yaml").read_text(encoding="utf-8"))
    assert {"batchscore": 1, **shown} == file


def test_a_models_reference_is_written_as_docs_drift_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The code makes a model folder with its profile, and the command makes the same profile."""
    monkeypatch.chdir(tmp_path)
    january = ROOT / "data/samples/flights/month=1"
    rows = pq.read_table(january, columns=["carrier", "distance"], partitioning=None)
    score = pa.array(np.linspace(0, 1, len(rows)), pa.float32())
    pq.write_table(rows.append_column("score", score), "scored.parquet")
    card = yaml.safe_load((MODEL / "model.yaml").read_text(encoding="utf-8"))
    files = {name: (MODEL / name).read_bytes() for name in card["files"]}
    for key in ("batchscore_model", "files", "profile"):
        del card[key]
    del files["profile.parquet"]
    exec(
        "".join(blocks("python", DRIFT)),
        {"rows": rows, "score": score, "card": card, "files": files},
    )
    assert read_model_folder("model").profile == "profile.parquet"
    profile = bs.read_profile("model/profile.parquet")
    kinds = {name: column.kind for name, column in profile.columns.items()}
    assert kinds == {"carrier": "category", "distance": "number", "score": "probability"}
    Path("profile.parquet").unlink()
    (command,) = blocks("console", DRIFT)
    words = arguments(command.removeprefix("$ "))
    assert words is not None
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 0, done.output
    assert Path("profile.parquet").read_bytes() == Path("model/profile.parquet").read_bytes()


def test_the_lines_of_a_card_shown_are_those_of_the_demos() -> None:
    """What docs/drift.md shows of a card stands in the card of the model for the demo."""
    found = map(yaml.safe_load, blocks("yaml", DRIFT))
    (shown,) = [each for each in found if "profile" in each]
    card = yaml.safe_load((MODEL / "model.yaml").read_text(encoding="utf-8"))
    assert shown["profile"] == card["profile"]
    assert shown["files"].items() <= card["files"].items()


def test_the_sections_shown_are_those_of_a_job_file() -> None:
    """What the pages show of a job file is valid in one."""
    job = (ROOT / "jobs/flight_delays/job.yaml").read_text(encoding="utf-8")
    shown = [*blocks("yaml", OPERATIONS), *blocks("yaml", DRIFT)]
    sections = [each for each in shown if not each.startswith("profile:")]
    assert len(sections) == 3
    for section in sections:
        tree = {**parse_yaml(job, "job.yaml"), **parse_yaml(section, "the page")}
        Job.model_validate(tree)


def test_links_lead_somewhere() -> None:
    """Every relative link of the README and the pages in docs/ names a file that is there."""
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    for page in pages:
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_the_architecture_names_every_module_and_no_other() -> None:
    """The table of places holds each module and package of batchscore, and nothing that is gone."""
    table = ARCHITECTURE.partition("## Where things are")[2].partition("\n\nImports")[0]
    named = set(re.findall(r"`([\w/]+(?:\.py|/))`", table))
    package = ROOT / "batchscore"
    modules = {path.name for path in package.glob("*.py") if not path.name.startswith("__")}
    packages = {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    assert named == modules | packages
