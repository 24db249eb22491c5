"""What of a plan travels to workers that share nothing but the output with the launcher."""

from __future__ import annotations

import importlib.machinery
import os
import posixpath
from collections.abc import Callable, Iterable, Mapping

from batchscore.errors import FunctionError, InvalidError, ModelError
from batchscore.messages.wording import reason
from batchscore.models.backends.registry import backend_of
from batchscore.models.loadable import Model
from batchscore.plan.fingerprint import VERSION_OF
from batchscore.plan.plan import Plan
from batchscore.runs import layout
from batchscore.storage.by_content import Content, content_of, put_all
from batchscore.storage.store import is_local
from batchscore.system.processes import here
from batchscore.worker.spec import Shipment
from batchscore.worker.versions import versions_here

_ALWAYS = ("apache-beam", "numpy", "pyarrow")
_NATIVE = (*importlib.machinery.EXTENSION_SUFFIXES, ".pyd", ".dll", ".dylib")


def require_shippable(plan: Plan) -> None:
    """Refuses a job with files that are never sent to workers.

    Raises:
        FunctionError: The job's code has a native extension, or a hidden file.
        ModelError: The model has a hidden file.
    """
    for file in plan.spec.scoring.code:
        if file.endswith(_NATIVE):
            raise FunctionError(
                f"code: {file} is a native extension, and these are never sent to workers; install "
                "it as a package where they run, and take it out of the job's folder"
            )
        if _is_hidden(file):
            raise FunctionError(
                f"code: {file} is hidden, and hidden files are never sent to workers; rename it"
            )
    for name in _model_files(plan.spec.scoring.model):
        if _is_hidden(name):
            raise ModelError(
                f"model file {name!r} is hidden, and hidden files are never sent to workers; "
                "write the model again with another name for it"
            )


def pack(plan: Plan) -> Shipment:
    """Returns what a run's workers fetch, and reads all of it; nothing is stored yet.

    Raises:
        FunctionError, ModelError: A file cannot be sent, or was changed since it was hashed.
    """
    require_shippable(plan)
    scoring = plan.spec.scoring
    packages = backend_of(scoring.model.format).packages
    facts = [name for name in plan.score_facts if name.startswith(VERSION_OF)]
    return Shipment(
        code=_contents(scoring.base, _code_files(plan), FunctionError),
        model=_contents(scoring.model.folder, _model_files(scoring.model), ModelError),
        profiles={path: _content(path, None, InvalidError) for path in _profiles(plan)},
        versions=versions_here(
            dict.fromkeys((*_ALWAYS, *packages, *(each.removeprefix(VERSION_OF) for each in facts)))
        ),
        launcher=here(),
    )


def send(plan: Plan, shipment: Shipment) -> None:
    """Stores in the output what workers fetch from there; what is there already is left.

    Raises:
        FailedError: A file was changed since it was hashed.
        OSError: The output does not take it.
    """
    scoring, store = plan.spec.scoring, plan.spec.output
    put_all(store, layout.CODE, _placed(scoring.base, shipment.code))
    model = _placed(scoring.model.folder, shipment.model)
    put_all(store, layout.MODELS, {**model, **shipment.profiles})


def _placed(folder: str, files: Mapping[str, Content]) -> dict[str, Content]:
    return {os.path.join(folder, name): content for name, content in files.items()}


def _is_hidden(path: str) -> bool:
    return any(part.startswith(".") for part in path.split("/"))


def _code_files(plan: Plan) -> dict[str, str]:
    """Returns the SHA-256 of what code may import or read below the job's folder, by path.

    That is also what the model has there, except for its weights.
    """
    scoring, model = plan.spec.scoring, plan.spec.scoring.model
    if not scoring.code or not is_local(model.folder):
        return dict(scoring.code)
    folder = os.path.relpath(os.path.realpath(model.folder), os.path.realpath(scoring.base))
    unread = (model.weights, *model.no_influence)
    places = {posixpath.normpath(f"{folder}/{k}"): v for k, v in _without(model, unread).items()}
    # A hidden part is also the `..` of a model that lies elsewhere.
    readable = {path: sha256 for path, sha256 in places.items() if not _is_hidden(path)}
    return {**readable, **scoring.code}


def _without(model: Model, unread: Iterable[str]) -> dict[str, str]:
    left = {*unread}
    return {name: sha256 for name, sha256 in model.sha256.items() if name not in left}


def _model_files(model: Model) -> dict[str, str]:
    """Returns the SHA-256 of a local model's files that workers need: not its evaluation's."""
    if not is_local(model.folder):
        return {}
    return _without(model, {*model.no_influence} - {model.golden, model.profile})


def _profiles(plan: Plan) -> list[str]:
    """Returns the addresses of references on this machine's disk, without those of the output."""
    files = (file for reference in plan.references.chosen for file in reference.files)
    places = ((file.folder, file.name) for file in files)
    output = plan.spec.output.address
    return [
        posixpath.join(folder, name)
        for folder, name in places
        if is_local(folder) and folder != output
    ]


def _contents(
    folder: str, files: Mapping[str, str], error: Callable[[str], InvalidError]
) -> dict[str, Content]:
    return {name: _content(os.path.join(folder, name), files[name], error) for name in files}


def _content(path: str, sha256: str | None, error: Callable[[str], InvalidError]) -> Content:
    try:
        found = content_of(path)
    except OSError as cause:
        raise error(f"{path} cannot be read: {reason(cause)}; run again") from cause
    if sha256 not in (None, found.sha256):
        raise error(f"{path} was changed since it was hashed; run again")
    return found
