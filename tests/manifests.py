"""Manifests of a few facts, for tests of what reads them."""

from __future__ import annotations

from typing import Any

from batchscore.runs.manifest_model import Manifest, decode_manifest

ROWS = dict.fromkeys(("input", "filtered", "scored", "rejected", "quarantined", "reused"), 0)


def make_manifest(**facts: Any) -> Manifest:
    """Return a manifest of these facts, and of those that each one has."""
    head = {"run": "r", "status": "published", "started": "2026-11-20T01:00:00+00:00"}
    document = {**head, "rows": ROWS, **facts}
    return decode_manifest(document, str(document["run"]))
