"""Real profiles, comparisons and manifests for the tests of the report."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from batchscore.drift.compare import compare_profiles
from batchscore.drift.findings import Rules, TableDrift
from batchscore.drift.table import TableProfile
from batchscore.finish.drift_gate import summarize
from batchscore.report import Compared, make_report
from batchscore.runs.manifest_model import Manifest
from tests.manifests import ROWS, make_manifest

HOSTILE = (
    "<script>window.hacked = 1</script>",
    "</script><img src=x onerror='window.hacked = 2'>",
    "\N{RIGHT-TO-LEFT OVERRIDE}gnp.exe",
    "x" * 10_000,
    "",
    "nul\0byte",
    "\N{LINE SEPARATOR}\N{PARAGRAPH SEPARATOR}",
    "\N{PILE OF POO} 'quoted\" & {{ 7 * 7 }} ${window.hacked = 3}",
)


def profile(table: pa.Table, **hints: Any) -> TableProfile:
    """Returns the profile of a table."""
    made = TableProfile(hints=hints)
    for batch in table.to_batches():
        made.update(batch)
    return made


def table(rows: int = 2000, shift: float = 0.0, seed: int = 0) -> pa.Table:
    """Returns a column of each kind; with a `shift`, `amount`, `shop` and `embedding` drift."""
    random = np.random.default_rng(seed)
    vectors_bd = random.normal(size=(rows, 8)).astype("f4") + shift
    scores_bc = random.dirichlet((2.0, 1.0, 1.0), rows).astype("f4")
    moments = np.datetime64("2026-01-05T00:00:00") + random.integers(0, 600, rows).astype("m8[h]")
    return pa.table(
        {
            "amount": random.lognormal(2, 1, rows) * np.exp(shift),
            "items": random.integers(0, 6, rows),
            "shop": random.choice(
                ["<b>old</b>", "new", ""], rows, p=[0.6 - shift / 4, 0.3, 0.1 + shift / 4]
            ),
            "bought_at": pa.array(moments.astype("M8[us]")),
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors_bd.ravel()), 8),
            "scores": pa.FixedSizeListArray.from_arrays(pa.array(scores_bc.ravel()), 3),
            "member": pa.array(random.random(rows) < 0.3),
            "empty": pa.nulls(rows, pa.float64()),
        }
    )


def compared(reference: pa.Table, current: pa.Table, title: str = "reference: a file") -> Compared:
    """Returns the comparison of two tables by the default rules."""
    before, now = (profile(each, scores="classes") for each in (reference, current))
    return Compared(title, before, now, compare_profiles(before, now, Rules()))


@cache
def drifted() -> Compared:
    """Returns a comparison in which some columns drift and others do not."""
    return compared(table(), table(shift=1.0, seed=1))


def wide(columns: int, rows: int = 400) -> Compared:
    """Returns a comparison of many columns of numbers, of which some drift."""
    random = np.random.default_rng(7)
    first, second = (
        pa.table(
            {
                f"feature_{i:04d}": random.normal(0.5 * side * (i % 10 == 0), 1, rows)
                for i in range(columns)
            }
        )
        for side in (0, 1)
    )
    return compared(first, second)


def manifest(run: str = "20261121-aaaa", **more: Any) -> Manifest:
    """Returns a manifest as a run leaves it, as far as the report reads it."""
    check = {"status": "held", "passed": True}
    defaults = {
        "run": run,
        "job": "shop <i>job</i>",
        "params": {"date": "2026-11-20"},
        "status": "published",
        "engine": "direct",
        "device": "cpu",
        "workers": 2,
        "started": "2026-11-21T07:10:31.104+00:00",
        "seconds": 3.757,
        "model": {"name": "shops", "version": "1.4.0", "identity": "2b68"},
        "packages": {"batchscore": "0.1.0"},
        "rows": {**ROWS, "input": 2010, "scored": 2000, "rejected": 3, "filtered": 7},
        "rejects": {"reasons": {"ValueError: no <b>shop</b>": 3}, "files": ["rejects/a.parquet"]},
        "bad_shards": [],
        "checks": [
            {**check, "name": "rows", "detail": "input 2,010 = 2,000 + 3 + 7"},
            {**check, "name": "golden_rows", "detail": "200 golden rows differ by 4.77e-07"},
        ],
        "files": [{"path": "data/a.parquet", "rows": 2000, "bytes": 123456}],
        "stage_seconds": {"read": 0.4, "infer": 0.3, "wait_read": 0.06},
        "limited_by": "read",
        "timings": {"share": 0.87, "help": "a faster <disk>"},
    }
    return make_manifest(**{**defaults, **more})


def recorded(drift: TableDrift) -> dict[str, Any]:
    """Returns a comparison as manifests keep it."""
    return {"verdict": drift.verdict, "comparisons": [summarize(drift)]}


def history(runs: int = 4) -> list[Manifest]:
    """Returns manifests of earlier runs, newest first, that drift more and more."""
    reference = profile(table(), scores="classes")
    made = []
    for i in range(runs):
        now = profile(table(shift=i / runs, seed=2 + i), scores="classes")
        drift = recorded(compare_profiles(reference, now, Rules()))
        facts = {"profile": now.summary(), "drift": drift}
        stored = json.loads(json.dumps(facts))
        day = {"params": {"date": f"2026-11-{i + 1:02d}"}}
        made.append(manifest(f"202611{i + 1:02d}-bbbb", **stored, **day))
    return made[::-1]


def full_page() -> str:
    """Returns a page that has everything: two comparisons, a history, and a run."""
    one = drifted()
    anchor = Compared("anchor: model shops 1.4.0", one.reference, one.current, one.drift)
    return make_report(
        manifest(profile=one.current.summary(), drift=recorded(one.drift)),
        [one, anchor],
        history(),
    )


def write(folder: Path, page: str) -> Path:
    """Writes a page and returns its path."""
    path = folder / "report.html"
    path.write_text(page, encoding="utf-8")
    return path
