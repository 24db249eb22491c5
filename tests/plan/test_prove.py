"""A score that depends on other rows, on chance or on threads is refused before a run scores."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from batchscore.job import load_job
from batchscore.plan import make_plan, settle
from batchscore.plan.readiness import verify
from tests import factory
from tests.factory import NET, STATE, change_job, make_rows, write_model, write_shard

pytestmark = pytest.mark.slow

LOGIT = "logit: torch.Tensor = self.linear(x).squeeze(1)"


def net(forward: str, init: str = "", top: str = "") -> str:
    """A network whose forward has other lines; `logit` is what it returns."""
    lines = "\n        ".join(forward.splitlines())
    more = "\n        ".join(["self.linear = nn.Linear(2, 1)", *init.splitlines()])
    text = NET.replace(LOGIT, lines).replace("self.linear = nn.Linear(2, 1)", more)
    return text.replace("class Net", f"{top}\n\n\nclass Net")


def with_network(text: str, state: dict[str, torch.Tensor] = STATE) -> Callable[[Path], Any]:
    """Puts another network into a job's model folder."""
    return lambda folder: write_model(folder / "model", text, state)


def state_of(text: str) -> dict[str, torch.Tensor]:
    """Weights that fit a network, the same each time."""
    names: dict[str, Any] = {}
    exec(text, names)
    torch.manual_seed(0)
    state: dict[str, torch.Tensor] = names["Net"]().state_dict()
    return state


def before(code: str) -> Callable[[Path], Any]:
    """Puts a function of pandas frames before the model; it makes the columns a and b of `df`."""
    return _function(code, {"preprocess": {"function": "steps.py:run"}})


def after(code: str) -> Callable[[Path], Any]:
    """Puts a function behind the model; it makes scores of the column logit of `df`."""
    return _function(code, {"postprocess": {"function": "steps.py:run"}})


def _function(code: str, changes: dict[str, Any]) -> Callable[[Path], Any]:
    top, _, body = code.rpartition("---\n")
    lines = "\n    ".join(body.splitlines())
    text = (
        "import random, threading, time\nfrom datetime import datetime\n"
        f"import numpy as np\nimport pandas as pd\n{top}\n\n"
        f"def run(df: pd.DataFrame):\n    {lines}\n"
    )

    def spoil(folder: Path) -> None:
        (folder / "steps.py").write_text(text)
        change_job(folder, changes)

    return spoil


def rows(spoil: Callable[[Path], Any], **columns: Any) -> Callable[[Path], Any]:
    """The same, of one shard with other columns."""

    def both(folder: Path) -> None:
        spoil(folder)
        (folder / "in/1.parquet").unlink()
        table = make_rows()
        for name, values in columns.items():
            place = table.schema.get_field_index(name)
            table = table.set_column(place, name, pa.array([values(i) for i in range(300)]))
        write_shard(folder / "in/0.parquet", table)

    return both


