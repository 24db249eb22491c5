"""whylogs: `why.log` of a pandas frame, and the drift algorithms that it chooses by itself."""

from __future__ import annotations

import json
from functools import reduce
from typing import Any

import pyarrow as pa
import whylogs as why  # type: ignore[import-not-found]
from whylogs.viz.drift.column_drift_algorithms import (  # type: ignore[import-not-found]
    calculate_drift_scores,
)

from benchmarks.peers.harness import Peer, Said, cuts, fingerprint, main

# Frequent items come in an order that ties leave open.
FACTS = ("cardinality/est", "counts/", "distribution/")


def profile(frame: Any) -> Any:
    """Returns the view of a profile."""
    return why.log(pandas=frame).view()


def in_pieces(frame: Any, count: int) -> Any:
    """Returns the merged views of the pieces."""
    views = (profile(frame.iloc[piece]) for piece in cuts(len(frame), count))
    return reduce(lambda whole, view: whole.merge(view), views)


def compare(reference: Any, current: Any) -> dict[str, Said]:
    """Returns the default algorithms' findings; the score is their statistic."""
    scores = calculate_drift_scores(current, reference, with_thresholds=True)
    statistics = reference.to_pandas()
    facts = statistics[[name for name in statistics if name.startswith(FACTS)]]
    return {name: _said(score, facts.loc[name]) for name, score in scores.items()}


def _said(score: dict[str, Any], facts: Any) -> Said:
    category, p = score["drift_category"], score["pvalue"]
    words = f"{category} ({score['algorithm']} p {p:.2g})"
    values = json.dumps(facts.to_dict(), default=float)
    return Said(category == "DRIFT", float(score["statistic"]), words, fingerprint(values))


if __name__ == "__main__":
    main(Peer("whylogs", pa.Table.to_pandas, profile, compare, in_pieces))
