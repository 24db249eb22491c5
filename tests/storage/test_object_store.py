"""Test that a store keeps its promises on a real S3 server, and when that one misbehaves."""

from __future__ import annotations

import gc
import hashlib
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tenacity import wait_none

from batchscore.errors import JobFileError, ModelError, RetryError
from batchscore.job.text import read_job_file
from batchscore.models.folder import read_model_folder
from batchscore.models.loadable import localize
from batchscore.runs import layout
from batchscore.runs.holder import Holder, encode_lease
from batchscore.runs.lease import Lease, acquire
from batchscore.storage import retries
from batchscore.storage.store import Store, open_filesystem
from tests.factory import write_job
from tests.servers import STORES, Fault, ObjectStore, Proxy, running, running_proxy, s3_options

pytestmark = pytest.mark.slow

SECONDS = {"connect_timeout": 0.5, "read_timeout": 0.5}


@pytest.fixture(scope="module", params=STORES)
def server(request: pytest.FixtureRequest) -> Iterator[ObjectStore]:
    """A server of each kind, for all tests here."""
    with running(request.param) as found:
        yield found


@pytest.fixture(scope="module")
def server_proxy(server: ObjectStore) -> Iterator[Proxy]:
    """A proxy before the server, through which addresses go; requests that hang end after 1 s."""
    with running_proxy(server.port) as proxy, server.at(proxy.port, **SECONDS):
        yield proxy


@pytest.fixture
def proxy(server_proxy: Proxy) -> Proxy:
    """The proxy, which passes everything on and has seen nothing yet."""
    server_proxy.reset()
    return server_proxy


@pytest.fixture
def store(server: ObjectStore, proxy: Proxy) -> Store:
    """An output in a bucket of its own."""
    return Store(f"{server.make_bucket(f'b-{uuid.uuid4().hex}')}/out")


def test_a_store_works_as_on_disk(store: Store) -> None:
    """Writing, listing, moving and removing do on a store of objects what they do on a disk."""
    assert not store.exists()
    store.write("a/x", b"1")
    store.write("a/b/y", b"2")
    store.move("a/x", "c/x")
    store.move("a/x", "c/x")
    assert (store.names(), store.names("a"), store.names("none")) == (["a", "c"], ["b"], [])
    assert (store.read("c/x"), store.exists("a/x"), store.exists("c")) == (b"1", False, True)
    with pytest.raises(FileNotFoundError, match=r"(s3|gs)://.*/out/a/x"):
        store.read("a/x")
    for name in ("a", "c/x", "none"):
        store.remove(name)
    assert (store.names(), store.exists()) == ([], False)


def test_nothing_is_written_outside_a_bucket_that_is_there(
    server: ObjectStore, store: Store
) -> None:
    """A bucket that does not exist is an error, and is not made."""
    missing = Store(f"{server.scheme}://none-{uuid.uuid4().hex}/out")
    for action in (lambda: missing.write("x", b""), lambda: missing.create_new("x", b"")):
        with pytest.raises(FileNotFoundError, match="bucket"):
            action()
    assert not missing.exists()


def test_no_look_at_the_store_is_stale(store: Store, server: ObjectStore) -> None:
    """What another process writes and removes is seen, although all was listed before."""
    client = type(open_filesystem(store.address)[0])
    other = client(**server.options(server.port), skip_instance_cache=True)
    root = store.address.partition("://")[2]

    def look() -> tuple[bool, list[str], bytes]:
        return store.exists("d/new"), store.names("d"), store.read("d/old")

    store.write("d/old", b"1")
    for _ in range(2):
        assert look() == (False, ["old"], b"1")
    other.pipe_file(f"{root}/d/new", b"2")
    other.pipe_file(f"{root}/d/old", b"changed")
    assert look() == (True, ["new", "old"], b"changed")
    other.rm_file(f"{root}/d/new")
    assert look() == (False, ["old"], b"changed")


def test_one_of_many_creates(store: Store) -> None:
    """Of eight who create a file at once one learns that it succeeded, and its bytes stay."""
    for turn in range(5):
        won = _at_once(lambda i, turn=turn: store.create_new(f"f{turn}", b"%d" % i))  # type: ignore[misc]
        assert won.count(True) == 1
        assert store.read(f"f{turn}") == b"%d" % won.index(True)


