"""The hive keys of the input's folders: decoded, and each of one type."""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import unquote

import pyarrow as pa

from batchscore.errors import InputError
from batchscore.messages.wording import nearest
from batchscore.plan.published import Published
from batchscore.units.unit import HIVE_NULL, KeyValue, Shard

Kinds = dict[str, pa.DataType]
Texts = tuple[tuple[str, str | None], ...]

# ASCII alone: Python takes other scripts' digits for numbers too.
_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,17})|0[0-9]{1,17}", re.ASCII)
_DECLARED_NUMBER = re.compile(r"[+-]?[0-9]{1,30}", re.ASCII)
# A month or an hour is written with two digits; what is longer, as a postal code, is a text.
_PLAIN_NUMBER = re.compile(r"0|-?[1-9][0-9]{0,17}|0[0-9]", re.ASCII)


class Placed(Protocol):
    """A file of the input with the texts of its hive keys."""

    @property
    def path(self) -> str:
        """Where it is."""

    @property
    def keys(self) -> Texts:
        """Names and texts, outermost first; None for a missing value."""


@dataclass(frozen=True)
class KeyRules:
    """How a job's hive keys get their types.

    Args:
        declared: `string` or `integer` by key, as `input.hive_types` says.
        published: What the output was published with, which keys keep.
    """

    declared: Mapping[str, str] = field(default_factory=dict)
    published: Published = field(default_factory=Published)


def hive_keys(path: str) -> Texts:
    """Returns the keys of the unbroken run of `key=value` folders right above a file.

    Raises:
        InputError: A folder's name is not UTF-8, once its percent signs are decoded.
    """
    keys: list[tuple[str, str | None]] = []
    for part in reversed(posixpath.dirname(path).split("/")):
        name, equals, value = part.partition("=")
        if not (name and equals):
            break
        text = None if value == HIVE_NULL else _decoded(value, part, path)
        keys.append((_decoded(name, part, path), text))
    return tuple(reversed(keys))


def _decoded(text: str, part: str, path: str) -> str:
    try:
        decoded = unquote(text, errors="strict")
        decoded.encode()
    except UnicodeError as error:
        raise InputError(
            f"shard {ascii(path)[1:-1]}: the folder {part!a} is not UTF-8 once it is decoded, so "
            "its value is unknown; rename the folder, such as é to %C3%A9"
        ) from error
    return decoded


def key_types(found: Sequence[Placed], rules: KeyRules | None = None) -> Kinds:
    """Returns each hive key's type: int64 or string.

    A key is an integer if all its values are whole numbers without leading zeros, those of two
    digits apart. A key whose type is declared, or was published, keeps that.

    Args:
        rules: Rules of a job; without one, two spellings of an integer make a key a text.

    Raises:
        InputError: Two shards have other keys, a declared key is unknown or no integer, or two
            spellings of one integer would merge.
    """
    names = [name for name, _ in found[0].keys] if found else []
    _check_alike(found, names)
    if found and rules is not None:
        _check_declared(names, rules.declared)
    shards = {name: _by_text(found, name) for name in names}
    return {name: _kind(name, shards[name], rules) for name in names}


def key_value(text: str | None, kind: pa.DataType) -> KeyValue:
    """Returns a hive value in the type of its key; None for a missing one."""
    return int(text) if text is not None and pa.types.is_integer(kind) else text


def same_keys(texts: Texts, keys: Sequence[tuple[str, KeyValue]]) -> bool:
    """Whether the texts of a shard's folders say what the values of another shard's keys do."""
    return [name for name, _ in texts] == [name for name, _ in keys] and all(
        text == value or (text is not None and _is_number(text, value))
        for (_, text), (_, value) in zip(texts, keys, strict=True)
    )


def _is_number(text: str, value: KeyValue) -> bool:
    return type(value) is int and bool(_DECLARED_NUMBER.fullmatch(text)) and int(text) == value


def _check_alike(found: Sequence[Placed], names: list[str]) -> None:
    for shard in found:
        if [name for name, _ in shard.keys] != names:
            raise InputError(
                f"shard {shard.path}: has hive keys {[n for n, _ in shard.keys]}, expected "
                f"{names} as in {found[0].path}; give all shards the same folder keys, or name "
                "the folders that you mean"
            )


def _check_declared(names: Sequence[str], declared: Iterable[str]) -> None:
    for name in declared:
        if name not in names:
            raise InputError(
                f"input.hive_types: {name!r} is not a hive key of the input; {nearest(name, names)}"
            )


def _by_text(found: Sequence[Placed], name: str) -> dict[str, list[str]]:
    """Returns the paths of the shards of each text of a key; shards without a value left out."""
    paths: dict[str, list[str]] = defaultdict(list)
    for shard in found:
        text = dict(shard.keys)[name]
        if text is not None:
            paths[text].append(shard.path)
    return paths


def _kind(name: str, paths: Mapping[str, list[str]], rules: KeyRules | None) -> pa.DataType:
    declared = rules.declared.get(name) if rules else None
    known = rules.published.kinds.get(name) if rules else None
    if declared == "integer":
        _check_integers(name, paths)
        return pa.int64()
    numbers = all(map(_NUMBER.fullmatch, paths))
    if "string" in (declared, declared or known) or not numbers:
        return pa.string()
    if rules is not None:
        _check_spellings(name, paths, rules.published)
    plain = all(map(_PLAIN_NUMBER.fullmatch, paths))
    return pa.int64() if plain or known == "integer" else pa.string()


def _check_integers(name: str, paths: Mapping[str, list[str]]) -> None:
    for text, shards in paths.items():
        if not (_DECLARED_NUMBER.fullmatch(text) and -(2**63) <= int(text) < 2**63):
            raise InputError(
                f"shard {shards[0]}: hive key {name!r} is {text!r}, and input.hive_types declares "
                "it an integer; expected a whole number of 64 bits: rename the folder, or declare "
                "it a string"
            )


def _check_spellings(name: str, paths: Mapping[str, list[str]], published: Published) -> None:
    """Raises InputError where two texts are one integer, unless the output has such already."""
    spelled: dict[int, str] = {}
    for text in sorted(paths):
        other = spelled.setdefault(int(text), text)
        if other != text and not _has_merged(name, published.typed):
            raise InputError(
                f"shard {paths[text][0]}: hive key {name!r} is {text!r}, and {other!r} in "
                f"{paths[other][0]}, which are one integer in two spellings; set "
                f"input.hive_types: {{{name}: string}} to keep them apart, or integer to make "
                "them one"
            )


def _has_merged(name: str, shards: Iterable[Shard]) -> bool:
    """Whether two spellings of a key are published as one integer, as earlier versions did."""
    spelled: dict[KeyValue, str | None] = {}
    for shard in shards:
        value = dict(shard.keys).get(name)
        text = dict(hive_keys(shard.path)).get(name)
        if type(value) is int and spelled.setdefault(value, text) != text:
            return True
    return False
