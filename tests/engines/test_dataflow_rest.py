"""What is asked of Dataflow's REST interface, of whom, and what its answers mean."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from batchscore.engines import dataflow_rest
from batchscore.engines.dataflow_job import listed_updates
from batchscore.engines.dataflow_rest import cancel_job, create_job, job_state, root_of
from batchscore.errors import InvalidError
from tests.dataflows import FakeDataflow, serving_fake

BODY = {"name": "batchscore-a-0-1", "clientRequestId": "7"}


@pytest.fixture
def service() -> Iterator[FakeDataflow]:
    """A service that knows no job yet."""
    with serving_fake() as found:
        yield found


def test_a_job_is_found_by_id_and_by_name(service: FakeDataflow) -> None:
    """It is alive until it has ended; what the service does not know is gone."""
    job = create_job(service.root, BODY)
    assert job_state(service.root, job, BODY["name"]) == "alive"
    assert job_state(service.root, "", BODY["name"]) == "alive"
    assert job_state(service.root, "", "other") == "gone"
    assert job_state(service.root, "no-such-job", BODY["name"]) == "gone"
    service.end()
    assert job_state(service.root, job, BODY["name"]) == "ended"
    assert not cancel_job(service.root, job, BODY["name"])


def test_a_lost_answer_makes_no_second_job(
    service: FakeDataflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request is repeated with its id, and the service returns the job that it has."""
    monkeypatch.setattr(dataflow_rest, "_WAITS_S", (0.0, 0.0))
    service.refusals.append((503, "try again"))
    first = create_job(service.root, BODY)
    assert create_job(service.root, BODY) == first
    assert len(service.jobs) == 1


def test_a_job_of_another_name_is_not_cancelled(service: FakeDataflow) -> None:
    """Who may write the output may name any job of the project in a lease."""
    job = create_job(service.root, {**BODY, "name": "payroll"})
    assert not cancel_job(service.root, job, BODY["name"])
    assert service.jobs[job]["currentState"] == "JOB_STATE_RUNNING"


@pytest.mark.parametrize(
    ("root", "gets_one"),
    [
        (root_of("https://dataflow.googleapis.com", "p-12345", "us-east1"), True),
        (root_of("dataflow.googleapis.com/", "p-12345", "us-east1"), True),
        (root_of("https://dataflow-mine.p.googleapis.com", "p-12345", "us-east1"), True),
        (root_of("http://dataflow.googleapis.com", "p-12345", "us-east1"), False),
        (root_of("https://dataflow.googleapis.com.evil.org", "p-12345", "us-east1"), False),
        (root_of("https://evilgoogleapis.com", "p-12345", "us-east1"), False),
        (root_of("https://dataflow.googleapis.com:8443", "p-12345", "us-east1"), False),
        (root_of("http://127.0.0.1:80", "p-12345", "us-east1"), False),
    ],
)
def test_a_token_goes_to_google_alone(
    root: str, gets_one: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lease names addresses, too."""
    monkeypatch.setattr(dataflow_rest, "_token", lambda: "secret")
    assert (dataflow_rest._login(root) == {"Authorization": "Bearer secret"}) is gets_one


@pytest.mark.parametrize(
    "root",
    [
        "http://127.0.0.1:1/../v1b3/projects/p-1/locations/a",
        "https://user:pw@dataflow.googleapis.com/v1b3/projects/p-12345/locations/us-east1",
        "https://dataflow.googleapis.com/v1b3/projects/p-12345/locations/us-east1?x=1",
        "file:///etc/passwd",
        "",
    ],
)
def test_an_address_that_is_none_of_dataflow_is_not_asked(root: str) -> None:
    """The state of its jobs is unknown, and nothing is sent."""
    assert job_state(root, "a", "b") == "unknown"
    assert not cancel_job(root, "a", "b")


def test_no_answer_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the host, and what to do."""
    monkeypatch.setattr(dataflow_rest, "_WAITS_S", ())
    root = root_of("http://127.0.0.1:9", "my-project", "us-east1")
    with pytest.raises(InvalidError, match=r"does not answer at 127\.0\.0\.1:9 .* run again"):
        create_job(root, BODY)


def test_metrics_are_the_users_by_the_names_of_steps() -> None:
    """What Dataflow counts itself, and what is not committed, is left out."""
    context = {"step": "s4", "namespace": "batchscore"}
    rows = {"origin": "user", "name": "rows", "context": context}
    spread = {"count": 2, "sum": 10, "min": 4, "max": 6}
    updates = [
        {"name": rows, "scalar": 500},
        {"name": {**rows, "context": {**context, "tentative": "true"}}, "scalar": 501},
        {"name": {**rows, "name": "lag"}, "distribution": spread},
        {"name": {"origin": "dataflow/v1b3", "name": "ElementCount"}, "scalar": 7},
        {"name": {**rows, "context": {"step": "s4", "namespace": "beam"}}, "scalar": 1},
    ]
    assert listed_updates(updates, {"s4": "Write"}) == [
        {"step": "Write", "name": "lag", **spread},
        {"step": "Write", "name": "rows", "value": 500},
    ]
