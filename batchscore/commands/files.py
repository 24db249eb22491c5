"""The files that commands write where the user says: profiles, read again, and pages."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Sequence
from fnmatch import fnmatch
from typing import TypeAlias

from batchscore.arguments import checks_arguments
from batchscore.commands.unwritable import writable
from batchscore.drift.profile_file import PROFILE_KEY, write_table
from batchscore.drift.table import TableProfile
from batchscore.errors import InvalidError, OutputError, RecordError, ShardError
from batchscore.messages.addresses import holds_secret, redacted_address
from batchscore.messages.wording import reason
from batchscore.runs.profiles import EXTRA, PROFILE, ProfileFile
from batchscore.runs.profiles import read_profile as read_file
from batchscore.stages.read import open_shard
from batchscore.storage.store import Store, open_filesystem

Address: TypeAlias = str | os.PathLike[str]
_PAGES = (".html", ".htm")
_TEXTS = (".yaml", ".yml")


def is_profile(address: str) -> bool:
    """Tells whether an address is of a stored profile, by the file's metadata."""
    try:
        with open_shard(address) as file:
            return PROFILE_KEY in (file.metadata.metadata or {})
    except ShardError:
        return False


@checks_arguments
def read_profile(path: Address) -> TableProfile:
    """Returns the profile that `write_profile`, `batchscore profile` or a run stored.

    Args:
        path: Path or address of the file.

    Raises:
        InvalidError: There is none, or it is damaged.
    """
    folder, name = split_address(os.fspath(path))
    extra = EXTRA if name == PROFILE and folder.exists(EXTRA) else None
    try:
        return read_file(ProfileFile(folder.address, name, extra))
    except RecordError as error:
        raise InvalidError(str(error)) from error


@checks_arguments
def write_profile(profile: TableProfile, path: Address) -> int:
    """Stores a profile as one file, replaced in one step; returns its bytes.

    Args:
        profile: What `profile` or `read_profile` returned.
        path: Path or address of the file to write.

    Raises:
        OutputError: It cannot be written, or what lies there is no profile.
    """
    check_replaceable(os.fspath(path))
    return _write(os.fspath(path), write_table(profile, {}))


def check_replaceable(address: str, data: Sequence[str] = ()) -> None:
    """Makes sure that a profile may be written to an address.

    Raises:
        OutputError: Something else lies there, it would become part of the data, or the store
            does not say what lies there.
    """
    folder, name = split_address(address)
    with writable(folder):
        found = folder.exists(name)
    if found and not is_profile(address):
        raise OutputError(
            f"{address}: exists and is not a profile, so it is not replaced; choose another name"
        )
    target = os.path.realpath(address)
    for each in data:
        among = os.path.realpath(each)
        inside = "://" not in each and (target.startswith(f"{among}/") or fnmatch(target, among))
        if inside and not name.startswith(("_", ".")):
            raise OutputError(
                f"{address}: is inside the data {each}, and would be read as part of it; choose "
                "another folder"
            )


def check_page(address: str) -> None:
    """Raises OutputError where a page must not be written: under a name that is not a page's."""
    split_address(address)
    if not address.lower().endswith(_PAGES):
        raise OutputError(
            f"{address}: expected a name that ends in .html, so that a page never overwrites data"
        )


def write_page(html: str, address: str) -> int:
    """Writes a page, replaced in one step; returns its bytes.

    Raises:
        OutputError: It cannot be written, or its name is not a page's.
    """
    check_page(address)
    return _write(address, html.encode())


def check_new(address: str) -> None:
    """Raises OutputError where a file of YAML must not be written: another name, or one in use."""
    folder, name = split_address(address)
    if not name.lower().endswith(_TEXTS):
        raise OutputError(f"{address}: expected a name that ends in .yaml")
    with writable(folder):
        found = folder.exists(name)
    if found:
        raise OutputError(f"{address}: exists, and is not replaced; choose another name")


def write_new(text: str, address: str) -> int:
    """Writes a file of YAML that is not there yet; returns its bytes.

    Raises:
        OutputError: It cannot be written, or is there.
    """
    check_new(address)
    return _write(address, text.encode())


def _write(address: str, content: bytes) -> int:
    folder, name = split_address(address)
    with writable(folder):
        folder.write(name, content)
    return len(content)


def split_address(address: str) -> tuple[Store, str]:
    """Returns a file's folder and name; OutputError if it is not the address of a file."""
    folder, name = posixpath.split(address)
    if not name or "\0" in name or holds_secret(address):
        raise OutputError(
            f"{redacted_address(address)!r}: expected the address of a file, without credentials"
        )
    folder = folder if "://" in folder else os.path.abspath(folder)
    try:
        open_filesystem(folder)
    except Exception as error:  # a store's client raises errors of its own
        raise OutputError(f"{address}: cannot be opened ({reason(error)})") from error
    return Store(folder), name
