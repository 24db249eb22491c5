"""What to do about a file or folder that is no model that jobs score with."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from batchscore.errors import ModelError
from batchscore.messages.wording import one_line
from batchscore.models.backends.built_in import ENDINGS, FORMATS, format_of
from batchscore.models.file_kinds import (
    AGAIN,
    EXPORTED,
    HUGE,
    JOBLIB,
    LFS,
    PAGE,
    PICKLE,
    PMML,
    TORCHSCRIPT,
    describe_file,
    format_by_content,
)
from batchscore.models.loadable import Model, localize

if TYPE_CHECKING:
    from collections.abc import Mapping

_HEAD_BYTES = 16
_FROM_PYTHON = "bs.save_model('model', model, sample=rows) in Python, which writes a model folder"
_SAVED_BY: Mapping[str, tuple[str, str]] = {
    "xgboost": ("xgboost", "model.save_model('model.ubj')"),
    "lightgbm": ("lightgbm", "model.booster_.save_model('model.txt')"),
    "catboost": ("catboost", "model.save_model('model.cbm')"),
    "sklearn": ("sklearn", "skops.io.dump(model, 'model.skops')"),
    "keras": ("keras", "model.save('model.keras')"),
}
"""By the package of a pickled object: its format, and how it is saved without a pickle."""
_NO_CODE = "Loading a pickle runs whatever code is in it, so batchscore never does"
_STATE_DICT = (
    f"load it where you trust it, and save the network with {_FROM_PYTHON}, or its state_dict with "
    "safetensors.torch.save_model"
)
_REMEDIES = {
    TORCHSCRIPT: f"Loading it runs its code: {_STATE_DICT}",
    EXPORTED: f"Loading it can run code: {_STATE_DICT}",
    JOBLIB: f"{_NO_CODE}: load it where you trust it, and save it with {_FROM_PYTHON}",
    HUGE: f"It is damaged, or made to do harm: {AGAIN}",
    LFS: "Fetch it with: git lfs pull",
    PAGE: "Download the file itself; its address may ask for a login, or lead to a page about it",
    PMML: "Export the model from its framework, or as ONNX",
    "a Parquet file": "It holds rows; the order is: batchscore init PARQUET MODEL",
    "an XGBoost model of the binary format before 3.1": "Load it with an older XGBoost, and save "
    "it with model.save_model('model.ubj')",
}


def expected_models() -> str:
    """Says what is a model here."""
    endings = ", ".join(dict.fromkeys(ENDINGS))
    return f"a model folder, which bs.save_model writes, or a model file ({endings})"


def remedy_of_kind(what: str | None) -> str:
    """Returns what to do about a file that is not scored, by what `describe_file` found."""
    if what is None:
        return f"Expected {expected_models()}"
    if what.startswith(PICKLE):
        return _remedy_of_pickle(what)
    if what.startswith("compressed"):
        return _REMEDIES.get(what) or f"Unpack it; if joblib wrote it: {_remedy_of_pickle(PICKLE)}"
    return _REMEDIES.get(what) or f"Expected {expected_models()}"


def _remedy_of_pickle(what: str) -> str:
    roots = what.rpartition(" of ")[2].split(", ")
    found = (_SAVED_BY[root] for root in _SAVED_BY if root in roots)
    form, call = next(found, ("", ""))
    how = f"{call}, or with {_FROM_PYTHON}" if form in FORMATS else _FROM_PYTHON
    return f"{_NO_CODE}: load it where you trust it, and save it with {how}"


def refused_file(path: Path, shown: str) -> ModelError:
    """Returns the error of a file that is no model of a known format.

    Args:
        path: Where it lies on this machine.
        shown: How messages name it.
    """
    if not path.stat().st_size:
        return ModelError(f"{shown}: the file is empty; {AGAIN}")
    what = describe_file(path)
    if what is not None:
        return ModelError(f"{shown}: is {what}, which is not scored. {remedy_of_kind(what)}")
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    return ModelError(
        f"{shown}: is no model of a known kind; it begins with {head!r}. {remedy_of_kind(None)}"
    )


def misnamed(model: Model, error: ModelError) -> ModelError:
    """Returns the error of a file that cannot be read as its ending or its job says.

    If the file is of another known kind, that is the error, whatever the reader said.
    """
    path, shown = localize(model) / model.weights, f"{model.folder}/{model.weights}"
    try:
        what = describe_file(path) if path.stat().st_size else None
    except ModelError as damage:
        return ModelError(str(damage).replace(str(path), shown))
    form = format_by_content(what)
    if what is None or form == model.format or what == "a JSON text":
        return error
    if form in FORMATS:
        ending = next((end for end, each in ENDINGS.items() if each == form), None)
        rename = f", or give it the ending {ending}" if ending else ""
        remedy = f"Set model.format: {form}{rename}"
        if form in ("safetensors", "pt"):
            remedy = f"Set model.format: {form}, with its architecture, inputs and sha256"
    else:
        remedy = remedy_of_kind(what)
    return ModelError(f"{shown}: is {what}, and was to be read as {model.format}. {remedy}")


def describe_folder(names: Iterable[str]) -> str:
    """Says what a folder without a card is, and what to name in its place."""
    found = {*names}
    if "MLmodel" in found:
        return f"is a model of MLflow; name the model file in it, or save it with {_FROM_PYTHON}"
    if "saved_model.pb" in found:
        return "is a SavedModel of TensorFlow; export it as ONNX, or save it as .keras"
    if "config.json" in found and any(name.endswith((".safetensors", ".bin")) for name in found):
        return f"is a model of Hugging Face; save its network with {_FROM_PYTHON}"
    files = sorted(name for name in found if format_of(name) and not name.startswith("."))
    if files:
        names_shown = ", ".join(one_line(name) for name in files[:3])
        return f"has no model.yaml, so it is no model folder; name the file in it: {names_shown}"
    return f"has no model.yaml; expected {expected_models()}"
