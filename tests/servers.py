"""Real servers on loopback for tests: object stores, and a proxy before one that misbehaves."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal
from urllib.parse import unquote

import fsspec
import pytest

from tests.waiting import wait_until

ROOT = Path(__file__).parents[1]
_KEY, _SECRET = "batchscore", "loopback-only"
_START_SECONDS = 20.0
_HOST = "127.0.0.1"

Fault = Literal[
    "401", "403", "429", "500", "503", "drop", "reset", "stall", "lose", "cut", "slow", "wrong"
]
"""Five answers; none, at once, by a reset or never; the store's, lost, cut, slow or damaged."""
_ANSWERS = ("401", "403", "429", "500", "503")


class Daemon:
    """A server's process, which may be killed and started again."""

    def __init__(
        self, command: list[str], port: int, environment: Mapping[str, str], log: Path
    ) -> None:
        self._command, self._port, self._environment, self._log = command, port, environment, log

    def start(self) -> None:
        """Starts it, and waits until it listens."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdout=log, stderr=log
            )
        _await_port(self._process, self._port, self._log)

    def kill(self, by: signal.Signals = signal.SIGKILL) -> None:
        """Ends it by a signal, and waits for its end."""
        self._process.send_signal(by)
        self._process.wait()


@dataclass(frozen=True)
class ObjectStore:
    """A server: its port, and the folder whose folders are its buckets.

    `scheme` begins its addresses, and `writes` is the method of requests that put an object.
    """

    port: int
    folder: Path
    scheme: str
    writes: str
    daemon: Daemon

    def make_bucket(self, name: str) -> str:
        """Makes a bucket and returns its address."""
        (self.folder / name).mkdir()
        return f"{self.scheme}://{name}"

    def options(self, port: int, **config: Any) -> dict[str, Any]:
        """Returns what fsspec needs for this server at a port, with `config` in addition."""
        return _gcs_options(port, **config) if self.scheme == "gs" else s3_options(port, **config)

    @contextmanager
    def at(self, port: int = 0, **config: Any) -> Iterator[None]:
        """Lets the scheme mean this server, here and in processes started from here.

        `port` is that of a proxy before the server, `config` as in `options`.
        """
        protocol = "gcs" if self.scheme == "gs" else "s3"
        options = self.options(port or self.port, **config)
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(fsspec.config.conf, protocol, options)
            patch.setenv(f"FSSPEC_{protocol.upper()}", json.dumps(options))
            yield


STORES = ("s3", "gcs")
"""What `running` can start."""


@contextmanager
def running(name: str) -> Iterator[ObjectStore]:
    """Starts a server of STORES on a free port over a temporary folder, and ends it.

    Skips the test where the server is not installed, unless BATCHSCORE_REQUIRE is `all`.
    """
    pytest.importorskip("s3fs" if name == "s3" else "gcsfs")
    with running_s3() if name == "s3" else running_gcs() as server:
        yield server


@contextmanager
def running_s3() -> Iterator[ObjectStore]:
    """Starts an S3 server on a free port over a temporary folder, and ends it.

    Skips the test where versitygw is not installed, unless BATCHSCORE_REQUIRE is `all`.
    """
    binary = find_tool("versitygw")
    with tempfile.TemporaryDirectory(prefix="s3-") as home:
        for name in ("buckets", "marks"):
            (Path(home) / name).mkdir()
        port = free_port()
        command = [binary, "--quiet", "--keep-alive", "--port", f"{_HOST}:{port}", "posix"]
        command += ["--sidecar", f"{home}/marks", f"{home}/buckets"]
        secrets = {"ROOT_ACCESS_KEY": _KEY, "ROOT_SECRET_KEY": _SECRET}
        with serving(command, port, secrets) as daemon:
            yield ObjectStore(port, Path(home) / "buckets", "s3", "PUT", daemon)


@contextmanager
def running_gcs() -> Iterator[ObjectStore]:
    """Starts a Google Cloud Storage server on a free port over a temporary folder, and ends it.

    Skips the test where fake-gcs-server is not installed, unless BATCHSCORE_REQUIRE is `all`.
    """
    binary = find_tool("fake-gcs-server", "fake_gcs")
    with tempfile.TemporaryDirectory(prefix="gcs-") as home:
        port = free_port()
        command = [binary, "-scheme", "http", "-host", _HOST, "-port", str(port)]
        command += ["-backend", "filesystem", "-filesystem-root", home]
        command += ["-public-host", f"{_HOST}:{port}", "-log-level", "error"]
        with serving(command, port) as daemon:
            yield ObjectStore(port, Path(home), "gs", "POST", daemon)


@contextmanager
def serving(
    command: list[str], port: int, environment: Mapping[str, str] = MappingProxyType({})
) -> Iterator[Daemon]:
    """Starts a server, waits until it listens, and ends it."""
    with tempfile.NamedTemporaryFile(prefix="server-") as log:
        daemon = Daemon(command, port, {**os.environ, **environment}, Path(log.name))
        daemon.start()
        try:
            yield daemon
        finally:
            daemon.kill(signal.SIGTERM)


def s3_options(port: int, **config: Any) -> dict[str, Any]:
    """Returns what s3fs needs for a server on loopback, with botocore's `config` in addition."""
    return {
        "key": _KEY,
        "secret": _SECRET,
        "endpoint_url": f"http://{_HOST}:{port}",
        "client_kwargs": {"region_name": "us-east-1"},
        "config_kwargs": config,
    }


