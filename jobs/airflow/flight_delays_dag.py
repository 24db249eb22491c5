"""Scores each day's flights with batchscore: check, score, a person if the run is held, report.

Airflow imports this file; batchscore lives in an environment of its own. docs/airflow.md has the
setup. Settings are Airflow Variables, which environment variables such as
AIRFLOW_VAR_BATCHSCORE_BIN give too.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from collections import deque
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, Any

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import DAG, Asset, BaseOperator, CronDataIntervalTimetable, Variable, task
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

FAILED, HELD, RETRY = 1, 3, 4
DECISIONS = {"release": "released", "discard": "discarded"}  # a command, and the manifest's key
RETRY_SECONDS = float(os.environ.get("BATCHSCORE_RETRY_SECONDS", "300"))
ANSWER_SECONDS = float(os.environ.get("BATCHSCORE_ANSWER_SECONDS", "86400"))
WAIT = os.environ.get("BATCHSCORE_WAIT", "1h")
LONGEST_LINE = 500
PUBLISHED = Asset(name="flight_delays_day", uri="x-batchscore://flight_delays_day")


def day_of(context: dict[str, Any]) -> str:
    """Return the day that a DAG run scores, as YYYY-MM-DD.

    `{"date": "2013-09-20"}` in the run's configuration comes first. Then the first day of a data
    interval counts. An empty interval, or none as in a manual run, asks for the day before the run.
    """
    run = context["dag_run"]
    given = (run.conf or {}).get("date")
    if given is not None:
        return given_day(given)
    start, end = run.data_interval_start, run.data_interval_end
    if start and end and start < end:
        return f"{start:%Y-%m-%d}"
    return f"{(start or run.run_after) - timedelta(days=1):%Y-%m-%d}"


def given_day(given: object) -> str:
    """Return the day of a run's configuration, once it is one."""
    try:
        return f"{datetime.strptime(str(given), '%Y-%m-%d'):%Y-%m-%d}"
    except ValueError:
        raise AirflowFailException(
            f"The run's configuration has date {given!r}; expected YYYY-MM-DD, such as 2013-09-20."
        ) from None


def program() -> str:
    """Return batchscore's path; it is asked for by tasks, so that the DAG imports without it."""
    folder = Variable.get("batchscore_bin", default="")
    path = Path(folder) / "batchscore"
    if folder and os.access(path, os.X_OK):
        return str(path)
    found = f"{path} is no program" if folder else "it is not set"
    raise AirflowFailException(
        "The Airflow Variable batchscore_bin must name the folder of the program batchscore; "
        f"{found}. "
        "Set it: airflow variables set batchscore_bin /opt/batchscore/bin"
    )


def job_file() -> str:
    """Return the path of the job file."""
    default = Path(__file__).parents[1] / "flight_delays/job_day.yaml"
    path = Path(Variable.get("batchscore_job", default=str(default)))
    if path.is_file():
        return str(path)
    raise AirflowFailException(
        f"There is no job file {path}. "
        "Set its path: airflow variables set batchscore_job /opt/batchscore/job.yaml"
    )


