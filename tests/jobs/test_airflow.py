"""The DAGs of jobs/airflow on a real Airflow: flow, dates, retries, and people who decide."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest

import batchscore
from tests.airflows import Airflow, make_airflow, serving
from tests.factory import run_cli
from tests.pages import ROOT
from tests.waiting import wait_until

pytestmark = pytest.mark.slow
RUNS = "/api/v2/dags/flight_delays/dagRuns"
# Ends with 4 and then with 1 for one day; runs batchscore for all else, and prints much before it.
PROGRAM = """#!/bin/sh
case "$*" in
  "run "*date=2013-09-25*)
    echo try >> "{folder}/tries"
    case "$(wc -l < "{folder}/tries")" in
      1) exit 4 ;;
      2) head -c 300000 /dev/zero | tr '\\0' x >&2; exit 1 ;;
    esac ;;
esac
exec {batchscore} "$@"
"""
DATES = """
from datetime import datetime, timezone
from types import SimpleNamespace
from flight_delays_dag import day_of
def day(start, end, conf=None):
    at = lambda day: day and datetime(2026, 1, day, 0, 0, tzinfo=timezone.utc)
    run = SimpleNamespace(data_interval_start=at(start), data_interval_end=at(end), conf=conf,
                          run_after=datetime(2026, 1, 9, 4, tzinfo=timezone.utc))
    print(day_of({"dag_run": run}))
day(1, 2)
day(2, 2)
day(None, None)
day(1, 2, {"date": "2013-09-20"})
"""
POD = """
import json
from types import SimpleNamespace
from datetime import datetime, timezone
from kubernetes.client import ApiClient
from flight_delays_pods_dag import dag
task = dag.get_task("run")
run = SimpleNamespace(conf={}, run_after=datetime(2026, 1, 9, 4, tzinfo=timezone.utc))
start, end = (datetime(2026, 1, day, tzinfo=timezone.utc) for day in (1, 2))
from airflow.sdk.execution_time import macros
task.render_template_fields({"dag_run": run, "data_interval_start": start,
    "data_interval_end": end, "macros": macros})
task.hook._is_in_cluster = False
print(json.dumps(ApiClient().sanitize_for_serialization(task.build_pod_request_obj())))
"""


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Airflow:
    """An Airflow with a job whose output is in a temporary folder."""
    folder = tmp_path_factory.mktemp("airflow")
    text = (ROOT / "jobs/flight_delays/job_day.yaml").read_text()
    text = text.replace("../../data", f"{ROOT}/data").replace("../../out/flight_delays_day", "out")
    (folder / "job.yaml").write_text(
        text.replace("model: model", f"model: {ROOT}/jobs/flight_delays/model")
    )
    (folder / "bin").mkdir()
    program = folder / "bin/batchscore"
    program.write_text(
        PROGRAM.format(folder=folder, batchscore=Path(sys.executable).parent / "batchscore")
    )
    program.chmod(0o755)
    return make_airflow(
        folder / "home",
        AIRFLOW_VAR_BATCHSCORE_BIN=str(folder / "bin"),
        AIRFLOW_VAR_BATCHSCORE_JOB=str(folder / "job.yaml"),
        BATCHSCORE_RETRY_SECONDS="1",
    )


@pytest.fixture(scope="module")
def token(airflow: Airflow) -> Iterator[str]:
    """The token of a user of the running Airflow, whose DAG is not paused."""
    with serving(airflow) as found:
        dag = "/api/v2/dags/flight_delays"
        wait_until(lambda: asked(airflow, "PATCH", dag, {"is_paused": False}, found))
        yield found


def asked(airflow: Airflow, method: str, path: str, body: Any, token: str) -> Any:
    """Return the answer of a request; nothing as long as Airflow refuses it."""
    try:
        return airflow.rest(method, path, body, token)
    except HTTPError:
        return None


@pytest.fixture
def start(airflow: Airflow, token: str) -> Callable[[str], str]:
    """A function that starts a run without a logical date for a day, and returns the run's id."""

    def begin(day: str) -> str:
        body = {"logical_date": None, "conf": {"date": day}}
        return str(airflow.rest("POST", RUNS, body, token)["dag_run_id"])

    return begin


def ended(airflow: Airflow, token: str, run: str) -> dict[str, Any]:
    """Wait for the end of a run, and return its tasks' states and tries by name."""
    final = ("success", "failed")
    wait_until(lambda: airflow.rest("GET", f"{RUNS}/{run}", None, token)["state"] in final)
    found = airflow.rest("GET", f"{RUNS}/{run}/taskInstances", None, token)["task_instances"]
    return {each["task_id"]: (each["state"], each["try_number"]) for each in found}


