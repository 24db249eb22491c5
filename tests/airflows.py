"""A real Airflow on loopback for tests: its commands, its processes, its REST interface."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.pages import ROOT
from tests.servers import free_port
from tests.waiting import wait_until

_BIN = ROOT / ".tools/airflow/bin"
# The scheduler's server of logs would listen on all interfaces.
_SERVICES = (
    ("scheduler", "--skip-serve-logs"),
    ("dag-processor",),
    ("api-server", "--workers", "1"),
)


@dataclass(frozen=True)
class Airflow:
    """An Airflow home with a database; its processes get `settings` as environment variables."""

    home: Path
    port: int
    settings: dict[str, str] = field(default_factory=dict)

    def command(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a command of Airflow; standard error is part of its output."""
        return subprocess.run(
            [str(_BIN / "airflow"), *arguments],
            env={**self.environment, **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )

    def python(self, code: str, **more: str) -> str:
        """Run code in Airflow's Python, and return what it prints."""
        done = subprocess.run(
            [str(_BIN / "python"), "-W", "ignore", "-c", code],
            env={**self.environment, "PYTHONPATH": str(ROOT / "jobs/airflow"), **more},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment of each process; nothing listens but on loopback."""
        fixed = {
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "jobs/airflow"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            # Scheduler, server and commands share one SQLite, which they wait for 5 s by default.
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.home}/airflow.db?timeout=60",
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "ines:admin",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(self.home / "passwords.json"),
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API_AUTH__JWT_SECRET": "a secret of the tests, long enough for a signature",
            "AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK": "False",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
        }
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "COV_"))}
        return {**inherited, **fixed, **self.settings}

    @property
    def url(self) -> str:
        """Return the address of the API server."""
        return f"http://127.0.0.1:{self.port}"

    def rest(self, method: str, path: str, body: Any = None, token: str = "") -> Any:
        """Send a request, and return the JSON of the answer."""
        request = urllib.request.Request(f"{self.url}{path}", method=method)
        request.add_header("Content-Type", "application/json")
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(request, data, timeout=30) as answer:
            return json.load(answer)


def make_airflow(home: Path, *, is_migrated: bool = True, **settings: str) -> Airflow:
    """Return an Airflow with a fresh database, or without one.

    Skips the test where Airflow is not installed, unless BATCHSCORE_REQUIRE is `all`.
    """
    if not (_BIN / "airflow").exists():
        message = "Airflow is not installed: sh tools/install_airflow.sh"
        if os.environ.get("BATCHSCORE_REQUIRE") == "all":
            pytest.fail(message)
        pytest.skip(message)
    home.mkdir(parents=True, exist_ok=True)
    (home / "passwords.json").write_text(json.dumps({"ines": "a password of the tests"}))
    made = Airflow(home, free_port(), settings)
    if is_migrated:
        done = made.command("db", "migrate")
        assert done.returncode == 0, done.stdout
    return made


@contextmanager
def serving(airflow: Airflow) -> Iterator[str]:
    """Start scheduler, DAG processor and API server; yields a token, and ends them by their ids."""
    started = [_start(airflow, service) for service in _SERVICES]
    try:
        yield wait_until(lambda: _token(airflow))
    finally:
        for process in started:
            _signal(process, signal.SIGTERM)
        for process in started:
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
            _signal(process, signal.SIGKILL)
            process.wait(20)


def _start(airflow: Airflow, service: tuple[str, ...]) -> subprocess.Popen[bytes]:
    with (airflow.home / f"{service[0]}.log").open("wb") as log:
        return subprocess.Popen(
            [str(_BIN / "airflow"), *service],
            env=airflow.environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _token(airflow: Airflow) -> str:
    known = {"username": "ines", "password": "a password of the tests"}
    try:
        return str(airflow.rest("POST", "/auth/token", known)["access_token"])
    except OSError:
        return ""
