"""Trees that are trained on a table of the benchmark, by XGBoost or LightGBM."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

TREES = 200
FILES = {"xgboost": "model.ubj", "lightgbm": "model.txt"}
"""By framework, the file of a model in its folder."""


def fit(framework: str, table: pa.Table) -> Any:
    """Returns a fitted classifier of 200 trees: of depth 6 (XGBoost), or of 31 leaves (LightGBM).

    Args:
        framework: `xgboost` or `lightgbm`.
        table: Features, of which the label is a function with noise.
    """
    frame, label_b = labelled(table)
    if framework == "xgboost":
        from xgboost import XGBClassifier

        model = XGBClassifier(n_estimators=TREES, max_depth=6, learning_rate=0.1, n_jobs=1)
        return model.fit(frame, label_b)
    from lightgbm import LGBMClassifier

    return LGBMClassifier(n_estimators=TREES, n_jobs=1, verbose=-1).fit(frame, label_b)


def labelled(table: pa.Table) -> tuple[Any, Any]:
    """Returns a frame of features with a label (b,) of each row."""
    frame = table.to_pandas()
    noise_b = np.random.default_rng(7).standard_normal(len(frame))
    sum_b = frame["f00"] + frame["f01"] * frame["f02"] + 0.5 * noise_b
    return frame, (sum_b > 0).astype(int).to_numpy()