def _gcs_options(port: int, read_timeout: float | None = None, **_: Any) -> dict[str, Any]:
    address = {"endpoint_url": f"http://{_HOST}:{port}", "token": "anon"}
    return {**address, **({"requests_timeout": read_timeout} if read_timeout else {})}


@contextmanager
def answering(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    """A server whose requests a handler answers, printing none of them; its port."""
    handler.log_message = lambda *_: None  # type: ignore[method-assign]
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def free_port() -> int:
    """Returns a port of loopback that was free a moment ago."""
    with socket.create_server((_HOST, 0)) as server:
        return int(server.getsockname()[1])


def find_tool(name: str, installer: str = "") -> str:
    """Returns where a program is; skips the test without it, unless BATCHSCORE_REQUIRE is `all`."""
    found = shutil.which(name, path=f"{ROOT}/.tools/bin{os.pathsep}{os.environ.get('PATH', '')}")
    if found:
        return found
    message = f"{name} is not installed: sh tools/install_{installer or name}.sh"
    if os.environ.get("BATCHSCORE_REQUIRE") == "all":
        pytest.fail(message)
    pytest.skip(message)


def _await_port(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    wait_until(lambda: server.poll() is not None or _answers(port), _START_SECONDS)
    assert server.poll() is None, f"{server.args!r} did not start: {log.read_text()}"


def _answers(port: int) -> bool:
    try:
        socket.create_connection((_HOST, port), 1).close()
        return True
    except OSError:
        return False


@dataclass
class _Rule:
    fault: Fault
    times: int
    method: str
    path: str


class Proxy:
    """Passes requests on to a port of loopback, except those that it shall fail."""

    def __init__(self, upstream: int) -> None:
        self.port = 0
        self.seen: list[str] = []
        """Method and path of each request."""
        self._upstream = upstream
        self._rules: list[_Rule] = []

    def fail(self, fault: Fault, times: int, method: str = "", path: str = "") -> None:
        """Fails the next requests of a method, with a text in their path."""
        self._rules.append(_Rule(fault, times, method, path))

    def left(self) -> list[_Rule]:
        """Returns what it shall still fail, for want of such requests."""
        return [rule for rule in self._rules if rule.times > 0]

    def reset(self) -> None:
        """Forgets what it shall fail and what it has seen."""
        self._rules.clear()
        self.seen.clear()

    async def serve(self, ready: threading.Event) -> None:
        """Listens until `stop` is called."""
        self._stopped = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        server = await asyncio.start_server(self._handle, _HOST, 0)
        self.port = int(server.sockets[0].getsockname()[1])
        ready.set()
        await self._stopped.wait()
        server.close()

    def stop(self) -> None:
        """Ends `serve`, from another thread."""
        self._loop.call_soon_threadsafe(self._stopped.set)

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            head = await reader.readuntil(b"\r\n\r\n")
            method, path, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
            self.seen.append(f"{method} {path}")
            fault = self._next_fault(method, path)
            if fault == "stall":
                await asyncio.sleep(3600)
            elif fault == "reset":
                # Closed with a linger of no time, a connection is reset.
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, linger
                )
            elif fault in _ANSWERS:
                writer.write(_ANSWER % fault.encode())
                await writer.drain()
            elif fault != "drop":
                await self._pass_on(head, reader, writer, fault)
        writer.close()

    def _next_fault(self, method: str, path: str) -> Fault | None:
        for rule in self._rules:
            if rule.times > 0 and rule.method in ("", method) and rule.path in unquote(path):
                rule.times -= 1
                return rule.fault
        return None

    async def _pass_on(
        self,
        head: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        fault: Fault | None,
    ) -> None:
        answer, request = await asyncio.open_connection(_HOST, self._upstream)
        # One request a connection: the server ends it, so that nothing here has to be parsed.
        request.write(head.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
        sending = asyncio.create_task(_copy(reader, request))
        await _copy(answer, writer, fault)
        sending.cancel()
        request.close()


_ANSWER = b"HTTP/1.1 %s Failed\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


async def _copy(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fault: Fault | None = None
) -> None:
    while data := await reader.read(1 << 16):
        # The server must say that a body may be sent, or the store would not act.
        if fault is not None and not data.startswith(b"HTTP/1.1 100 "):
            data = await _spoiled(data, fault)
        writer.write(data)
        await writer.drain()


async def _spoiled(data: bytes, fault: Fault) -> bytes:
    if fault == "slow":
        await asyncio.sleep(0.2)
        return data
    if fault == "wrong":
        head, gap, body = data.rpartition(b"\r\n\r\n")
        return head + gap + body[:-1] + bytes([body[-1] ^ 1]) if body else data
    return data[:-1] if fault == "cut" else b""


@contextmanager
def running_proxy(upstream: int) -> Iterator[Proxy]:
    """Starts a proxy on a thread of its own, and ends it with all its connections."""
    proxy, ready = Proxy(upstream), threading.Event()
    # Once `serve` is over, connections that hang are cancelled with the loop.
    thread = threading.Thread(target=lambda: asyncio.run(proxy.serve(ready)), daemon=True)
    thread.start()
    ready.wait()
    try:
        yield proxy
    finally:
        proxy.stop()
        thread.join()