def test_one_of_many_exchanges(store: Store) -> None:
    """Of eight who replace the same version at once one learns it, and its bytes stay."""
    assert store.exchange("f", None, b"0")
    assert not store.exchange("f", None, b"again")
    assert not store.exchange("none", b"0", b"1")
    for _ in range(5):
        old = store.read("f")
        won = _at_once(lambda i, old=old: store.exchange("f", old, b"%s%d" % (old, i)))  # type: ignore[misc]
        assert won.count(True) == 1
        assert store.read("f") == b"%s%d" % (old, won.index(True))


def test_one_of_many_leases_a_slice(store: Store) -> None:
    """Of eight who take a slice at once exactly one gets it, turn after turn."""
    taken: list[Lease] = []

    def take(_: int) -> bool:
        with suppress(RetryError):
            taken.append(acquire(store, "slice", "run"))
            return True
        return False

    for turn in range(3):
        assert _at_once(take).count(True) == 1
        assert [lease.number for lease in taken] == list(range(1, turn + 2))
        taken[-1].release()


def test_the_store_dates_a_lease(store: Store) -> None:
    """A living holder whose clock is days ahead is known by the time that the store tells."""
    path = layout.slice_file("job", "lease/00000001.json")
    ahead = (datetime.now(timezone.utc) + timedelta(days=3)).isoformat()
    process = ("run", "me", "there", 1, "1", "elsewhere")
    store.write(path, encode_lease(Holder(1, "r1", *process, ahead, ahead, False)))
    with pytest.raises(RetryError, match="renewed just now; the clock of there"):
        acquire(store, "job", "run")
    assert store.names(layout.slice_file("job", "lease")) == ["00000001.json"]
    written, age = store.written(path), store.age(path)
    assert written is not None
    assert age is not None
    assert abs(written - time.time()) < 60
    assert -1 <= age < 20
    assert [*store.walk("")] == [path]
    with pytest.raises(FileNotFoundError):
        store.age("none")


def _at_once(action: Callable[[int], bool]) -> list[bool]:
    gate = threading.Barrier(8)

    def run(number: int) -> bool:
        gate.wait()
        return action(number)

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(run, range(8)))


FAULTS: list[Fault] = ["503", "drop", "stall", "lose", "cut"]
ACTIONS: dict[str, Callable[[Store], Any]] = {
    "read": lambda store: store.read("there"),
    "digest": lambda store: store.digest("there").sha256,
    "exists": lambda store: store.exists("there"),
    "names": lambda store: store.names("folder"),
    "write": lambda store: store.write("there", b"new"),
    "create_new": lambda store: store.create_new("new", b"mine"),
    "exchange": lambda store: store.exchange("there", b"whole", b"mine"),
    "move": lambda store: store.move("there", "folder/new"),
    "remove": lambda store: store.remove("there"),
    "create": lambda store: _upload(store, "new", b"whole"),
}
AFTERWARDS: dict[str, Any] = {
    "read": b"whole",
    "digest": hashlib.sha256(b"whole").hexdigest(),
    "exists": True,
    "names": ["x"],
    "create_new": True,
    "exchange": True,
}


def _upload(store: Store, path: str, data: bytes) -> None:
    with store.create(path) as file:
        file.write(data)


def _contents(store: Store) -> dict[str, bytes]:
    paths = {"there", "new", "folder/x", "folder/new"}
    return {path: store.read(path) for path in sorted(paths) if store.exists(path)}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", ACTIONS)
