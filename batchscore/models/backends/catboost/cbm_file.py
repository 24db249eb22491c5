"""What a `.cbm` file says of itself, after a look at its trees; without CatBoost.

The library follows what a file says of splits, leaves and tables without looking, so a damaged file
loads silently, or ends the process.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from batchscore.errors import ModelError
from batchscore.messages.wording import one_line
from batchscore.models.backends.catboost.ctr_tables import check_ctrs
from batchscore.models.backends.catboost.flatbuffer import FlatTable, root_of
from batchscore.models.backends.catboost.tree_checks import Splits, check_trees
from batchscore.models.backends.facts import FileColumn

_MAGIC = b"CBM1"
_SIZE = struct.Struct("<4sI")
_FORM = "FlabuffersModel_v1"
_CTRS = "static_provider_v1"
_VERSION = re.compile(r"(?:CatBoost release|tags/v)\s?(\d+(?:\.\d+)+)")

# Numbers of fields: of the file, its trees, its features.
_FORM_FIELD, _TREES, _INFO, _PARTS = range(4)
_DIMENSION = 0
_CATEGORIES, _NUMBERS, _ONE_HOT, _CTR = 4, 5, 6, 7
_TEXTS, _ESTIMATED, _EMBEDDINGS = 12, 13, 18
_INDEX = {_CATEGORIES: 0, _NUMBERS: 1}
_NAME = {_CATEGORIES: 2, _NUMBERS: 4, _TEXTS: 2, _EMBEDDINGS: 2}
_BORDERS = 3
_KEY, _VALUE = 0, 1

_KEY_BYTES = 200
_VERSION_KEY = "catboost_version_info"
_READ_INFO = frozenset({"params", "loss_function", "class_params", _VERSION_KEY})

Label = int | float | str | bool


@dataclass(frozen=True)
class CbmFile:
    """What a file says.

    Args:
        version: Of the CatBoost that wrote it; empty if it does not say.
        columns: Of training, in order; without a name if it was trained on an array.
        loss: Name of the loss function; empty if the file does not say.
        classes: The labels of the classes, in the order of their probabilities.
        dimension: Numbers that a row's raw value has.
        trees: How many there are.
    """

    version: tuple[int, ...]
    columns: tuple[FileColumn, ...]
    loss: str
    classes: tuple[Label, ...]
    dimension: int
    trees: int


def read_cbm_file(content: bytes) -> CbmFile:
    """Returns what the bytes of a file say.

    Raises:
        ModelError: It is no CatBoost model, damaged, or one that is not scored.
    """
    if content[:4] != _MAGIC:
        raise ModelError(
            f"no CatBoost model: it begins with {content[:8]!r}; expected what "
            "CatBoost.save_model writes as cbm (load another form, and save it so)"
        )
    try:
        return _described(content)
    except (ValueError, KeyError, TypeError, IndexError, RecursionError, OverflowError) as error:
        raise ModelError(
            f"no CatBoost model, or damaged ({type(error).__name__}: {str(error)[:80]}); restore "
            "the file, or save the model again"
        ) from error


def _described(content: bytes) -> CbmFile:
    _, size = _SIZE.unpack_from(content.ljust(_SIZE.size, b"\0"))
    core = content[_SIZE.size : _SIZE.size + size]
    if len(core) != size:
        raise ValueError(f"{size} bytes are announced, and {len(core)} are there")
    root = root_of(core)
    if root.text(_FORM_FIELD) != _FORM:
        raise ValueError(f"its form is {root.text(_FORM_FIELD)[:40]!r}")
    trees = root.table(_TREES)
    parts = root.texts(_PARTS)
    _refuse_other_features(trees, parts)
    columns, counts = _columns(trees)
    ctrs = [*trees.tables(_CTR)]
    dimension, count = check_trees(trees, _splits(trees, ctrs))
    check_ctrs(ctrs, content[_SIZE.size + size :] if parts else b"", counts)
    info = _info(root)
    return CbmFile(
        version=_version(info),
        columns=columns,
        loss=_loss(info),
        classes=_classes(info),
        dimension=dimension,
        trees=count,
    )


def _refuse_other_features(trees: FlatTable, parts: Sequence[str]) -> None:
    for kind, what in ((_TEXTS, "text"), (_EMBEDDINGS, "embedding")):
        first = next(trees.tables(kind), None)
        if first is not None:
            name = one_line(first.text(_NAME[kind]) or "unnamed", 100)
            raise ModelError(
                f"CatBoost model with the {what} feature {name!r}, and {what} features are not "
                f"scored; train it without {what}_features"
            )
    if any(True for _ in trees.tables(_ESTIMATED)) or [*parts] not in ([], [_CTRS]):
        raise ValueError("it has parts of an unknown kind")


def _columns(trees: FlatTable) -> tuple[tuple[FileColumn, ...], tuple[int, int]]:
    """Returns the columns in the order of training; and how many are numbers, and categories."""
    found: dict[int, FileColumn] = {}
    counts, room = [], len(trees.content)
    for kind in (_NUMBERS, _CATEGORIES):
        members = [*trees.tables(kind)]
        for place, each in enumerate(members):
            flat = each.number(_INDEX[kind] + 1, "i", -1)
            if each.number(_INDEX[kind], "i", -1) != place or flat in found:
                raise ValueError("its features are out of order")
            # Names may share their bytes; together they have no more than the file.
            room -= each.length(_NAME[kind]) + 1
            if room < 0:
                raise ValueError("its names are longer than the file")
            is_text = kind == _CATEGORIES
            known = FileColumn(each.text(_NAME[kind]), None, is_text, is_text=is_text)
            found[flat] = known
        counts.append(len(members))
    if sorted(found) != [*range(len(found))] or not found:
        raise ValueError(f"it has {len(found)} features, and other places for them")
    columns = tuple(found[place] for place in range(len(found)))
    names = [each.name for each in columns if each.name]
    if len({*names}) != len(names):
        raise ValueError("two features have one name")
    return columns, (counts[0], counts[1])


def _splits(trees: FlatTable, ctrs: Sequence[FlatTable]) -> Splits:
    categories = sum(1 for _ in trees.tables(_CATEGORIES))
    hot = [*trees.tables(_ONE_HOT)]
    if not all(0 <= each.number(0, "i", -1) < categories for each in hot):
        raise ValueError("a split is on a category beyond the features")
    found = Splits(
        [len(each.array(_BORDERS, "<f4")) for each in trees.tables(_NUMBERS)],
        [len(each.array(1, "<i4")) for each in hot],
        [len(each.array(1, "<f4")) for each in ctrs],
    )
    if 4 * sum(map(sum, (found.numbers, found.hot, found.ctrs))) > len(trees.content):
        raise ValueError("it has more splits than bytes")
    return found


def _info(root: FlatTable) -> dict[str, str]:
    """Returns what is read of the texts that describe the training, each once."""
    found: dict[str, str] = {}
    for each in root.tables(_INFO):
        key = each.text(_KEY) if each.length(_KEY) <= _KEY_BYTES else ""
        # A sum of models says the version of each under a longer key.
        name = _VERSION_KEY if key.endswith(_VERSION_KEY) else key
        if name in _READ_INFO and name not in found:
            found[name] = each.text(_VALUE)
    return found


def _version(info: dict[str, str]) -> tuple[int, ...]:
    found = _VERSION.search(info.get(_VERSION_KEY, ""))
    return tuple(map(int, found[1].split("."))) if found else ()


def _loss(info: dict[str, str]) -> str:
    if info.get("params"):  # a sum of models has none, or an empty text
        given: Any = json.loads(info["params"]).get("loss_function", {})
    else:
        given = info.get("loss_function", "")
        given = json.loads(given) if given.startswith("{") else {"type": given.partition(":")[0]}
    return str(given.get("type", ""))


def _classes(info: dict[str, str]) -> tuple[Label, ...]:
    found = json.loads(info.get("class_params", "{}"))
    names = found.get("class_names") or found.get("class_to_label") or []
    if not all(isinstance(each, Label) for each in names):
        raise ValueError("its classes are no labels")
    return tuple(names)
