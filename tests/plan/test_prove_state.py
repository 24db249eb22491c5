"""A score that depends on earlier batches or on the process is refused before a run scores."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchscore.errors import FunctionError, InvalidError
from batchscore.system import resources
from tests import factory
from tests.factory import change_job, make_rows, write_shard
from tests.plan.test_prove import OTHER_ROWS, after, before, net, rows, tried, with_network

pytestmark = pytest.mark.slow

AFRESH = "in another process, which meets other rows first"
CODES = """codes = {}
---
return df.assign(b=[float(codes.setdefault(part, len(codes))) for part in df.part])
"""
SMALLEST = """least = np.zeros(2)
---
np.minimum(least, df[['a', 'b']].min(), out=least)
return df.assign(a=df.a - least[0])
"""
FITTED = """from functools import lru_cache

first = []

@lru_cache
def mean():
    return first[0].a.mean()
---
first.append(df)
return df.assign(a=df.a - mean())
"""
KINDS = """kinds = []
---
kinds.extend(part for part in df.part.unique() if part not in kinds)
return df.assign(a=pd.Categorical(df.part, kinds).codes)
"""
GROWN: dict[str, Callable[[Path], Any]] = {
    "codes as first seen": before(CODES),
    "codes of two values": rows(before(CODES), part=lambda i: f"p{i % 2}"),
    "codes of a rare value": rows(before(CODES), part=lambda i: f"p{i == 211}"),
    "categories so far": before(KINDS),
    "mean of the first batch": before(
        "kept = {}\n---\nreturn df.assign(a=df.a - kept.setdefault('mean', df.a.mean()))"
    ),
    "cached mean of the first batch": before(FITTED),
    "largest so far": before(
        "most = [0.0]\n---\nmost[0] = max(most[0], df.a.max())\nreturn df.assign(a=df.a / most[0])"
    ),
    "smallest so far": before(SMALLEST),
    "codes of scores": after(
        "codes = {}\n---\nnames = [codes.setdefault(round(v), len(codes)) for v in df.logit * 9]\n"
        "return pd.DataFrame({'kind': [f'kind {name}' for name in names]})"
    ),
    "mean of the network's first rows": with_network(
        net(
            "self.mean = x.mean(0) if self.mean is None else self.mean\n"
            "logit = self.linear(x - self.mean).squeeze(1)",
            "self.mean = None",
        )
    ),
    "largest of the network so far": with_network(
        net(
            "self.most = torch.maximum(self.most, x.amax(0))\n"
            "logit = self.linear(x / self.most).squeeze(1)",
            "self.register_buffer('most', torch.zeros(2), persistent=False)",
        )
    ),
    "codes in a global of the network": with_network(
        net(
            "codes = [SEEN.setdefault(round(v), len(SEEN)) for v in (x[:, 0] * 9).tolist()]\n"
            "logit = torch.tensor(codes).float()",
            top="SEEN = {}",
        )
    ),
}
OF_THE_PROCESS: dict[str, Callable[[Path], Any]] = {
    "hash of a text": before("return df.assign(a=df.part.map(hash) % 100)"),
    "hash of a tuple": before("return df.assign(a=[hash((p, 1)) % 100 for p in df.part])"),
    "drawn at import": before("scale = np.random.rand()\n---\nreturn df.assign(a=df.a * scale)"),
    "time of import": after("at = datetime.now()\n---\nreturn df.assign(at=at)"),
    "id of the process": after(
        "import uuid\n\nname = uuid.uuid4().hex\n---\nreturn df.assign(n=name)"
    ),
}
CASES = [pytest.param(spoil, id=name) for name, spoil in {**GROWN, **OF_THE_PROCESS}.items()]


@pytest.mark.parametrize("spoil", CASES)
def test_what_another_process_scores_otherwise_is_refused(
    spoil: Callable[[Path], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """State that only grows shows in a second import of the code, which meets other rows first."""
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    job = factory.write_job(tmp_path)
    spoil(tmp_path)
    with pytest.raises(InvalidError, match=AFRESH):
        tried(job)


@pytest.mark.parametrize("command", ["run", "check"])
def test_the_message_says_how_to_keep_nothing(command: str, tmp_path: Path) -> None:
    """`check` and `run` exit with code 2, name a row with both values, and say what to do."""
    job = factory.write_job(tmp_path)
    GROWN["codes of two values"](tmp_path)
    done = factory.run_cli(command, job)
    assert done.exit_code == 2
    for words in (
        f"preprocess.function steps.py:run returns other values for a row {AFRESH}",
        f"of shard {tmp_path}/in/0.parquet: ",
        "in this process",
        "What to do: keep nothing of earlier calls",
    ):
        assert words in done.stderr
    assert not (tmp_path / "out").exists()


FIXED = """from functools import lru_cache

