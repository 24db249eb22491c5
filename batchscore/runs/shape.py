"""Whether a manifest has the types that its readers count on; which keys it needs, they say."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

_TEXTS = ("job", "slice", "actor", "device", "engine", "error", "score", "fingerprint")
_MODEL = ("name", "version", "identity")
_MOST = 2**63
_OPTIONAL = (
    *("base", "drift", "profile", "timings", "stage_seconds", "phases", "inference"),
    "profile_sha256",
)
# Of each key that may be missing: what its value is otherwise.
_KINDS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys((*_TEXTS, "base", "undoes", "job_sha256", "profile_sha256"), str),
    **dict.fromkeys(("run", "status"), str),
    **dict.fromkeys(("params", "model", "score_facts", "rejects", "drift", "profile"), dict),
    **dict.fromkeys(("timings", "stage_seconds", "phases", "inference", "packages", "rows"), dict),
    **dict.fromkeys(("released", "discarded", "rollback", "revoked", "own"), dict),
    **dict.fromkeys(("files", "units", "shards", "inputs", "columns", "checks"), list),
    **dict.fromkeys(("replaced", "bad_shards", "beam_metrics", "segments", "composed"), list),
    **dict.fromkeys(("workers", "batch_rows", "tile_rows", "reused_units"), int),
    "seconds": (int, float),
}


def check_manifest(manifest: Any, run: str) -> dict[str, Any]:
    """Returns a manifest of a run whose parts have the types that they should have.

    Lists of files, units and shards are looked at by who reads them.

    Raises:
        ValueError: it has not; the message is short.
    """
    if not isinstance(manifest, dict):
        raise ValueError("it is no mapping")
    _require(all(key in manifest for key in ("run", "status", "started", "rows")), "its head")
    for key, value in manifest.items():
        kind = _KINDS.get(key)
        right = kind is None or isinstance(value, kind) or (value is None and key in _OPTIONAL)
        _require(right, f"its {key}")
    _require(manifest["run"] == run and isinstance(manifest["status"], str), "its run or status")
    _check_times(manifest)
    _check_numbers(manifest)
    model = manifest.get("model") or {}
    _require(all(isinstance(model.get(key, ""), str) for key in _MODEL), "its model")
    _require(all(_is_check(each) for each in manifest.get("checks") or ()), "its checks")
    return manifest


def _check_times(manifest: Mapping[str, Any]) -> None:
    decisions = ((manifest.get(key) or {}).get("at") for key in ("released", "revoked"))
    for moment in (manifest["started"], manifest.get("finished"), *decisions):
        _require(moment is None or datetime.fromisoformat(moment).tzinfo is not None, "a time")


def _check_numbers(manifest: Mapping[str, Any]) -> None:
    rows = manifest["rows"]
    _require(isinstance(rows, dict) and all(map(_is_count, rows.values())), "its rows")
    counts = ("workers", "batch_rows", "tile_rows", "reused_units")
    _require(all(_is_count(manifest.get(key, 0)) for key in counts), "a count")
    seconds = manifest.get("seconds", 0)
    _require(not isinstance(seconds, bool) and math.isfinite(seconds), "its seconds")
    _require(abs(seconds) < _MOST, "its seconds")
    phases = (manifest.get("phases") or {}).values()
    _require(all(isinstance(each, int | float) for each in phases), "its phases")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MOST


def _is_check(value: Any) -> bool:
    kinds = {"name": str, "passed": bool, "detail": str}
    return isinstance(value, dict) and all(isinstance(value.get(k), v) for k, v in kinds.items())


def _require(right: bool, what: str) -> None:
    if not right:
        raise ValueError(f"{what} cannot be right")