EVERY_THIRD = {"a": lambda i: None if i % 3 == 0 else float(i)}
BATCH_NORM = net(
    "logit = self.linear(self.norm(x)).squeeze(1)",
    "self.norm = nn.BatchNorm1d(2, track_running_stats=False, affine=False)",
)
OTHER_ROWS: dict[str, Callable[[Path], Any]] = {
    "softmax over the batch": with_network(
        net("logit = torch.softmax(self.linear(x).squeeze(1), dim=0)")
    ),
    "batch mean": with_network(net("logit = self.linear(x - x.mean(0)).squeeze(1)")),
    "batch maximum": with_network(net("logit = self.linear(x / x.amax(0)).squeeze(1)")),
    "batch norm": with_network(BATCH_NORM),
    "sort": with_network(net("logit = self.linear(x.sort(0).values).squeeze(1)")),
    "cumsum": with_network(net("logit = self.linear(x.cumsum(0)).squeeze(1)")),
    "previous row": with_network(net("logit = self.linear(x - x.roll(1, 0)).squeeze(1)")),
    "first row": with_network(net("logit = self.linear(x - x[0]).squeeze(1)")),
    "dropout with a seed": with_network(
        net("torch.manual_seed(0)\nlogit = nn.functional.dropout(self.linear(x), 0.5).squeeze(1)")
    ),
    "attention over rows": with_network(
        net("logit = (torch.softmax(x @ x.T, 1) @ self.linear(x)).squeeze(1)")
    ),
    "standardised": before("df['a'] = (df.a - df.a.mean()) / df.a.std()\nreturn df"),
    "ranked": before("df['a'] = df.a.rank()\nreturn df"),
    "imputed": rows(before("return df.assign(a=df.a.fillna(df.a.mean()))"), **EVERY_THIRD),
    "filled forward": rows(before("return df.assign(a=df.a.ffill().bfill())"), **EVERY_THIRD),
    "clipped": before("return df.assign(a=df.a.clip(df.a.quantile(.1), df.a.quantile(.9)))"),
    "dummies": before(
        "made = pd.get_dummies(df.part).astype(float)\n"
        "return made.rename(columns=dict(zip(made.columns, ['a', 'b', 'c']))).assign(b=df.b)"
    ),
    "factorized": before("return df.assign(a=pd.factorize(df.part)[0])"),
    "coded": before("return df.assign(a=df.part.astype('category').cat.codes)"),
    "group mean": before("return df.assign(a=df.groupby('part').a.transform('mean'))"),
    "shifted": before("return df.assign(a=df.a.shift().fillna(0))"),
    "difference": before("return df.assign(a=df.a.diff().fillna(0))"),
    "numbered": before("return df.assign(a=range(len(df)))"),
    "size of the batch": before("return df.assign(a=float(len(df)))"),
    "merged": before(
        "codes = df[['part']].drop_duplicates().reset_index(names='code')\n"
        "return df.merge(codes, on='part', how='left').assign(a=lambda d: d.code)"
    ),
    "another order": before("return df.sort_values('a').reset_index(drop=True)"),
    "reversed": before("return df.iloc[::-1].reset_index(drop=True)"),
    "rejected by median": before("return df.assign(a=df.a.where(df.a < df.a.median()))"),
    "rejected by others": before("return df.assign(a=df.a.where(~df.part.duplicated()))"),
    "fails on small batches": before("df.a.iloc[5]\nreturn df"),
    "seeded by place": before(
        "rng = np.random.default_rng(0)\nreturn df.assign(a=rng.random(len(df)))"
    ),
    "ranked scores": after("return df.assign(rank=df.logit.rank())"),
    "scores in another order": after("return df.sort_values('logit').reset_index(drop=True)"),
    "deciles": after("return df.assign(d=pd.qcut(df.logit, 10, labels=False, duplicates='drop'))"),
    "share of the sum": after("return df.assign(share=df.logit.abs() / df.logit.abs().sum())"),
    "labels by median": after(
        "return pd.DataFrame({'label': np.where(df.logit > df.logit.median(), 'high', 'low')})"
    ),
    "columns of some rows": after("return df.join(pd.get_dummies(df.logit.round()).astype(int))"),
}
CHANCE: dict[str, Callable[[Path], Any]] = {
    "functional dropout": with_network(
        net("logit = nn.functional.dropout(self.linear(x), 0.5, training=True).squeeze(1)")
    ),
    "dropout in a list": with_network(
        net("logit = self.parts[0](self.linear(x)).squeeze(1)", "self.parts = [nn.Dropout(0.5)]")
    ),
    "random noise": with_network(net("logit = self.linear(x + torch.rand_like(x)).squeeze(1)")),
    "count of calls": with_network(
        net("self.calls += 1\nlogit = self.linear(x).squeeze(1) + self.calls", "self.calls = 0")
    ),
    "hidden state": with_network(
        net("self.kept = self.linear(x) + self.kept\nlogit = self.kept.squeeze(1)", "self.kept = 0")
    ),
    "numpy": before("return df.assign(a=df.a + np.random.rand(len(df)))"),
    "python": before("return df.assign(a=[random.random() for _ in df.a])"),
    "clock": before("return df.assign(a=time.perf_counter() * 1e6 % 1000)"),
    "text of the clock": after("return df.assign(tag=str(time.time_ns()))"),
    "counter": before("calls = []\n---\ncalls.append(1)\nreturn df.assign(a=float(len(calls)))"),
    "time of scoring": after("return df.assign(at=time.time())"),
    "moment": after("return df.assign(at=datetime.now())"),
    "tie broken by chance": after("return df.assign(s=df.logit.round() + np.random.rand(len(df)))"),
    "rejected by chance": before("return df.assign(a=df.a.where(np.random.rand(len(df)) < 0.5))"),
}
MEET = "if threading.current_thread().name == 'alone': MEETING.wait(60)"
SHARED = f"""state, MEETING = {{}}, threading.Barrier(2)
---
state['a'] = df.a
{MEET}
return df.assign(a=state['a'].reindex(df.index))
"""
THREADS: dict[str, Callable[[Path], Any]] = {
    "network": with_network(
        net(
            f"SHARED['x'] = x\n{MEET}\nlogit = self.linear(SHARED['x']).squeeze(1)",
            top="import threading\n\nSHARED, MEETING = {}, threading.Barrier(2)",
        )
    ),
    "function": before(SHARED),
    "connection": before(
        "import sqlite3\n\nbase = sqlite3.connect(':memory:')\n---\n"
        "return df.assign(a=base.execute('select 0.5').fetchone()[0])"
    ),
}
REMEDIES = {"once more": "called once more", "rows": "next to other rows", "threads": "two threads"}
CASES = [
    *(pytest.param(spoil, "rows", id=name) for name, spoil in OTHER_ROWS.items()),
    *(pytest.param(spoil, "once more", id=name) for name, spoil in CHANCE.items()),
    *(pytest.param(spoil, "threads", id=f"shared by {name}") for name, spoil in THREADS.items()),
]


