"""Test that what the README and docs/drift.md show is true: it is run, here, in their order."""

from __future__ import annotations

import re
import shutil
import sys
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
from tests import factory
from tests.pages import ROOT, all_blocks, arguments, blocks, page, replay, run_code, sessions, shape

README = page("README.md")
SESSIONS = sessions("".join(blocks("console", README)))
HELD = sessions("".join(blocks("console", page("docs/held-runs.md"))))
ARCHITECTURE = page("docs/architecture.md")
DRIFT = page("docs/drift.md")
OPERATIONS = "".join(page(f"docs/{name}.md") for name in ("operations", "watching", "held-runs"))
MODEL = ROOT / "jobs/flight_delays/model"


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that holds what the README's commands need, and is the current one."""
    shutil.copytree(ROOT / "jobs", tmp_path / "jobs")
    (tmp_path / "data").symlink_to(ROOT / "data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_the_sessions_and_the_code_do_what_the_readme_says(clone: Path) -> None:
    """Every command ends as shown and prints the lines shown; what it wrote is read as shown.

    So does that of the page on held runs, over what the README's have published.
    """
    for command, expected in (*SESSIONS, *HELD):
        if words := arguments(command):
            replay(words, expected)
    for code in blocks("python", README):
        names: dict[str, object] = {}
        run_code(code, names)
        if isinstance(result := names.get("result"), bs.RunResult):
            assert (result.status, result.rows.scored) == ("unchanged", 994)
        elif "late" in names:
            assert len(names["late"].fetchall()) == 3  # type: ignore[attr-defined]
        else:
            assert names["failed"] == ["arr_delay", "dep_delay", "tailnum"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bring-a-model", "backfill"])
def test_pages_can_be_followed(clone: Path, name: str) -> None:
    """The commands of pages on bringing models and on backfills end and print as shown."""
    for command, expected in sessions("".join(blocks("console", page(f"docs/{name}.md")))):
        replay(arguments(command) or [], expected)


@pytest.mark.slow
def test_the_page_on_python_says_what_is_returned(
    clone: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The code of docs/python.md runs, and prints what the page shows."""
    monkeypatch.syspath_prepend(clone)
    names: dict[str, Any] = {}
    for language, title, text in all_blocks(page("docs/python.md")):
        if title:
            (clone / title).write_text(text, encoding="utf-8")
        elif language == "python":
            run_code(text, names)
        else:
            assert capsys.readouterr().out == text
    sys.modules.pop("delays")
    assert read_model_folder("model").golden == "golden.parquet"
    assert (names["found"].status, names["again"].status) == ("ok", "unchanged")
    for fact in ("run", "files"):
        assert getattr(names["again"], fact) == getattr(names["result"], fact)
    assert names["again"].files[0].startswith(f"{clone}/out/python/data/")


@pytest.mark.slow
def test_the_page_on_repairs_says_how_a_run_refuses_a_function(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the function shown, the command prints what the page shows, but for what it leaves out.

    The page breaks the line, and names shards from the job's folder.
    """
    monkeypatch.chdir(tmp_path)
    factory.write_job(tmp_path, {"preprocess.function": "features.py:encode"})
    ((_, title, code), (_, _, text)) = all_blocks(page("docs/repairs.md"))
    Path(title).write_text(code, encoding="utf-8")
    ((command, expected),) = sessions(text)
    done = CliRunner().invoke(cli, arguments(command))
    assert done.exit_code == 2
    printed = shape(done.output.replace(f"{tmp_path}/", ""))
    for part in " ".join(expected).split("…"):
        assert shape(part) in printed


def test_each_session_is_one_that_is_run() -> None:
    """All commands are batchscore's own, but for the tests' own `make test`."""
    others = [command for command, _ in SESSIONS if arguments(command) is None]
    assert others == ["make test"]


def test_the_job_shown_is_the_job_that_is_run() -> None:
    """The README's job file says what jobs/flight_delays/job_day.yaml says."""
    shown = yaml.safe_load(blocks("yaml", README)[0])
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
    """What docs/drift.md shows of a card is in the card of the model for the demo."""
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
    assert len(sections) == 5
    for section in sections:
        tree = {**parse_yaml(job, "job.yaml"), **parse_yaml(section, "the page")}
        Job.model_validate(tree)


def test_links_lead_somewhere() -> None:
    """Every relative link of the README and the pages in docs/ names a file that is there."""
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    for each in pages:
        for link in re.findall(r"\]\(([^)#:]+)\)", each.read_text(encoding="utf-8")):
            assert (each.parent / link).exists(), f"{each.name}: {link}"


def test_the_architecture_names_every_module_and_no_other() -> None:
    """The table of places holds each module and package of batchscore, and nothing that is gone."""
    table = ARCHITECTURE.partition("## Where things are")[2].partition("\n\nImports")[0]
    named = set(re.findall(r"`([\w/]+(?:\.py|/))`", table))
    package = ROOT / "batchscore"
    modules = {path.name for path in package.glob("*.py") if not path.name.startswith("__")}
    packages = {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    assert named == modules | packages
