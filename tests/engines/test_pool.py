"""The pool of Python workers as a command: where it listens, and where it does not."""

from __future__ import annotations

import socket
import sys

import pytest

from batchscore.engines import pool
from batchscore.engines.local import WorkerPool


def ends(monkeypatch: pytest.MonkeyPatch, address: str) -> int:
    """Starts a pool that cannot listen, and returns its exit code."""
    monkeypatch.setattr(pool, "start_server", lambda _: None)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["pool", address])
    with pytest.raises(SystemExit) as caught:
        pool.main()
    assert isinstance(caught.value.code, int)
    return caught.value.code


@pytest.mark.parametrize("address", ["", "50000", ":50000", "localhost:", "localhost:99999"])
def test_what_is_no_address_is_an_error(
    address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would listen at another port, or end with a traceback."""
    assert ends(monkeypatch, address) == 2
    assert f"expected HOST:PORT, found {address!r}" in capsys.readouterr().err


def test_a_second_pool_at_an_address_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two would each get some of the requests."""
    with WorkerPool(pytest.fail) as first:
        host, _, port = first.address.rpartition(":")
        with socket.create_connection((host, int(port)), 10):
            assert ends(monkeypatch, first.address) == 1
    assert "another process does, or it is no address of this machine" in capsys.readouterr().err
