"""Trains trees of XGBoost or LightGBM on January, and writes a folder if they beat the network."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

import batchscore as bs

HERE = Path(__file__).resolve().parent
# The rows and the evaluation are those of the network.
sys.path.insert(0, str(HERE.parent / "flight_delays"))
from evaluation import (  # type: ignore[import-not-found] # noqa: E402
    evaluate,
    golden_rows,
    late,
    roc_auc,
    split,
)

VERSION = "1.0.0"
SEED = 20130101
NUMBERS = ["sched_dep_time", "sched_arr_time", "distance"]
CATEGORIES = ["carrier", "origin", "dest"]
# Delays add up over a day: with all else equal, a later departure is no less likely to be late.
RISING = "sched_dep_time"
# What the network reaches on the held-back days is 0.6593.
MIN_ROC_AUC = 0.66
FOLDS = 5


def main() -> int:
    """Train, evaluate, and write the folder; return 1 and write nothing below the threshold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("framework", choices=["xgboost", "lightgbm"])
    parser.add_argument("--data", default=str(HERE.parents[1] / "data/samples/flights/month=1"))
    parser.add_argument(
        "--out", help="by default model_xgboost or model_lightgbm next to this file"
    )
    parser.add_argument("--trees", type=int, default=60)
    args = parser.parse_args()
    flights = pq.read_table(args.data, partitioning=None)
    training, held = split(flights)
    folds_auc = cross_validate(args.framework, training, args.trees)
    model = fit(args.framework, training, args.trees)
    evaluation = evaluate(logits_of(model, held, training), late(held), late(training), MIN_ROC_AUC)
    evaluation["rows"]["cancelled_or_diverted"] = len(flights) - len(training) - len(held)
    evaluation["cross_validation"] = {"folds_of_training_days": FOLDS, "roc_auc": folds_auc}
    print(json.dumps(evaluation, indent=2))
    if not evaluation["passed"]:
        print("below the threshold: nothing written", file=sys.stderr)
        return 1
    saved = bs.save_model(
        args.out or HERE / f"model_{args.framework}",
        model,
        sample=golden_rows(held, NUMBERS + CATEGORIES),
        name=f"flight_delays_{args.framework}",
        version=VERSION,
        # All flights: a job cannot know beforehand which of them will be cancelled.
        reference=flights,
        evaluation=evaluation,
        overwrite=True,
    )
    print(f"wrote {saved.folder}")
    return 0


def fit(framework: str, training: pa.Table, trees: int) -> Any:
    """Return the fitted model; the same rows and versions give the same bytes."""
    model = xgboost_model(trees) if framework == "xgboost" else lightgbm_model(trees)
    return model.fit(frame(training, training), late(training))


def xgboost_model(trees: int) -> Any:
    """Return trees of XGBoost that are not fitted yet."""
    import xgboost

    return xgboost.XGBClassifier(
        n_estimators=trees,
        learning_rate=0.08,
        max_depth=10,
        min_child_weight=20,
        reg_lambda=5,
        subsample=0.5,
        colsample_bytree=0.5,
        enable_categorical=True,
        max_cat_to_onehot=5,
        monotone_constraints={RISING: 1},
        n_jobs=1,
        random_state=SEED,
    )


def lightgbm_model(trees: int) -> Any:
    """Return trees of LightGBM that are not fitted yet."""
    import lightgbm

    return lightgbm.LGBMClassifier(
        n_estimators=trees,
        learning_rate=0.08,
        num_leaves=31,
        min_child_samples=30,
        reg_lambda=5,
        subsample=0.7,
        subsample_freq=1,
        colsample_bytree=0.5,
        cat_smooth=20,
        monotone_constraints=[int(name == RISING) for name in NUMBERS + CATEGORIES],
        deterministic=True,
        force_row_wise=True,
        n_jobs=1,
        random_state=SEED,
        verbose=-1,
    )


def frame(table: pa.Table, training: pa.Table) -> pd.DataFrame:
    """Return the columns that the trees read; a category that training lacks is a gap."""
    made = table.select(NUMBERS + CATEGORIES).to_pandas()
    for name in CATEGORIES:
        known = sorted(set(training[name].to_pylist()))
        made[name] = pd.Categorical(made[name].where(made[name].isin(known)), known)
    return made


def logits_of(model: Any, table: pa.Table, training: pa.Table) -> NDArray[np.float64]:
    """Return the logits of all rows, shape (b,)."""
    late_b: NDArray[np.float64] = model.predict_proba(frame(table, training))[:, 1].astype(float)
    return np.log(late_b / (1 - late_b))


def cross_validate(framework: str, training: pa.Table, trees: int) -> float:
    """Return the mean AUC over folds of whole training days, by which the settings were chosen."""
    days = sorted(set(training["day"].to_pylist()))
    found = []
    for fold in range(FOLDS):
        left_out = pc.is_in(training["day"], value_set=pa.array(days[fold::FOLDS], pa.int32()))
        rest, rows = training.filter(pc.invert(left_out)), training.filter(left_out)
        model = fit(framework, rest, trees)
        found.append(roc_auc(logits_of(model, rows, rest), late(rows)))
    return round(float(np.mean(found)), 6)


if __name__ == "__main__":
    sys.exit(main())
