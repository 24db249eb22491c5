"""Test OpenLineage events: what they say, and that no endpoint fails or delays a run."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from batchscore.commands.lineage_events import (
    DatasetFacts,
    LineageRun,
    dataset_name,
    end,
    event,
    start,
)
from batchscore.commands.lineage_sender import Sender, is_wanted
from tests import factory
from tests.conftest import Published
from tests.servers import free_port

KEYS = ("OPENLINEAGE_URL", "OPENLINEAGE_CONFIG", "OPENLINEAGE_DISABLED", "OPENLINEAGE_PARENT_ID")
DATA = DatasetFacts(
    ("s3://key:secret@lake/flights/*.parquet",), "/m", "gs://lake/out", (("a", "int32"),)
)
PARENT = "airflow/nightly.score/019b2f5e-0000-7000-8000-000000000001"


@pytest.fixture(autouse=True)
def _unset(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No configuration but that of a test; a client of another one is not used."""
    for key in KEYS:
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def _client() -> None:
    """Skips a test where the library is not installed."""
    pytest.importorskip("openlineage.client")


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that OpenLineage's file transport appends events to."""
    pytest.importorskip("openlineage.client")
    path = tmp_path / "events.jsonl"
    transport = {"type": "file", "log_file_path": str(path), "append": True}
    config = tmp_path / "openlineage.yml"
    config.write_text(json.dumps({"transport": transport}))
    monkeypatch.setenv("OPENLINEAGE_CONFIG", str(config))
    return path


