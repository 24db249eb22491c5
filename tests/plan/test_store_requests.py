"""Test how many requests it takes to plan shards on an object store."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from batchscore.plan.footers import read_footers
from batchscore.plan.listing import find_shards
from batchscore.storage.store import Store
from tests.factory import write_shard
from tests.servers import STORES, ObjectStore, running, running_proxy

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
