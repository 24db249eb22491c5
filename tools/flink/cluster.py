"""A Flink cluster on this machine: its processes, started and ended by their ids."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

HOST = "127.0.0.1"
"""All processes listen on loopback only."""
TASK_MANAGERS = 2
_START_SECONDS = 240.0
_STOP_SECONDS = 10.0
_ERROR = re.compile("ERROR|^Caused by|Exception|^Error")
_MOST_ERRORS = 5
_EXPORTS = ["java.base/sun.net.util", "java.rmi/sun.rmi.registry"]
_OPENS = ["lang", "lang.reflect", "net", "io", "nio", "text", "time", "util", "util.concurrent"]
# Java 17 closes to Flink what it reads of the Java library by reflection.
_JAVA = [
    "java",
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    *(f"--add-exports={package}=ALL-UNNAMED" for package in _EXPORTS),
    *(f"--add-opens=java.base/java.{package}=ALL-UNNAMED" for package in _OPENS),
    "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
]
_SETTINGS = {
    "jobmanager.rpc.address": HOST,
    "jobmanager.bind-host": HOST,
    "rest.address": HOST,
    "rest.bind-address": HOST,
    "taskmanager.host": HOST,
    "taskmanager.bind-host": HOST,
    "taskmanager.numberOfTaskSlots": 1,
    # What Flink's start script would compute from the size of the process.
    "taskmanager.cpu.cores": 1.0,
    "taskmanager.memory.framework.heap.size": "128m",
    "taskmanager.memory.framework.off-heap.size": "128m",
    "taskmanager.memory.task.heap.size": "256m",
    "taskmanager.memory.task.off-heap.size": "0m",
    "taskmanager.memory.network.min": "64m",
    "taskmanager.memory.network.max": "64m",
    "taskmanager.memory.managed.size": "64m",
    "taskmanager.memory.jvm-metaspace.size": "256m",
    "taskmanager.memory.jvm-overhead.min": "192m",
    "taskmanager.memory.jvm-overhead.max": "192m",
    "restart-strategy.type": "fixed-delay",
    "restart-strategy.fixed-delay.attempts": 5,
    # Until heartbeats fail, a lost TaskManager is given tasks again, and each time is an attempt.
    "restart-strategy.fixed-delay.delay": "3 s",
    # On a busy machine, starting takes longer than the ten seconds that Flink allows.
    "pekko.ask.timeout": "60 s",
    "heartbeat.interval": 2000,
    "heartbeat.timeout": 8000,
}
_LOG_CONFIG = """rootLogger.level = INFO
rootLogger.appenderRef.out.ref = out
appender.out.name = out
appender.out.type = CONSOLE
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{HH:mm:ss,SSS} %-5p %c{1} %m%n
"""
_ENTRY = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
_FRAMEWORK = "batchscore.models.backends.torch.preloaded"
_TASK_MANAGER = "task-manager-"
_RUNNER = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"
_JOB_SERVER = Path(__file__).parent / "JobServer.java"


@dataclass(frozen=True)
class Ports:
    """Where a cluster listens: Flink, Beam's job server, and the pool of Python workers."""

    rest: int
    rpc: int
    jobs: int
    artifacts: int
    pool: int


@dataclass(frozen=True)
class Member:
    """A process of a cluster.

    Args:
        name: What it is.
        pid: Its process id.
        created: When it started, since ids are used again.
        log: File of its output.
    """

    name: str
    pid: int
    created: float
    log: str

    def process(self) -> psutil.Process | None:
        """Returns the process, or None if it has ended."""
        with suppress(psutil.NoSuchProcess):
            found = psutil.Process(self.pid)
            if found.create_time() == self.created and found.status() != psutil.STATUS_ZOMBIE:
                return found
        return None


