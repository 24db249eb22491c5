"""A real Flink cluster on this machine: its parts fetched, its processes started and stopped."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import tarfile
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

FLINK = (
    "apache-flink-libraries==1.19.3 "
    "--hash=sha256:4a58e3a1fb7d83340bc96b6c080624c6d792d69fae5d294b96224775204a9c60"
)
BEAM_JOB_SERVER = "org.apache.beam:beam-runners-flink-1.19:2.62.0"
"""Takes pipelines of newer Python SDKs, too."""

_JAR_FOLDERS = (["deps", "lib"], ["deps", "bin"])
_START_SECONDS = 60.0
_STOP_SECONDS = 10.0
_EXPORTS = ["java.base/sun.net.util", "java.rmi/sun.rmi.registry"]
_OPENS = ["lang", "lang.reflect", "net", "io", "nio", "text", "time", "util", "util.concurrent"]
# Java 17 closes to Flink what it reads of the Java library by reflection.
_JAVA_FLAGS = [
    *(f"--add-exports={package}=ALL-UNNAMED" for package in _EXPORTS),
    *(f"--add-opens=java.base/java.{package}=ALL-UNNAMED" for package in _OPENS),
    "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
]
_SETTINGS = {
    "jobmanager.rpc.address": "localhost",
    "rest.address": "localhost",
    "taskmanager.host": "localhost",
    "taskmanager.numberOfTaskSlots": 1,
    "taskmanager.memory.process.size": "1024m",
    "restart-strategy.type": "fixed-delay",
    "restart-strategy.fixed-delay.attempts": 5,
    # Until heartbeats fail, a lost TaskManager is given tasks again, and each time is an attempt.
    "restart-strategy.fixed-delay.delay": "3 s",
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
_POM = """<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>batchscore.tools</groupId>
  <artifactId>flink-job-server</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version>
    </dependency>
  </dependencies>
