"""The tasks of jobs/airflow one by one in Airflow's Python, with a substitute for the program."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.airflows import Airflow, make_airflow

pytestmark = pytest.mark.slow
# Prints much, is refused as one that decided before, waits to be stopped, or fails for a long row.
PROGRAM = """#!/bin/sh
case "$1" in
  run) head -c 3000000 /dev/zero | tr '\\0' 'x\\n' >&2
       printf '{"run": "R2", "status": "published", "more": "'
       head -c 8000000 /dev/zero | tr '\\0' x
       echo '"}' ;;
  release|discard) echo '{"error": "only a held run"}'; exit 2 ;;
  show) echo '{"run": "R1", "status": "published", "released": {"by": "ines"}}' ;;
  check) head -c 3000000 /dev/zero | tr '\\0' x >&2; exit 1 ;;
  wait) trap 'exit 143' TERM; echo ready >&2; while :; do sleep 0.1; done ;;
  cut) printf '{"run": ' ;;
  report) ;;
esac
"""
TASKS = """
import json, os
from datetime import datetime
from types import SimpleNamespace
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from flight_delays_dag import BatchscoreOperator, DecideOperator, ReportOperator, PUBLISHED, day_of
from flight_delays_pods_dag import BatchscorePodOperator, dag as pods
def context(conf=None, **left):
    run = SimpleNamespace(conf=conf or {"date": "2013-09-20"})
    ti = SimpleNamespace(xcom_pull=lambda task_ids: left.get(task_ids))
    return {"dag_run": run, "ti": ti, "outlet_events": {PUBLISHED: SimpleNamespace(extra=None)}}
def end(call, *arguments, **more):
    try:
        return call(*arguments, **more)
    except AirflowException as error:
        return [type(error).__name__, str(error)]
def step(command, kind=BatchscoreOperator):
    return kind(task_id=command, command=command)
def answered(choice, at="2026-11-21T09:00:00+00:00"):
    answer = {"chosen_options": [choice], "responded_by_user": {"name": "ines"},
              "responded_at": datetime.fromisoformat(at)}
    scored = {"run": "R1", "started": "2026-11-21T08:00:00.5+00:00"}
    return end(step("decide", DecideOperator).execute, context(score=scored, ask=answer))
found = {"much": step("run").execute(context()), "long": end(step("check").execute, context())}
found["cut"] = end(step("cut").execute, context())
found["again"], found["other"] = answered("Release"), answered("Discard")
found["earlier"] = answered("Release", "2026-11-21T07:59:59+00:00")
found["nobody"] = end(step("decide", DecideOperator).execute, context(score={"run": "R1"}))
left = {"decide": {"run": "R1", "status": "discarded"},
        "score": {"run": "R2", "status": "published", "slice": "s"}}
seen = context(**left)
step("report", ReportOperator).execute(seen)
found["asset"] = seen["outlet_events"][PUBLISHED].extra
found["days"] = [end(day_of, context({"date": day})) for day in ("", "2013-13-01", ["x"])]
waiting = step("wait")
waiting._log = lambda lines: [next(iter(lines)), waiting.on_kill()][:1]
found["killed"] = end(waiting.execute, context())
def pod(code):
    state = SimpleNamespace(terminated=SimpleNamespace(exit_code=code, message=None))
    status = SimpleNamespace(name="base", state=state)
    ended = SimpleNamespace(phase="Failed", container_statuses=[status])
    return SimpleNamespace(status=ended, metadata=SimpleNamespace(name="p"), spec=None)
task = pods.get_task("run")
for name in ("is_istio_enabled", "patch_already_checked", "process_pod_deletion",
             "_read_pod_container_states", "_read_pod_events"):
    setattr(BatchscorePodOperator, name, lambda *given, **more: False)
