"""Trains the flight delay model on January and writes the model folder, if it is good enough."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from net import Net  # type: ignore[import-not-found]
from numpy.typing import NDArray
from torch import nn

import batchscore as bs

HERE = Path(__file__).resolve().parent

VERSION = "1.0.0"
LATE_MINUTES = 15
# Spread over the month and the week; whole days, since the flights of a day share its weather.
HELD_BACK_DAYS = (5, 10, 15, 20, 25, 30)
# What a model has to reach on the held-back days before its folder is written.
MIN_ROC_AUC = 0.63
MAX_LOG_LOSS_RATIO = 0.98
EPOCHS, BATCH_ROWS, SEED = 6, 256, 20130101
GOLDEN_ROWS = 200

Inputs = dict[str, torch.Tensor]


def main() -> int:
    """Train, evaluate, and write the folder; return 1 and write nothing below the threshold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default=str(HERE.parents[1] / "data/samples/flights/month=1"))
    parser.add_argument("--out", default=str(HERE / "model"))
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    args = parser.parse_args()
    make_deterministic()
    flights = pq.read_table(args.data, partitioning=None)
    # A flight without a delay was cancelled or diverted: neither late nor on time.
    arrived = flights.filter(pc.is_valid(flights["arr_delay"]))
    held_back = pc.is_in(arrived["day"].cast(pa.int64()), value_set=pa.array(HELD_BACK_DAYS))
    training, held = arrived.filter(pc.invert(held_back)), arrived.filter(held_back)
    print(f"{len(flights)} flights, {len(arrived)} arrived, {len(training)} to train on")
    features = fit(training)
    net = train(features, training, args.epochs)
    evaluation = evaluate(logits_of(net, features, held), late(held), late(training))
    evaluation["rows"]["cancelled_or_diverted"] = len(flights) - len(arrived)
    print(json.dumps(evaluation, indent=2))
    if not evaluation["passed"]:
        print("below the threshold: nothing written", file=sys.stderr)
        return 1
    saved = bs.save_model(
        args.out,
        net,
        sample=golden_rows(features, held),
        name="flight_delays",
        version=VERSION,
        args=net_args(features),
        features=features,
        outputs=["logit"],
        # All flights: a job cannot know beforehand which of them will be cancelled.
        reference=flights,
        postprocess="sigmoid",
        evaluation=evaluation,
        overwrite=True,
    )
    print(f"wrote {saved.folder}")
    return 0


def make_deterministic() -> None:
    """Make the same data and code give the same weights."""
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)


def fit(training: pa.Table) -> bs.Features:
    """Fit the preprocessing on what is known before departure."""
    numbers: list[str | bs.DatePart] = [
        "distance",
        "sched_arr_time",
        bs.DatePart("hour", "hour", encoding="scaled"),
        bs.DatePart("hour", "hour"),
        bs.DatePart("minute", "minute"),
        bs.DatePart("time_hour", "weekday", timezone="America/New_York"),
    ]
    categories = [
        bs.Category(name, max_size=200, min_count=20) for name in ("carrier", "origin", "dest")
    ]
    return bs.fit_features(training, {"numeric": numbers, "categories": categories})


def net_args(features: bs.Features) -> dict[str, Any]:
    """Return the sizes of the network that fits `features`."""
    return {
        "numeric": features.widths["numeric"],
        "category_sizes": [*features.vocabulary_sizes.values()],
        "embedding_sizes": [4, 2, 8],
        "hidden_sizes": [64, 32],
    }


def train(features: bs.Features, training: pa.Table, epochs: int) -> nn.Module:
    """Return the network after `epochs` passes over the shuffled training rows."""
    inputs, target = tensors(features, training), torch.from_numpy(late(training))
    net: nn.Module = Net(**net_args(features))
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=1e-2)
    steps = epochs * -(-len(target) // BATCH_ROWS)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=steps)
    for epoch in range(epochs):
        total = 0.0
        for rows in torch.randperm(len(target)).split(BATCH_ROWS):
            logit = net(**{name: tensor[rows] for name, tensor in inputs.items()})
            loss = nn.functional.binary_cross_entropy_with_logits(logit, target[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach()) * len(rows)
        print(f"epoch {epoch + 1}: training log-loss {total / len(target):.4f}")
    return net.eval()


def tensors(features: bs.Features, table: pa.Table) -> Inputs:
    """Return the model inputs of all rows."""
    return {name: torch.from_numpy(array) for name, array in features.encode(table).items()}


def late(table: pa.Table) -> NDArray[np.float32]:
    """Return 1 for flights that arrived more than LATE_MINUTES late, else 0, shape (b,)."""
    delayed = pc.greater(table["arr_delay"], LATE_MINUTES)
    return cast("NDArray[np.float32]", delayed.to_numpy().astype(np.float32))


def logits_of(net: nn.Module, features: bs.Features, table: pa.Table) -> NDArray[np.float32]:
    """Return the logits of all rows, shape (b,)."""
    with torch.inference_mode():
        return cast("NDArray[np.float32]", net(**tensors(features, table)).numpy())


def evaluate(
    logit_b: NDArray[np.float32], late_b: NDArray[np.float32], training_b: NDArray[np.float32]
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
        "threshold": {"min_roc_auc": MIN_ROC_AUC, "max_log_loss_ratio": MAX_LOG_LOSS_RATIO},
        "passed": auc >= MIN_ROC_AUC and model_loss <= MAX_LOG_LOSS_RATIO * base_loss,
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


def golden_rows(features: bs.Features, held: pa.Table) -> pa.Table:
    """Return raw columns of rows spread over the held-back days.

    A few of them are made harder: values missing, and categories that were never seen.
    """
    spread = np.linspace(0, len(held) - 1, GOLDEN_ROWS).astype(np.int64)
    rows = held.take(pa.array(spread)).select(features.columns).combine_chunks()
    number = np.arange(GOLDEN_ROWS)
    for i, name in enumerate(rows.column_names):
        gap = pa.array(number % 50 == i)
        column = pc.if_else(gap, pa.scalar(None, rows[name].type), rows[name])
        if pa.types.is_string(column.type):
            column = pc.if_else(pa.array(number % 50 == 20 + i), "?", column)
        rows = rows.set_column(i, name, column)
    return rows


if __name__ == "__main__":
    sys.exit(main())
