"""Test the metrics of `run --metrics`: their names, what a run sets, and what it keeps."""

from __future__ import annotations

import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from batchscore.commands.metric_names import METRICS
from batchscore.commands.textfile import Textfile, textfile
from batchscore.errors import InvalidError, OutputError
from tests import factory
from tests.conftest import ROOT, Published

DASHBOARD = ROOT / "jobs/grafana/dashboard.json"
_UNITS = (
    "seconds",
    "bytes",
    "ratio",
    "total",
    "status",
    "code",
    "rows",
    "checks",
    "verdict",
    "slow",
)
FAILED = {
    **{"status": "failed", "exit_code": 1, "error": "boom", "seconds": 2.0},
    **{"started": "2026-12-01T03:00:00+00:00", "finished": "2026-12-01T03:00:02+00:00"},
}


@pytest.fixture
def file(tmp_path: Path) -> Textfile:
    """A file that does not exist yet."""
    pytest.importorskip("prometheus_client")
    return Textfile(str(tmp_path / "flights.prom"))


def samples(file: Textfile) -> dict[str, float]:
    """What Prometheus's own parser reads of the file, by name and labels but for the job's."""
    from prometheus_client.parser import text_string_to_metric_families

    families = [*text_string_to_metric_families(Path(file.path).read_text())]
    return {
        " ".join([s.name, *(v for k, v in sorted(s.labels.items()) if k != "job")]): s.value
        for family in families
        for s in family.samples
    }


def test_names_follow_the_conventions() -> None:
    """Words in lower case after one prefix, base units at the end, each name once."""
    names = [metric.exposed for metric in METRICS]
    assert len({*names}) == len(names)
    for name in names:
        assert re.fullmatch(r"batchscore(_[a-z]+)+", name)
        assert name.endswith(_UNITS), name


def test_each_metric_is_documented() -> None:
    """With its labels and its meaning, in docs/watching.md."""
    page = (ROOT / "docs/watching.md").read_text()
    for metric in METRICS:
        own = ("job",) if metric.counts else ("job", "slice")
        labels = ", ".join(f"`{label}`" for label in (*own, *metric.labels))
        assert f"| `{metric.exposed}` | {labels} | {metric.meaning} |" in page


def test_the_dashboard_asks_for_what_is_written() -> None:
    """Each name of each query is a metric, and each label is one of its labels."""
    known = {m.exposed: {*m.labels, "slice", "exported_job"} for m in METRICS}
    board = json.loads(DASHBOARD.read_text())
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    queries.append(board["templating"]["list"][1]["query"])
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    for query in queries:
        (name,) = re.findall(r"batchscore_\w+", query)
        by = re.findall(r"by \(([\w, ]+)\)", query)
        labels = {label for group in by for label in group.split(", ")}
        labels |= {*re.findall(r"(\w+)=~?\"", query)}
        assert name in known, query
        assert labels <= known[name], query
        assert all(query.count(a) == query.count(b) for a, b in ("()", "{}", "[]"))


def test_a_published_run_is_written_whole(file: Textfile, flights: Published) -> None:
    """Its figures are those of its manifest."""
    document = {**flights.manifest, "exit_code": 0}
    assert file.write("flights", "flights", document) is None
    found, rows = samples(file), document["rows"]
    assert found["batchscore_run_rows scored flights"] == rows["scored"]
    assert found["batchscore_run_status flights published"] == 1
    assert found["batchscore_run_status flights held"] == 0
    assert found["batchscore_run_duration_seconds flights"] == document["seconds"]
    assert found["batchscore_run_cpu_seconds flights"] == document["usage"]["cpu_seconds"]
    assert found["batchscore_run_checks failed flights"] == 0
    phases = {k for k in found if k.startswith("batchscore_run_phase_duration_seconds")}
    assert sum(found[k] for k in phases) == pytest.approx(document["seconds"], abs=0.01)
    assert list(Path(file.path).parent.iterdir()) == [Path(file.path)]


