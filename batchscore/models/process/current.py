"""The one host of this process: its model's process, or that of its launcher."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from batchscore.models.process import early
from batchscore.models.process.host import Host
from batchscore.system.usage import Usage, join, used_by_me

_hosts: list[Host] = []


def use(host: Host) -> None:
    """Has this process use a host from now on."""
    end()
    _hosts.append(host)


def host_for(format: str, timeout_s: float) -> Host:
    """Returns the host of models of a format; a new one, unless this process has it already."""
    if not _hosts or (_hosts[0].format, _hosts[0].timeout_s) != (format, timeout_s):
        started = early.take(format)
        use(Host(format, timeout_s, started=started))
    return _hosts[0]


def dismiss() -> None:
    """Ends the model's process of this process, since all rows were scored, and does not wait."""
    for host in _hosts:
        host.dismiss()


def used_here() -> Usage:
    """Returns what this process used, and the processes that it has started."""
    return join([used_by_me(), *(host.usage() for host in _hosts)])


def end() -> None:
    """Ends the model's process, if this process has one, and one that was started too early."""
    while _hosts:
        _hosts.pop().close()
    early.end()


@contextmanager
def ended() -> Iterator[None]:
    """Ends the model's process with what is done inside."""
    try:
        yield
    finally:
        end()