def test_a_passing_trouble_is_waited_out(
    store: Store, proxy: Proxy, name: str, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests that fail for a while, or whose answers are lost, change nothing in the end."""
    monkeypatch.setattr(retries, "_WAIT", wait_none())
    store.write("there", b"whole")
    store.write("folder/x", b"")
    calm = Store(f"{store.address}-calm")
    for path, data in _contents(store).items():
        calm.write(path, data)
    ACTIONS[name](calm)
    proxy.fail(fault, 1 if fault == "stall" else 2)
    assert ACTIONS[name](store) == AFTERWARDS.get(name)
    assert _contents(store) == _contents(calm)


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_a_model_folder_and_a_job_file_are_read_with_retries(
    store: Store, proxy: Proxy, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job file, a card and the files of a model arrive whole where a store stumbles."""
    monkeypatch.setattr(retries, "_WAIT", wait_none())
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    write_job(tmp_path)
    names = [path.name for path in (tmp_path / "model").iterdir()]
    store.write_all({f"model/{n}": (tmp_path / "model" / n).read_bytes() for n in names})
    store.write("job.yaml", (tmp_path / "job.yaml").read_bytes())
    proxy.fail("503", 3, method, "job.yaml")
    assert read_job_file(store.url("job.yaml")) == (tmp_path / "job.yaml").read_bytes()
    for name in names:
        proxy.fail("drop", 3, method, name)
    local = localize(read_model_folder(store.url("model")))
    assert {path.name for path in local.iterdir()} == {*names} - {"model.yaml"}
    proxy.fail("503", 1000, "", "job.yaml")
    with pytest.raises(JobFileError, match=r"job\.yaml: the job file cannot be read .*again later"):
        read_job_file(store.url("job.yaml"))
    proxy.fail("503", 1000, "", "model.yaml")
    with pytest.raises(ModelError, match=r"(s3|gs)://\S+model\.yaml cannot be read: .*again later"):
        read_model_folder(store.url("model"))


WINS: dict[str, Callable[[Store], Any]] = {
    "exchange": lambda store: store.exchange("f", b"old", b"new"),
    "create_new": lambda store: store.create_new("new", b"mine"),
    "move": lambda store: store.move("f", "to"),
}


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("fault", ["lose", "cut"])
def test_a_lost_answer_is_no_lost_race(
    store: Store, proxy: Proxy, fault: Fault, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever request's answers are lost, who acted learns it, and a file arrives whole."""
    monkeypatch.setattr(retries, "_WAIT", wait_none())
    for method in ("HEAD", "GET", "PUT", "POST", "DELETE"):
        store.write("f", b"old")
        for name, wins in WINS.items():
            proxy.reset()
            proxy.fail(fault, times, method)
            assert wins(store) is not False, (method, name)
        proxy.reset()
        store.remove("new")
        assert (store.read("to"), store.exists("f")) == (b"new", False)


def test_who_comes_second_learns_it_in_trouble_too(
    server: ObjectStore, store: Store, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that somebody else put is not taken for one's own, although a try was lost before."""
    monkeypatch.setattr(retries, "_WAIT", wait_none())
    store.write("f", b"theirs")
    for data in (b"mine", b"theirs"):
        proxy.fail("500", 2, server.writes)
        assert not store.create_new("f", data)
    proxy.fail("503", 2, server.writes)
    assert store.exchange("f", b"theirs", b"mine")
    proxy.fail("503", 2, "GET")
    assert not store.exchange("f", b"theirs", b"other")
    assert store.read("f") == b"mine"


@pytest.mark.parametrize("fault", ["503", "drop"])
def test_a_trouble_that_stays_is_an_error(
    store: Store, proxy: Proxy, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After five tries Python's own error names the address and the cause."""
    monkeypatch.setattr(retries, "_WAIT", wait_none())
    proxy.fail(fault, 1000)
    for name in ("read", "write", "create_new", "exchange", "move", "remove", "names"):
        del proxy.seen[:]
        with pytest.raises(OSError, match=r"(s3|gs)://\S+: \w+: .*run again later") as caught:
            ACTIONS[name](store)
        assert type(caught.value).__module__ == "builtins"
        # A connection that breaks is tried once more by the library below, which asks twice on GCS.
        assert 5 <= len(proxy.seen) <= 20


def test_a_store_that_never_answers_is_given_up(
    store: Store, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tries that each wait for an answer in vain end once their time is over."""
    monkeypatch.setattr(retries, "_TRY_SECONDS", 2.0)
    proxy.fail("stall", 1000)
    with pytest.raises(OSError, match="Timeout"):
        store.read("x")
    assert len(proxy.seen) < retries._TRIES


@pytest.mark.parametrize("fault", ["401", "403"])
def test_a_refusal_is_reported_at_once(
    store: Store, server: ObjectStore, proxy: Proxy, fault: Fault
) -> None:
    """Expired or missing credentials are no passing trouble: one try, and what to do."""
    proxy.fail(fault, 1000)
    for name in ("read", "write", "create_new", "exchange", "names"):
        del proxy.seen[:]
        with pytest.raises(OSError, match=rf"{server.scheme}://.*; renew the credentials, or"):
            ACTIONS[name](store)
        assert len(proxy.seen) <= 2


def test_wrong_credentials_are_a_permission_error(
    store: Store, server: ObjectStore, proxy: Proxy, tmp_path: Path
) -> None:
    """A key that S3 does not know is one try; its secret is not shown. A file is named."""
    options = server.options(proxy.port)
    with pytest.MonkeyPatch.context() as patch:
        if server.scheme == "gs":
            patch.setitem(fsspec.config.conf, "gcs", {**options, "token": None})
            patch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
        else:
            patch.setitem(fsspec.config.conf, "s3", {**options, "secret": "wrong-secret"})
        with pytest.raises(PermissionError, match=r"s3://.*renew the cred|none\.json") as refused:
            Store(store.address).write("x", b"")
    assert "wrong-secret" not in str(refused.value)
    assert len(proxy.seen) <= 1


def test_an_emulator_is_named_by_the_environment(server: ObjectStore, tmp_path: Path) -> None:
    """`STORAGE_EMULATOR_HOST` and `AWS_ENDPOINT_URL` are those of the clouds' own tools."""
    bucket = server.make_bucket(f"b-{uuid.uuid4().hex}")
    address = f"http://127.0.0.1:{server.port}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(fsspec.config.conf, "gcs", {})
        patch.setitem(fsspec.config.conf, "s3", {})
        names = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
        for name, key in names.items():
            patch.setenv(name, str(s3_options(0)[key]))
        patch.setenv("AWS_ENDPOINT_URL", address)
        patch.setenv("STORAGE_EMULATOR_HOST", address)
        store = Store(bucket)
        store.write("x", b"1")
        assert store.read("x") == b"1"


def test_a_parquet_file_is_written_through_failures(
    server: ObjectStore, store: Store, proxy: Proxy
) -> None:
    """A file of several parts arrives whole, although requests for its parts fail."""
    table = pa.table({"x": pa.array(range(2_000_000), pa.int64())})
    times = 3 if server.scheme == "gs" else 8  # the parts of s3fs are larger
    proxy.fail("503", 1, "POST")
    proxy.fail("503", 2, "PUT")
    with store.create("big.parquet") as file, pq.ParquetWriter(file, table.schema) as writer:
        for _ in range(times):
            writer.write_table(table, row_group_size=1_000_000)
    proxy.fail("503", 1, "GET")
    filesystem, path = open_filesystem(store.url("big.parquet"))
    with filesystem.open(path) as file:
        assert pq.read_metadata(file).num_rows == times * 2_000_000
    parts = [each for each in proxy.seen if each.startswith("PUT") and "upload" in each.lower()]
    assert len(parts) > 3


def test_an_upload_that_fails_is_an_os_error(
    store: Store, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that the store will not take is Python's own error, for who writes a stream too."""
    monkeypatch.setattr(retries, "_WAIT", wait_none())
    file = store.create("x")
    file.write(b"1")
    proxy.fail("503", 1000)
    with pytest.raises(OSError, match=r"(s3|gs)://\S+/out/x: "):
        file.close()


@pytest.mark.parametrize("size", [10, 60_000_000])
def test_an_upload_that_breaks_off_leaves_nothing(store: Store, size: int) -> None:
    """Who fails while a file is written publishes no part of it, whether it is ended or dropped."""
    with pytest.raises(ZeroDivisionError), store.create("ended") as file:
        file.write(bytes(size))
        raise ZeroDivisionError
    file = store.create("dropped")
    file.write(bytes(size))
    del file
    gc.collect()
    assert store.walk("") == []


@pytest.mark.parametrize("name", ["d=2026-11-20/a b", "ü/#1?x=%41+&", "{0}/{}"])
def test_any_name_and_any_bytes_are_kept(store: Store, name: str) -> None:
    """Signs of addresses and templates are part of a name, and no bytes end an upload early."""
    data = b"head\n--==0==\nContent-Type: x\n\nmiddle\n--==0==--tail"
    store.write(name, data)
    store.move(name, "moved")
    assert (store.exists(name), store.read("moved")) == (False, data)
    _upload(store, name, data)
    assert store.read(name) == data
