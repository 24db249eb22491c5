"""Evidently: a report of `DataDriftPreset` with its defaults; it has no profile to merge."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from evidently import DataDefinition, Dataset, Report  # type: ignore[import-not-found]
from evidently.presets import DataDriftPreset  # type: ignore[import-not-found]

from benchmarks.peers.harness import Peer, Said, main


def compare(reference: Any, current: Any) -> dict[str, Said]:
    """Returns each column's distance, or p-value, and whether it is beyond its threshold."""
    texts = [*reference.select_dtypes("object")]
    numbers = [name for name in reference if name not in texts]
    definition = DataDefinition(numerical_columns=numbers, categorical_columns=texts)
    sides = [Dataset.from_pandas(frame, definition) for frame in (current, reference)]
    metrics = Report([DataDriftPreset()]).run(*sides).dict()["metrics"]
    return {
        metric["config"]["column"]: _said(metric["config"], float(metric["value"]))
        for metric in metrics
        if "column" in metric["config"]
    }


def _said(config: dict[str, Any], value: float) -> Said:
    method, threshold = config["method"], config["threshold"]
    flagged = value < threshold if "p_value" in method else value >= threshold
    return Said(flagged, value, f"{'drift' if flagged else 'no drift'} ({method} {value:.3f})")


if __name__ == "__main__":
    main(Peer("evidently", pa.Table.to_pandas, lambda frame: frame, compare, None))
