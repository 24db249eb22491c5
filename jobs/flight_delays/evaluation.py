"""What is asked of a model of late flights, on which rows, and how well it answers.

Suffixes: `_b` rows of a batch.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

LATE_MINUTES = 15
# Spread over the month and the week; whole days, since the flights of a day share its weather.
HELD_BACK_DAYS = (5, 10, 15, 20, 25, 30)
MAX_LOG_LOSS_RATIO = 0.98
GOLDEN_ROWS = 200


def split(flights: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Return the rows to train on, and those of the days that are held back.

    A flight without a delay was cancelled or diverted: neither late nor on time.
    """
    arrived = flights.filter(pc.is_valid(flights["arr_delay"]))
    held_back = pc.is_in(arrived["day"].cast(pa.int64()), value_set=pa.array(HELD_BACK_DAYS))
    return arrived.filter(pc.invert(held_back)), arrived.filter(held_back)


def late(table: pa.Table) -> NDArray[np.float32]:
    """Return 1 for flights that arrived more than LATE_MINUTES late, else 0, shape (b,)."""
    delayed = pc.greater(table["arr_delay"], LATE_MINUTES)
    return cast("NDArray[np.float32]", delayed.to_numpy().astype(np.float32))


def evaluate(
    logit_b: NDArray[np.float32],
    late_b: NDArray[np.float32],
    training_b: NDArray[np.float32],
    min_roc_auc: float,
) -> dict[str, Any]:
    """Compare the held-back rows' scores with always predicting the training rows' rate."""
    rate = float(training_b.mean())
    model_loss = log_loss(logit_b.astype(np.float64), late_b)
    base_loss = log_loss(np.full(len(late_b), np.log(rate / (1 - rate))), late_b)
    auc = roc_auc(logit_b, late_b)
    return {
        "target": f"arrival more than {LATE_MINUTES} minutes late",
        "held_back_days": list(HELD_BACK_DAYS),
        "rows": {"training": len(training_b), "held_back": len(late_b)},
        "late_rate": {"training": round(rate, 6), "held_back": round(float(late_b.mean()), 6)},
        "roc_auc": round(auc, 6),
        "log_loss": round(model_loss, 6),
        "log_loss_of_base_rate": round(base_loss, 6),
        "threshold": {"min_roc_auc": min_roc_auc, "max_log_loss_ratio": MAX_LOG_LOSS_RATIO},
        "passed": auc >= min_roc_auc and model_loss <= MAX_LOG_LOSS_RATIO * base_loss,
    }


def log_loss(logit_b: NDArray[np.float64], late_b: NDArray[np.float32]) -> float:
    """Return the mean negative log-likelihood, in nats."""
    return float(np.mean(np.logaddexp(0, logit_b) - late_b * logit_b))


def roc_auc(logit_b: NDArray[np.float32], late_b: NDArray[np.float32]) -> float:
    """Return the chance that a late flight scores above one on time, ties counting half."""
    _, inverse_b, counts = np.unique(logit_b, return_inverse=True, return_counts=True)
    rank_b = (np.cumsum(counts) - (counts - 1) / 2)[inverse_b]
    positives = float(late_b.sum())
    pairs = positives * (len(late_b) - positives)
    return float((rank_b[late_b == 1].sum() - positives * (positives + 1) / 2) / pairs)


def golden_rows(held: pa.Table, columns: list[str]) -> pa.Table:
    """Return raw columns of rows spread over the held-back days.

    A few of them are made harder: values missing, and categories that were never seen.
    """
    spread = np.linspace(0, len(held) - 1, GOLDEN_ROWS).astype(np.int64)
    rows = held.take(pa.array(spread)).select(columns).combine_chunks()
    number = np.arange(GOLDEN_ROWS)
    for i, name in enumerate(rows.column_names):
        gap = pa.array(number % 50 == i)
        column = pc.if_else(gap, pa.scalar(None, rows[name].type), rows[name])
        if pa.types.is_string(column.type):
            column = pc.if_else(pa.array(number % 50 == 20 + i), "?", column)
        rows = rows.set_column(i, name, column)
    return rows