def test_a_run_that_fails_keeps_the_last_success(file: Textfile) -> None:
    """And goes on to count; what it does not know is gone."""
    good: dict[str, Any] = {**FAILED, "status": "published", "exit_code": 0, "seconds": 9.0}
    good |= {"usage": {"cpu_seconds": 3.0}, "finished": "2026-11-30T03:00:00+00:00"}
    for document in (good, FAILED, FAILED):
        assert file.write("flights", "flights,date=1", document) is None
    found = samples(file)
    assert found["batchscore_last_success_timestamp_seconds flights,date=1"] == 1796007600
    assert found["batchscore_last_published_timestamp_seconds flights,date=1"] == 1796007600
    assert found["batchscore_runs_total failed"] == 2
    assert found["batchscore_runs_total published"] == 1
    assert found["batchscore_run_exit_code flights,date=1"] == 1
    assert "batchscore_run_cpu_seconds flights,date=1" not in found


def test_an_unchanged_run_is_a_success_that_published_nothing(file: Textfile) -> None:
    """So an alert tells a night with nothing to do from one that did not come."""
    document = {**FAILED, "status": "unchanged", "published_at": "2026-11-30T03:00:00+00:00"}
    assert file.write("flights", "s", document) is None
    found = samples(file)
    assert found["batchscore_last_success_timestamp_seconds s"] == 1796094002
    assert found["batchscore_last_published_timestamp_seconds s"] == 1796007600


def test_a_file_that_is_not_ours_is_replaced(file: Textfile) -> None:
    """Nothing of it is kept; neither is what another job left."""
    Path(file.path).write_text("not { metrics")
    assert file.write("flights", "s", FAILED) is None
    assert file.write("other", "s", FAILED) is None
    assert samples(file)["batchscore_runs_total failed"] == 1


def test_values_of_labels_are_escaped(file: Textfile) -> None:
    """A name may hold quotes and line breaks."""
    assert file.write('fl"ig\\hts\n', "s", FAILED) is None
    assert file.write('fl"ig\\hts\n', "s", FAILED) is None
    assert samples(file)["batchscore_runs_total failed"] == 2


def test_a_file_that_cannot_be_written_is_a_warning(tmp_path: Path) -> None:
    """It names the file, and the run's outcome stays."""
    pytest.importorskip("prometheus_client")
    found = Textfile(str(tmp_path / "gone/x.prom")).write("flights", "s", FAILED)
    assert found == (
        f"metrics {tmp_path}/gone/x.prom: could not be written (No such file or directory); name a "
        "file in a folder that exists and may be written. The run's outcome does not change"
    )


def test_a_pipe_is_neither_waited_for_nor_replaced(tmp_path: Path) -> None:
    """Nobody may ever write to it, and a run must end."""
    pytest.importorskip("prometheus_client")
    pipe = tmp_path / "x.prom"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(Textfile(str(pipe)).write, "flights", "s", FAILED)
        try:
            found = writing.result(10)
        finally:  # ends whoever reads the pipe
            os.close(os.open(pipe, os.O_RDWR | os.O_NONBLOCK))
    assert found is not None
    assert "could not be written (it exists and is no file)" in found
    assert pipe.is_fifo()


@pytest.mark.parametrize("path", ["x.txt", "s3://bucket/x.prom"])
def test_a_name_that_the_exporter_does_not_read_is_refused(path: str) -> None:
    """Before any work."""
    with pytest.raises(OutputError, match=r"expected a path on this machine that ends in \.prom"):
        textfile(path)
    assert textfile(None) is None


def test_a_missing_library_is_named_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that installs it."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(InvalidError, match=r"pip install 'batchscore\[prometheus\]'"):
        textfile("x.prom")


@pytest.mark.slow
def test_the_command_publishes_though_its_metrics_cannot_be_written(tmp_path: Path) -> None:
    """The exit code is the run's own; so it is with a file that can be written."""
    pytest.importorskip("prometheus_client")
    job = factory.write_job(tmp_path)
    found = factory.run_cli("run", job, "--metrics", tmp_path / "gone/x.prom")
    assert found.exit_code == 0
    assert found.stdout.startswith("PUBLISHED")
    assert found.stderr.count("could not be written") == 1
    file = Textfile(str(tmp_path / "x.prom"))
    assert factory.run_cli("run", job, "--metrics", file.path).exit_code == 0
    assert samples(file)["batchscore_runs_total unchanged"] == 1
    broken = ("--set", "model=nowhere", "--metrics", file.path)
    assert factory.run_cli("run", job, *broken).exit_code == 2
    assert samples(file)["batchscore_runs_total invalid"] == 1
