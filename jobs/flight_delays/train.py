"""Trains the flight delay model on January and writes the model folder, if it is good enough."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from evaluation import evaluate, golden_rows, late, split  # type: ignore[import-not-found]
from net import Net  # type: ignore[import-not-found]
from numpy.typing import NDArray
from torch import nn

import batchscore as bs

HERE = Path(__file__).resolve().parent

VERSION = "1.0.0"
# What the model has to reach on the held-back days before its folder is written.
MIN_ROC_AUC = 0.63
EPOCHS, BATCH_ROWS, SEED = 6, 256, 20130101

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
    training, held = split(flights)
    arrived = len(training) + len(held)
    print(f"{len(flights)} flights, {arrived} arrived, {len(training)} to train on")
    features = fit(training)
    net = train(features, training, args.epochs)
    evaluation = evaluate(logits_of(net, features, held), late(held), late(training), MIN_ROC_AUC)
    evaluation["rows"]["cancelled_or_diverted"] = len(flights) - arrived
    print(json.dumps(evaluation, indent=2))
    if not evaluation["passed"]:
        print("below the threshold: nothing written", file=sys.stderr)
        return 1
    saved = bs.save_model(
        args.out,
        net,
        sample=golden_rows(held, features.columns),
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


def logits_of(net: nn.Module, features: bs.Features, table: pa.Table) -> NDArray[np.float32]:
    """Return the logits of all rows, shape (b,)."""
    with torch.inference_mode():
        return cast("NDArray[np.float32]", net(**tensors(features, table)).numpy())


if __name__ == "__main__":
    sys.exit(main())
