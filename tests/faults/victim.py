"""A process of one command that kills or stops itself at a step, or waits to be killed."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import util
from pathlib import Path
from typing import Any, NoReturn

import batchscore.cli
import batchscore.cli.render.results
import batchscore.commands.run
import batchscore.engines.preloaded

# Victims find torch imported, so that each is not to wait seconds for a process of its model.
import batchscore.models.backends.torch.preloaded
import batchscore.plan.readiness
import batchscore.plan.work
from batchscore.engines.workers import start_server

_TMP = re.compile(r"\.[0-9a-f]{8}-[0-9]+-[0-9a-f]{8}\.tmp$")
# What a file of an output is, by its path; the first that matches. Progress is nobody's step.
_KINDS = (
    (r"data/", "published file"),
    (r"_batchscore/staging/.*/rejects\.parquet", "staged rejects"),
    (r"_batchscore/staging/.*\.parquet", "staged file"),
    (r"_batchscore/ledger/.*/[0-9a-f]{16}\.parquet", "record"),
    (r"_batchscore/ledger/.*\.(rows|keys)\.parquet", "sidecar"),
    (r"_batchscore/ledger/.*/golden-", "golden rows"),
    (r"_batchscore/slices/([^/]+|[^/]+/lease)/\.", ""),
    (r"_batchscore/slices/[^/]+/lease/", "lease"),
    (r"_batchscore/slices/[^/]+/journal-", "journal.json"),
    (r"_batchscore/slices/[^/]+/", "{name}"),
    (r"_batchscore/runs/[^/]+/", "{name}"),
    (r"_batchscore/work/[^/]+/progress", ""),
    (r"_batchscore/work/[^/]+/", "{name}"),
    (r"_batchscore/retired/", "retired file"),
    (r"_batchscore/rejects/", "rejects"),
    (r"_batchscore/format.json", "{name}"),
)


@dataclass(frozen=True)
class Step:
    """The `count`-th time that one process does something to a kind of file, beginning at 1.

    Without a name, the `count`-th change of any kind.
    """

    name: str
    count: int


@dataclass(frozen=True)
class Order:
    """What a victim is to do.

    Args:
        arguments: of the command line.
        output: the folder in which changes are steps.
        log: a folder: `steps.txt` gets a line before each step is done, `said.txt` what is printed,
            `code.txt` the exit code unless it was killed.
        unit_rows: how large units are.
        workers: whether it is to fork worker processes.
        end: the step before which SIGKILL comes, or None.
        alone: only the process that comes to the step is killed, whether launcher or worker.
        stops: SIGSTOP comes instead of SIGKILL, and for that process alone.
    """

    arguments: tuple[str, ...]
    output: str
    log: str
    unit_rows: int
    workers: bool = False
    end: Step | None = None
    alone: bool = False
    stops: bool = False


def obey(order: Order) -> NoReturn:
    """Runs the command line to its end or to the step of its order, as a group of its own."""
    os.setsid()
    said = os.open(f"{order.log}/said.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(said, 1)
    os.dup2(said, 2)
    batchscore.plan.work.UNIT_ROWS = order.unit_rows
    Watch(order).begin()
    if order.workers:
        util.spawnv_passfds = _fork_instead
        start_server()
    sys.argv = ["batchscore", *order.arguments]
    try:
        batchscore.cli.main()
    except SystemExit as end:
        Path(order.log, "code.txt").write_text(str(end.code))
        raise
    raise AssertionError("a command ends in SystemExit")


class Watch:
    """Sees every change of the output just before it is made, and kills where the order says so.

    An audit hook sees them below all of batchscore's own code, and in forked workers too.
    """

    def __init__(self, order: Order) -> None:
        self._order = order
        self._counts = Counter[str]()
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self._log = os.open(f"{order.log}/steps.txt", flags)
        os.set_inheritable(self._log, True)

    def begin(self) -> None:
        """Watches for as long as the process lives."""
        sys.addaudithook(self._see)

    def _see(self, event: str, args: tuple[Any, ...]) -> None:
        name = name_step(event, args, self._order.output)
        if not name:
            return
        self._counts[name] += 1
        os.write(self._log, f"{name}\n".encode())
        reached = Step(name, self._counts[name]), Step("", self._counts.total())
        if self._order.end in reached:
            self._end()

    def _end(self) -> None:
        if self._order.stops:
            os.kill(os.getpid(), signal.SIGSTOP)
        elif self._order.alone:
            os.kill(os.getpid(), signal.SIGKILL)
        else:
            # All of the group end at the same moment, as when a machine loses its power.
            _kill_group()


def _kill_group() -> None:
    os.killpg(0, signal.SIGKILL)


def name_step(event: str, args: tuple[Any, ...], output: str) -> str:
    """Names a change of the output, such as `put current.txt`; nothing for any other event."""
    if event == "open" and isinstance(args[0], str) and args[2] & (os.O_WRONLY | os.O_RDWR):
        return _verb("write", _kind(args[0], output))
    if event in ("os.rename", "os.link"):
        old, new = _kind(args[0], output), _kind(args[1], output)
        verb = "put" if event == "os.rename" else "link"
        return _verb(verb, new) if old == new else f"move {old} to {new}"
    if event == "os.remove":
        temporary = bool(_TMP.search(os.fspath(args[0])))
        return _verb("unlink" if temporary else "remove", _kind(_full(*args), output))
    return ""


def _verb(verb: str, kind: str) -> str:
    return f"{verb} {kind}" if kind else ""


def _full(path: Any, folder: int) -> str:
    """Returns the path of what is removed relative to an open folder, as `shutil.rmtree` does."""
    text = os.fspath(path)
    return text if folder < 0 else os.path.join(os.readlink(f"/proc/self/fd/{folder}"), text)


def _kind(path: Any, output: str) -> str:
    """Returns what kind of file of the output a path is, or nothing."""
    whole = os.fspath(path)
    if not whole.startswith(f"{output}/"):
        return ""
    relative = _TMP.sub("", whole[len(output) + 1 :])
    name = relative.rpartition("/")[2]
    found = (kind for pattern, kind in _KINDS if re.match(pattern, relative))
    return next(found, "other").format(name=name)


def _fork_instead(path: bytes, args: Sequence[Any], passfds: Sequence[int]) -> int:
    """Starts the server that workers are forked from as a fork, which has imported everything.

    What a fresh interpreter would not inherit is closed, so that it ends when its client does.
    """
    child = os.fork()
    if child:
        return child
    for fd in sorted(int(path.name) for path in Path("/proc/self/fd").iterdir()):
        if fd > 2 and fd not in passfds and _closes_at_exec(fd):
            os.close(fd)
    exec(args[-1], {})
    os._exit(0)


def _closes_at_exec(fd: int) -> bool:
    try:
        return not os.get_inheritable(fd)
    except OSError:
        return False
