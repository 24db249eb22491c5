"""Test how many requests it takes to plan and to read shards on an object store."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from batchscore.errors import ShardError
from batchscore.plan.footers import keep_row_groups, read_footers
from batchscore.plan.listing import find_shards
from batchscore.stages.read import Source, read_unit
from batchscore.storage.parquet import open_reader
from batchscore.storage.store import Store
from batchscore.units.unit import Unit, make_unit
from tests.factory import make_rows, write_shard
from tests.servers import STORES, ObjectStore, Proxy, running, running_proxy

pytestmark = pytest.mark.slow

SHARDS = 40


@pytest.fixture(scope="module", params=STORES)
def server(request: pytest.FixtureRequest) -> Iterator[ObjectStore]:
    """A server of each kind."""
    with running(request.param) as found:
        yield found


def test_a_shard_takes_one_request(
    server: ObjectStore, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Shards are listed by the thousand, as a folder or by a pattern, and a footer is one read."""
    path = tmp_path_factory.mktemp("shards") / "shard"
    write_shard(path)
    store = Store(server.make_bucket("requests"))
    with running_proxy(server.port) as proxy, server.at(proxy.port):
        store.write_all({f"in/{n:02}.parquet": path.read_bytes() for n in range(SHARDS)})
        for address in (store.url("in"), store.url("in/*.parquet")):
            proxy.reset()
            found = find_shards([address])
            assert len(found) == SHARDS
            assert not [each for each in proxy.seen if re.search(r"\d\.parquet", each)]
            assert len(proxy.seen) < 35
            proxy.reset()
            assert len(read_footers(found).good) == SHARDS
            methods = [each.partition(" ")[0] for each in proxy.seen]
            assert methods == ["GET"] * SHARDS


@pytest.fixture
def unit(server: ObjectStore, tmp_path: Path) -> Iterator[tuple[Unit, Source, Proxy]]:
    """A unit of small shards on a store, how it is read, and the proxy before the store."""
    table = make_rows(20)
    write_shard(tmp_path / "shard", table)
    store = Store(server.make_bucket(tmp_path.name.replace("_", "-")[-40:].strip("-")))
    with running_proxy(server.port) as proxy, server.at(proxy.port):
        data = (tmp_path / "shard").read_bytes()
        store.write_all({f"in/{n:02}.parquet": data for n in range(SHARDS)})
        footers = read_footers(find_shards([store.url("in")])).good
        proxy.reset()
        source = Source(table.schema, None, batch_rows=640, threads=2)
        yield make_unit(tuple(keep_row_groups(footers))), source, proxy


def test_a_small_shard_is_read_by_one_request_and_a_look(
    unit: tuple[Unit, Source, Proxy],
) -> None:
    """Its bytes come at once, and the look behind them tells that they are those of the plan."""
    pieces, source, proxy = unit
    blocks = list(read_unit(pieces, source))
    assert [len(block) for block in blocks] == [640, 160, 0]
    seen = Counter(each.partition("?")[0].split("/")[-1] for each in proxy.seen)
    assert set(seen.values()) == {2}


def test_small_shards_of_a_store_are_read_side_by_side(
    unit: tuple[Unit, Source, Proxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits for a store has nothing to compute, so more wait at once than there are threads."""
    pieces, source, _ = unit
    all_wait, calls = threading.Barrier(8, timeout=20), count()

    def wait(*arguments: Any, **options: Any) -> Any:
        if next(calls) < all_wait.parties:
            all_wait.wait()
        return open_reader(*arguments, **options)

    monkeypatch.setattr("batchscore.stages.read.open_reader", wait)
    assert sum(len(block) for block in read_unit(pieces, source)) == 800


@pytest.mark.parametrize(
    ("change", "problem"), [("rewritten", "was rewritten"), ("removed", "was removed")]
)
def test_a_small_shard_that_changed_since_it_was_planned_is_refused(
    unit: tuple[Unit, Source, Proxy], change: str, problem: str
) -> None:
    """Also if it has as many bytes as before."""
    pieces, source, _ = unit
    path = pieces.pieces[SHARDS // 2].shard.path
    folder, _, name = path.rpartition("/")
    if change == "removed":
        Store(folder).remove(name)
    else:
        data = Store(folder).read(name)
        Store(folder).write(name, data.replace(b"p0", b"q0"))
    with pytest.raises(ShardError, match=f"{name}.*{problem} after planning"):
        list(read_unit(pieces, source))


def test_a_small_shard_that_is_damaged_on_its_way_is_asked_for_again(
    unit: tuple[Unit, Source, Proxy],
) -> None:
    """A whole object is compared with the checksum that the store keeps."""
    pieces, source, proxy = unit
    proxy.fail("wrong", 1, "GET", "20.parquet")
    assert sum(len(block) for block in read_unit(pieces, source)) == 800
    assert not proxy.left()