@pytest.mark.parametrize(("spoil", "cause"), CASES)
def test_a_run_refuses(spoil: Callable[[Path], Any], cause: str, tmp_path: Path) -> None:
    """A run ends with exit code 2 before it writes anything, and says what the score depends on."""
    job = factory.write_job(tmp_path)
    spoil(tmp_path)
    done = factory.run_cli("run", job)
    assert (done.exit_code, REMEDIES[cause] in done.stderr) == (2, True), done.output
    assert not (tmp_path / "out").exists()


LSTM = net(
    "made, _ = self.lstm(x.unsqueeze(2))\nlogit = self.linear(made[:, -1]).squeeze(1)",
    "self.lstm = nn.LSTM(1, 2, batch_first=True)",
)
ATTENTION = net(
    "made, _ = self.attention(x.unsqueeze(2), x.unsqueeze(2), x.unsqueeze(2))\n"
    "logit = self.linear(made.squeeze(2)).squeeze(1)",
    "self.attention = nn.MultiheadAttention(1, 1, batch_first=True)",
)
NORMS = net(
    "x = self.drop(nn.functional.layer_norm(self.norm(x), [2]))\n"
    "logit = self.linear(x * torch.softmax(x, 1)).squeeze(1)",
    "self.norm, self.drop = nn.BatchNorm1d(2), nn.Dropout(0.5)",
)
CACHED = """from functools import lru_cache

@lru_cache
def code(part):
    return float(part[1:])

SEEN = {}
---
for part in df.part:
    SEEN.setdefault(part, code(part))
return df.assign(a=df.part.map(SEEN))
"""
OWN_ROWS: dict[str, Callable[[Path], Any]] = {
    "plain": lambda _: None,
    "lstm over a row's steps": with_network(LSTM, state_of(LSTM)),
    "attention over a row's steps": with_network(ATTENTION, state_of(ATTENTION)),
    "running statistics and registered dropout": with_network(NORMS, state_of(NORMS)),
    "noise within the tolerance": with_network(
        net("logit = self.linear(x).squeeze(1) + 5e-6 * torch.rand(len(x))")
    ),
    "noise in the last digits of large scores": with_network(
        net("logit = 1e6 * self.linear(x).squeeze(1) * (1 + 1e-6 * torch.rand(len(x)))")
    ),
    "inputs changed in place": with_network(net("logit = self.linear(x.mul_(2)).squeeze(1)")),
    "scores that are not finite": with_network(
        net("logit = self.linear(x).squeeze(1).sub(0.3).log()")
    ),
    "zeros of both signs": with_network(
        net("logit = self.linear(x).squeeze(1) * torch.where(torch.rand(len(x)) < 0.5, 0.0, -0.0)")
    ),
    "constant": with_network(net("logit = self.linear(x).squeeze(1) * 0 + 1")),
    "known means": before("return df.assign(a=(df.a - 0.5) / 2)"),
    "codes of known values": before(
        "return df.assign(a=pd.Categorical(df.part, ['p0', 'p1', 'p2']).codes)"
    ),
    "frame changed in place": before("df.loc[df.a > 0, 'a'] = 0.0\ndf['b'] += 1\nreturn df"),
    "views of columns": before("return df[['a', 'b']][:]"),
    "values that are cached": before(CACHED),
    "integers where no row is null": rows(
        before("return df.assign(a=df.a * 2)"), a=lambda i: None if i == 7 else i
    ),
    "other rows rejected": rows(before("return df"), **EVERY_THIRD),
    "a row that raises": before("df.id.map(lambda i: 1 // (i - 7))\nreturn df"),
    "half of the rows raise": before("df.id.map(lambda i: 1 // (i % 2))\nreturn df"),
    "sorted and put back": before("return df.sort_values('a').sort_index()"),
    "seeded by row": before(
        "return df.assign(a=[np.random.default_rng(i).random() for i in df.id])"
    ),
    "scores without a frame": after("return pd.DataFrame({'s': df.logit * 2, 'n': 1})"),
    "texts": after("return pd.DataFrame({'label': np.where(df.logit > 0, 'high', None)})"),
    "lists": after("return pd.DataFrame({'best': [[v] * (v > 0) for v in df.logit]})"),
    "decimals and times": after(
        "return pd.DataFrame({'at': pd.to_datetime((df.logit * 1e9).astype('int64'))})"
    ),
}