</project>
"""


def fetch(cache: Path) -> None:
    """Downloads Flink and Beam's job server, 380 MB, to a folder that keeps them.

    Raises:
        CalledProcessError: pip or Maven cannot reach its registry; what they print says why.
    """
    if not (cache / "flink").exists():
        _fetch_flink(cache)
    if not (cache / "job-server").exists():
        _fetch_job_server(cache)


def _fetch_flink(cache: Path) -> None:
    parts, wanted = cache / "sdist", cache / "flink.txt"
    parts.mkdir(parents=True, exist_ok=True)
    wanted.write_text(FLINK)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary=:all:"]
    subprocess.run([*pip, "--dest", str(parts), "--requirement", str(wanted)], check=True)
    (archive,) = parts.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        jars = [m for m in tar.getmembers() if m.name.split("/")[1:3] in _JAR_FOLDERS]
        tar.extractall(parts, jars, filter="data")
    (deps,) = parts.glob("*/deps")
    deps.rename(cache / "flink")
    shutil.rmtree(parts)


def _fetch_job_server(cache: Path) -> None:
    group, artifact, version = BEAM_JOB_SERVER.split(":")
    pom, parts = cache / "pom.xml", cache / "job-server.part"
    pom.write_text(_POM.format(group=group, artifact=artifact, version=version))
    copy = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={parts}"]
    subprocess.run(["mvn", "--quiet", "--batch-mode", "--file", str(pom), *copy], check=True)
    parts.rename(cache / "job-server")


class Cluster:
    """A JobManager, TaskManagers of one slot, and Beam's job server.

    All listen on free ports of this machine, and end with the `with` block.

    Args:
        cache: Where `fetch` left the parts.
        folder: Folder for configuration, logs and what Flink spills.
        task_managers: How many are started first.
    """

    def __init__(self, cache: Path, folder: Path, task_managers: int) -> None:
        self._cache, self._folder, self._wanted = cache, folder, task_managers
        self._processes: list[subprocess.Popen[bytes]] = []
        self._rest, self._rpc, self._jobs, self._artifacts = free_ports(4)
        self.task_managers: list[subprocess.Popen[bytes]] = []

    def beam_options(self, pool: str) -> list[str]:
        """Returns Beam's options that send a pipeline here, with workers of the pool there."""
        return [
            f"--job_endpoint=localhost:{self._jobs}",
            f"--artifact_endpoint=localhost:{self._artifacts}",
            "--environment_type=EXTERNAL",
            f"--environment_config={pool}",
        ]

    def __enter__(self) -> Cluster:
        try:
            self._configure()
            self._start_flink()
            self._start_job_server()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends all processes, the last started first."""
        for process in reversed(self._processes):
            _end(process)

    def start_task_manager(self) -> None:
        """Starts one more TaskManager."""
        flags, settings = self._task_manager_resources()
        command = [*flags, *_JAVA_FLAGS, self._log_flag, "-cp", f"{self._cache}/flink/lib/*"]
        main = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"
        name = f"task-manager-{len(self.task_managers)}"
        arguments = ["--configDir", str(self._conf), *settings]
        self.task_managers.append(self._start(name, ["java", *command, main, *arguments]))

    @property
    def _conf(self) -> Path:
        return self._folder / "conf"

    @property
    def _log_flag(self) -> str:
        return f"-Dlog4j.configurationFile={self._conf}/log4j2.properties"

    def _configure(self) -> None:
        settings = {
            **_SETTINGS,
            "jobmanager.rpc.port": self._rpc,
            "rest.port": self._rest,
            "io.tmp.dirs": str(self._folder / "tmp"),
        }
        for folder in (self._conf, self._folder / "tmp", self._folder / "logs"):
            folder.mkdir(parents=True, exist_ok=True)
        lines = [f"{key}: {value}\n" for key, value in settings.items()]
        (self._conf / "config.yaml").write_text("".join(lines))
        (self._conf / "log4j2.properties").write_text(_LOG_CONFIG)

    def _start_flink(self) -> None:
        main = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
        command = [*_JAVA_FLAGS, self._log_flag, "-cp", f"{self._cache}/flink/lib/*"]
        where = ["--configDir", str(self._conf)]
        self._start("job-manager", ["java", "-Xmx512m", *command, main, *where])
        for _ in range(self._wanted):
            self.start_task_manager()
        self._wait("Flink", lambda: self._slots() >= self._wanted)

    def _start_job_server(self) -> None:
        logging = ":".join(str(jar) for jar in (self._cache / "flink/lib").glob("log4j-*.jar"))
        command = [self._log_flag, *_JAVA_FLAGS, "-cp", f"{self._cache}/job-server/*:{logging}"]
        arguments = [
            f"--flink-master=localhost:{self._rest}",
            f"--flink-conf-dir={self._conf}",
            f"--job-port={self._jobs}",
            f"--artifact-port={self._artifacts}",
            "--expansion-port=0",
            f"--artifacts-dir={self._folder}/artifacts",
        ]
        main = "org.apache.beam.runners.flink.FlinkJobServerDriver"
        self._start("job-server", ["java", *command, main, *arguments])
        self._wait("Beam's job server", lambda: _listens(self._jobs))

    def _start(self, name: str, command: list[str]) -> subprocess.Popen[bytes]:
        # In a session of its own, Ctrl-C reaches this process alone, which ends the others in turn.
        with (self._folder / f"logs/{name}.log").open("wb") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        self._processes.append(process)
        return process

    def _task_manager_resources(self) -> tuple[list[str], list[str]]:
        """Returns the flags of the Java machine and the settings that Flink computes of memory."""
        jars = f"{self._cache}/flink/lib/*:{self._cache}/flink/bin/bash-java-utils.jar"
        main = "org.apache.flink.runtime.util.bash.BashJavaUtils"
        command = ["java", "-cp", jars, main, "GET_TM_RESOURCE_PARAMS", "--configDir"]
        done = subprocess.run([*command, str(self._conf)], capture_output=True, check=True)
        mark = "BASH_JAVA_UTILS_EXEC_RESULT:"
        flags, settings = (
            line.removeprefix(mark).split()
            for line in done.stdout.decode().splitlines()
            if line.startswith(mark)
        )
        return flags, settings

    def _slots(self) -> int:
        with urllib.request.urlopen(f"http://localhost:{self._rest}/overview", timeout=5) as answer:
            return int(json.load(answer)["slots-total"])

    def _wait(self, name: str, ready: Callable[[], bool]) -> None:
        end = time.monotonic() + _START_SECONDS
        while time.monotonic() < end:
            with suppress(OSError):
                if ready():
                    return
            time.sleep(0.2)
        raise TimeoutError(
            f"{name} did not start in {_START_SECONDS:.0f} s; see {self._folder}/logs"
        )


def free_ports(number: int) -> list[int]:
    """Returns ports of this machine that nobody listens on."""
    sockets = [socket.socket() for _ in range(number)]
    for each in sockets:
        each.bind(("localhost", 0))
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _listens(port: int) -> bool:
    with socket.create_connection(("localhost", port), timeout=1):
        return True


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
