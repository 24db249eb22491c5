"""`profile`, `compare` and `report` on the command line: what they print, write and end with."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from batchscore.commands.files import is_profile
from tests import factory
from tests.conftest import Published

RNG = np.random.default_rng(20261121)


@pytest.fixture
def months(tmp_path: Path) -> tuple[Path, Path]:
    """Two folders of data, between which the column x moved by one standard deviation."""
    for name, mean in (("january", 0.0), ("june", 1.0)):
        columns = {"x": RNG.normal(mean, size=3_000), "same": RNG.normal(size=3_000)}
        factory.write_shard(tmp_path / name / "a.parquet", pa.table(columns))
    return tmp_path / "january", tmp_path / "june"


def test_a_profile_is_printed_and_stored(months: tuple[Path, Path], tmp_path: Path) -> None:
    """`profile` prints a line a column, and stores what `compare` takes as a reference."""
    stored = tmp_path / "january.parquet"
    done = factory.run_cli("profile", months[0], "-o", stored)
    assert done.exit_code == 0
    assert done.stdout.startswith("PROFILED  3,000 rows, 2 columns, 1 file, in ")
    assert done.stdout.splitlines()[-1].startswith(f"wrote {stored} ")
    assert is_profile(str(stored))
    assert factory.run_cli("compare", stored, months[0]).exit_code == 0
    assert factory.run_cli("compare", stored, months[1]).exit_code == 3


def test_several_data_are_one_table(months: tuple[Path, Path], tmp_path: Path) -> None:
    """`profile` takes several addresses, chosen columns, and says all as one JSON document."""
    found = factory.run_json("profile", *months, "--columns", "x")
    assert (found["rows"], found["shards"], found["output"]) == (6_000, 2, None)
    assert set(found["profile"]) == {"x"}
    assert len([*tmp_path.iterdir()]) == 2


@pytest.mark.slow
def test_a_comparison_ends_with_its_verdict(months: tuple[Path, Path], tmp_path: Path) -> None:
    """`compare` says what failed, exits 3, and writes the report that was asked for."""
    page = tmp_path / "page.html"
    done = factory.run_cli("compare", *months, "-o", page)
    assert done.exit_code == 3
    assert done.stdout.startswith(f"FAIL   {months[1]}   against {months[0]}\n")
    assert done.stdout.splitlines()[-1] == f"report {page}"
    assert '<div class="panel">' in page.read_text(encoding="utf-8")
    raw = factory.run_cli("compare", *months, "--json")
    found = json.loads(raw.stdout)
    assert (found["verdict"], found["exit_code"], raw.exit_code) == ("fail", 3, 3)
    assert found["aspects"][0]["column"] == "x"


@pytest.mark.parametrize(
    "options",
    [
        ("--columns", "same"),
        ("--alpha", "0.01", "--columns", "same,same"),
        [
            w
            for m in ("psi", "ks", "w1", "tail", "beyond")
            for w in ("--threshold", f"{m}=null,null")
        ],
    ],
)
def test_what_is_judged_can_be_said(months: tuple[Path, Path], options: tuple[str, ...]) -> None:
    """Columns that are not asked for, and measures without thresholds, do not fail."""
    assert factory.run_cli("compare", *months, *options).exit_code == 0


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("profile", "none"), "the data none: no file found"),
        (("profile", "january", "--columns", "y"), "column 'y' is not in the data"),
        (("profile", "january", "-o", "january/a.parquet"), "exists and is not a profile"),
        (("profile", "january", "-o", "january/p.parquet"), "would be read as part of it"),
        (("profile", "january", "--classes", "x"), "cannot be profiled as classes"),
        (("compare", "january", "none"), "the data none: no file found"),
        (("compare", "january", "june", "--columns", "y"), "is in neither"),
        (("compare", "january", "june", "--threshold", "psi"), "expected MEASURE=WARN,FAIL"),
        (("compare", "january", "june", "--threshold", "psi=a,b"), "expected MEASURE=WARN,FAIL"),
        (("compare", "january", "june", "--threshold", "psi=1,2,3"), "expected MEASURE=WARN,FAIL"),
        (("compare", "january", "june", "--threshold", "mean=1,2"), "there is no measure 'mean'"),
        (("compare", "january", "june", "--alpha", "0"), "alpha is 0.0"),
        (("compare", "january", "june", "-o", "june/a.parquet"), "a name that ends in .html"),
        (("report", "january", "-o", "x.html"), "is not an output of batchscore"),
        (("report", "january", "-o", "x.pdf"), "a name that ends in .html"),
    ],
)
def test_what_is_wrong_is_one_message(
    months: tuple[Path, Path], args: tuple[str, ...], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong data, columns, thresholds and names end with 2 and one message; nothing is written."""
    monkeypatch.chdir(months[0].parent)
    before = sorted(path for path in Path().rglob("*"))
    done = factory.run_cli(*args)
    assert (done.exit_code, done.stdout) == (2, "")
    assert words in done.stderr
    assert "defect" not in done.stderr
    assert sorted(path for path in Path().rglob("*")) == before


@pytest.mark.slow
def test_a_run_has_a_report(flights: Published, tmp_path: Path) -> None:
    """`report` writes the newest run's page, and says where it lies; `show` has its drift."""
    page, run = tmp_path / "page.html", flights.manifest["run"]
    done = factory.run_cli("report", flights.output, "-o", page)
    assert done.stdout.startswith(f"report {page}   run {run} and 0 before it, ")
    assert (done.exit_code, done.stderr) == (0, "")
    assert run in page.read_text()
    found = factory.run_json("report", flights.output, run, "-o", page)
    assert (found["run"], found["missing"], found["bytes"]) == (run, [], page.stat().st_size)
    shown = factory.run_cli("show", flights.output).stdout
    assert "against the reference, model flight_delays" in shown


@pytest.mark.slow
def test_a_run_whose_reference_is_gone_has_a_report(tmp_path: Path) -> None:
    """Without the reference's file the page comes all the same, with a warning that names it."""
    stored = tmp_path / "reference.parquet"
    factory.run_json("profile", factory.write_shard(tmp_path / "a.parquet"), "-o", stored)
    job = factory.write_job(tmp_path, {"drift.reference": str(stored)})
    assert factory.run_cli("run", job).exit_code in (0, 3)
    stored.unlink()
    done = factory.run_cli("report", job, "-o", tmp_path / "page.html")
    assert done.exit_code == 0
    assert "WARNING  left out: file reference.parquet: " in done.stderr