@pytest.mark.parametrize("spoil", [pytest.param(s, id=n) for n, s in OWN_ROWS.items()])
def test_no_false_alarm(spoil: Callable[[Path], Any], tmp_path: Path) -> None:
    """What treats each row alone passes, whatever else it does."""
    job = factory.write_job(tmp_path)
    spoil(tmp_path)
    assert tried(job, "rejects.max_ratio=1").endswith(
        "score the same when repeated and next to other rows"
    )


def tried(job: Path, *overrides: str) -> str:
    """What is said of the scores of a job's rows."""
    plan = make_plan(load_job(str(job), (), overrides))
    return verify(plan, settle(plan).units).choices["alone"]


@pytest.mark.parametrize("command", ["run", "check"])
def test_the_message_names_rows_values_and_remedy(command: str, tmp_path: Path) -> None:
    """The error names the function, the column, the rows by shard, both values, and what to do."""
    job = factory.write_job(tmp_path, {"input.filters": [["id", ">=", 299]]})
    before("return df.assign(a=df.a - df.a.mean())")(tmp_path)
    error = factory.run_cli(command, job).stderr
    shown = re.search(rf"row 0 of shard {tmp_path}/in/1.parquet: (\S+) in .*?, (\S+) in", error)
    assert shown is not None, error
    a = np.sin(np.arange(299, 500)).astype(np.float32)
    assert float(shown[1]) == pytest.approx(a[1] - a.mean(), abs=1e-5)
    assert float(shown[2]) != pytest.approx(a[1] - a.mean(), abs=1e-4)
    for words in (
        "preprocess.function steps.py:run returns other values for a row",
        "model input 'x', column 'a', of row ",
        "in a batch of 201 rows",
        "floats to within 1e-05, the model's tolerance",
        "What to do: compute means, ranks, codes and similar values once",
    ):
        assert words in error