@lru_cache
def table():
    return {'p0': 1.0, 'p1': 2.0, 'p2': 3.0}

fitted, calls, codes = [], [], {}
---
calls.append(len(df))
if not fitted:
    fitted.append(table())
for part in df.part:
    codes.setdefault(hash(part), fitted[0][part])
return df.assign(a=[codes[hash(part)] for part in df.part], b=[hash((i, 0.5)) % 7 for i in df.id])
"""
ONCE = """import sys

if 'once of test_prove_state' in sys.modules:
    raise RuntimeError('loaded before')
sys.modules['once of test_prove_state'] = sys
---
return df
"""
SAME_EACH_TIME: dict[str, Callable[[Path], Any]] = {
    "caches, counters and lazy constants": before(FIXED),
    "weights drawn with a seed": before(
        "scale = np.random.default_rng(0).random()\n---\nreturn df.assign(a=df.a * scale)"
    ),
    "checksums of texts": before(
        "import zlib\n---\nreturn df.assign(a=[zlib.crc32(p.encode()) % 100 for p in df.part])"
    ),
    "a network with a counter and a cache": with_network(
        net(
            "self.calls += 1\n"
            "ones = self.kept.setdefault(len(x), torch.ones(len(x)))\n"
            "logit = self.linear(x).squeeze(1) * ones",
            "self.calls, self.kept = 0, {}",
        )
    ),
    "a network of one batch size": with_network(
        net("logit = self.linear(x.view(1024, 2)).squeeze(1)")
    ),
}


@pytest.mark.parametrize("spoil", [pytest.param(s, id=n) for n, s in SAME_EACH_TIME.items()])
def test_state_that_changes_no_value_passes(spoil: Callable[[Path], Any], tmp_path: Path) -> None:
    """A function or a network may keep what is the same in each process."""
    job = factory.write_job(tmp_path)
    spoil(tmp_path)
    assert tried(job) == "500 rows score the same when repeated and next to other rows"


@pytest.mark.parametrize("batch_rows", [1, 7])
@pytest.mark.parametrize("name", ["codes as first seen", "mean of the network's first rows"])
def test_small_batches_are_tried_as_a_run_cuts_them(
    batch_rows: int, name: str, tmp_path: Path
) -> None:
    """State is found in batches of a few rows or one; a function never gets a larger batch."""
    job = factory.write_job(tmp_path)
    GROWN[name](tmp_path)
    with pytest.raises(InvalidError, match=AFRESH):
        tried(job, f"runtime.batch_rows={batch_rows}")
    before(f"assert len(df) <= {batch_rows}\nreturn df")(tmp_path)
    factory.write_model(tmp_path / "model")
    assert "the same" in tried(job, f"runtime.batch_rows={batch_rows}")


def test_code_is_imported_twice_only_if_memory_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container with less free memory than the process holds, the rest is tried alone."""
    (tmp_path / "memory.max").write_text("1048576\n")
    monkeypatch.setattr(resources, "_MEMORY", str(tmp_path / "memory.max"))
    job = factory.write_job(tmp_path)
    GROWN["codes as first seen"](tmp_path)
    assert tried(job).endswith("(less memory is free than the process holds)")
    (tmp_path / "memory.max").write_text("max\n")
    with pytest.raises(FunctionError, match=AFRESH):
        tried(job)


