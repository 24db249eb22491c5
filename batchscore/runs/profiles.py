"""Profiles of runs, and the references that they are compared with: written, read and merged."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

from batchscore.drift.profile_file import read_table, write_table
from batchscore.drift.table import TableProfile
from batchscore.errors import InputError, RecordError
from batchscore.runs import layout
from batchscore.runs.manifest_model import Manifest
from batchscore.storage.reading import Digest
from batchscore.storage.store import Store

PROFILE = "profile.parquet"
EXTRA = "profile.extra.parquet"
NEW = "profile.new.parquet"
LAST = "the last "
"""The title of a reference of earlier slices begins so."""


@dataclass(frozen=True)
class ProfileFile:
    """Where a stored profile lies.

    Args:
        folder: Any fsspec address.
        name: The file within it.
        extra: The file of its large and approximate parts, or None.
    """

    folder: str
    name: str
    extra: str | None = None


@dataclass(frozen=True)
class Reference:
    """What a run is compared with.

    Args:
        title: What it is, for people.
        files: Profiles, which are merged.
        anchor: Whether it is the fixed one, in addition to the reference that the job chose.
        own: It is of the rows that are published of the run's own slice, which may be among those
            that are judged.
        on_fail: `hold`, `warn` or `off`, where the job lists its references; None: as the job's
            `drift.on_fail` says.
    """

    title: str
    files: tuple[ProfileFile, ...]
    anchor: bool = False
    own: bool = False
    on_fail: str | None = None

    @property
    def name(self) -> str:
        """What it is called in a sentence: of several runs, without their names."""
        return self.title.partition(", run")[0] if self.title.startswith(LAST) else self.title

    def to_json(self) -> dict[str, Any]:
        """Returns the reference as JSON-able values."""
        facts = asdict(self)
        return {key: value for key, value in facts.items() if key != "on_fail" or value is not None}

    @staticmethod
    def from_json(facts: Mapping[str, Any]) -> Reference:
        """Reverses `to_json`."""
        files = tuple(ProfileFile(**file) for file in facts["files"])
        return Reference(facts["title"], files, facts["anchor"], facts["own"], facts.get("on_fail"))


def run_profile(store: Store, run: str) -> ProfileFile:
    """Returns where the profile of a run lies."""
    name, extra = (layout.run_file(run, each) for each in (PROFILE, EXTRA))
    return ProfileFile(store.address, name, extra)


def new_rows_profile(store: Store, run: str) -> ProfileFile:
    """Returns where the profile lies of the rows that a run added to those published before."""
    return ProfileFile(store.address, layout.run_file(run, NEW))


def save_profile(
    store: Store, run: str, profile: TableProfile, new: TableProfile | None = None
) -> dict[str, Any]:
    """Writes a run's profile, its large and approximate parts apart.

    Returns what the run's manifest tells of it: its SHA-256, and size and SHA-256 of each file.

    Args:
        new: Profile of the rows that the run adds to others, which are in `profile` too.
    """
    data = profile_bytes(profile)
    files = {EXTRA: write_table(profile, {}, extra=True), PROFILE: data}
    if new is not None:
        files[NEW] = write_table(new, {})
    store.write_all({layout.run_file(run, name): each for name, each in files.items()})
    digests = {name: Digest(len(d), hashlib.sha256(d).hexdigest()) for name, d in files.items()}
    return {
        "profile_sha256": digests[PROFILE].sha256,
        "profile_files": {name: asdict(digest) for name, digest in digests.items()},
    }


def profile_bytes(profile: TableProfile) -> bytes:
    """Returns what `profile.parquet` of a run holds; the same for the same rows."""
    return write_table(profile, {}, extra=False)


def read_run_profile(store: Store, manifest: Manifest) -> TableProfile:
    """Returns the profile of a run; RecordError if its files are not those of its manifest."""
    extra = manifest.profile_files.get(EXTRA)
    sha256 = extra.sha256 if extra else None
    return read_profile(run_profile(store, manifest.run), manifest.profile_sha256, sha256)


def read_profile(
    file: ProfileFile, sha256: str | None = None, extra_sha256: str | None = None
) -> TableProfile:
    """Returns a stored profile; without its large and approximate parts where these are gone.

    Args:
        sha256: What the file must have, or None.
        extra_sha256: What the file of its large and approximate parts must have, or None.

    Raises:
        RecordError: It is missing, damaged, or another one.
    """
    return _read(file, _decode, sha256, extra_sha256)


_Decode = Callable[[bytes, bytes | None], TableProfile]


def _decode(data: bytes, extra: bytes | None) -> TableProfile:
    return read_table(data, extra)[0]


# A run reads its references as it starts, to try them, and as it ends.
_decode_once = lru_cache(maxsize=2)(_decode)


def _read(
    file: ProfileFile, decode: _Decode, sha256: str | None = None, extra_sha256: str | None = None
) -> TableProfile:
    store = Store(file.folder)
    try:
        data = store.read(file.name)
        if sha256 not in (None, hashlib.sha256(data).hexdigest()):
            raise RecordError("its SHA-256 is not that of the manifest")
        extra = _extra(store, file)
        if extra and extra_sha256 not in (None, hashlib.sha256(extra).hexdigest()):
            raise RecordError(f"the SHA-256 of {file.extra} is not that of the manifest")
        return decode(data, extra)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RecordError(f"profile {store.url(file.name)}: no such file") from error
    except IsADirectoryError as error:
        problem = "is a folder; name the profile's file in it"
        raise RecordError(f"profile {store.url(file.name)}: {problem}") from error
    except (OSError, ValueError, RecordError) as error:
        raise RecordError(f"profile {store.url(file.name)}: damaged ({error})") from error


def _extra(store: Store, file: ProfileFile) -> bytes | None:
    try:
        return None if file.extra is None else store.read(file.extra)
    except FileNotFoundError:
        return None


def read_reference(files: Sequence[ProfileFile]) -> TableProfile:
    """Returns stored profiles, merged. Others may get the same object, so nobody may change it.

    Raises:
        RecordError: One is missing or damaged, or the same column has two types in them.
    """
    if len(files) == 1:
        return _read(files[0], _decode_once)
    merged = TableProfile.empty()
    for file in files:
        try:
            merged.merge(read_profile(file))
        except InputError as error:
            raise RecordError(
                f"profiles of a reference differ: {error}; choose runs after the change"
            ) from error
    return merged
