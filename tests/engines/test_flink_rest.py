"""What a Flink cluster says of itself: answers of its REST interface, and pools that listen."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from batchscore.engines import flink_rest
from batchscore.engines.flink import FlinkEngine
from batchscore.engines.flink_rest import (
    FlinkCluster,
    ask_cluster,
    cancel_job,
    cancel_jobs,
    job_error,
    job_state,
    require_pool,
)
from batchscore.errors import InvalidError
from batchscore.job import load_job
from batchscore.plan import make_plan
from tests import factory
from tests.servers import answering, free_port

PATHS = ("pekko.tcp://flink@127.0.0.1:4711/user/rpc/taskmanager_0", "akka.tcp://flink@tm-2:1/x")
JOBS = [
    {"jid": "a", "name": "one", "state": "RUNNING"},
    {"jid": "b", "name": "one", "state": "FAILED"},
    {"jid": "c", "name": "two", "state": "FINISHED"},
    {"jid": "d", "name": "three-0f", "state": "RESTARTING"},
]
ANSWERS: dict[str, Any] = {
    "/taskmanagers": {"taskmanagers": [{"path": p, "slotsNumber": 2} for p in PATHS]},
    "/config": {"flink-version": "1.19.3"},
    **{f"/jobs/{each['jid']}": {"state": each["state"]} for each in JOBS},
    "/jobs/overview": {"jobs": JOBS},
}


class Flink(BaseHTTPRequestHandler):
    """Answers as Flink 1.19 does, shortened to what is read."""

    def do_GET(self) -> None:
        """Answers one request."""
        unknown = self.path not in ANSWERS and self.path.startswith("/jobs/")
        self.answer(404 if unknown else 200, ANSWERS.get(self.path, {}))

    def do_PATCH(self) -> None:
        """Cancels a job, unless it has ended."""
        state = ANSWERS.get(self.path, {}).get("state")
        self.answer({"RUNNING": 202, None: 404}.get(state, 409), {})

    def answer(self, code: int, value: object) -> None:
        """Sends an answer."""
        body = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Other(Flink):
    """Something else that answers by HTTP."""

    def do_GET(self) -> None:
        """Answers one request."""
        self.path = "/"
        super().do_GET()


@pytest.fixture
def rest() -> Iterator[str]:
    """Where Flink answers."""
    with answering(Flink) as port:
        yield f"127.0.0.1:{port}"


def test_a_cluster_tells_its_slots_hosts_and_version(rest: str) -> None:
    """An address with or without http:// and a slash at its end is the same."""
    expected = FlinkCluster(4, ("127.0.0.1", "tm-2"), "1.19.3")
    for address in (rest, f"http://{rest}", f"http://{rest}/"):
        assert ask_cluster(address) == expected


def test_who_does_not_answer_as_flink_is_an_error() -> None:
    """Nobody, or another service, is named with its address."""
    with pytest.raises(InvalidError, match=r"Flink does not answer at runtime.flink.rest 127"):
        ask_cluster(f"127.0.0.1:{free_port()}")
    with answering(Other) as port, pytest.raises(InvalidError, match="is not Flink's REST"):
        ask_cluster(f"127.0.0.1:{port}")


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"taskmanagers": [{"path": "", "slotsNumber": Infinity}]}',
        b" " * 5_000_000,
    ],
)
def test_an_answer_of_another_kind_is_an_error(body: bytes) -> None:
    """However it is nested, and whatever its numbers and its size; to cancel jobs leaves it."""

    class Odd(Flink):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            with suppress(OSError):  # who asks reads no more than a part
                self.wfile.write(body)

    with answering(Odd) as port:
        with pytest.raises(InvalidError, match="is not Flink's REST"):
            ask_cluster(f"127.0.0.1:{port}")
        assert cancel_jobs(f"127.0.0.1:{port}", "name") == 0


@pytest.mark.parametrize(
    ("job", "name", "state"),
    [
        ("a", "one", "alive"),
        ("b", "one", "ended"),
        ("c", "two", "ended"),
        ("d", "three", "alive"),
        ("e", "one", "gone"),
        ("", "one", "alive"),
        ("", "two", "ended"),
        ("", "three", "alive"),
        ("", "three-0", "gone"),
        ("", "four", "gone"),
    ],
)
def test_flink_tells_the_state_of_a_job(rest: str, job: str, name: str, state: str) -> None:
    """By its id, or by its name where the id is not known; a job of another cluster is gone."""
    assert job_state(rest, job, name) == state


def test_the_state_of_a_job_is_unknown_where_flink_does_not_answer() -> None:
    """Nobody listens, or another service; neither cancels it."""
    assert job_state(f"127.0.0.1:{free_port()}", "a", "one") == "unknown"
    assert not cancel_job(f"127.0.0.1:{free_port()}", "a", "one")
    with answering(Other) as port:
        assert job_state(f"127.0.0.1:{port}", "a", "one") == "unknown"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "?key="),
        ("", "#"),
        ("", "/../up"),
        ("", "/."),
        ("", "/a b"),
        ("", "/\r\nHost: else"),
        ("user:word@", ""),
        ("ftp://", ""),
        ("http:", ""),
    ],
)
def test_only_flink_is_asked_whatever_a_lease_names(before: str, after: str) -> None:
    """Who may write an output has no requests sent but those that Flink knows."""
    seen = list[str]()

    class Watched(Flink):
        def do_GET(self) -> None:
            seen.append(self.path)
            self.answer(200, {"jobs": JOBS})

    with answering(Watched) as port:
        address = f"{before}127.0.0.1:{port}{after}"
        assert job_state(address, "a", "one") == "unknown"
        assert not cancel_job(address, "a", "one")
        assert not cancel_job(f"127.0.0.1:{port}", "../a?x=", "one")
        assert job_error(f"127.0.0.1:{port}", "../a") == ""
    assert seen == []