class BatchscoreOperator(BaseOperator):
    """Runs one command of batchscore; XCom gets what `summary` takes from its JSON document.

    The document goes to a file and messages go to the task's log line by line, so that neither
    fills a pipe. Exit codes in `results` are for the next task. Others fail the task: 1 and 4 let
    Airflow try it again, and batchscore then resumes; 2 fails it for good.
    """

    def __init__(
        self,
        command: str,
        options: tuple[str, ...] = (),
        results: tuple[int, ...] = (0, HELD),
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.command, self.options, self.results = command, options, results
        self.process: subprocess.Popen[str] | None = None

    def execute(self, context: Any) -> dict[str, Any]:
        """Run the command for the day of the DAG run."""
        return self.summarize([self.command, job_file(), *day_options(context), *self.options])

    def summarize(self, arguments: list[str]) -> dict[str, Any]:
        """Run batchscore, and return the summary of its JSON document."""
        with tempfile.TemporaryFile("w+") as printed:
            code = self.call([*arguments, "--json"], printed)
            return summary(printed, code)

    def call(self, arguments: list[str], printed: IO[str]) -> int:
        """Run batchscore; return its exit code if that is a result, else fail as it says."""
        self.process = subprocess.Popen(
            [program(), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        last = self._log(self.process.stderr or ())
        code = self.process.wait()
        if code in self.results:
            return code
        messages = " ".join(last) or "it printed no message"
        message = f"batchscore {arguments[0]} ended with exit code {code}: {messages}"
        may_pass = code in (FAILED, RETRY) or code < 0 or code > 128
        raise (AirflowException if may_pass else AirflowFailException)(message)

    def _log(self, errors: Iterable[str]) -> list[str]:
        last: deque[str] = deque(maxlen=10)
        for line in errors:
            self.log.info("%s", line.rstrip())
            last.append(shortened(line.strip()))
        return list(last)

    def on_kill(self) -> None:
        """Ask batchscore to stop, as Airflow does when somebody clears or fails the task."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)


class DecideOperator(BatchscoreOperator):
    """Releases or discards the held run as a person answered, with their name in the reason.

    An earlier try may have done so before it died, or somebody did it in a shell. Then the command
    is refused, and the task takes what it finds if that is what the answer asks for.
    """

    def execute(self, context: Any) -> dict[str, Any]:
        """Act on the answer; discarding ends the DAG run without a published asset."""
        scored = context["ti"].xcom_pull(task_ids="score")
        run = scored["run"]
        command, who = chosen(context["ti"].xcom_pull(task_ids="ask"), scored)
        where = [job_file(), run, *day_options(context)]
        try:
            return self.summarize([command, *where, "--reason", f"{who} in Airflow"])
        except AirflowFailException:
            found = self.summarize(["show", *where])
            if found["decided"] != command:
                raise
            self.log.info("Run %s was decided so before.", run)
            return found


class ReportOperator(BatchscoreOperator):
    """Writes the page of what was published, and emits the asset with the run's facts."""

    def execute(self, context: Any) -> dict[str, Any]:
        """Write the page; a discarded run has none, and emits no asset."""
        pull = context["ti"].xcom_pull
        scored, decided = pull(task_ids="score"), pull(task_ids="decide")
        # Airflow keeps what `decide` left for another run, made before `score` was cleared.
        is_decided = bool(decided) and decided["run"] == scored["run"]
        facts: dict[str, Any] = decided if is_decided else scored
        if facts["status"] == "discarded":
            raise AirflowSkipException(f"Run {facts['run']} was discarded: nothing is published.")
        page = reports() / f"{facts['slice']}.html"
        where = [job_file(), facts["run"], *day_options(context)]
        with tempfile.TemporaryFile("w+") as printed:
            self.call([self.command, *where, "-o", str(page)], printed)
        facts = {**facts, "report": str(page)}
        context["outlet_events"][PUBLISHED].extra = facts
        return facts


def reports() -> Path:
    """Return the folder of the pages, which is made if it is missing."""
    home = os.environ.get("AIRFLOW_HOME", "~/airflow")
    folder = Path(Variable.get("batchscore_reports", default=f"{home}/batchscore-reports"))
    folder = folder.expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def day_options(context: Any) -> list[str]:
    """Return the options that name the day."""
    return ["--param", f"date={day_of(context)}"]


def chosen(answer: dict[str, Any] | None, scored: dict[str, Any]) -> tuple[str, str]:
    """Return the command that a person chose for this run, and the person's name.

    Airflow keeps the answer about an earlier run, made before `score` was cleared, if `ask` is
    marked as a success by hand.
    """
    if not answer:
        raise AirflowFailException(
            "Nobody answered: `ask` has no answer, as when it is marked as a success by hand. "
            "Clear `ask`, and answer it."
        )
    at: datetime = answer["responded_at"]
    if at < datetime.fromisoformat(scored["started"]):
        raise AirflowFailException(
            f"The answer of {at:%Y-%m-%d %H:%M:%S} is about an earlier run: {scored['run']} began "
            f"at {scored['started']}. Clear `ask`, and answer it."
        )
    who = (answer.get("responded_by_user") or {}).get("name") or "somebody"
    return answer["chosen_options"][0].lower(), who


def shortened(line: str) -> str:
    """Return a line for a message, without the middle of one that is very long."""
    half = LONGEST_LINE // 2
    return line if len(line) <= LONGEST_LINE else f"{line[:half]} … {line[-half:]}"


def summary(printed: IO[str], code: int) -> dict[str, Any]:
    """Return what XCom and the asset keep of a document; a manifest is too large for them."""
    printed.seek(0)
    try:
        document = json.load(printed)
    except ValueError as error:
        raise AirflowException(
            f"batchscore ended with exit code {code}, and its document is cut: {error}. "
            f"Make room in {tempfile.gettempdir()}, the folder of temporary files."
        ) from error
    drift = document.get("drift") or {}
    facts = {key: document.get(key) for key in ("run", "status", "slice", "rows", "started")}
    decided = next((c for c, key in DECISIONS.items() if document.get(key)), None)
    found = {"verdict": drift.get("verdict"), "decided": decided, "held_by": held_by(document)}
    return {**facts, **found, "exit_code": code}


def held_by(document: dict[str, Any]) -> list[str]:
    """Return why a run is held, a line for each check, for the person who is asked."""
    checks = document.get("checks") or []
    return [shortened(f"{c['name']}: {c['detail']}") for c in checks if not c["passed"]]


with DAG(
    "flight_delays",
    description="Scores each day's flights",
    schedule=CronDataIntervalTimetable("0 0 * * *", timezone="UTC"),
    start_date=datetime.fromisoformat("2013-01-01T00:00:00+00:00"),
    catchup=False,
    default_args={
        "retries": 3,
        "retry_delay": timedelta(seconds=RETRY_SECONDS),
    },
) as dag:
    # `score` waits for what `check` found missing: another run's slice, or the input's marker.
    check = BatchscoreOperator(task_id="check", command="check", results=(0, HELD, RETRY))
    score = BatchscoreOperator(task_id="score", command="run", options=("--wait", WAIT))

    @task.branch
    def outcome(ti: Any) -> str:
        """Ask a person about a held run; report any other."""
        return "ask" if ti.xcom_pull(task_ids="score")["exit_code"] == HELD else "report"

    ask = HITLOperator(
        task_id="ask",
        subject="batchscore holds a run: release or discard it",
        body="Run {{ ti.xcom_pull(task_ids='score')['run'] }} of "
        "{{ ti.xcom_pull(task_ids='score')['slice'] }} is held:\n"
        "{% for why in ti.xcom_pull(task_ids='score')['held_by'] %}\n- {{ why }}{% endfor %}",
        options=["Release", "Discard"],
        response_timeout=timedelta(seconds=ANSWER_SECONDS),
        retries=1,  # Airflow fails it if the answer comes within the first seconds
    )
    decide = DecideOperator(task_id="decide", command="release")

    report = ReportOperator(
        task_id="report",
        command="report",
        outlets=[PUBLISHED],
        trigger_rule="none_failed_min_one_success",
    )

    check >> score >> outcome() >> [ask, report]
    ask >> decide >> report