ARROW_STEP = """
import pyarrow as pa
import torch


def run(batch: pa.RecordBatch):
    values = torch.from_numpy(batch.column("a").to_numpy()).{call}
    return pa.table({{"a": values.numpy(), "b": batch.column("b")}})
"""


@pytest.mark.parametrize(
    ("call", "is_refused"), [("clamp_(-0.5, 0.5)", True), ("clamp(-0.5, 0.5)", False)]
)
@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
def test_a_function_that_writes_into_its_columns_is_refused(
    call: str, is_refused: bool, tmp_path: Path
) -> None:
    """Each time it makes the same of a row, but the column itself would be published changed."""
    changes = {"preprocess": {"function": "steps.py:run", "batch": "arrow"}}
    job = factory.write_job(tmp_path, changes)
    (tmp_path / "steps.py").write_text(ARROW_STEP.format(call=call))
    done = factory.run_cli("check", job)
    assert done.exit_code == (2 if is_refused else 0), done.output
    assert ("steps.py:run: writes into column 'a' that it is given" in done.stderr) is is_refused


def test_each_output_is_compared(tmp_path: Path) -> None:
    """Of several outputs, and of a vector, the one that changes is named, with its place."""
    job = factory.write_job(tmp_path, {"postprocess": []})
    text = net("logit = self.linear(x).squeeze(1), torch.stack([x[:, 0], x[:, 1].cumsum(0)], 1)")
    outputs = {
        "logit": {"type": "float32", "shape": []},
        "pair": {"type": "float32", "shape": [2]},
    }
    write_model(tmp_path / "model", text, outputs=outputs)
    error = factory.run_cli("check", job).stderr
    assert "architecture net.py:Net returns other values for a row at another place" in error
    assert "output 'pair', number 1, of row " in error


def test_a_single_row_is_tried_once_more(tmp_path: Path) -> None:
    """Of an input of one row, `check` says that no other row was there; chance is found still."""
    job = factory.write_job(tmp_path, {"input.filters": [["id", "==", 7]]})
    assert "no other row to score it with" in factory.run_cli("check", job).stdout
    CHANCE["numpy"](tmp_path)
    assert factory.run_cli("run", job).exit_code == 2


def test_batches_of_one_row_have_no_neighbours(tmp_path: Path) -> None:
    """Where a batch has one row, and a call of the network too, neither sees another row."""
    job = factory.write_job(tmp_path)
    before("assert len(df) == 1\nreturn df")(tmp_path)
    OTHER_ROWS["softmax over the batch"](tmp_path)
    alone = tried(job, "runtime.batch_rows=1", "runtime.micro_batch=1")
    assert alone == "3 batches of 1 row score the same again"


@pytest.mark.parametrize("code", ["raise ValueError('no')", "return df.assign(a=None)"])
def test_what_fails_on_every_row_is_left_to_the_run(code: str, tmp_path: Path) -> None:
    """A sample without a score proves nothing; what is wrong with it is the run's to say."""
    job = factory.write_job(tmp_path)
    before(code)(tmp_path)
    assert tried(job).startswith("not tried: ")
    assert factory.run_cli("run", job).exit_code == 1


LOGGED = """import os

LOG = {log!r}
---
with open(LOG, 'a') as file:
    file.write(f'{{len(df)}}\\n')
return df
"""


