"""Compares the published scores of the trees with those of the network, on rows of no training.

Suffixes: `_b` rows, `_g` groups of rows, `_d` days.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.stats import rankdata
from scipy.stats import t as student

import batchscore as bs

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "flight_delays"))
from evaluation import HELD_BACK_DAYS, late, roc_auc  # type: ignore[import-not-found] # noqa: E402

JOBS = {
    "network": HERE.parent / "flight_delays/job.yaml",
    "xgboost": HERE / "job.yaml",
    "lightgbm": HERE / "job_lightgbm.yaml",
}
KEY = ["month", "day", "carrier", "flight", "origin"]
LEVEL = 0.95

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def main() -> None:
    """Score all months with each model, compare the scores, and write what is found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--months", default="*", help="glob of months, such as 2")
    parser.add_argument("--out", default=str(HERE / "comparison.json"))
    args = parser.parse_args()
    with TemporaryDirectory() as folder:
        tables = {name: scored(name, args.months, Path(folder, name)) for name in JOBS}
    found = {name: compared(rows, tables) for name, rows in unseen(tables["network"]).items()}
    text = json.dumps(found, indent=2)
    print(text)
    Path(args.out).write_text(f"{text}\n", encoding="utf-8")


def scored(name: str, months: str, output: Path) -> pa.Table:
    """Run a job over all flights of these months, and return what it published, by its key."""
    overrides = {
        "input.path": str(HERE.parents[1] / f"data/samples/flights/month={months}"),
        "input.filters": [],
        "output.path": str(output),
        "output.columns": [*KEY, "arr_delay"],
        "output.partition_by": [],
        "drift.on_fail": "warn",
    }
    bs.run(JOBS[name], overrides=overrides)
    return pq.read_table(output / "data").sort_by([(each, "ascending") for each in KEY])


def unseen(table: pa.Table) -> dict[str, NDArray[np.bool_]]:
    """Return masks (b,) of the rows that no model was trained on and that have a delay."""
    arrived = pc.is_valid(table["arr_delay"])
    january = pc.equal(table["month"].cast(pa.int64()), 1)
    held_back = pc.is_in(table["day"].cast(pa.int64()), value_set=pa.array(HELD_BACK_DAYS))
    masks = {
        "held-back days of January": pc.and_(pc.and_(january, held_back), arrived),
        "February to December": pc.and_(pc.invert(january), arrived),
    }
    return {name: mask for name, each in masks.items() if (mask := each.to_numpy()).any()}


def compared(rows_b: NDArray[np.bool_], tables: dict[str, pa.Table]) -> dict[str, Any]:
    """Return the AUC of each model on these rows, and by how much the trees' is larger."""
    chosen = {name: table.filter(pa.array(rows_b)) for name, table in tables.items()}
    truth = chosen["network"]
    late_b = late(truth)
    dates = truth["month"].to_numpy() * 100 + truth["day"].to_numpy()
    day_b = np.unique(dates, return_inverse=True)[1]
    scores = {name: table["score"].to_numpy() for name, table in chosen.items()}
    shares = {name: placements(score_b, late_b) for name, score_b in scores.items()}
    each_day = {name: of_days(score_b, late_b, day_b) for name, score_b in scores.items()}
    models = {
        name: measured(shares[name], late_b, day_b) | {"within_days": round(auc_d.mean(), 4)}
        for name, auc_d in each_day.items()
    }
    for name in [each for each in JOBS if each != "network"]:
        more_b, more_d = (found[name] - found["network"] for found in (shares, each_day))
        more = measured(more_b, late_b, day_b) | {"within_days": mean_interval(more_d)}
        models[name]["more_than_network"] = more
    return {"rows": len(late_b), "days": int(day_b.max()) + 1, "models": models}


def measured(share_b: Floats, late_b: NDArray[np.float32], day_b: Ints) -> dict[str, Any]:
    """Return an AUC, or a difference of two, and its intervals; four digits."""
    bounds = {
        "by_flights": interval(share_b, late_b, np.arange(len(share_b))),
        "by_days": interval(share_b, late_b, day_b),
    }
    auc = {"roc_auc": round(float(share_b[late_b == 1].mean()), 4)}
    return auc | {name: [round(each, 4) for each in pair] for name, pair in bounds.items()}


def placements(score_b: Floats, late_b: NDArray[np.float32]) -> Floats:
    """Return for each row the share of rows of the other outcome that it is on the right side of.

    Ties count half. The mean over the late rows is the AUC, and so is that over the others.
    """
    is_late_b = late_b == 1
    rank_b = rankdata(score_b)
    share_b = np.empty(len(score_b))
    for mine_b in (is_late_b, ~is_late_b):
        share_b[mine_b] = (rank_b[mine_b] - rankdata(score_b[mine_b])) / (~mine_b).sum()
    return np.where(is_late_b, share_b, 1 - share_b)


def interval(share_b: Floats, late_b: NDArray[np.float32], group_b: Ints) -> tuple[float, float]:
    """Return the bounds of an AUC, or of a difference of two, if groups of rows are drawn.

    With a group for each row this is DeLong's interval. With larger groups it is Obuchowski's:
    flights of a day share its weather, so that not flights but days are drawn.
    """
    groups = int(group_b.max()) + 1
    off_g = np.zeros(groups)
    for outcome in (0, 1):
        mine_b = late_b == outcome
        off_b = (share_b[mine_b] - share_b[mine_b].mean()) / mine_b.sum()
        off_g += np.bincount(group_b[mine_b], off_b, groups)
    error = np.sqrt(groups / (groups - 1) * np.square(off_g).sum())
    half = float(student.ppf((1 + LEVEL) / 2, groups - 1) * error)
    middle = float(share_b[late_b == 1].mean())
    return middle - half, middle + half


def of_days(score_b: Floats, late_b: NDArray[np.float32], day_b: Ints) -> Floats:
    """Return the AUC within each day (d,) that has flights of both outcomes."""
    days = [day_b == day for day in np.unique(day_b)]
    both = [mine_b for mine_b in days if 0 < late_b[mine_b].mean() < 1]
    return np.array([roc_auc(score_b[mine_b], late_b[mine_b]) for mine_b in both])


def mean_interval(more_d: Floats) -> list[float]:
    """Return the mean over days and the bounds of Student's interval of it; four digits."""
    half = student.ppf((1 + LEVEL) / 2, len(more_d) - 1) * more_d.std(ddof=1) / len(more_d) ** 0.5
    mean = float(more_d.mean())
    return [round(each, 4) for each in (mean, mean - half, mean + half)]


if __name__ == "__main__":
    main()