def answer(airflow: Airflow, token: str, run: str, choice: str) -> None:
    """Answer the question of a held run once the scheduler has noted that it waits."""
    log = airflow.home / "scheduler.log"
    noted = re.compile(rf"Received executor event.*task_id='ask', run_id='{re.escape(run)}'")
    wait_until(lambda: noted.search(log.read_text()))
    path = f"{RUNS}/{run}/taskInstances/ask/-1/hitlDetails"
    wait_until(lambda: asked(airflow, "PATCH", path, {"chosen_options": [choice]}, token))


def manifests(airflow: Airflow, day: str) -> list[dict[str, Any]]:
    """Return what `runs` says of a day."""
    job = airflow.home.parent / "job.yaml"
    done = run_cli("runs", job, "--param", f"date={day}", "--json")
    return list(json.loads(done.stdout))


def test_the_day_comes_from_the_interval_or_the_run(airflow: Airflow) -> None:
    """A full interval's first day, else the day before the run; a day in `conf` comes first."""
    assert airflow.python(DATES).split() == ["2026-01-01", "2026-01-01", "2026-01-08", "2013-09-20"]


def test_a_day_is_tried_without_a_scheduler(airflow: Airflow) -> None:
    """The command of docs/airflow.md scores the day before the one that it names."""
    done = airflow.command("dags", "test", "flight_delays", "2013-09-19")
    assert done.returncode == 0, done.stdout
    (manifest,) = manifests(airflow, "2013-09-18")
    assert manifest["status"] == "published"


def test_the_pod_is_as_strict_as_the_files_of_kubernetes(airflow: Airflow) -> None:
    """The rendered pod has the day, and may neither become root nor write to its root."""
    pod = json.loads(airflow.python(POD).splitlines()[-1])
    (container,) = (each for each in pod["spec"]["containers"] if each["name"] == "base")
    assert container["image"] == f"registry.example.org/batchscore:{batchscore.__version__}"
    day = ["--param", "date=2026-01-01"]
    assert container["args"] == ["run", "/job/job.yaml", *day, "--wait", "1h"]
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["resources"]["limits"] == {"memory": "4Gi"}


def test_a_day_is_published_with_an_asset(
    airflow: Airflow, token: str, start: Callable[[str], str]
) -> None:
    """XCom and asset carry the manifest's run, rows and verdict; a second run at once adds none."""
    runs = [start("2013-09-20"), start("2013-09-20")]
    for run in runs:
        states = ended(airflow, token, run)
        assert {name for name, (state, _) in states.items() if state == "success"} == {
            *("check", "score", "outcome", "report")
        }
    events = airflow.rest("GET", "/api/v2/assets/events", None, token)["asset_events"]
    events = [each for each in events if each["source_run_id"] in runs]
    found = {each["extra"]["status"]: each["extra"] for each in events}
    extra = found["published"]
    assert (len(events), set(found)) == (2, {"published", "unchanged"})
    (manifest,) = manifests(airflow, "2013-09-20")
    assert (extra["run"], extra["rows"]["scored"]) == (manifest["run"], 994)
    assert found["unchanged"]["run"] == manifest["run"]
    assert extra["verdict"] == manifest["drift"]["verdict"]
    assert Path(extra["report"]).read_text().startswith("<!")


def test_codes_4_and_1_are_tried_again(
    airflow: Airflow, token: str, start: Callable[[str], str]
) -> None:
    """The third try publishes; a long line on standard error holds nothing up."""
    assert ended(airflow, token, start("2013-09-25"))["score"] == ("success", 3)


@pytest.mark.parametrize(("choice", "report"), [("Release", "success"), ("Discard", "skipped")])
def test_a_person_decides_about_a_held_run(
    airflow: Airflow, token: str, start: Callable[[str], str], choice: str, report: str
) -> None:
    """A day without input is held; the answer is carried out, with the person's name as reason."""
    day = {"Release": "2019-01-01", "Discard": "2019-01-02"}[choice]
    run = start(day)
    answer(airflow, token, run, choice)
    states = ended(airflow, token, run)
    assert (states["decide"][0], states["report"][0]) == ("success", report)
    assert "ines in Airflow" in json.dumps(manifests(airflow, day))


def test_a_backfill_scores_days_side_by_side(airflow: Airflow, token: str) -> None:
    """Each day of the backfill is published, and a day begins before the one before it ended."""
    days = ["2013-09-01", "2013-09-02", "2013-09-03"]
    limits = ("--from-date", days[0], "--to-date", days[-1], "--max-active-runs", "3")
    done = airflow.command("backfill", "create", "--dag-id", "flight_delays", *limits)
    assert done.returncode == 0, done.stdout
    query = f"{RUNS}?run_type=backfill"

    def runs() -> list[Any]:
        return list(airflow.rest("GET", query, None, token)["dag_runs"])

    wait_until(lambda: [each["state"] for each in runs()] == ["success"] * len(days))
    assert [manifests(airflow, day)[0]["status"] for day in days] == ["published"] * len(days)
    spans = sorted((each["start_date"], each["end_date"]) for each in runs())
    assert spans[1][0] < spans[0][1]
