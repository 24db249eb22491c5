"""Local folders and patterns to files: links are followed, and none leads in a circle."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator

from fsspec.utils import glob_translate

Level = tuple[str, list[str], list[str]]


def walk(
    root: str, keep: Callable[[str], bool], depth: int | None = None, start: str | None = None
) -> Iterator[Level]:
    """Yields each folder with the names of all folders and files in it.

    Links are followed, except for one that leads back to a folder on the way to it.

    Args:
        root: What to walk through; absolute.
        keep: Whether to enter a folder of that name.
        depth: Levels of names; None: all.
        start: Where the way begins, `root` or a folder above it; None: `root`.

    Raises:
        OSError: A folder cannot be listed.
    """
    above = _way(root, start or root)
    reals = {root: (*above, os.path.realpath(root))}
    if _leads_back(reals[root][-1], above):
        return
    for parent, folders, files in os.walk(root, followlinks=True, onerror=_fail):
        yield parent, list(folders), files
        way = reals.pop(parent)
        if depth is not None and len(way) - len(above) >= depth:
            folders.clear()
        entered = {name: _real(parent, way[-1], name) for name in folders if keep(name)}
        folders[:] = [n for n, real in entered.items() if not _leads_back(real, way)]
        reals |= {os.path.join(parent, name): (*way, entered[name]) for name in folders}


def _way(root: str, start: str) -> tuple[str, ...]:
    """Returns the folders from a start to a root, without that, each without links."""
    steps = root[len(start) :].split("/")[1:] if root != start else []
    return tuple(os.path.realpath(os.path.join(start, *steps[:n])) for n in range(len(steps)))


def _fail(error: OSError) -> None:
    raise error


def _real(parent: str, real_parent: str, name: str) -> str:
    path = os.path.join(parent, name)
    return os.path.realpath(path) if os.path.islink(path) else os.path.join(real_parent, name)


def _leads_back(real: str, way: tuple[str, ...]) -> bool:
    return any(f"{each}/".startswith(f"{real.rstrip('/')}/") for each in way)


def levels(pattern: str, root: str) -> int | None:
    """Returns how many levels below a folder a pattern reaches; None: all."""
    return None if "**" in pattern else pattern[len(root.rstrip("/")) :].count("/")


def match(pattern: str, root: str) -> list[str]:
    """Returns the files and folders below a folder that match a pattern, sorted."""
    matches = re.compile(glob_translate(pattern)).match
    return sorted(
        path
        for parent, folders, files in walk(root, lambda _: True, levels(pattern, root))
        for path in (os.path.join(parent, name) for name in (*folders, *files))
        if matches(path)
    )
