"""Compares what a public function is given with its annotations; its docstring is the remedy."""

from __future__ import annotations

import inspect
import os
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from functools import cache, wraps
from numbers import Integral, Real
from typing import Any, ParamSpec, TypeVar

from batchscore.errors import ArgumentError
from batchscore.messages.wording import one_line, type_of, with_article

Given = ParamSpec("Given")
Returned = TypeVar("Returned")
Made = TypeVar("Made")

_WORDS = {
    str: "a text",
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    os.PathLike: "a path",
    types.NoneType: "None",
}
_NO_LISTS = (str, bytes, bytearray, Mapping)


def checks_arguments(function: Callable[Given, Returned]) -> Callable[Given, Returned]:
    """Returns a function that refuses arguments of other types than its annotations say.

    A number may be NumPy's, and a list any sequence. Python itself reports arguments that are
    missing or unknown.
    """
    signature = inspect.signature(function)

    @wraps(function)
    def checked(*args: Given.args, **kwargs: Given.kwargs) -> Returned:
        _require(function, signature, args, kwargs)
        return function(*args, **kwargs)

    return checked


def checks_fields(kind: type[Made]) -> type[Made]:
    """Makes a class refuse arguments of other types than its fields', or its constructor's."""
    signature, make = inspect.signature(kind), kind.__init__

    @wraps(make)
    def checked(self: Made, *args: Any, **kwargs: Any) -> None:
        _require(kind, signature, args, kwargs)
        make(self, *args, **kwargs)

    kind.__init__ = checked  # type: ignore[assignment]
    return kind


def _require(
    called: Callable[..., Any],
    signature: inspect.Signature,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> None:
    """Raises ArgumentError where a value is not what the argument's annotation says."""
    try:
        given = signature.bind(*args, **kwargs).arguments
    except TypeError:
        return
    for name, value in given.items():
        for where, found, expected in _misfits(_hints(called).get(name, Any), value, name):
            takes = _description(called, name)
            raise ArgumentError(
                f"{called.__name__}, argument {where}: expected {expected}, found {_shown(found)}"
                + (f". {name} takes: {takes}" if takes else "")
            )


@cache
def _hints(called: Callable[..., Any]) -> dict[str, Any]:
    own = isinstance(called, type) and not is_dataclass(called)
    return typing.get_type_hints(called.__init__ if own else called)


def _misfits(hint: Any, value: Any, where: str) -> Iterator[tuple[str, Any, str]]:
    """Yields each place, value and expectation that do not fit a type, the outermost first."""
    options = _options(hint)
    if any(next(_misfits_of(each, value, where), None) is None for each in options):
        return
    # Of a container, the item that is wrong says more than the whole.
    inside = [each for each in options if _is_a(each, value)]
    yield from _misfits_of(inside[0], value, where) if inside else [(where, value, _words(hint))]


def _misfits_of(hint: Any, value: Any, where: str) -> Iterator[tuple[str, Any, str]]:
    if not _is_a(hint, value):
        yield where, value, _words(hint)
        return
    inner = typing.get_args(hint)
    if typing.get_origin(hint) is Mapping:
        for key, item in value.items():
            yield from _misfits(inner[0], key, f"{where}, a key")
            yield from _misfits(inner[1], item, f"{where}[{one_line(repr(key))}]")
    elif typing.get_origin(hint) in (Sequence, Collection, tuple):
        kinds = inner if typing.get_origin(hint) is tuple else inner * len(value)
        for place, (kind, item) in enumerate(zip(kinds, value, strict=True)):
            yield from _misfits(kind, item, f"{where}[{place}]")


def _options(hint: Any) -> tuple[Any, ...]:
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if is_union else (hint,)


def _is_a(hint: Any, value: Any) -> bool:
    """Tells whether a value is of a type, whatever it contains."""
    kind = typing.get_origin(hint) or hint
    if kind in (Sequence, Collection):
        return isinstance(value, kind) and not isinstance(value, _NO_LISTS)
    if kind is tuple:
        size = len(typing.get_args(hint))
        return isinstance(value, tuple | list) and len(value) == size
    if kind in (int, float):
        number = Integral if kind is int else Real
        return isinstance(value, number) and not isinstance(value, bool)
    return kind is Any or not isinstance(kind, type) or isinstance(value, kind)


def _words(hint: Any) -> str:
    options = [each for each in _options(hint) if each is not types.NoneType]
    if len(options) < len(_options(hint)):
        options.append(types.NoneType)
    return " or ".join(map(_word, options))


def _word(hint: Any) -> str:
    kind, inner = typing.get_origin(hint) or hint, typing.get_args(hint)
    if kind is Mapping:
        return "a dict"
    if kind in (Sequence, Collection):
        return "a list of texts" if inner == (str,) else "a list"
    if kind is tuple:
        return f"a pair ({', '.join(map(_words, inner))})"
    return _WORDS.get(kind) or with_article(getattr(kind, "__name__", str(kind)))


def _shown(value: Any) -> str:
    """Returns a plain value with its type; of another its type alone."""
    name = type(value).__name__
    if value is None or isinstance(value, bool):
        return str(value)
    if isinstance(value, str | bytes | Real):
        return f"{one_line(repr(value))} (type {name})"
    return type_of(value)


def _description(called: Callable[..., Any], name: str) -> str:
    """Returns what the docstring's `Args:` say of an argument, on one line; empty without it."""
    lines = (inspect.getdoc(called) or "").partition("\nArgs:\n")[2].splitlines()
    found: list[str] = []
    for line in lines:
        if not line.strip():
            break
        starts = line[4:].startswith(f"{name}: ")
        if starts or (found and line.startswith(" " * 8)):
            found.append(line.strip().removeprefix(f"{name}: ") if starts else line.strip())
        elif found:
            break
    return " ".join(found).replace("`", "")