def test_a_hash_with_a_fixed_seed_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where PYTHONHASHSEED sets the seed, each process has the same hash of a text."""
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    job = factory.write_job(tmp_path)
    OF_THE_PROCESS["hash of a tuple"](tmp_path)
    assert tried(job).startswith("500 rows score the same")


def test_code_that_cannot_be_imported_twice_is_tried_no_further(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a second import does not allow is no fault; what was tried says so."""
    monkeypatch.delitem(sys.modules, "once of test_prove_state", raising=False)
    job = factory.write_job(tmp_path)
    before(ONCE)(tmp_path)
    assert tried(job) == (
        "500 rows score the same when repeated and next to other rows; not tried as in another "
        "process: preprocess.function steps.py:run cannot be loaded twice (loaded before)"
    )


def _sorted_input(folder: Path, row_group_size: int | None) -> None:
    """Writes rows of which each thousand has a value of its own."""
    parts = pa.array([f"p{i // 1000}" for i in range(6000)])
    table = make_rows(6000).set_column(3, "part", parts)
    for path in (folder / "in").iterdir():
        path.unlink()
    if row_group_size:
        pq.write_table(table, folder / "in/0.parquet", row_group_size=row_group_size)
    else:
        for start in range(0, 6000, 1000):
            write_shard(folder / f"in/{start}.parquet", table.slice(start, 1000))


@pytest.mark.parametrize("row_group_size", [None, 500])
@pytest.mark.parametrize("name", ["coded", "factorized"])
def test_a_sorted_input_shows_several_values(
    name: str, row_group_size: int | None, tmp_path: Path
) -> None:
    """A sample has rows of several shards and row groups, so that a sorted column varies in it."""
    job = factory.write_job(tmp_path)
    OTHER_ROWS[name](tmp_path)
    _sorted_input(tmp_path, row_group_size)
    with pytest.raises(FunctionError, match="next to other rows"):
        tried(job, "runtime.batch_rows=2048")


def test_a_single_new_row_is_tried_next_to_published_ones(tmp_path: Path) -> None:
    """Where few rows are new, others of the input are their neighbours in the test."""
    job = factory.write_job(tmp_path)
    before("return df.assign(a=df.a.fillna(df.a.mean()).fillna(0.0))")(tmp_path)
    assert factory.run_cli("run", job).exit_code == 0
    known = factory.published(tmp_path / "out")
    late = make_rows(1, 900).to_pydict()
    write_shard(tmp_path / "in/2.parquet", pa.table({**late, "a": pa.array([None], pa.float32())}))
    done = factory.run_cli("run", job)
    assert (done.exit_code, "next to other rows" in done.stderr) == (2, True)
    assert factory.published(tmp_path / "out").equals(known)


LOG = """
---
with open({log!r}, 'a') as file:
    file.write(f'{{len(df)}}\\n')
return df
"""


@pytest.mark.parametrize("batch_rows", [1, 2, 30, 100, 1024, 2048, 8192, 20_000])
def test_all_calls_cost_less_than_a_batch(batch_rows: int, tmp_path: Path) -> None:
    """A function gets fewer rows than a batch or 140; the network, fewer than a batch's tiles."""
    job = factory.write_job(tmp_path)
    write_shard(tmp_path / "in/0.parquet", make_rows(20_000, 1000))
    logs = [tmp_path / "in/.function", tmp_path / "in/.network"]
    lines = f"with open({str(logs[1])!r}, 'a') as file: print(len(x), file=file)\n"
    with_network(net(lines + "logit = self.linear(x).squeeze(1)"))(tmp_path)
    before(LOG.format(log=str(logs[0])))(tmp_path)
    change_job(tmp_path, {"runtime": {"batch_rows": batch_rows}})
    tried(job)
    function, network = (np.loadtxt(log, ndmin=1) for log in logs)
    assert function.max() <= batch_rows
    assert function.sum() <= max(batch_rows, 140)
    assert network.sum() <= -(-batch_rows // 1024) * 1024
