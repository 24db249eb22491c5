"""Spark: `predict_batch_udf` on all cores of this machine, with Arrow between it and Python."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from pyspark.ml.functions import predict_batch_udf  # type: ignore[import-not-found]
from pyspark.sql import SparkSession  # type: ignore[import-not-found]
from pyspark.sql.functions import struct  # type: ignore[import-not-found]
from pyspark.sql.types import FloatType  # type: ignore[import-not-found]

from benchmarks.scorers.harness import SCORE, Task, main

BATCH_ROWS = 16_384


def prepare(task: Task) -> Callable[[], None]:
    """Starts Spark, and the framework in its workers; returns what reads, scores and writes."""
    os.environ["PYSPARK_PYTHON"] = sys.executable
    rows = task.batch_rows or BATCH_ROWS
    spark = (
        SparkSession.builder.master(f"local[{task.cores}]")
        .config("spark.driver.memory", "8g")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.sql.execution.arrow.pyspark.enabled", "true")
        .config("spark.sql.execution.arrow.maxRecordsPerBatch", str(rows))
        .getOrCreate()
    )
    spark.sparkContext.setLogLevel("ERROR")
    make = _make_predict(task)
    # Its workers stay, and have imported the framework then.
    spark.sparkContext.parallelize(range(task.cores), task.cores).foreach(lambda _: make())
    predict = predict_batch_udf(make, return_type=FloatType(), batch_size=rows)

    def score() -> None:
        table = spark.read.parquet(task.source)
        scored = table.withColumn(SCORE, predict(struct(*task.features)))
        scored.write.mode("overwrite").parquet(task.target)

    return score


def _make_predict(task: Task) -> Callable[[], Callable[[Any], Any]]:
    def make() -> Callable[[Any], Any]:
        from benchmarks.scorers.models import load_rows_model

        # Spark takes each argument of the function for a column.
        score = load_rows_model(task, 1)
        return lambda values_bf: score(values_bf)

    return make


if __name__ == "__main__":
    main("pyspark", prepare)