class Cluster:
    """A JobManager, TaskManagers of one slot, Beam's job server, and a pool of Python workers.

    What it has started is written to its folder, so that another process can end it.

    Args:
        cache: Where `parts.fetch` left the jars.
        folder: Folder for configuration, logs and what Flink spills.
    """

    def __init__(self, cache: Path, folder: Path) -> None:
        self._cache, self.folder = cache, folder

    @property
    def ports(self) -> Ports:
        """Where it listens."""
        return Ports(**self._read()["ports"])

    def members(self) -> list[Member]:
        """Returns the processes that were started and not ended, whether or not they live."""
        return (
            [Member(**facts) for facts in self._read()["members"]] if self._state.exists() else []
        )

    def is_up(self) -> bool:
        """Tells whether there are processes, and all of them live."""
        members = self.members()
        return bool(members) and all(member.process() for member in members)

    def section(self) -> dict[str, str]:
        """Returns what `runtime.flink` of a job file needs to find it."""
        ports = self.ports
        return {
            "job_service": f"{HOST}:{ports.jobs}",
            "rest": f"{HOST}:{ports.rest}",
            "pool": f"{HOST}:{ports.pool}",
        }

    def start(self, task_managers: int = TASK_MANAGERS) -> None:
        """Starts all processes, and waits until each is ready.

        Raises:
            TimeoutError: One of them does not start; the message names its log.
        """
        self.stop()
        self._configure(Ports(*_free_ports(5)))
        try:
            self._start_all(task_managers)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Ends what was started, the last first, and waits for it."""
        for member in reversed(self.members()):
            _end(member)
        self._state.unlink(missing_ok=True)

    def start_task_manager(self) -> Member:
        """Starts one more TaskManager, and returns it without waiting; forgets those that ended."""
        members = self.members()
        number = 1 + max((_number(member) for member in members), default=-1)
        kept = [member for member in members if _number(member) < 0 or member.process()]
        self._write(self.ports, kept)
        arguments = [_RUNNER, "--configDir", str(self._conf)]
        return self._start(f"{_TASK_MANAGER}{number}", [*_JAVA, *self._flink, *arguments])

    def wait_for_slots(self, slots: int) -> None:
        """Waits until Flink has so many slots."""
        self._wait("Flink", "job-manager", lambda: self._slots() >= slots)

    @property
    def _conf(self) -> Path:
        return self.folder / "conf"

    @property
    def _state(self) -> Path:
        return self.folder / "cluster.json"

    @property
    def _flink(self) -> list[str]:
        beam = [*self._cache.glob("job-server/*.jar")]
        jars = [f"{self._cache}/flink/*", *(str(jar) for jar in beam if not _is_flinks(jar))]
        return [self._log_flag, "-cp", ":".join(jars)]

    @property
    def _log_flag(self) -> str:
        return f"-Dlog4j.configurationFile={self._conf}/log4j2.properties"

    def _read(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._state.read_text())
        return found

    def _configure(self, ports: Ports) -> None:
        for folder in ("conf", "tmp", "logs"):
            shutil.rmtree(self.folder / folder, ignore_errors=True)
            (self.folder / folder).mkdir(parents=True)
        settings = {
            **_SETTINGS,
            "jobmanager.rpc.port": ports.rpc,
            "rest.port": ports.rest,
            "io.tmp.dirs": str(self.folder / "tmp"),
        }
        lines = [f"{key}: {value}\n" for key, value in settings.items()]
        (self._conf / "config.yaml").write_text("".join(lines))
        (self._conf / "log4j2.properties").write_text(_LOG_CONFIG)
        self._write(ports, [])

    def _write(self, ports: Ports, members: Sequence[Member]) -> None:
        facts = {"ports": asdict(ports), "members": [asdict(member) for member in members]}
        self._state.write_text(json.dumps(facts, indent=1))

    def _start_all(self, task_managers: int) -> None:
        ports = self.ports
        self._start("job-manager", [*_JAVA, *self._flink, _ENTRY, "--configDir", str(self._conf)])
        for _ in range(task_managers):
            self.start_task_manager()
        self._start("job-server", [*_JAVA, *self._job_server(ports)])
        pool = [sys.executable, "-m", "batchscore.engines.pool", f"{HOST}:{ports.pool}"]
        self._start("worker-pool", [*pool, f"--preload={_FRAMEWORK}"])
        self.wait_for_slots(task_managers)
        self._wait("Beam's job server", "job-server", lambda: _listens(ports.jobs))
        self._wait("The worker pool", "worker-pool", lambda: _listens(ports.pool))

    def _job_server(self, ports: Ports) -> list[str]:
        logging = ":".join(str(jar) for jar in self._cache.glob("flink/log4j-*.jar"))
        return [
            self._log_flag,
            "-cp",
            f"{self._cache}/job-server/*:{logging}",
            str(_JOB_SERVER),
            str(next(self._cache.glob("flink/log4j-api-*.jar"))),
            f"--flink-master={HOST}:{ports.rest}",
            f"--flink-conf-dir={self._conf}",
            f"--job-host={HOST}",
            f"--job-port={ports.jobs}",
            f"--artifact-port={ports.artifacts}",
            "--expansion-port=-1",
            f"--artifacts-dir={self.folder}/tmp/artifacts",
        ]

    def _start(self, name: str, command: Sequence[str]) -> Member:
        log = self.folder / f"logs/{name}.log"
        with log.open("wb") as file:
            # A session of its own: Ctrl-C and the end of `up` do not reach it.
            process = subprocess.Popen(
                command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
            )
        member = Member(name, process.pid, psutil.Process(process.pid).create_time(), str(log))
        self._write(self.ports, [*self.members(), member])
        return member

    def _slots(self) -> int:
        address = f"http://{HOST}:{self.ports.rest}/overview"
        with urllib.request.urlopen(address, timeout=5) as answer:
            return int(json.load(answer)["slots-total"])

    def _wait(self, what: str, name: str, ready: Callable[[], bool]) -> None:
        end = time.monotonic() + _START_SECONDS
        while time.monotonic() < end and self.is_up():
            with suppress(OSError):
                if ready():
                    return
            time.sleep(0.2)
        raise TimeoutError(f"{what} did not start{self._reason(name)}")

    def _reason(self, name: str) -> str:
        """Returns which process has ended and with which errors, or what is still starting."""
        dead = [member for member in self.members() if not member.process()]
        if not dead:
            log = self.folder / f"logs/{name}.log"
            return f" within {_START_SECONDS:.0f} s; see {log}"
        log = Path(dead[0].log)
        errors = [line for line in log.read_text().splitlines() if _ERROR.search(line)]
        said = "".join(f"\n{line}" for line in errors[:_MOST_ERRORS])
        return f": {dead[0].name} has ended; see {log}{said}"


def _is_flinks(jar: Path) -> bool:
    return jar.name.startswith("flink-")


def _number(member: Member) -> int:
    """Returns the number of a TaskManager, and -1 for other processes."""
    return int(member.name.removeprefix(_TASK_MANAGER)) if _TASK_MANAGER in member.name else -1


def _free_ports(number: int) -> list[int]:
    sockets = [socket.create_server((HOST, 0)) for _ in range(number)]
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _listens(port: int) -> bool:
    with socket.create_connection((HOST, port), timeout=1):
        return True


def _end(member: Member) -> None:
    """Ends a process, and waits for it: by SIGKILL if SIGTERM does not within seconds."""
    deadline = time.monotonic() + _STOP_SECONDS
    if process := member.process():
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    while process := member.process():
        if time.monotonic() > deadline:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        time.sleep(0.05)