def test_a_file_is_no_cluster(tmp_path: Path) -> None:
    """Else a lease could have any file of this machine read."""
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs/overview").write_text(json.dumps({"jobs": JOBS}))
    for address in (tmp_path.as_uri(), f"data:,{tmp_path}", str(tmp_path)):
        assert job_state(address, "b", "one") == "unknown"


def test_an_answer_that_names_another_address_is_not_followed(rest: str) -> None:
    """Nobody but the address that a job or a lease names is asked."""

    class Elsewhere(Flink):
        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Location", f"http://{rest}{self.path}")
            self.end_headers()

    with answering(Elsewhere) as port:
        assert job_state(f"127.0.0.1:{port}", "b", "one") == "unknown"
        with pytest.raises(InvalidError, match="Flink does not answer at"):
            ask_cluster(f"127.0.0.1:{port}")


@pytest.mark.parametrize(
    "path", ["", "/", "/flink", "/api/v1/namespaces/a/services/http:b:8081/proxy"]
)
def test_a_cluster_may_be_behind_a_path(path: str) -> None:
    """An ingress and Kubernetes' own proxy give it one."""

    class Below(Flink):
        def do_GET(self) -> None:
            self.path = self.path.removeprefix(path.rstrip("/"))
            super().do_GET()

    with answering(Below) as port:
        assert job_state(f"http://localhost:{port}{path}", "a", "one") == "alive"


def test_a_job_is_cancelled_by_id_or_name(rest: str) -> None:
    """The answer tells whether Flink took the request."""
    assert cancel_job(rest, "a", "one")
    assert cancel_job(rest, "", "one")
    assert not cancel_job(rest, "b", "one")
    assert not cancel_job(rest, "", "two")
    assert cancel_jobs(rest, "one") == 1


def test_nobody_but_flink_is_asked_to_cancel_a_job() -> None:
    """What answers otherwise, or has no such job that is alive, is sent no request that changes."""
    sent = list[str]()

    class Watched(Other):
        jobs: Any = None

        def do_GET(self) -> None:
            self.answer(200, self.jobs)

        def do_PATCH(self) -> None:
            sent.append(self.path)
            self.answer(202, {})

    with answering(Watched) as port:
        for Watched.jobs in (None, [], {"jobs": [{"jid": "a"}]}, {"jobs": JOBS}):
            for job in ("b", "e", "f"):
                assert not cancel_job(f"127.0.0.1:{port}", job, "one")
    assert sent == []


def test_an_answer_that_does_not_end_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part of it comes in time, but all of it does not."""
    monkeypatch.setattr(flink_rest, "_SECONDS", 0.5)
    over = threading.Event()

    class Slow(Flink):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            with suppress(OSError):
                while not over.wait(0.05):
                    self.wfile.write(b" ")

    with answering(Slow) as port:
        try:
            with pytest.raises(InvalidError, match="its answer takes more than"):
                ask_cluster(f"127.0.0.1:{port}")
        finally:
            over.set()


def test_a_pool_that_is_not_there_is_an_error_where_that_is_certain() -> None:
    """What only the TaskManagers see is left to them."""
    closed = free_port()
    with pytest.raises(InvalidError, match=rf"no worker pool answers.* 127.0.0.1:{closed} .*start"):
        require_pool(f"127.0.0.1:{closed}", ["127.0.0.1", "localhost"])
    require_pool(f"localhost:{closed}", ["127.0.0.1", "tm-2"])
    require_pool("no-such-host.invalid:50000", ["tm-2"])
    with socket.create_server(("127.0.0.1", 0)) as pool:
        require_pool(f"127.0.0.1:{pool.getsockname()[1]}", ["127.0.0.1"])


@pytest.mark.parametrize(
    ("asked", "workers"), [({}, 4), ({"parallelism": 3}, 3), ({"parallelism": 5}, None)]
)
def test_a_job_gets_the_slots_that_it_asks_for(
    rest: str, tmp_path: Path, asked: dict[str, int], workers: int | None
) -> None:
    """`auto` takes all slots, whatever `runtime.workers` says; more than all is an error."""
    runtime = {"workers": 7, "flink": {"rest": rest, **asked}}
    plan = make_plan(load_job(str(factory.write_job(tmp_path, {"runtime": runtime}))))
    if workers is None:
        with pytest.raises(InvalidError, match=r"parallelism 5: Flink at .* has 4 slots; start"):
            FlinkEngine().place(plan, ())
    else:
        assert FlinkEngine().place(plan, ()).workers == workers
