"""Test that rows of tokens, each of its own length, are scored from the shards to the output."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

from tests.factory import published, run_cli, run_json, write_job, write_model, write_shard

pytestmark = pytest.mark.slow

NET = """from __future__ import annotations

import torch
from torch import nn


class Net(nn.Module):
    \"\"\"A logit a row, of attention among its tokens.\"\"\"

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(30, 16)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, 0.0, "gelu", batch_first=True)
        self.head = nn.Linear(16, 1)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        own = mask.unsqueeze(2).float()
        # A row without a token looks at its padding: attention to nothing is no number.
        hidden = (mask == 0) & (mask.sum(1, keepdim=True) > 0)
        x = self.layer(self.embed(ids), src_key_padding_mask=hidden)
        logit: torch.Tensor = self.head((x * own).sum(1) / own.sum(1).clamp(min=1)).squeeze(1)
        return logit
"""
LONGEST = 40
VARYING: dict[str, Any] = {"type": "int64", "shape": [None], "max_length": LONGEST}
INPUTS: dict[str, Any] = {"ids": {**VARYING, "pad": 3}, "mask": VARYING}
CHANGES: dict[str, Any] = {"model.inputs": None, "postprocess": []}
FRAMED = {"function": "frames.py:encode"}
TOKENS = """import pyarrow as pa
import pyarrow.compute as pc


def encode(batch: pa.RecordBatch) -> pa.RecordBatch:
    words = pc.split_pattern(batch.column("text"), " ")
    ids = pc.cast(words.flatten(), pa.int64())
    ones = pa.array([1] * len(ids), pa.int8())
    offsets = words.offsets
    return pa.record_batch(
        [pa.ListArray.from_arrays(offsets, ids), pa.ListArray.from_arrays(offsets, ones)],
        names=["ids", "mask"],
    )
"""
FRAMES = """import pandas as pd


def encode(rows: pd.DataFrame) -> pd.DataFrame:
    ids = [[int(word) for word in text.split()] for text in rows["text"]]
    return pd.DataFrame({"ids": ids, "mask": [[1] * len(row) for row in ids]})
