"""A run's code, model and profiles as a worker has them: fetched once a process, and verified."""

from __future__ import annotations

import platform
import posixpath
import secrets
import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar, cast

from batchscore.errors import UnseenError
from batchscore.messages.wording import reason
from batchscore.runs import layout
from batchscore.storage.by_content import Content, fetch
from batchscore.storage.private_folder import private_folder
from batchscore.worker.spec import RunSpec, Scoring, SentSpec, Shipment

_lock = threading.Lock()
_arrived: dict[tuple[str, str], SentSpec] = {}

Sent = TypeVar("Sent", bound=SentSpec)


def arrived(spec: Sent) -> Sent:
    """Returns a spec whose code, model and profiles are in folders of this machine.

    Raises:
        FailedError: Something is missing in the output, or damaged.
    """
    if spec.shipment is None:
        return spec
    key = spec.output.address, spec.key
    with _lock:
        if key not in _arrived:
            if isinstance(spec, RunSpec):
                _require_seen(spec)
            _arrived.clear()
            _arrived[key] = _fetched(spec, spec.shipment)
        return cast(Sent, _arrived[key])


def _require_seen(spec: RunSpec) -> None:
    """Raises UnseenError where a worker's machine has another output, or may not write to it.

    The error is not written down: the launcher would not see it, and this disk is not its.
    """
    who, where = f"the worker on {platform.node()}", spec.output.address
    if not layout.is_claimed(spec.output):
        raise _unseen(
            f"{who} does not see the output {where}: no {layout.FORMAT} is there; nothing was "
            "published: name a folder that launcher and workers share under one path, or an "
            "object store"
        )
    probe = f"{layout.work(spec.identity.run)}/{layout.PROBE}{secrets.token_hex(4)}"
    try:
        spec.output.write(probe, b"", flush=False)
        spec.output.remove(probe)
    except PermissionError as error:
        raise _unseen(
            f"{who} may not write to the output {where} ({reason(error)}); nothing was published: "
            "grant its user the permission"
        ) from error


def _unseen(message: str) -> UnseenError:
    error = UnseenError(message)
    error.recorded = True
    return error


def _fetched(spec: SentSpec, shipment: Shipment) -> SentSpec:
    code = _fetch(spec, layout.CODE, shipment.code)
    model = _fetch(spec, layout.MODELS, shipment.model)
    scoring = _placed(spec.scoring, shipment, code, model)
    if not isinstance(spec, RunSpec):
        return replace(spec, scoring=scoring, shipment=None)
    by_hash = {each.sha256: each for each in shipment.profiles.values()}
    profiles = _fetch(spec, layout.MODELS, by_hash)
    places = {
        address: posixpath.join(str(profiles), each.sha256)
        for address, each in shipment.profiles.items()
    }
    return replace(spec, scoring=scoring, shipment=None, profiles=places)


def _fetch(spec: SentSpec, folder: str, files: Mapping[str, Content]) -> str | None:
    if not files:
        return None
    return str(fetch(spec.output, folder, files, private_folder("batchscore-shipped")))


def _placed(scoring: Scoring, shipment: Shipment, code: str | None, folder: str | None) -> Scoring:
    """Returns what is scored with the folders of this machine."""
    model = scoring.model
    if folder is not None:
        shipped = {name: model.sha256[name] for name in shipment.model}
        model = replace(model, folder=folder, sha256=shipped)
    if code is None:
        return replace(scoring, model=model)
    if model.code is not None:
        model = replace(model, code=code)
    # With what the model has in the job's folder, which code may read there.
    hashes = {path: content.sha256 for path, content in shipment.code.items()}
    return replace(scoring, base=code, code=hashes, model=model)
