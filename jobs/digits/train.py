"""Trains the network on digits, checks it fold by fold, and writes it in four formats."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from features import decode  # type: ignore[import-not-found]
from idx import read_split  # type: ignore[import-not-found]
from net import Net  # type: ignore[import-not-found]
from numpy.typing import NDArray
from scipy.stats import binomtest
from scipy.stats import t as student
from torch import nn

HERE = Path(__file__).resolve().parent
SEED, EPOCHS, BATCH_ROWS, LEARNING_RATE = 20130101, 30, 64, 3e-3
# What is reached on held-back rows before anything is written.
MIN_ACCURACY, MIN_ACCURACY_MNIST = 0.98, 0.99
# The model that is written was not trained on this fold.
HELD_BACK = 4

Rows = tuple[torch.Tensor, torch.Tensor]


def main() -> int:
    """Train, evaluate, and write the folders; return 1 and write nothing below the threshold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default=str(HERE.parents[1] / "data/samples/digits"))
    parser.add_argument("--mnist", type=Path, help="folder with MNIST's own four files")
    parser.add_argument("--out", default=str(HERE / "models"))
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    trained = on_mnist if args.mnist else on_sample
    net, held, evaluation = trained(args.mnist or args.data, args.epochs)
    print(json.dumps(evaluation, indent=2))
    if not evaluation["passed"]:
        print("below the threshold: nothing written", file=sys.stderr)
        return 1
    # It imports Keras and ONNX, which training does without.
    from export import write_models  # type: ignore[import-not-found]

    write_models(Path(args.out), net, held.numpy(), evaluation)
    return 0


def on_sample(data: str, epochs: int) -> tuple[nn.Module, torch.Tensor, dict[str, Any]]:
    """Return the network of all folds but one, that fold's images, and how all folds went."""
    table = pq.read_table(data).sort_by("id")
    rows, fold_b = tensors(table), table["fold"].to_numpy()
    folds = [check(rows, fold_b == fold, epochs) for fold in np.unique(fold_b)]
    right = sum(round(accuracy * int((fold_b == n).sum())) for n, (_, accuracy) in enumerate(folds))
    # In the source's order rows of one writer are together.
    block_b = np.arange(len(table)) * len(folds) // len(table)
    blocks = [check(rows, block_b == block, epochs)[1] for block in range(len(folds))]
    stratified = summary([accuracy for _, accuracy in folds])
    evaluation = {
        "rows": len(table),
        "stratified_folds": stratified,
        "all_held_back_rows": {"right": right, "interval": wilson(right, len(table))},
        "folds_of_other_writers": summary(blocks),
        "held_back_fold_of_the_models": HELD_BACK,
        "threshold": {"min_mean_accuracy": MIN_ACCURACY},
        "passed": stratified["mean_accuracy"] >= MIN_ACCURACY,
    }
    return folds[HELD_BACK][0], rows[0][fold_b == HELD_BACK], evaluation


def on_mnist(folder: Path, epochs: int) -> tuple[nn.Module, torch.Tensor, dict[str, Any]]:
    """Return the network of MNIST's training files, its test images, and how it did on these."""
    splits = [read_split(folder, name) for name in ("train", "t10k")]
    training, (pixels, digit_b) = (as_rows(*split) for split in splits)
    net = fit(training, epochs)
    right = int((predict(net, pixels) == digit_b).sum())
    evaluation = {
        "rows": {"training": len(training[1]), "held_back": len(digit_b)},
        "accuracy": round(right / len(digit_b), 6),
        "interval": wilson(right, len(digit_b)),
        "threshold": {"min_accuracy": MIN_ACCURACY_MNIST},
        "passed": right >= MIN_ACCURACY_MNIST * len(digit_b),
    }
    return net, pixels, evaluation


def tensors(table: pa.Table) -> Rows:
    """Return pixels (b, 1, side, side) and digits (b,) of a table of images."""
    (batch,) = table.select(["image"]).combine_chunks().to_batches()
    lists = decode(batch).column("pixels")
    side = math.isqrt(len(lists.values) // len(lists))
    pixels = lists.values.to_numpy().reshape(-1, 1, side, side)
    return torch.from_numpy(pixels.copy()), torch.from_numpy(
        table["digit"].to_numpy().astype(np.int64)
    )


def as_rows(images: NDArray[np.uint8], digit_b: NDArray[np.uint8]) -> Rows:
    """Return pixels (b, 1, side, side) and digits (b,) of bytes."""
    pixels = torch.from_numpy(images.astype(np.float32) / np.float32(255))
    return pixels.unsqueeze(1), torch.from_numpy(digit_b.astype(np.int64))


def check(rows: Rows, held_b: NDArray[np.bool_], epochs: int) -> tuple[nn.Module, float]:
    """Return a network that is trained on the other rows, and its accuracy on the held-back."""
    held = torch.from_numpy(held_b)
    net = fit((rows[0][~held], rows[1][~held]), epochs)
    return net, float((predict(net, rows[0][held]) == rows[1][held]).double().mean())


def fit(rows: Rows, epochs: int) -> nn.Module:
    """Return the network after as many passes over the shuffled rows."""
    torch.manual_seed(SEED)
    pixels, digit_b = rows
    net: nn.Module = Net(pixels.shape[-1])
    optimizer = torch.optim.AdamW(net.parameters(), lr=LEARNING_RATE)
    steps = epochs * -(-len(digit_b) // BATCH_ROWS)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=LEARNING_RATE, total_steps=steps
    )
    for _ in range(epochs):
        for chosen in torch.randperm(len(digit_b)).split(BATCH_ROWS):
            loss = nn.functional.cross_entropy(net(pixels[chosen]), digit_b[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return net.eval()


def predict(net: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """Return the most likely digit of each image (b,)."""
    with torch.inference_mode():
        return torch.cat([net(part).argmax(dim=1) for part in pixels.split(1024)])


def summary(accuracies: list[float]) -> dict[str, Any]:
    """Return the accuracy of each fold, their mean, and Student's 95 % interval of that."""
    mean, count = float(np.mean(accuracies)), len(accuracies)
    half = float(student.ppf(0.975, count - 1) * np.std(accuracies, ddof=1) / math.sqrt(count))
    return {
        "accuracies": [round(each, 6) for each in accuracies],
        "mean_accuracy": round(mean, 6),
        "interval": [round(mean - half, 6), round(min(mean + half, 1.0), 6)],
    }


def wilson(right: int, rows: int) -> list[float]:
    """Return Wilson's 95 % interval of a share."""
    bounds = binomtest(right, rows).proportion_ci(0.95, method="wilson")
    return [round(float(bounds.low), 6), round(float(bounds.high), 6)]


if __name__ == "__main__":
    sys.exit(main())
