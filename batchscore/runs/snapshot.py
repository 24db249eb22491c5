"""What readers see of a slice: the list of its published files, and the marker next to it."""

from __future__ import annotations

import posixpath
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from batchscore.errors import RecordError
from batchscore.runs import layout
from batchscore.storage.documents import MOST_BYTES
from batchscore.storage.store import Store

CURRENT = "current.txt"
MARKER = "_SUCCESS"
_MOST_MARKER_BYTES = 200


@dataclass(frozen=True)
class Listing:
    """A slice's `current.txt` as it was read.

    Args:
        raw: Its bytes, or None if there is no list yet.
        files: The files that it lists, relative to the output.
        wrong: Lines that no list has: paths that are not below `data/`, or a file's second line.
    """

    raw: bytes | None
    files: tuple[str, ...]
    wrong: tuple[str, ...] = ()

    def lists(self, files: Iterable[str]) -> bool:
        """Tells whether the list has exactly these files, in any order."""
        return sorted(self.files) == sorted(files)


def read_listing(store: Store, slice_: str) -> Listing:
    """Reads the list of a slice's published files.

    Line breaks may be LF or CRLF. Blank lines, a byte order mark, another order and a missing last
    line break change nothing.
    """
    try:
        raw = store.read(listing_path(slice_), MOST_BYTES)
    except FileNotFoundError:
        return Listing(None, ())
    except (ValueError, IsADirectoryError) as error:
        raise _no_text(store, slice_, CURRENT) from error
    lines = [line.removesuffix("\r") for line in raw.decode("utf-8-sig", "replace").split("\n")]
    entries = [line for line in lines if line.strip()]
    files = tuple(dict.fromkeys(entry for entry in entries if _is_inside(entry)))
    twice = Counter(entries) - Counter(set(entries))
    wrong = [entry for entry in entries if not _is_inside(entry)]
    return Listing(raw, files, (*wrong, *twice))


def _is_inside(entry: str) -> bool:
    """Tells whether a line is the plain path of a file below `data/`."""
    inside = entry.startswith(f"{layout.DATA}/") and posixpath.normpath(entry) == entry
    strange = any(unicodedata.category(char) == "Cc" for char in entry)
    return inside and not strange and "\\" not in entry and "\ufffd" not in entry


def listing_path(slice_: str) -> str:
    """Where the list of a slice's published files is."""
    return layout.slice_file(slice_, CURRENT)


def encode_listing(files: Sequence[str]) -> bytes:
    """Returns the bytes of a list of files."""
    return "".join(f"{file}\n" for file in files).encode()


def snapshot(store: Store, slice_: str) -> list[str]:
    """Returns the slice's published files, relative to the output; none before its first run."""
    return list(read_listing(store, slice_).files)


def published_run(store: Store, slice_: str) -> str | None:
    """Returns the run whose publication the slice's marker holds, or None."""
    try:
        text = store.read(layout.slice_file(slice_, MARKER), _MOST_MARKER_BYTES).decode().strip()
        if "/" in text or not text.isprintable():
            raise ValueError("not the name of a run")
        return text
    except FileNotFoundError:
        return None
    except (ValueError, IsADirectoryError) as error:
        raise _no_text(store, slice_, MARKER) from error


def _no_text(store: Store, slice_: str, name: str) -> RecordError:
    path = store.url(layout.slice_file(slice_, name))
    return RecordError(
        f"{path}: damaged, its text is not valid; restore it from a copy, or run the job again"
    )


def put_marker(store: Store, slice_: str, run: str) -> None:
    """Names a run in the slice's marker; a marker that another caller replaces meanwhile stays."""
    path, content = layout.slice_file(slice_, MARKER), f"{run}\n".encode()
    if store.create_new(path, content):
        return
    found = published_run(store, slice_)
    if found is not None and found != run:
        store.exchange(path, store.read(path), content)
