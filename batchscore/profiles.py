"""Profiles of runs, and the references that they are held against: written, read and merged."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from batchscore.drift.storage import read_table, write_table
from batchscore.drift.table import TableProfile
from batchscore.errors import InputError, RecordError
from batchscore.runs import layout
from batchscore.storage import Store

PROFILE = "profile.parquet"
EXTRA = "profile.extra.parquet"
NEW = "profile.new.parquet"


@dataclass(frozen=True)
class ProfileFile:
    """Where a stored profile lies.

    Args:
        folder: any fsspec address.
        name: the file within it.
        extra: the file of its large and approximate parts, or None.
    """

    folder: str
    name: str
    extra: str | None = None


@dataclass(frozen=True)
class Reference:
    """What a run is compared with.

    Args:
        title: what it is, for people.
        files: profiles, which are merged.
        anchor: it is the fixed one beside the reference that the job chose.
        own: it is of the rows that are published of the run's own slice, which may be among those
            that are judged.
    """

    title: str
    files: tuple[ProfileFile, ...]
    anchor: bool = False
    own: bool = False

    def to_json(self) -> dict[str, Any]:
        """Returns the reference as JSON-able values."""
        return asdict(self)

    @staticmethod
    def from_json(facts: Mapping[str, Any]) -> Reference:
        """Reverses `to_json`."""
        files = tuple(ProfileFile(**file) for file in facts["files"])
        return Reference(facts["title"], files, facts["anchor"], facts["own"])


def run_profile(store: Store, run: str) -> ProfileFile:
    """Returns where the profile of a run lies."""
    name, extra = (layout.run_file(run, each) for each in (PROFILE, EXTRA))
    return ProfileFile(store.address, name, extra)


def new_rows_profile(store: Store, run: str) -> ProfileFile:
    """Returns where the profile lies of the rows that a run added to those published before."""
    return ProfileFile(store.address, layout.run_file(run, NEW))


def save_profile(
    store: Store, run: str, profile: TableProfile, new: TableProfile | None = None
) -> str:
    """Writes a run's profile, its large and approximate parts apart; returns its SHA-256.

    Args:
        new: of the rows that the run adds to others, which are in `profile` too.
    """
    data = write_table(profile, {}, extra=False)
    files = {EXTRA: write_table(profile, {}, extra=True), PROFILE: data}
    if new is not None:
        files[NEW] = write_table(new, {})
    store.write_all({layout.run_file(run, name): each for name, each in files.items()})
    return hashlib.sha256(data).hexdigest()


def read_profile(file: ProfileFile, sha256: str | None = None) -> TableProfile:
    """Returns a stored profile; without its large and approximate parts where these are gone.

    Args:
        sha256: what the file must have, or None.

    Raises:
        RecordError: it is missing, damaged, or another one.
    """
    store = Store(file.folder)
    try:
        data = store.read(file.name)
        if sha256 not in (None, hashlib.sha256(data).hexdigest()):
            raise RecordError("its SHA-256 is not that of the manifest")
        return read_table(data, _extra(store, file))[0]
    except FileNotFoundError as error:
        raise RecordError(f"profile {store.url(file.name)}: no such file") from error
    except (OSError, RecordError) as error:
        raise RecordError(f"profile {store.url(file.name)}: damaged ({error})") from error


def _extra(store: Store, file: ProfileFile) -> bytes | None:
    try:
        return None if file.extra is None else store.read(file.extra)
    except FileNotFoundError:
        return None


def read_reference(files: Sequence[ProfileFile]) -> TableProfile:
    """Returns stored profiles, merged.

    Raises:
        RecordError: one is missing or damaged, or the same column has two types in them.
    """
    merged = TableProfile.empty()
    for file in files:
        try:
            merged.merge(read_profile(file))
        except InputError as error:
            raise RecordError(
                f"profiles of a reference differ: {error}; choose runs after the change"
            ) from error
    return merged
