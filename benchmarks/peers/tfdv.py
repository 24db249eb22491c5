"""TFDV: statistics of a pandas frame, and validation by the schema inferred from the reference.

It has no thresholds of drift of its own: those here are ours, for Jensen-Shannon divergence of
numbers and the L-infinity distance of categories.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import tensorflow_data_validation as tfdv  # type: ignore[import-not-found]

from benchmarks.peers.harness import Peer, Said, fingerprint, main

THRESHOLD = 0.05


def in_pieces(frame: Any, count: int) -> Any:
    """Returns the merged statistics of pieces, as many as there are cores and at most `count`."""
    return tfdv.generate_statistics_from_dataframe(frame, n_jobs=count)


def compare(reference: Any, current: Any) -> dict[str, Said]:
    """Returns each column's anomaly, if there is one; the score is the distance."""
    schema = tfdv.infer_schema(reference)
    for feature in schema.feature:
        drift = feature.drift_comparator
        numeric = feature.type != 1
        (drift.jensen_shannon_divergence if numeric else drift.infinity_norm).threshold = THRESHOLD
    found = tfdv.validate_statistics(current, schema, previous_statistics=reference)
    scores = {each.path.step[0]: each.drift_measurements[0].value for each in found.drift_skew_info}
    facts = {each.path.step[0]: each for each in reference.datasets[0].features}
    return {
        name: _said(found.anomaly_info.get(name), score, str(facts[name]))
        for name, score in scores.items()
    }


def _said(anomaly: Any, score: float, facts: str) -> Said:
    whys = [each.short_description for each in anomaly.reason] if anomaly else ["no anomaly"]
    words = f"{whys[-1].split(' between')[0]} ({score:.3f})"
    return Said(anomaly is not None, score, words, fingerprint(facts))


if __name__ == "__main__":
    profile = tfdv.generate_statistics_from_dataframe
    main(Peer("tensorflow-data-validation", pa.Table.to_pandas, profile, compare, in_pieces))