"""

Make = Callable[..., Path]


def _network() -> nn.Module:
    scope: dict[str, Any] = {}
    exec(NET, scope)
    torch.manual_seed(3)
    made: nn.Module = scope["Net"]().eval()
    return made


def _rows(lengths: Sequence[int]) -> pa.Table:
    rng = np.random.default_rng(1)
    tokens = [rng.integers(1, 30, length).tolist() for length in lengths]
    kind = pa.list_(pa.int32())
    return pa.table(
        {
            "id": np.arange(len(lengths)),
            "ids": pa.array(tokens, kind),
            "mask": pa.array([[1] * length for length in lengths], kind),
            "text": [" ".join(map(str, row)) for row in tokens],
        }
    )


LENGTHS = np.minimum(np.random.default_rng(2).lognormal(1.8, 0.8, 700), LONGEST).astype(int) + 0


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Writes a job over 700 rows of 0 to 40 tokens in two shards, in a folder of its own."""

    def made(
        name: str = "job", table: pa.Table | None = None, card: Any = None, **changes: Any
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        dotted = {key.replace("__", "."): value for key, value in changes.items()}
        job = write_job(folder, {**CHANGES, **dotted})
        rows = _rows(LENGTHS.tolist()) if table is None else table
        write_shard(folder / "in/0.parquet", rows[:300])
        write_shard(folder / "in/1.parquet", rows[300:])
        (folder / "pre.py").write_text(TOKENS)
        (folder / "frames.py").write_text(FRAMES)
        state = _network().state_dict()
        write_model(folder / "model", NET, state, **{"inputs": INPUTS, **(card or {})})
        return job

    return made


def _scores(job: Path) -> Any:
    done = run_json("run", job)
    assert done["status"] == "published", done
    table = published(job.parent / "out")
    assert table.column("id").to_pylist() == list(range(len(LENGTHS)))
    return table.column("logit").to_numpy()


def test_scores_are_those_of_each_row_alone(make: Make) -> None:
    """A row scores what the network makes of its tokens without padding."""
    job = make()
    scores, table = _scores(job), _rows(LENGTHS.tolist())
    network = _network()
    for row in range(0, len(table), 23):
        ids = torch.tensor([table.column("ids")[row].as_py() or [3]])
        mask = torch.ones_like(ids) if LENGTHS[row] else torch.zeros_like(ids)
        with torch.inference_mode():
            alone = network(ids, mask).item()
        assert scores[row] == pytest.approx(alone, abs=1e-5)


def test_bits_are_the_same_for_any_batch_rows_and_workers(make: Make) -> None:
    """Blocks of 7, 64 and 65,536 rows, and two workers, publish the same bits."""
    whole = _scores(make("whole")).tobytes()
    for rows in (7, 64):
        assert _scores(make(f"rows{rows}", runtime__batch_rows=rows)).tobytes() == whole
    assert _scores(make("workers", runtime__workers=2)).tobytes() == whole


def test_a_function_makes_tokens_of_text(make: Make) -> None:
    """Lists that preprocess.function returns score as those in the shards."""
    lengths = np.maximum(LENGTHS, 1)
    given = make("given", _rows(lengths.tolist()))
    made = make("made", _rows(lengths.tolist()), preprocess={"function": "pre.py:encode"})
    assert _scores(made).tobytes() == _scores(given).tobytes()


def test_a_batch_of_empty_texts_is_scored_as_among_others(make: Make) -> None:
    """Empty lists of a pandas function have no type where they fill a batch, and score as ever."""
    lengths = np.where(np.arange(700) // 50 % 2, LENGTHS, 0)
    whole, parts = (
        make(f"of{rows}", _rows(lengths.tolist()), preprocess=FRAMED, runtime__batch_rows=rows)
        for rows in (700, 50)
    )
    assert _scores(parts).tobytes() == _scores(whole).tobytes()


@pytest.mark.parametrize("cut", [False, True])
def test_rows_beyond_the_longest_are_rejected_or_cut_off(make: Make, cut: bool) -> None:
    """Of 700 rows one has a token too many: it leaves with the reason, or scores without it."""
    lengths = [*LENGTHS[:-1].tolist(), LONGEST + 1]
    varying = {name: {**each, "truncate": cut} for name, each in INPUTS.items()}
    job = make("job", _rows(lengths), {"inputs": varying}, rejects={"max_ratio": 0.01})
    done = run_json("run", job)
    assert (done["status"], done["rows"]["rejected"]) == ("published", 0 if cut else 1)
    assert ("longer than 40 steps" in str(done["rejects"])) is not cut


def test_a_token_that_the_model_does_not_know_rejects_its_row(make: Make) -> None:
    """A network that fails on one row of a bucket is tried on parts until that row is alone."""
    table = _rows(LENGTHS.tolist())
    tokens = table.column("ids").to_pylist()
    row = int(np.argmax(LENGTHS > 10))
    tokens[row][5] = 30
    table = table.set_column(1, "ids", pa.array(tokens, pa.list_(pa.int32())))
    done = run_json("run", make("job", table, rejects={"max_ratio": 0.01}))
    assert (done["status"], done["rows"]["rejected"]) == ("published", 1)


def test_golden_rows_may_vary_in_length(make: Make) -> None:
    """Rows of lists with their known logits are scored by every process that loads the model."""
    job = make()
    scores = _scores(job)
    golden = _rows(LENGTHS.tolist()).select(["ids", "mask"])
    for known, words in ((scores, "golden rows ok"), (scores + 1, "700 golden rows differ")):
        tables = {"golden.parquet": golden.append_column("logit", pa.array(known))}
        facts: dict[str, Any] = {"inputs": INPUTS, "golden": "golden.parquet"}
        write_model(job.parent / "model", NET, _network().state_dict(), tables, **facts)
        assert words in run_cli("check", job).stdout


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        ("text", "'text' is string, expected a list of numbers per row"),
        (["ids", "id"], "of varying length, found 2 columns"),
    ],
    ids=["column", "columns"],
)
def test_check_says_which_column_does_not_fit(make: Make, ids: Any, words: str) -> None:
    """A column without lists is found before any work."""
    done = run_cli("check", make("job", model__inputs={"ids": ids}))
    assert (done.exit_code, words in done.stderr + done.stdout) == (2, True)


def test_check_says_what_the_card_lacks(make: Make) -> None:
    """A card that does not limit the length is found before any work."""
    job = make()
    card = job.parent / "model/model.yaml"
    card.write_text(card.read_text().replace("    max_length: 40\n", ""))
    done = run_cli("check", job)
    assert (done.exit_code, "needs max_length" in done.stderr + done.stdout) == (2, True)


def test_the_token_columns_are_profiled(make: Make) -> None:
    """The run's drift profile has their lengths and tokens like any list's."""
    job = make()
    _scores(job)
    done = run_cli("profile", job.parent / "in", "-o", job.parent / "p.parquet")
    assert done.exit_code == 0
    assert "ids" in done.stdout