def test_the_test_costs_less_than_a_batch(tmp_path: Path) -> None:
    """The function is given fewer rows than one batch has, in few calls."""
    job, log = factory.write_job(tmp_path), tmp_path / "in/.log"
    write_shard(tmp_path / "in/0.parquet", make_rows(20_000, 1000))
    before(LOGGED.format(log=str(log)))(tmp_path)
    tried(job, "runtime.batch_rows=8192")
    calls = [int(line) for line in log.read_text().split()]
    assert 4 < len(calls) < 10
    assert max(calls) == 1024
    assert sum(calls) <= 8192


def test_what_is_done_already_is_not_tried(tmp_path: Path) -> None:
    """A run that has nothing to score calls no function; one over new shards tries those."""
    job, log = factory.write_job(tmp_path), tmp_path / "in/.log"
    before(LOGGED.format(log=str(log)))(tmp_path)
    assert factory.run_cli("run", job).exit_code == 0
    log.unlink()
    assert factory.run_json("run", job)["status"] == "unchanged"
    assert not log.exists()
    write_shard(tmp_path / "in/2.parquet", make_rows(40, 900))
    assert factory.run_json("run", job)["status"] == "published"
    assert set(log.read_text().split()) == {"40", "20", "1"}


def test_new_shards_are_refused_too(tmp_path: Path) -> None:
    """What shows in rows of a new shard only ends the run, and what is published stays."""
    job = factory.write_job(tmp_path)
    before("return df.assign(a=df.a.fillna(df.a.mean()))")(tmp_path)
    assert factory.run_cli("run", job).exit_code == 0
    known = factory.published(tmp_path / "out")
    late = make_rows(30, 900).to_pydict()
    late["a"][5] = None
    write_shard(tmp_path / "in/2.parquet", pa.table(late))
    assert factory.run_cli("run", job).exit_code == 2
    assert factory.published(tmp_path / "out").equals(known)


def test_a_sample_crosses_filters_and_shards(tmp_path: Path) -> None:
    """Where the filter keeps few rows, the sample is looked for in later row groups."""
    job = factory.write_job(tmp_path, {"input.filters": [["part", "==", "p1"]]})
    table = make_rows(900)
    part = pa.array(["p0"] * 450 + ["p1"] * 450)
    table = table.set_column(table.schema.get_field_index("part"), "part", part)
    pq.write_table(table, tmp_path / "in/0.parquet", row_group_size=50)
    (tmp_path / "in/1.parquet").unlink()
    assert tried(job, "runtime.batch_rows=100").startswith("32 rows score the same")


@pytest.mark.parametrize("rows", [0, 7])
def test_a_sample_is_found_behind_many_shards_without_rows(rows: int, tmp_path: Path) -> None:
    """Neither empty shards nor shards of which the filter keeps no row hide what comes later."""
    job = factory.write_job(tmp_path, {"input.filters": [["part", "==", "p1"]]})
    for place in range(40):
        table = make_rows(rows, rows * place)
        parts = [f"p{index % 2 * 2}" for index in range(rows)]  # no row group is pruned
        write_shard(tmp_path / f"in/{place}.parquet", table.set_column(3, "part", [parts]))
    for place in range(40, 60):
        write_shard(tmp_path / f"in/{place}.parquet", make_rows(300))
    assert re.match(r"\d+ rows score the same", tried(job, "runtime.batch_rows=100"))
    before("return df.assign(a=df.a - df.a.mean())")(tmp_path)
    assert factory.run_cli("run", job).exit_code == 2


def test_a_shard_that_cannot_be_read_is_left_to_the_run(tmp_path: Path) -> None:
    """A damaged shard hides neither itself nor a fault that other shards show."""
    job = factory.write_job(tmp_path)
    damaged = bytearray((tmp_path / "in/0.parquet").read_bytes())
    damaged[4:400] = bytes(396)
    (tmp_path / "in/0.parquet").write_bytes(damaged)
    assert tried(job).startswith("200 rows score the same")
    assert factory.run_cli("run", job).exit_code == 1