def read(path: Path) -> list[dict[str, Any]]:
    """The events of a file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


class _Endpoint(BaseHTTPRequestHandler):
    """Takes events, as OpenLineage's servers do."""

    def do_POST(self) -> None:
        server: Any = self.server
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if server.pause is not None:
            server.pause.wait(20)
        server.events.append((self.path, json.loads(body)))
        self.send_response(server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Prints nothing."""


@contextmanager
def endpoint(status: int = 200, pause: threading.Event | None = None) -> Iterator[Any]:
    """A server on loopback, which answers with a status, once it may."""
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), _Endpoint)
    server.events, server.status, server.pause = [], status, pause
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        if pause is not None:
            pause.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.usefixtures("_client")
def test_events_are_sent_to_the_address_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Start and end of one run, in their order, with one id."""
    with endpoint() as server:
        monkeypatch.setenv("OPENLINEAGE_URL", f"http://127.0.0.1:{server.server_port}")
        sender = Sender("flights", {"date": "2026-11-30"})
        sender.send(DATA, start())
        sender.send(DATA, end({"status": "published"}))
        assert sender.close(15) is None
        (first, one), (_, other) = server.events
    assert first == "/api/v1/lineage"
    assert (one["eventType"], other["eventType"]) == ("START", "COMPLETE")
    assert one["run"]["runId"] == other["run"]["runId"]
    assert one["run"]["facets"]["nominalTime"]["nominalStartTime"] == "2026-11-30T00:00:00Z"
    assert (one["job"]["namespace"], one["job"]["name"]) == ("default", "flights")


@pytest.mark.usefixtures("_client")
def test_an_endpoint_that_is_down_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within the time that the end of a run waits."""
    monkeypatch.setenv("OPENLINEAGE_URL", f"http://127.0.0.1:{free_port()}")
    before = time.monotonic()
    sender = Sender("flights", {})
    sender.send(DATA, start())
    found = sender.close(0.5)
    assert time.monotonic() - before < 5
    assert found is not None
    assert found.startswith("OpenLineage: events were not taken within 0.5 s")
    assert found.endswith("the run's outcome does not change")


@pytest.mark.usefixtures("_client")
def test_an_endpoint_that_hangs_delays_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is left after the same time."""
    with endpoint(pause=threading.Event()) as server:
        monkeypatch.setenv("OPENLINEAGE_URL", f"http://127.0.0.1:{server.server_port}")
        sender = Sender("flights", {})
        sender.send(DATA, start())
        before = time.monotonic()
        assert "not taken within 0.5 s" in (sender.close(0.5) or "")
        assert time.monotonic() - before < 3


@pytest.mark.usefixtures("_client")
def test_an_endpoint_that_refuses_is_named_without_its_credentials(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The answer is in the warning; user and password of the address are not."""
    with endpoint(status=401) as server:
        url = f"http://me:hunter2@127.0.0.1:{server.server_port}"
        monkeypatch.setenv("OPENLINEAGE_URL", url)
        sender = Sender("flights", {})
        sender.send(DATA, start())
        found = sender.close(15) or ""
    assert "OpenLineage: an event could not be sent" in found
    assert "401" in found
    assert "hunter2" not in found


@pytest.mark.usefixtures("_client")
def test_a_malformed_address_is_named_without_its_credentials(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Those behind the space that makes it malformed do not show either."""
    monkeypatch.setenv("OPENLINEAGE_URL", "http://user:first@bad host:xx/?key=second")
    found = Sender("flights", {}).close()
    assert found is not None
    assert "***@bad host" in found
    assert "first" not in found
    assert "second" not in found


def test_a_configuration_that_cannot_be_used_is_a_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever its client makes of it."""
    pytest.importorskip("openlineage.client")
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__TYPE", "carrier_pigeon")
    assert is_wanted()
    assert "could not be sent" in (Sender("flights", {}).close(15) or "")


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, False),
        ({"OPENLINEAGE_URL": ""}, False),
        ({"OPENLINEAGE_URL": "http://h"}, True),
        ({"OPENLINEAGE_CONFIG": "x.yml"}, True),
        ({"OPENLINEAGE__TRANSPORT__TYPE": "console"}, True),
        ({"OPENLINEAGE_URL": "http://h", "OPENLINEAGE_DISABLED": "True"}, False),
    ],
)
def test_events_are_sent_if_openlineage_is_configured(
    environment: dict[str, str], wanted: bool
) -> None:
    """By its own variables, and by no key of the job file."""
    assert is_wanted(environment) is wanted


@pytest.mark.parametrize(
    ("address", "namespace", "name"),
    [
        ("s3://lake/flights/day=1", "s3://lake", "flights/day=1"),
        ("s3a://lake/flights/", "s3://lake", "flights"),
        ("gs://lake/flights/*/part-?.parquet", "gs://lake", "flights"),
        ("s3://key:secret@lake/f", "s3://lake", "f"),
        ("https://host/f.parquet?sig=secret", "https://host", "f.parquet"),
        ("file:///data/f", "file", "/data/f"),
        ("/data/month=*/x.parquet", "file", "/data"),
    ],
)
def test_datasets_have_the_names_that_openlineage_gives_them(
    address: str, namespace: str, name: str
) -> None:
    """Bucket and path; a glob is the folder that it starts from. No secret is in a name."""
    assert dataset_name(address) == (namespace, name)


@pytest.mark.usefixtures("_client")
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *(("published", "COMPLETE"), ("empty", "COMPLETE"), ("unchanged", "COMPLETE")),
        *(("held", "FAIL"), ("failed", "FAIL"), ("invalid", "FAIL"), ("retry", "FAIL")),
        *(("interrupted", "ABORT"), ("submitted", "RUNNING")),
    ],
)
def test_how_a_run_ended_is_an_event_of_its_kind(status: str, kind: str) -> None:
    """What published nothing is no success, and says why, without secrets."""
    why = "s3://key:secret@lake/x: no such file"
    run = LineageRun("019b2f5e-0000-7000-8000-000000000000", "ns", "j", {}, PARENT)
    made = event(run, DATA, end({"status": status, "error": why}))
    assert made.eventType.name == kind
    message = made.run.facets.get("errorMessage")
    assert (message is not None) == (kind in ("FAIL", "ABORT"))
    assert message is None or message.message == "s3://***@lake/x: no such file"
    assert made.run.facets["parent"].job.name == "nightly.score"


@pytest.mark.usefixtures("_client")
def test_a_published_run_has_schemas_counts_and_nulls(flights: Published) -> None:
    """As its manifest has them."""
    from openlineage.client.serde import Serde

    manifest = flights.manifest
    run = LineageRun("019b2f5e-0000-7000-8000-000000000000", "ns", "flight_delays", {})
    columns = (("carrier", "string"), ("distance", "int16"))
    data = DatasetFacts(("/in",), "/model", "/out", columns)
    found = json.loads(Serde.to_json(event(run, data, end(manifest))))
    (source, model), (output,) = found["inputs"], found["outputs"]
    assert [f["name"] for f in source["facets"]["schema"]["fields"]] == ["carrier", "distance"]
    quality = source["inputFacets"]["dataQualityMetrics"]
    assert quality["rowCount"] == manifest["rows"]["input"]
    assert quality["columnMetrics"]["distance"]["nullCount"] == 0
    assert quality["columnMetrics"]["distance"]["max"] == manifest["profile"]["distance"]["max"]
    assert "min" not in quality["columnMetrics"]["carrier"]
    checks = source["inputFacets"]["dataQualityAssertions"]["assertions"]
    assert {each["assertion"] for each in checks} == {each["name"] for each in manifest["checks"]}
    assert model["facets"]["version"]["datasetVersion"] == manifest["model"]["identity"]
    assert output["name"] == "/out/data"
    statistics = output["outputFacets"]["outputStatistics"]
    assert statistics["rowCount"] == manifest["rows"]["scored"]
    assert statistics["size"] == sum(each["bytes"] for each in manifest["files"])
    assert [f["name"] for f in output["facets"]["schema"]["fields"]] == [
        name for name, _ in manifest["columns"]
    ]
    own = found["run"]["facets"]["batchscore_run"]
    assert (own["run"], own["rows"]) == (manifest["run"], manifest["rows"])


@pytest.mark.slow
def test_the_command_sends_start_and_end(log: Path, tmp_path: Path) -> None:
    """Of a run that publishes, and of one that fails before it has a plan."""
    job = factory.write_job(tmp_path)
    assert factory.run_cli("run", job).exit_code == 0
    first = read(log)
    assert [each["eventType"] for each in first] == ["START", "COMPLETE"]
    assert first[0]["inputs"][0]["facets"]["schema"]["fields"]
    found = factory.run_cli("run", job, "--set", "model=nowhere")
    assert found.exit_code == 2
    last = read(log)[2:]
    assert [each["eventType"] for each in last] == ["FAIL"]
    assert "nowhere" in last[0]["run"]["facets"]["errorMessage"]["message"]


def test_a_missing_library_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, with what installs it; the run goes on."""
    monkeypatch.setenv("OPENLINEAGE_URL", "http://127.0.0.1:1")
    monkeypatch.setattr("batchscore.cli.score.is_installed", lambda: False)
    job = factory.write_job(tmp_path)
    found = factory.run_cli("run", job, "--set", "model=nowhere")
    assert found.exit_code == 2
    assert found.stderr.count("pip install 'batchscore[openlineage]'") == 1
