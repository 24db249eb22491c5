"""The parts of a Flink cluster: which versions, where they come from, and their checksums."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

FLINK = "1.19.3"
BEAM = "2.62.0"
"""Of the job server; it takes pipelines of newer Python SDKs, too."""
_FLINK_SHA256 = "4a58e3a1fb7d83340bc96b6c080624c6d792d69fae5d294b96224775204a9c60"
_JOB_SERVER = f"org.apache.beam:beam-runners-flink-1.19:{BEAM}"
_USED = re.compile("/deps/lib/(flink-dist|log4j)-[^/]*.jar$")
"""Flink without SQL and connectors."""
_SUMS = Path(__file__).parent / "jars.sha256"
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


class MissingPartError(Exception):
    """A part cannot be used or fetched; the message says which, and what to do."""


def fetch(cache: Path) -> None:
    """Downloads Flink from PyPI and Beam's job server from Maven Central, unless they are there.

    Args:
        cache: Folder that keeps them, 380 MB.

    Raises:
        MissingPartError: Java or Maven is missing, a download fails, or a jar is another one than
            `jars.sha256` says.
    """
    for program in ("java", "javac"):
        require(program, "install a JDK 17, such as Debian's openjdk-17-jdk-headless")
    if is_fetched(cache):
        return
    cache.mkdir(parents=True, exist_ok=True)
    _fetch_flink(cache)
    _fetch_job_server(cache)
    compare_sums(cache)
    _mark(cache).write_text(_wanted())


def is_fetched(cache: Path) -> bool:
    """Tells whether a folder holds these versions, whose checksums were compared."""
    mark = _mark(cache)
    return mark.exists() and mark.read_text() == _wanted()


def require(program: str, remedy: str) -> None:
    """Raises MissingPartError where a program is not on the PATH."""
    if shutil.which(program) is None:
        raise MissingPartError(f"{program}: no such command; {remedy}")


def compare_sums(cache: Path) -> None:
    """Compares all jars with `jars.sha256`.

    Raises:
        MissingPartError: A jar is missing, has other bytes, or is in no line of the list.
    """
    found, wanted = read_sums(cache), _SUMS.read_text().splitlines()
    if found == wanted:
        return
    first = sorted({*found} ^ {*wanted})[0].split()[1]
    raise MissingPartError(
        f"{cache / first}: not the file that {_SUMS.name} names; remove {cache} and try again. If "
        "it happens again, the repository offers another file under the same version: use neither"
    )


def read_sums(cache: Path) -> list[str]:
    """Returns the SHA-256 and name of each jar, as `sha256sum` prints them."""
    jars = sorted(cache.glob("*/*.jar"))
    return [f"{_sha256(jar)}  {jar.relative_to(cache)}" for jar in jars]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _mark(cache: Path) -> Path:
    return cache / "fetched.txt"


def _wanted() -> str:
    return hashlib.sha256(_SUMS.read_bytes()).hexdigest()


def _fetch_flink(cache: Path) -> None:
    parts, wanted = cache / "sdist", cache / "flink.txt"
    shutil.rmtree(cache / "flink", ignore_errors=True)
    wanted.write_text(f"apache-flink-libraries=={FLINK} --hash=sha256:{_FLINK_SHA256}")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary=:all:"]
    _download("Flink", [*pip, "--dest", str(parts), "--requirement", str(wanted)])
    (archive,) = parts.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        jars = [member for member in tar.getmembers() if _USED.search(member.name)]
        tar.extractall(parts, jars, filter="data")
    (jars_folder,) = parts.glob("*/deps/lib")
    jars_folder.rename(cache / "flink")
    shutil.rmtree(parts)


def _fetch_job_server(cache: Path) -> None:
    require("mvn", "install Maven, such as Debian's maven, to fetch Beam's job server")
    group, artifact, version = _JOB_SERVER.split(":")
    pom, jars = cache / "pom.xml", cache / "job-server"
    shutil.rmtree(jars, ignore_errors=True)
    pom.write_text(_POM.format(group=group, artifact=artifact, version=version))
    copy = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={jars}"]
    mvn = ["mvn", "--quiet", "--batch-mode", "--strict-checksums", "--file", str(pom)]
    _download("Beam's job server", [*mvn, *copy])


def _download(what: str, command: list[str]) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        said = "\n".join(done.stdout.splitlines()[-10:])
        raise MissingPartError(f"{what} cannot be downloaded; {command[0]} says:\n{said}")