found["pods"] = [end(task.cleanup, pod(code), pod(code))[0] for code in (1, 2, 4)]
os.environ["AIRFLOW_VAR_BATCHSCORE_BIN"] = "/none"
found["unset"] = end(step("run").execute, context())
print("FOUND" + json.dumps(found))
"""


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Airflow:
    """An Airflow without processes, whose program is the substitute."""
    folder = tmp_path_factory.mktemp("airflow")
    program = folder / "batchscore"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    (folder / "job.yaml").touch()
    return make_airflow(
        folder / "home",
        is_migrated=False,
        AIRFLOW_VAR_BATCHSCORE_BIN=str(folder),
        AIRFLOW_VAR_BATCHSCORE_JOB=str(folder / "job.yaml"),
        AIRFLOW_VAR_BATCHSCORE_REPORTS=str(folder / "reports"),
    )


@pytest.fixture(scope="module")
def found(airflow: Airflow) -> dict[str, Any]:
    """What each of the tasks returned or raised."""
    printed = airflow.python(TASKS)
    return dict(json.loads(printed[printed.index("FOUND") + len("FOUND") :]))


def test_much_output_is_no_problem(found: dict[str, Any]) -> None:
    """A document of 8 MB behind 3 MB of messages is read, and XCom stays small."""
    assert found["much"]["run"] == "R2"
    assert len(json.dumps(found["much"])) < 1000


def test_a_long_line_is_cut_in_the_message(found: dict[str, Any]) -> None:
    """The failure's message holds the line's beginning and end, and may be tried again."""
    kind, message = found["long"]
    assert kind == "AirflowException"
    assert len(message) < 1000
    assert " … " in message


def test_a_cut_document_names_the_folder(found: dict[str, Any]) -> None:
    """If the disk was full, the message says where."""
    assert "Make room in" in found["cut"][1]


def test_a_decision_of_an_earlier_try_counts(found: dict[str, Any]) -> None:
    """A run that was released before is taken as released; discarding it is refused."""
    assert (found["again"]["status"], found["again"]["decided"]) == ("published", "release")
    assert found["other"][0] == "AirflowFailException"
    assert "batchscore discard ended with exit code 2" in found["other"][1]
    assert "Clear `ask`" in found["nobody"][1]


def test_an_answer_about_an_earlier_run_is_refused(found: dict[str, Any]) -> None:
    """It may be left where `score` was cleared and `ask` marked as a success by hand."""
    kind, message = found["earlier"]
    assert kind == "AirflowFailException"
    assert "is about an earlier run: R1 began at 2026-11-21T08:00:00.5+00:00" in message


def test_the_report_is_of_the_run_that_was_scored_last(found: dict[str, Any]) -> None:
    """What `decide` left of a run that was discarded before does not hide a published run."""
    assert found["asset"]["run"] == "R2"


def test_a_wrong_day_is_refused(found: dict[str, Any]) -> None:
    """An empty, impossible or foreign date fails at once, and scores no other day."""
    assert [kind for kind, _ in found["days"]] == ["AirflowFailException"] * 3
    assert all("expected YYYY-MM-DD" in message for _, message in found["days"])


def test_a_dag_without_batchscore_says_what_to_set(found: dict[str, Any]) -> None:
    """The task fails at its first try, and names the Variable and the command that sets it."""
    kind, message = found["unset"]
    assert kind == "AirflowFailException"
    assert "/none/batchscore is no program" in message
    assert "airflow variables set batchscore_bin" in message


def test_a_killed_task_stops_the_program(found: dict[str, Any]) -> None:
    """The program gets SIGTERM, and the task may be tried again."""
    kind, message = found["killed"]
    assert (kind, "exit code 143" in message) == ("AirflowException", True)


def test_a_pod_that_ended_with_2_is_not_tried_again(found: dict[str, Any]) -> None:
    """Only exit code 2 fails the task for good."""
    again, never = "AirflowException", "AirflowFailException"
    assert found["pods"] == [again, never, again]
